//! A machine's numbers: what its class says, overridden by its own.

use crate::expression::{self, Parameters};
use catalog::{Class, Expr, Limit, Logic, MachineSettings};
use wire::LimitSource;

/// Parameters and limits of one machine, resolved once per catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// By place of the parameter in the class.
    pub parameters: Vec<f64>,
    /// By slot (see `Program::slots`), by term in its logic.
    pub limits: Vec<Vec<TermLimit>>,
    /// Limits of each law's `when`, by law, by term; empty where it has none.
    pub when_limits: Vec<Vec<TermLimit>>,
    /// Limits of the class's state rules, by rule, by term.
    pub state_limits: Vec<Vec<TermLimit>>,
    /// Attribute values that a reading without the attribute takes: the machine's own, else the class's default.
    pub attributes: Vec<Option<u8>>,
}

/// The limit of one term for one machine.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "said above")]
pub enum TermLimit {
    Value(f64, LimitSource),
    /// By attribute: places in the class's attributes, entries, default.
    Table {
        by: Vec<usize>,
        entries: Vec<(Vec<u8>, f64)>,
        default: Option<f64>,
        source: LimitSource,
    },
}

impl Settings {
    /// Resolves a machine's settings. Keys that the class does not know are ignored: the catalogue refused them.
    pub fn resolve(class: &Class, own: Option<&MachineSettings>) -> Settings {
        let own_number = |id: &str| own.and_then(|own| own.parameters.get(id)).copied();
        let parameters: Vec<f64> =
            class.parameters.iter().map(|parameter| own_number(&parameter.id).unwrap_or(parameter.default)).collect();
        let is_own: Vec<bool> = class.parameters.iter().map(|parameter| own_number(&parameter.id).is_some()).collect();
        let resolver = Resolver { parameters: &parameters, is_own: &is_own };
        let mut limits = Vec::new();
        for law in &class.laws {
            for level in &law.levels {
                let prefix =
                    if law.has_levels { format!("{}.{}", law.id, level.severity.as_str()) } else { law.id.clone() };
                let own_limit = |term: &str| own.and_then(|own| own.limits.get(&format!("{prefix}.{term}"))).copied();
                let of_level = level.logic.terms.iter().map(|term| match own_limit(&term.id) {
                    Some(limit) => TermLimit::Value(limit, LimitSource::Machine),
                    None => resolver.limit(&term.limit),
                });
                limits.push(of_level.collect());
            }
        }
        let when_limits = class
            .laws
            .iter()
            .map(|law| law.when.as_ref().map(|when| resolver.logic(when)).unwrap_or_default())
            .collect();
        let state_limits = class.states.iter().map(|rule| resolver.logic(&rule.logic)).collect();
        let attributes = class.attributes.iter().map(|attribute| {
            let word = own.and_then(|own| own.attributes.get(&attribute.id))?;
            let at = attribute.values.iter().position(|value| value == word)?;
            u8::try_from(at).ok()
        });
        let attributes = attributes.zip(&class.attributes).map(|(own, attribute)| own.or(attribute.default)).collect();
        Settings { parameters, limits, when_limits, state_limits, attributes }
    }
}

struct Resolver<'a> {
    parameters: &'a [f64],
    is_own: &'a [bool],
}

impl Resolver<'_> {
    fn logic(&self, logic: &Logic) -> Vec<TermLimit> {
        logic.terms.iter().map(|term| self.limit(&term.limit)).collect()
    }

    fn limit(&self, limit: &Limit) -> TermLimit {
        match limit {
            Limit::Value(expr) => TermLimit::Value(self.number(expr), self.source([expr])),
            Limit::Table(table) => TermLimit::Table {
                by: table.by.clone(),
                entries: table.entries.iter().map(|(key, expr)| (key.clone(), self.number(expr))).collect(),
                default: table.default.as_ref().map(|expr| self.number(expr)),
                source: self.source(table.entries.iter().map(|entry| &entry.1).chain(&table.default)),
            },
        }
    }

    fn number(&self, expr: &Expr) -> f64 {
        expression::finite(expression::evaluate(expr, &Parameters(self.parameters)))
    }

    /// A limit over a parameter that the machine has of its own is the machine's.
    fn source<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>) -> LimitSource {
        let mut own = false;
        for expr in exprs {
            expression::walk(expr, &mut |leaf| own |= matches!(leaf, Expr::Parameter(at) if self.is_own[*at]));
        }
        if own { LimitSource::Machine } else { LimitSource::Class }
    }
}

impl TermLimit {
    /// The limit for a reading with these attributes; NaN where the table has no entry.
    pub fn of(&self, attribute: impl Fn(usize) -> Option<u8>) -> f64 {
        match self {
            TermLimit::Value(limit, _) => *limit,
            TermLimit::Table { by, entries, default, .. } => {
                let fits = |key: &[u8]| by.iter().zip(key).all(|(&at, &value)| attribute(at) == Some(value));
                let entry = entries.iter().find(|(key, _)| fits(key)).map(|(_, limit)| *limit);
                entry.or(*default).unwrap_or(f64::NAN)
            }
        }
    }

    /// Whose limit it is.
    pub fn source(&self) -> LimitSource {
        match self {
            TermLimit::Value(_, source) | TermLimit::Table { source, .. } => *source,
        }
    }
}
