//! From the text of a class file to a checked [`Class`], every mistake with its place.
//!
//! `table` reads TOML with places; this file knows the format.

mod law;
mod table;

use crate::{
    Adjust, Attribute, Channel, ChannelKind, Class, Derived, Expr, Parameter, Quantity, State, StateRule,
    expression::{self, Name, WORDS},
};
use std::{cell::RefCell, collections::BTreeMap};
use table::Fields;

/// One mistake in a file, with its place and a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// As the caller named the file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what is allowed there.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Every mistake that was found, in file order; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::fmt::Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (nth, mistake) in self.0.iter().enumerate() {
            let Mistake { file, line, column, message, hint } = mistake;
            let newline = if nth == 0 { "" } else { "\n" };
            write!(f, "{newline}{file}:{line}:{column}: {message}")?;
            if let Some(hint) = hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// Names that messages and tables use themselves (SPEC.md 3.1, 3.4), so no channel, attribute or quantity may.
const RESERVED: [&str; 17] = [
    "machine_id",
    "timestamp",
    "seq",
    "class",
    "machine_state",
    "quality",
    "links",
    "id",
    "created_at",
    "flags",
    "bus_partition",
    "bus_offset",
    "bus_index",
    "source",
    "position",
    "arrived_at",
    "state",
];

/// Most channels of a class: a reading has two quality bits a channel in 128.
const CHANNELS: usize = 64;
/// Most levels of all laws together: verdicts are bits of 64.
const LEVELS: usize = 64;

const SECOND: i64 = 1_000_000;

impl Class {
    /// Parses and checks the text of a class file. `file` is its name in mistakes.
    ///
    /// # Errors
    /// Every mistake that is found, with file:line:column and a hint.
    pub fn parse(file: &str, text: &str) -> Result<Class, Mistakes> {
        let tell = Teller { file, text, mistakes: RefCell::default() };
        let class = match table::parse(text, &tell) {
            Some(root) => read(&root, &tell, text),
            None => None,
        };
        let mut mistakes = tell.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        mistakes.dedup();
        match class {
            Some(class) if mistakes.is_empty() => Ok(class),
            _ => Err(Mistakes(mistakes)),
        }
    }
}

/// Collects mistakes by their byte in the text.
pub(crate) struct Teller<'a> {
    file: &'a str,
    text: &'a str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl Teller<'_> {
    /// Notes a mistake.
    fn tell(&self, at: usize, message: impl Into<String>, hint: Option<String>) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let mistake = Mistake { file: self.file.to_owned(), line, column, message: message.into(), hint };
        self.mistakes.borrow_mut().push(mistake);
    }

    fn clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }
}

/// The nearest of some words, if it is near enough to be a slip.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(diagonal + usize::from(x != *y));
            diagonal = above;
        }
    }
    row[b.len()]
}

/// `10s`, `5m`, `500ms`, `8h`, `2d` in microseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1,
        "ms" => 1000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        "d" => 86_400 * SECOND,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// What is known of the file while its parts are read.
pub(crate) struct Names<'a> {
    tell: &'a Teller<'a>,
    parameters: Vec<Parameter>,
    channels: Vec<Channel>,
    attributes: Vec<Attribute>,
    derived: Vec<Derived>,
    taken: BTreeMap<String, &'static str>,
}

impl Names<'_> {
    /// Checks an id and that nothing else has it.
    fn take(&mut self, fields: &Fields<'_>, what: &'static str) -> Option<String> {
        let (id, at) = fields.required_text("id")?;
        if let Some(wrong) = wrong_id(&id) {
            self.tell.tell(at, wrong, Some("lower-case letters, digits and _, a letter first, at most 32".to_owned()));
            return None;
        }
        if RESERVED.contains(&id.as_str()) || WORDS.contains(&id.as_str()) {
            self.tell.tell(at, format!("`{id}` is reserved"), Some(format!("name it {id}_value, for example")));
            return None;
        }
        if let Some(other) = self.taken.get(&id) {
            self.tell.tell(at, format!("`{id}` is a {other} already"), None);
            return None;
        }
        self.taken.insert(id.clone(), what);
        Some(id)
    }

    /// An expression over parameters, channels and the derived quantities so far.
    fn expression(&self, text: &str, at: usize) -> Option<Expr> {
        self.parse(text, at, &|name| self.quantity(name).map(Name::Quantity).or_else(|| self.parameter(name)))
    }

    /// An expression over parameters alone.
    fn limit(&self, text: &str, at: usize) -> Option<Expr> {
        self.parse(text, at, &|name| self.parameter(name))
    }

    fn parse(&self, text: &str, at: usize, resolve: &dyn Fn(&str) -> Option<Name>) -> Option<Expr> {
        let known: Vec<&str> = self.taken.keys().map(String::as_str).filter(|name| resolve(name).is_some()).collect();
        match expression::parse(text, resolve, &known) {
            Ok(expr) => Some(expr),
            Err(mistake) => {
                self.tell.tell(at + mistake.at, mistake.message, mistake.hint);
                None
            }
        }
    }

    fn parameter(&self, name: &str) -> Option<Name> {
        self.parameters.iter().position(|parameter| parameter.id == name).map(Name::Parameter)
    }

    fn quantity(&self, name: &str) -> Option<Quantity> {
        let channel = self.channels.iter().position(|channel| channel.id == name).map(Quantity::Channel);
        channel.or_else(|| self.derived.iter().position(|derived| derived.id == name).map(Quantity::Derived))
    }
}

/// Why a text is no id.
fn wrong_id(id: &str) -> Option<String> {
    let mut letters = id.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_lowercase());
    let rest = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (!first || !rest || id.len() > 32).then(|| format!("`{id}` is no id"))
}

const ROOT: [&str; 7] = ["class", "state", "parameter", "channel", "attribute", "derived", "law"];

fn read(root: &Fields<'_>, tell: &Teller<'_>, text: &str) -> Option<Class> {
    root.only(&ROOT);
    let Some(head) = root.table("class") else {
        tell.tell(0, "the [class] table is missing", Some("begin with [class] and its id".to_owned()));
        return None;
    };
    head.only(&["id", "name", "source", "label", "interval", "lateness", "no_data", "baseline"]);
    let id = head.required_text("id").and_then(|(id, at)| match wrong_id(&id) {
        None => Some(id),
        Some(wrong) => {
            tell.tell(at, wrong, Some("lower-case letters, digits and _, a letter first, at most 32".to_owned()));
            None
        }
    });
    let interval_us = head.duration("interval", SECOND).max(1);
    let no_data_us = match head.text("no_data") {
        Some((word, _)) if word == "off" => None,
        _ => Some(head.duration("no_data", (30 * SECOND).max(10 * interval_us))),
    };
    let mut names = Names {
        tell,
        parameters: Vec::new(),
        channels: Vec::new(),
        attributes: Vec::new(),
        derived: Vec::new(),
        taken: BTreeMap::new(),
    };
    for fields in root.tables("parameter") {
        if let Some(parameter) = parameter(&fields, &mut names) {
            names.parameters.push(parameter);
        }
    }
    for fields in root.tables("channel") {
        if names.channels.len() == CHANNELS {
            tell.tell(fields.at, format!("a class has at most {CHANNELS} channels"), None);
            break;
        }
        if let Some(channel) = channel(&fields, &mut names) {
            names.channels.push(channel);
        }
    }
    if names.channels.is_empty() && tell.clean() {
        tell.tell(head.at, "a class needs a [[channel]]", None);
    }
    for fields in root.tables("attribute") {
        if let Some(attribute) = attribute(&fields, &mut names) {
            names.attributes.push(attribute);
        }
    }
    for fields in root.tables("derived") {
        if let Some(derived) = derived(&fields, &mut names) {
            names.derived.push(derived);
        }
    }
    let states = root.table("state");
    let settle_us = states.as_ref().map_or(0, |states| states.duration("settle", 0));
    let states = states.map_or_else(Vec::new, |states| states_of(&states, &names));
    let laws = law::read(root.tables("law"), &names, LEVELS);
    mark_windows(&mut names);
    Some(Class {
        name: head.words("name", id.as_deref().unwrap_or_default()),
        id: id?,
        source: head.text("source").map(|(text, _)| text),
        label: head.text("label").map(|(text, _)| text),
        interval_us,
        lateness_us: head.duration("lateness", 5 * SECOND),
        no_data_us,
        baseline_us: head.duration("baseline", 8 * 3600 * SECOND),
        states,
        settle_us,
        parameters: names.parameters,
        channels: names.channels,
        attributes: names.attributes,
        derived: names.derived,
        laws,
        document: text.to_owned(),
    })
}

/// An expression that takes a statistic of a quantity makes it keep a window.
fn mark_windows(names: &mut Names<'_>) {
    let mut used = Vec::new();
    for derived in &names.derived {
        derived.expression.walk(&mut |expr| {
            if let Expr::Window(_, quantity) = expr {
                used.push(*quantity);
            }
        });
    }
    for quantity in used {
        match quantity {
            Quantity::Channel(at) => names.channels[at].window = true,
            Quantity::Derived(at) => names.derived[at].window = true,
        }
    }
}

fn parameter(fields: &Fields<'_>, names: &mut Names<'_>) -> Option<Parameter> {
    fields.only(&["id", "default", "unit", "range", "name"]);
    let id = names.take(fields, "parameter");
    let default = fields.required_number("default").map(|(number, at)| {
        let range = fields.pair("range");
        if range.is_some_and(|(low, high)| !(low..=high).contains(&number)) {
            names.tell.tell(at, format!("the default {number} lies outside `range`"), None);
        }
        (number, range)
    });
    let (id, (default, range)) = (id?, default?);
    let name = fields.words("name", &id);
    Some(Parameter {
        id,
        default,
        unit: fields.text("unit").map_or_else(|| "1".to_owned(), |(unit, _)| unit),
        range,
        name,
    })
}

fn channel(fields: &Fields<'_>, names: &mut Names<'_>) -> Option<Channel> {
    fields.only(&[
        "id",
        "unit",
        "scale",
        "range",
        "sql",
        "name",
        "columns",
        "optional",
        "plausible",
        "kind",
        "window",
        "stuck_after",
        "max_step",
        "adjust",
        "replace_with",
        "display",
    ]);
    let id = names.take(fields, "channel");
    let unit = fields.required_text("unit");
    let scale = fields.required_scale("scale");
    let whole_scale = scale.unwrap_or(0);
    let range = fields.scaled_pair("range", whole_scale);
    if range.is_none() && !fields.has("range") {
        names.tell.tell(
            fields.at,
            "`range` is missing",
            Some("range = [lowest, highest], outside is refused".to_owned()),
        );
    }
    let plausible = fields.scaled_pair("plausible", whole_scale);
    if let (Some(range), Some(plausible)) = (range, plausible)
        && !(range.0 <= plausible.0 && plausible.1 <= range.1)
    {
        names.tell.tell(fields.place("plausible"), "`plausible` lies outside `range`", None);
    }
    let kind = fields.choice("kind", &[("gauge", ChannelKind::Gauge), ("counter", ChannelKind::Counter)]);
    let adjust = fields.choice("adjust", &[("none", Adjust::None), ("set", Adjust::Set), ("replace", Adjust::Replace)]);
    let replace_with = fields.scaled("replace_with", whole_scale).unwrap_or(0);
    let adjust = adjust.unwrap_or(Adjust::None);
    if let Some((low, high)) = range
        && adjust == Adjust::Replace
        && !(low..=high).contains(&replace_with)
    {
        names.tell.tell(
            fields.place("adjust"),
            "what a replaced part starts at lies outside `range`",
            Some("set replace_with".to_owned()),
        );
    }
    let (id, (unit, _), scale, range) = (id?, unit?, scale?, range?);
    let sql = fields.text("sql").map(|(sql, _)| sql);
    let max_step = fields.scaled("max_step", scale);
    if max_step.is_some_and(|step| step <= 0) {
        names.tell.tell(fields.place("max_step"), "`max_step` must be above 0", None);
    }
    Some(Channel {
        name: fields.words("name", &id),
        sql: sql.unwrap_or_else(|| if scale == 0 { "integer".to_owned() } else { format!("decimal(10,{scale})") }),
        columns: fields.texts("columns"),
        optional: fields.flag("optional"),
        plausible: plausible.unwrap_or(range),
        kind: kind.unwrap_or(ChannelKind::Gauge),
        window: fields.flag("window"),
        stuck_after_us: fields.has("stuck_after").then(|| fields.duration("stuck_after", 0)),
        max_step,
        adjust,
        replace_with,
        display: fields.text("display").map(|(display, _)| display),
        id,
        unit,
        scale,
        range,
    })
}

fn attribute(fields: &Fields<'_>, names: &mut Names<'_>) -> Option<Attribute> {
    fields.only(&["id", "values", "default", "columns", "name"]);
    let id = names.take(fields, "attribute");
    let values = fields.texts("values");
    if values.is_empty() || values.len() > 200 {
        names.tell.tell(fields.at, "`values` needs 1 to 200 words", Some(r#"values = ["L", "M", "H"]"#.to_owned()));
        return None;
    }
    let default = fields.text("default").and_then(|(word, at)| {
        let found = values.iter().position(|value| *value == word);
        if found.is_none() {
            names.tell.tell(
                at,
                format!("`{word}` is none of its values"),
                Some(format!("one of {}", values.join(", "))),
            );
        }
        found.and_then(|at| u8::try_from(at).ok())
    });
    let id = id?;
    Some(Attribute { name: fields.words("name", &id), columns: fields.texts("columns"), id, values, default })
}

fn derived(fields: &Fields<'_>, names: &mut Names<'_>) -> Option<Derived> {
    fields.only(&["id", "expression", "unit", "scale", "name"]);
    let expression = fields.required_text("expression").and_then(|(text, at)| {
        let expr = names.expression(&text, at)?;
        Some((expr, text))
    });
    let id = names.take(fields, "derived quantity");
    let unit = fields.required_text("unit");
    let scale = fields.scale("scale");
    let (id, (expression, text), (unit, _)) = (id?, expression?, unit?);
    Some(Derived {
        name: fields.words("name", &id),
        id,
        unit,
        scale: scale.unwrap_or(3),
        expression,
        text,
        window: false,
    })
}

fn states_of(fields: &Fields<'_>, names: &Names<'_>) -> Vec<StateRule> {
    let words: Vec<&str> = State::ALL.iter().skip(1).map(|state| state.as_str()).collect();
    let mut allowed = words.clone();
    allowed.push("settle");
    fields.only(&allowed);
    let mut rules = Vec::new();
    for key in fields.keys() {
        if key == "settle" {
            continue;
        }
        if let (Some(state), Some(inner)) = (State::from_word(&key), fields.table(&key)) {
            inner.only(&["all", "any"]);
            if let Some(logic) = law::logic(&inner, names, 0.0) {
                rules.push(StateRule { state, logic });
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "[class]\nid = \"lathe\"\n[[channel]]\nid = \"torque_nm\"\nunit = \"Nm\"\nscale = 2\nrange = [0, 200]\n";

    /// The mistakes of HEAD and some more lines, each `line:column message`, one a line.
    fn mistakes(more: &str) -> String {
        match Class::parse("c.toml", &format!("{HEAD}{more}")) {
            Ok(_) => String::new(),
            Err(mistakes) => {
                let lines: Vec<String> = mistakes
                    .0
                    .iter()
                    .map(|mistake| {
                        let hint = mistake.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                        format!("{}:{} {}{hint}", mistake.line, mistake.column, mistake.message)
                    })
                    .collect();
                lines.join("\n")
            }
        }
    }

    fn check(more: &str, expected: &str) {
        assert_eq!(mistakes(more), expected);
    }

    #[test]
    fn the_built_in_classes_say_what_their_sources_say() {
        let catalogue = crate::Catalogue::builtin();
        let mill = catalogue.class("mill").unwrap();
        let ids: Vec<&str> = mill.laws.iter().map(|law| law.id.as_str()).collect();
        assert_eq!(ids, ["heat_dissipation", "power_failure", "overstrain", "tool_wear"]);
        assert_eq!(mill.channels[3].range, (0, 20_000));
        assert!(mill.channels[1].window && mill.channels[2].window && !mill.channels[3].window);
        assert_eq!(mill.no_data_us, Some(30 * SECOND));
        let pump = catalogue.class("pump").unwrap();
        assert_eq!((pump.channels.len(), pump.parameters.len(), pump.laws.len()), (9, 13, 10));
        assert!(pump.channels[0].window, "vibration_change takes its mean");
        assert!(pump.derived.iter().any(|derived| derived.id == "eff_pct" && derived.window));
        let keys = crate::catalogue::limit_keys(pump);
        assert!(
            keys.contains(&"vibration.critical.vib_mm_s".to_owned()) && keys.contains(&"high_flow.q_ratio".to_owned())
        );
    }

    #[test]
    fn a_class_without_laws_is_a_class() {
        check("", "");
        let class = Class::parse("c.toml", HEAD).unwrap();
        assert_eq!((class.interval_us, class.lateness_us, class.no_data_us), (1_000_000, 5_000_000, Some(30_000_000)));
        assert_eq!(class.channels[0].range, (0, 20_000));
        assert_eq!((class.channels[0].sql.as_str(), class.name.en.as_str()), ("decimal(10,2)", "lathe"));
    }

    #[test]
    fn unknown_and_missing_keys_are_told_with_their_place() {
        check("stuck_aftr = \"5m\"\n", "8:1 unknown key `stuck_aftr` (did you mean `stuck_after`?)");
        check(
            "[[channel]]\nid = \"rpm\"\n",
            "8:1 `unit` is missing\n8:1 `scale` is missing\n8:1 `range` is missing (range = [lowest, highest], outside is refused)",
        );
        check(
            "[[law]]\nid = \"x\"\n",
            "8:1 `failure_type` is missing\n8:1 `severity` is missing (one of critical, warning, info)\n8:1 `all` or `any` is missing (all = [{ quantity = \"torque_nm\", above = 50 }])",
        );
    }

    #[test]
    fn ids_are_checked() {
        let channel = |id: &str| format!("[[channel]]\nid = \"{id}\"\nunit = \"1\"\nscale = 0\nrange = [0, 1]\n");
        check(&channel("Rpm"), "9:7 `Rpm` is no id (lower-case letters, digits and _, a letter first, at most 32)");
        check(&channel("seq"), "9:7 `seq` is reserved (name it seq_value, for example)");
        check(&channel("torque_nm"), "9:7 `torque_nm` is a channel already");
        check(&channel("mean60"), "9:7 `mean60` is reserved (name it mean60_value, for example)");
    }

    #[test]
    fn a_mistake_inside_an_expression_has_its_own_column() {
        let derived = |text: &str| format!("[[derived]]\nid = \"d\"\nunit = \"1\"\nexpression = \"{text}\"\n");
        check(&derived("torque_nm * 2"), "");
        check(
            &derived("torque_mn * 2"),
            "11:15 there is no `torque_mn` that may stand here (did you mean `torque_nm`?)",
        );
        check(&derived("(torque_nm"), "11:25 a ) is missing");
        check(&derived("2 +"), "11:18 the expression ends where a value is expected");
        check(&derived("abs(1, 2)"), "11:15 abs takes one value, here are 2");
        check(
            &derived("mean60(pi)"),
            "11:22 mean60 takes a channel or a derived quantity by its name (did you mean `pi`?)",
        );
        check(&derived("torque_nm ; 2"), "11:25 `; 2` does not belong here");
        let deep = "(".repeat(100_000);
        assert!(mistakes(&derived(&deep)).contains("nests deeper"));
        assert!(mistakes(&derived(&"-".repeat(100_000))).contains("nests deeper"));
    }

    #[test]
    fn limits_and_levels_are_checked() {
        let law =
            |terms: &str| format!("[[law]]\nid = \"l\"\nfailure_type = \"L\"\nseverity = \"info\"\nall = [{terms}]\n");
        check(&law("{ quantity = \"torque_nm\", above = 5 }"), "");
        check(
            &law("{ quantity = \"torque\", above = 5 }"),
            "12:22 there is no channel or derived quantity `torque` (did you mean `torque_nm`?)",
        );
        check(&law("{ quantity = \"torque_nm\" }"), "12:8 a term has one of above, below, at_least, at_most");
        check(
            &law("{ quantity = \"torque_nm\", above = \"torque_nm\" }"),
            "12:43 there is no `torque_nm` that may stand here",
        );
        check(
            &law("{ quantity = \"torque_nm\", above = { L = 1 }, by = \"type\" }"),
            "12:59 there is no attribute `type`",
        );
        check(
            &law("{ quantity = \"torque_nm\", above = 5 }, { quantity = \"torque_nm\", below = 1 }"),
            "12:47 two terms have the id `torque_nm` (give one of them an id: id = \"low\")",
        );
        let critical = law("{ quantity = \"torque_nm\", above = 5 }").replace("info", "critical");
        assert!(mistakes(&critical).starts_with("8:1 law `l` has no `action`"));
    }

    #[test]
    fn causes_must_be_known_and_run_in_no_circle() {
        let law = |id: &str, cause: &str| {
            format!(
                "[[law]]\nid = \"{id}\"\nfailure_type = \"L\"\nseverity = \"info\"\nall = [{{ quantity = \"torque_nm\", above = 5 }}]\ncaused_by = [\"{cause}\"]\n"
            )
        };
        check(&law("a", "b"), "13:13 there is no law `b` (did you mean `a`?)");
        let circle = mistakes(&(law("a", "b") + &law("b", "a")));
        assert_eq!(circle, "13:13 law `a` is caused by itself\n19:13 law `b` is caused by itself");
    }

    #[test]
    fn broken_toml_is_told_with_its_place() {
        let told = mistakes("[[law]\n");
        assert!(told.starts_with("8:"), "{told}");
    }

    #[test]
    fn a_window_is_kept_where_an_expression_asks_for_it() {
        let more = "[[derived]]\nid = \"m\"\nunit = \"Nm\"\nexpression = \"mean60(torque_nm)\"\n";
        let class = Class::parse("c.toml", &format!("{HEAD}{more}")).unwrap();
        assert!(class.channels[0].window && !class.derived[0].window);
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let builtin = include_str!("pump.toml");
        let mut lot = 7u64;
        let mut draw = |n: usize| {
            lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (lot >> 33) as usize % n
        };
        for _ in 0..500 {
            let mut text: Vec<char> = builtin.chars().collect();
            for _ in 0..1 + draw(8) {
                let at = draw(text.len());
                match draw(3) {
                    0 => drop(text.remove(at)),
                    1 => text.insert(at, ['"', '[', ']', '=', '{', '}', '\n', '9', '가', '-', '('][draw(11)]),
                    _ => {
                        let other = draw(text.len());
                        text.swap(at, other);
                    }
                }
            }
            let text: String = text.into_iter().collect();
            if let Err(mistakes) = Class::parse("c.toml", &text) {
                assert!(!mistakes.0.is_empty());
            }
        }
    }
}
