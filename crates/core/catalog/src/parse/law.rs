//! `[[law]]` and the terms that states, laws and levels are made of.

use super::{
    Names,
    table::{Fields, LimitText, Tables},
};
use crate::{Comparison, Expr, Law, Level, Limit, LimitTable, Logic, LogicMode, Severity, Term};
use std::collections::BTreeSet;

const SEVERITIES: [(&str, Severity); 3] =
    [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)];

const COMPARISONS: [(&str, Comparison); 4] = [
    ("above", Comparison::Above),
    ("below", Comparison::Below),
    ("at_least", Comparison::AtLeast),
    ("at_most", Comparison::AtMost),
];

/// Reads every law.
pub(super) fn read(tables: Tables<'_>, names: &Names<'_>, most_levels: usize) -> Vec<Law> {
    let mut laws: Vec<Law> = Vec::new();
    let mut causes = Vec::new();
    for fields in &tables {
        if let Some(law) = law(fields, names) {
            if laws.iter().any(|other| other.id == law.id) {
                names.tell.tell(fields.place("id"), format!("there is a law `{}` already", law.id), None);
                continue;
            }
            causes.push(fields.place("caused_by"));
            laws.push(law);
        }
    }
    let levels: usize = laws.iter().map(|law| law.levels.len()).sum();
    if levels > most_levels {
        names.tell.tell(tables[0].at, format!("the laws have {levels} levels in all, {most_levels} are allowed"), None);
    }
    // A law that failed to parse would look unknown here.
    if laws.len() == tables.len() {
        for (law, at) in laws.iter().zip(causes) {
            for cause in &law.caused_by {
                if !laws.iter().any(|other| other.id == *cause) {
                    let known: Vec<&str> = laws.iter().map(|law| law.id.as_str()).collect();
                    let hint = super::did_you_mean(cause, known.iter().copied()).map_or_else(
                        || format!("there are {}", known.join(", ")),
                        |near| format!("did you mean `{near}`?"),
                    );
                    names.tell.tell(at, format!("there is no law `{cause}`"), Some(hint));
                }
            }
            if reaches(&laws, &law.id, &law.id, &mut BTreeSet::new()) {
                names.tell.tell(at, format!("law `{}` is caused by itself", law.id), None);
            }
        }
    }
    laws
}

/// Whether `caused_by` leads from one law to another.
fn reaches<'a>(laws: &'a [Law], from: &str, to: &str, seen: &mut BTreeSet<&'a str>) -> bool {
    let Some(law) = laws.iter().find(|law| law.id == from) else { return false };
    law.caused_by.iter().any(|cause| cause == to || seen.insert(cause) && reaches(laws, cause, to, seen))
}

fn law(fields: &Fields<'_>, names: &Names<'_>) -> Option<Law> {
    fields.only(&[
        "id",
        "failure_type",
        "severity",
        "all",
        "any",
        "level",
        "when",
        "settle",
        "on_delay",
        "off_delay",
        "deadband",
        "notice",
        "label",
        "caused_by",
        "name",
        "action",
        "source",
    ]);
    let id = fields.required_text("id").and_then(|(id, at)| match super::wrong_id(&id) {
        None => Some(id),
        Some(wrong) => {
            names.tell.tell(at, wrong, Some("lower-case letters, digits and _, a letter first, at most 32".to_owned()));
            None
        }
    });
    let failure_type = fields.required_text("failure_type").filter(|(word, at)| {
        let fine = !word.is_empty() && word.len() <= 64 && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !fine {
            names.tell.tell(*at, "`failure_type` is one word of letters and digits", None);
        }
        fine
    });
    let deadband = fields.number("deadband").map_or(0.0, |(number, at)| not_negative(number, at, names));
    let (on_delay_us, off_delay_us) = (fields.duration("on_delay", 0), fields.duration("off_delay", 0));
    let inner = fields.tables("level");
    let has_levels = fields.has("level");
    let levels: Vec<Option<Level>> = if has_levels {
        for key in ["severity", "all", "any"] {
            if fields.has(key) {
                names.tell.tell(
                    fields.place(key),
                    format!("a law with levels has its `{key}` in each [[law.level]]"),
                    None,
                );
            }
        }
        inner.iter().map(|level| self::level(level, names, deadband, (on_delay_us, off_delay_us))).collect()
    } else {
        vec![severity(fields, names).zip(logic(fields, names, deadband)).map(|(severity, logic)| Level {
            severity,
            logic,
            on_delay_us,
            off_delay_us,
        })]
    };
    let levels: Vec<Level> = levels.into_iter().collect::<Option<_>>()?;
    if levels.windows(2).any(|pair| pair[0].severity >= pair[1].severity) {
        names.tell.tell(fields.at, "levels stand lowest severity first, each severity once", None);
    }
    let when = fields.table("when").and_then(|when| {
        when.only(&["all", "any"]);
        logic(&when, names, 0.0)
    });
    let id = id?;
    let action = fields.optional_words("action", "");
    if action.is_none() && levels.iter().any(|level| level.severity > Severity::Info) {
        names.tell.tell(
            fields.at,
            format!("law `{id}` has no `action`: an alarm that asks for nothing is no alarm"),
            Some(r#"action = { en = "what to do", ko = "조치 방법" }, or severity = "info""#.to_owned()),
        );
    }
    Some(Law {
        name: fields.words("name", &id),
        failure_type: failure_type?.0,
        levels,
        has_levels,
        when,
        settle_us: fields.optional_duration("settle"),
        notice: fields.flag("notice"),
        label: fields.text("label").map(|(label, _)| label),
        caused_by: fields.texts("caused_by"),
        action,
        source: fields.text("source").map(|(source, _)| source),
        id,
    })
}

fn level(fields: &Fields<'_>, names: &Names<'_>, deadband: f64, delays: (i64, i64)) -> Option<Level> {
    fields.only(&["severity", "all", "any", "on_delay", "off_delay", "deadband"]);
    let deadband = fields.number("deadband").map_or(deadband, |(number, at)| not_negative(number, at, names));
    let (severity, logic) = (severity(fields, names), logic(fields, names, deadband));
    Some(Level {
        severity: severity?,
        logic: logic?,
        on_delay_us: fields.duration("on_delay", delays.0),
        off_delay_us: fields.duration("off_delay", delays.1),
    })
}

fn severity(fields: &Fields<'_>, names: &Names<'_>) -> Option<Severity> {
    if !fields.has("severity") {
        names.tell.tell(fields.at, "`severity` is missing", Some("one of critical, warning, info".to_owned()));
    }
    fields.choice("severity", &SEVERITIES)
}

fn not_negative(number: f64, at: usize, names: &Names<'_>) -> f64 {
    if number < 0.0 {
        names.tell.tell(at, "a deadband is 0 or more", None);
    }
    number
}

/// `all = [terms]` or `any = [terms]`.
pub(super) fn logic(fields: &Fields<'_>, names: &Names<'_>, deadband: f64) -> Option<Logic> {
    let (mode, key) = match (fields.has("all"), fields.has("any")) {
        (true, false) => (LogicMode::All, "all"),
        (false, true) => (LogicMode::Any, "any"),
        (both, _) => {
            let message = if both { "`all` and `any` exclude each other" } else { "`all` or `any` is missing" };
            let hint = r#"all = [{ quantity = "torque_nm", above = 50 }]"#;
            names.tell.tell(fields.at, message, Some(hint.to_owned()));
            return None;
        }
    };
    let tables = fields.tables(key);
    if tables.is_empty() {
        names.tell.tell(fields.place(key), format!("`{key}` needs a term"), None);
    }
    let terms: Vec<Option<Term>> = tables.iter().map(|fields| term(fields, names, deadband)).collect();
    let terms: Vec<Term> = terms.into_iter().collect::<Option<_>>()?;
    for (nth, term) in terms.iter().enumerate() {
        if terms[..nth].iter().any(|other| other.id == term.id) {
            let message = format!("two terms have the id `{}`", term.id);
            names.tell.tell(tables[nth].at, message, Some(r#"give one of them an id: id = "low""#.to_owned()));
        }
    }
    (!terms.is_empty()).then_some(Logic { mode, terms })
}

fn term(fields: &Fields<'_>, names: &Names<'_>, deadband: f64) -> Option<Term> {
    fields.only(&["quantity", "above", "below", "at_least", "at_most", "by", "deadband", "id"]);
    let quantity = fields.required_text("quantity").and_then(|(name, at)| {
        let found = names.quantity(&name);
        if found.is_none() {
            let known: Vec<&str> =
                names.taken.keys().map(String::as_str).filter(|name| names.quantity(name).is_some()).collect();
            let hint = super::did_you_mean(&name, known.iter().copied())
                .map_or_else(|| format!("there are {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            names.tell.tell(at, format!("there is no channel or derived quantity `{name}`"), Some(hint));
        }
        found.map(|quantity| (quantity, name))
    });
    let given: Vec<_> = COMPARISONS.iter().filter(|(key, _)| fields.has(key)).collect();
    let [(key, comparison)] = given[..] else {
        names.tell.tell(fields.at, "a term has one of above, below, at_least, at_most", None);
        return None;
    };
    let limit = limit(fields, key, names);
    let deadband = fields.number("deadband").map_or(deadband, |(number, at)| not_negative(number, at, names));
    let (quantity, name) = quantity?;
    let id = fields.text("id").map_or(name, |(id, _)| id);
    Some(Term { id, quantity, comparison: *comparison, limit: limit?, deadband })
}

fn limit(fields: &Fields<'_>, key: &str, names: &Names<'_>) -> Option<Limit> {
    let table = match fields.limit(key)? {
        LimitText::Number(number) => return Some(Limit::Value(Expr::Number(number))),
        LimitText::Text(text, at) => return names.limit(&text, at).map(Limit::Value),
        LimitText::Table(table) => table,
    };
    if !fields.has("by") {
        names.tell.tell(table.at, "a table of limits needs `by`", Some(r#"by = "product_type""#.to_owned()));
        return None;
    }
    let by = fields.text_or_texts("by");
    let places: Option<Vec<usize>> = by
        .iter()
        .map(|(name, at)| {
            let found = names.attributes.iter().position(|attribute| attribute.id == *name);
            if found.is_none() {
                names.tell.tell(*at, format!("there is no attribute `{name}`"), None);
            }
            found
        })
        .collect();
    let by = places?;
    let mut entries = Vec::new();
    let mut default = None;
    for key in table.keys() {
        let value = match table.limit(&key)? {
            LimitText::Number(number) => Expr::Number(number),
            LimitText::Text(text, at) => names.limit(&text, at)?,
            LimitText::Table(inner) => {
                names.tell.tell(inner.at, "a limit is a number or an expression over parameters", None);
                return None;
            }
        };
        if key == "default" {
            default = Some(value);
            continue;
        }
        let words: Vec<&str> = key.split('/').collect();
        let found: Option<Vec<u8>> = (words.len() == by.len())
            .then(|| {
                let values = words.iter().zip(&by);
                values
                    .map(|(word, at)| names.attributes[*at].values.iter().position(|value| value == word))
                    .collect::<Option<Vec<_>>>()
            })
            .flatten()
            .map(|places| places.into_iter().filter_map(|at| u8::try_from(at).ok()).collect());
        match found {
            Some(places) => entries.push((places, value)),
            None => {
                let wants: Vec<String> = by.iter().map(|at| names.attributes[*at].values.join("|")).collect();
                let hint = format!("keys are {} or default", wants.join("/"));
                names.tell.tell(
                    table.place(&key),
                    format!("`{key}` is no combination of {} value(s)", by.len()),
                    Some(hint),
                );
            }
        }
    }
    Some(Limit::Table(LimitTable { by, entries, default }))
}
