//! Machine classes as data: channels, units, scales, derived quantities, laws and limits.
//!
//! A class is a TOML file (`docs/class-file.md`); `mill` and `pump` are built in and written in the same format. The
//! [`Catalogue`] is what is in force: classes, match rules and machine overrides, addressed by its hash. Does not know
//! how a reading travels, what a window is, or where a file lies.

mod catalogue;
mod class;
mod expression;
mod id;
mod parse;

pub use catalogue::{Catalogue, ClassChoice, ClassError, MachineSettings, MatchRule, Problem};
pub use class::{
    Adjust, Attribute, Channel, ChannelKind, Class, Comparison, Derived, Law, Level, Limit, LimitTable, Logic,
    LogicMode, Parameter, Quantity, Severity, State, StateRule, Term, Text,
};
pub use expression::{Expr, Function, Operator, Statistic};
pub use id::{IdError, MachineId};
pub use parse::{Mistake, Mistakes};
