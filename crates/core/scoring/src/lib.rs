//! Windows and features, laws, the cold-start detector, and the explanation of what they find.
//!
//! Pure functions of a class, a machine's settings and its readings. Does not know conditions, delays or alerts' ids:
//! that is `engine`. Windows are exact integer sums; laws and scores are f64 over value / 10^scale.

mod band;
mod columns;
mod counterfactual;
mod explain;
mod expression;
mod interval;
mod korean;
mod logic;
mod mahalanobis;
mod phrases;
mod present;
mod rows;
mod settings;
mod window;

pub use band::Band;
pub use columns::{Program, RowWindows, Slot, Verdicts};
pub use explain::{Evidence, Explanation, explain_law, explain_learned};
pub use mahalanobis::{Fit, FitSums, Scorer};
pub use phrases::{ClearedBy, SensorFault, cleared_text, no_value_text, sensor_text, suspended_text};
pub use rows::{RowJudge, RowVerdict};
pub use settings::{Settings, TermLimit};
pub use window::{Window, WindowStats};
