//! One kind of machine, checked: whoever holds a [`Class`] need not check it again.

use crate::Expr;

/// A text in English and Korean. Korean falls back to English, English to the id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// English.
    pub en: String,
    /// Korean.
    pub ko: String,
}

/// One kind of machine. Made by [`Class::parse`] alone, so every index in it is in bounds.
#[derive(Debug, Clone)]
pub struct Class {
    /// `[a-z][a-z0-9_]{0,31}`.
    pub id: String,
    /// What people call it.
    pub name: Text,
    /// Where its numbers come from.
    pub source: Option<String>,
    /// CSV column of 0/1 that `evaluate` compares with by default.
    pub label: Option<String>,
    /// Usual distance of two readings, microseconds of event time.
    pub interval_us: i64,
    /// Allowed lateness, microseconds of event time.
    pub lateness_us: i64,
    /// Silence after which `no_data` is raised, microseconds; `None`: off.
    pub no_data_us: Option<i64>,
    /// Running time before a learned detector may raise, microseconds.
    pub baseline_us: i64,
    /// The `[state]` table in file order, the first that holds wins; empty: always running.
    pub states: Vec<StateRule>,
    /// Settling time after an observed change to running, microseconds.
    pub settle_us: i64,
    /// Numbers of the machine, in file order.
    pub parameters: Vec<Parameter>,
    /// Measured quantities, in file order; at most 64.
    pub channels: Vec<Channel>,
    /// Words that ride with a reading, in file order.
    pub attributes: Vec<Attribute>,
    /// Quantities computed from channels, parameters and earlier derived ones, in file order.
    pub derived: Vec<Derived>,
    /// Limits, in file order.
    pub laws: Vec<Law>,
    /// The file's text, byte for byte.
    pub document: String,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the field's own (DOMAIN.md 2)")]
pub enum State {
    Unknown = 0,
    Running = 1,
    Idle = 2,
    Off = 3,
    Setup = 4,
    Warmup = 5,
    ToolChange = 6,
    Maintenance = 7,
}

/// A state and when it holds.
#[derive(Debug, Clone)]
pub struct StateRule {
    /// The state.
    pub state: State,
    /// Holds when this does.
    pub logic: Logic,
}

/// A number of the machine that expressions and limits may name.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the key of that name in the class file")]
pub struct Parameter {
    pub id: String,
    pub default: f64,
    pub unit: String,
    /// Inclusive; a machine's own value outside is refused.
    pub range: Option<(f64, f64)>,
    pub name: Text,
}

/// A gauge goes up and down; a counter only up, and back at a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub enum ChannelKind {
    Gauge,
    Counter,
}

/// Whether an operator can move a channel, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjust {
    /// Nobody can set it.
    None,
    /// An operator sets it.
    Set,
    /// A replaced part starts at `replace_with`.
    Replace,
}

/// One measured quantity.
#[derive(Debug, Clone)]
pub struct Channel {
    /// JSON key and SQL column.
    pub id: String,
    /// Unit as printed; "1" for none.
    pub unit: String,
    /// Decimals kept, 0 to 9: 42.8 at scale 2 is held as 4280.
    pub scale: u8,
    /// Inclusive, as scaled integers; a value outside is refused.
    pub range: (i64, i64),
    /// Inclusive, as scaled integers; a value outside is stored with quality bad.
    pub plausible: (i64, i64),
    /// SQL type in the plant's `sensor_log`.
    pub sql: String,
    /// What people call it.
    pub name: Text,
    /// CSV headers beside the id.
    pub columns: Vec<String>,
    /// A reading may lack it.
    pub optional: bool,
    /// Gauge or counter.
    pub kind: ChannelKind,
    /// Keeps a 60 s window (its own key says so, or an expression uses it).
    pub window: bool,
    /// The same scaled integer for so long is stuck, microseconds.
    pub stuck_after_us: Option<i64>,
    /// Largest step between two readings, scaled integer.
    pub max_step: Option<i64>,
    /// Whether an operator can move it.
    pub adjust: Adjust,
    /// What a replaced part starts at, scaled integer.
    pub replace_with: i64,
    /// Unit that screens may show, e.g. "degC" for K.
    pub display: Option<String>,
}

/// A word that rides with a reading.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the key of that name in the class file")]
pub struct Attribute {
    pub id: String,
    pub values: Vec<String>,
    /// Index into `values`.
    pub default: Option<u8>,
    pub columns: Vec<String>,
    pub name: Text,
}

/// A quantity computed in f64 from channels in decimals (value / 10^scale).
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the key of that name in the class file")]
pub struct Derived {
    pub id: String,
    pub unit: String,
    /// It enters its own window as round(value x 10^scale).
    pub scale: u8,
    pub expression: Expr,
    /// The expression as written.
    pub text: String,
    pub name: Text,
    /// An expression takes a window statistic of it.
    pub window: bool,
}

/// A channel or a derived quantity, by its place in the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "said above")]
pub enum Quantity {
    Channel(usize),
    Derived(usize),
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// A limit of a machine class: ONE condition, whose severity moves through its levels.
#[derive(Debug, Clone)]
pub struct Law {
    /// The condition's id.
    pub id: String,
    /// `failure_type` of its alerts.
    pub failure_type: String,
    /// Lowest severity first; one where the file has no `[[law.level]]`.
    pub levels: Vec<Level>,
    /// The file has `[[law.level]]` (a term's override is then `law.level.term`, level = its severity's word).
    pub has_levels: bool,
    /// Not judged where it is false; overrides the state's rule (running, settled).
    pub when: Option<Logic>,
    /// Overrides the class's settle, microseconds.
    pub settle_us: Option<i64>,
    /// Maintenance due: a worklist entry, not an anomaly.
    pub notice: bool,
    /// Label column of CSV files that it answers to.
    pub label: Option<String>,
    /// Ids of laws that explain it.
    pub caused_by: Vec<String>,
    /// What people call it.
    pub name: Text,
    /// What to do.
    pub action: Option<Text>,
    /// Standard and zone, or "rule of thumb".
    pub source: Option<String>,
}

/// One severity of a law.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the key of that name in the class file")]
pub struct Level {
    pub severity: Severity,
    pub logic: Logic,
    pub on_delay_us: i64,
    pub off_delay_us: i64,
}

/// Terms, all or any of which must hold.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "said above")]
pub struct Logic {
    pub mode: LogicMode,
    pub terms: Vec<Term>,
}

/// All or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub enum LogicMode {
    All,
    Any,
}

/// `above` is strictly >, `below` strictly <, `at_least` and `at_most` include the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub enum Comparison {
    Above,
    Below,
    AtLeast,
    AtMost,
}

/// One comparison of a quantity with a limit.
#[derive(Debug, Clone)]
pub struct Term {
    /// Its quantity's id unless the file gives one; unique in its logic.
    pub id: String,
    /// What is compared.
    pub quantity: Quantity,
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub limit: Limit,
    /// Unit of the quantity; the term's own, else the level's, else the law's, else 0.
    pub deadband: f64,
}

/// A limit: one number for all machines of the class, or by attribute.
#[derive(Debug, Clone)]
pub enum Limit {
    /// An expression over parameters and numbers.
    Value(Expr),
    /// By one or more attributes.
    Table(LimitTable),
}

/// Limits by attribute; a combination without entry and without default is not judged.
#[derive(Debug, Clone)]
pub struct LimitTable {
    /// Indices into [`Class::attributes`].
    pub by: Vec<usize>,
    /// Attribute values (indices, one per `by`) to the limit.
    pub entries: Vec<(Vec<u8>, Expr)>,
    /// For every other combination, a missing attribute too.
    pub default: Option<Expr>,
}

impl Severity {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }

    /// Reads [`Severity::as_str`].
    pub fn from_word(word: &str) -> Option<Severity> {
        [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|severity| severity.as_str() == word)
    }
}

impl State {
    /// Every state.
    pub const ALL: [State; 8] = [
        State::Unknown,
        State::Running,
        State::Idle,
        State::Off,
        State::Setup,
        State::Warmup,
        State::ToolChange,
        State::Maintenance,
    ];

    /// As it is written: `tool_change`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Running => "running",
            State::Idle => "idle",
            State::Off => "off",
            State::Setup => "setup",
            State::Warmup => "warmup",
            State::ToolChange => "tool_change",
            State::Maintenance => "maintenance",
        }
    }

    /// Reads [`State::as_str`].
    pub fn from_word(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl Class {
    /// The id of a quantity.
    pub fn quantity_id(&self, quantity: Quantity) -> &str {
        match quantity {
            Quantity::Channel(at) => &self.channels[at].id,
            Quantity::Derived(at) => &self.derived[at].id,
        }
    }

    /// The unit of a quantity.
    pub fn quantity_unit(&self, quantity: Quantity) -> &str {
        match quantity {
            Quantity::Channel(at) => &self.channels[at].unit,
            Quantity::Derived(at) => &self.derived[at].unit,
        }
    }

    /// The scale of a quantity.
    pub fn quantity_scale(&self, quantity: Quantity) -> u8 {
        match quantity {
            Quantity::Channel(at) => self.channels[at].scale,
            Quantity::Derived(at) => self.derived[at].scale,
        }
    }

    /// What people call a quantity.
    pub fn quantity_name(&self, quantity: Quantity) -> &Text {
        match quantity {
            Quantity::Channel(at) => &self.channels[at].name,
            Quantity::Derived(at) => &self.derived[at].name,
        }
    }

    /// A channel's place by id.
    pub fn channel_index(&self, id: &str) -> Option<usize> {
        self.channels.iter().position(|channel| channel.id == id)
    }

    /// A law's place by id.
    pub fn law_index(&self, id: &str) -> Option<usize> {
        self.laws.iter().position(|law| law.id == id)
    }
}

impl Law {
    /// Key under which a machine overrides the limit of a term: `law.term`, with levels `law.level.term`.
    pub fn limit_key(&self, level: &Level, term: &Term) -> String {
        if self.has_levels {
            format!("{}.{}.{}", self.id, level.severity.as_str(), term.id)
        } else {
            format!("{}.{}", self.id, term.id)
        }
    }
}
