//! Why: terms, contributions against this machine's own normal, and the smallest change that clears (DOMAIN.md 5).

use crate::{
    Fit, Settings, WindowStats,
    counterfactual::{self, Counterfactual, Target, Way, is_temperature},
    logic, phrases,
    present::{Present, decimal},
};
use catalog::{Class, Comparison, Limit, LogicMode, Quantity, Term};
use wire::{AlertText, Contribution, CounterfactualStep, Direction, Reason, ReasonTerm};

/// Contributions that a reason names at most, beside the law's own quantities.
const CONTRIBUTIONS: usize = 5;

/// Everything about one reading of one machine that an explanation may use.
pub struct Evidence<'a> {
    /// The class.
    pub class: &'a Class,
    /// The machine's name, for the text.
    pub machine: &'a str,
    /// The machine's settings.
    pub settings: &'a Settings,
    /// Scaled integers, by channel.
    pub values: &'a [i64],
    /// Two bits a channel, see `wire::Quality`.
    pub quality: u128,
    /// By attribute: the reading's own, else the settings'; `None`: absent.
    pub attributes: &'a [Option<u8>],
    /// The reading itself carries the attribute (where it does not, the reason says whose value was taken), by attribute.
    pub attribute_given: &'a [bool],
    /// Statistics of a window of this machine.
    pub windows: &'a dyn Fn(Quantity) -> Option<WindowStats>,
    /// (mean, sd) of this machine's unbroken readings (its class's until 100); `None`: none yet.
    pub normal: &'a dyn Fn(Quantity) -> Option<(f64, f64)>,
}

/// What an alert says.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Law, terms, contributions, counterfactual.
    pub reason: Reason,
    /// In both languages.
    pub text: AlertText,
    /// The largest margin / |limit| of its terms (`all`: the smallest); for a learned detector its score.
    pub score: f64,
}

/// Explains a law at a level that is broken (or held) for this reading.
pub fn explain_law(evidence: &Evidence<'_>, law: usize, level: usize) -> Explanation {
    let class = evidence.class;
    let of = &class.laws[law];
    let logic = &of.levels[level].logic;
    let slot = class.laws[..law].iter().map(|before| before.levels.len()).sum::<usize>() + level;
    let present = Present::of(evidence);
    let judged: Vec<JudgedTerm<'_>> = logic
        .terms
        .iter()
        .enumerate()
        .map(|(nth, term)| JudgedTerm::of(evidence, &present, term, slot, nth))
        .filter(|term| !term.measured.is_nan() && !term.limit.is_nan())
        .collect();
    let (broken, whole): (Vec<_>, Vec<_>) = judged.into_iter().partition(|term| term.is_broken);
    let terms: Vec<JudgedTerm<'_>> = broken.into_iter().chain(whole).collect();
    let parts = terms.iter().map(JudgedTerm::part);
    let score = match logic.mode {
        LogicMode::All => parts.reduce(f64::min),
        LogicMode::Any => parts.reduce(f64::max),
    };
    let changed = counterfactual::smallest(evidence, &present, Target::Law(law));
    let reason = Reason {
        law: Some(of.id.clone()),
        terms: terms.iter().map(|term| term.reason(class)).collect(),
        contributions: contributions(
            evidence,
            &present,
            &logic.terms.iter().map(|term| term.quantity).collect::<Vec<_>>(),
        ),
        counterfactual: steps(class, changed.as_ref()),
        adjustable: changed.as_ref().filter(|changed| changed.way == Way::Free).map(|_| false),
        time_to_limit_s: time_to_limit(evidence, &present, law, level, slot),
        notes: terms.iter().flat_map(|term| term.notes(evidence)).collect(),
    };
    let text =
        phrases::law_text(evidence, &phrases::LawFinding { law, level, terms: &terms, changed: changed.as_ref() });
    Explanation { reason, text, score: score.unwrap_or(0.0) }
}

/// Explains a learned detector's finding.
pub fn explain_learned(evidence: &Evidence<'_>, fit: &Fit, score: f64, threshold: f64) -> Explanation {
    let class = evidence.class;
    let present = Present::of(evidence);
    let scorer = fit.scorer(class);
    let changed = counterfactual::smallest(evidence, &present, Target::Score { scorer: &scorer, threshold });
    let mut shares = fit.shares(class, &present.channels);
    // Stable: equal shares stay in class order.
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    let contributions: Vec<Contribution> = shares
        .into_iter()
        .take(CONTRIBUTIONS)
        .map(|(channel, share)| contribution(evidence, &present, Quantity::Channel(channel), Some(share)))
        .collect();
    let text = phrases::learned_text(evidence, score, threshold, contributions.first(), changed.as_ref());
    let reason = Reason {
        law: None,
        terms: Vec::new(),
        contributions,
        counterfactual: steps(class, changed.as_ref()),
        adjustable: changed.as_ref().filter(|changed| changed.way == Way::Free).map(|_| false),
        time_to_limit_s: None,
        notes: Vec::new(),
    };
    Explanation { reason, text, score }
}

/// One term of the law for this reading.
pub(crate) struct JudgedTerm<'a> {
    pub(crate) term: &'a Term,
    pub(crate) measured: f64,
    pub(crate) limit: f64,
    pub(crate) is_broken: bool,
    pub(crate) source: wire::LimitSource,
}

impl<'a> JudgedTerm<'a> {
    fn of(evidence: &Evidence<'a>, present: &Present, term: &'a Term, slot: usize, nth: usize) -> JudgedTerm<'a> {
        let limit = &evidence.settings.limits[slot][nth];
        let (source, limit) = (limit.source(), limit.of(|at| evidence.attributes[at]));
        let measured = present.value(term.quantity);
        JudgedTerm { term, measured, limit, is_broken: logic::breaks(term.comparison, measured, limit), source }
    }

    fn margin(&self) -> f64 {
        logic::margin(self.term.comparison, self.measured, self.limit)
    }

    fn part(&self) -> f64 {
        logic::part(self.term.comparison, self.measured, self.limit)
    }

    fn reason(&self, class: &Class) -> ReasonTerm {
        ReasonTerm {
            quantity: class.quantity_id(self.term.quantity).to_owned(),
            term: self.term.id.clone(),
            measured: self.measured,
            limit: self.limit,
            unit: class.quantity_unit(self.term.quantity).to_owned(),
            direction: match self.term.comparison {
                Comparison::Above | Comparison::AtLeast => Direction::Above,
                Comparison::Below | Comparison::AtMost => Direction::Below,
            },
            margin: self.margin(),
            limit_source: self.source,
        }
    }

    /// Attributes that chose the limit, and whether each was there.
    pub(crate) fn attributes(&self) -> &'a [usize] {
        match (&self.term.limit, self.source) {
            (Limit::Table(table), wire::LimitSource::Class) => &table.by,
            _ => &[],
        }
    }

    fn notes(&self, evidence: &Evidence<'_>) -> Vec<String> {
        let note = |&at: &usize| {
            let attribute = &evidence.class.attributes[at];
            match evidence.attributes[at] {
                None => Some(format!("{} is absent: the default limit {} is used", attribute.id, self.limit)),
                Some(value) if !evidence.attribute_given[at] => {
                    Some(format!("{} is absent: {} is used", attribute.id, attribute.values[usize::from(value)]))
                }
                Some(_) => None,
            }
        };
        self.attributes().iter().filter_map(note).collect()
    }
}

fn steps(class: &Class, changed: Option<&Counterfactual>) -> Vec<CounterfactualStep> {
    let step = |step: &counterfactual::Step| {
        let channel = &class.channels[step.channel];
        let (from, to) = (decimal(step.from, channel.scale), decimal(step.to, channel.scale));
        CounterfactualStep {
            channel: channel.id.clone(),
            from,
            to,
            unit: channel.unit.clone(),
            change_percent: change_percent(&channel.unit, from, to),
        }
    };
    changed.iter().flat_map(|changed| &changed.steps).map(step).collect()
}

/// To two decimals, as it is where that would be nothing; none for temperatures and from 0.
pub(crate) fn change_percent(unit: &str, from: f64, to: f64) -> Option<f64> {
    (!is_temperature(unit) && from != 0.0).then(|| {
        let percent = (to - from) / from.abs() * 100.0;
        let rounded = (percent * 100.0).round() / 100.0;
        if rounded == 0.0 { percent } else { rounded }
    })
}

/// The law's quantities and the most unusual others, largest share first.
fn contributions(evidence: &Evidence<'_>, present: &Present, of_law: &[Quantity]) -> Vec<Contribution> {
    let class = evidence.class;
    let channels = (0..class.channels.len()).map(Quantity::Channel);
    let derived = (0..class.derived.len()).map(Quantity::Derived);
    let mut parts: Vec<(Quantity, f64)> = channels
        .chain(derived)
        .filter(|&quantity| !present.value(quantity).is_nan())
        .map(|quantity| (quantity, squared_distance(evidence, present, quantity)))
        .collect();
    let sum: f64 = parts.iter().map(|part| part.1).sum();
    // Stable: equal parts stay in class order, the law's own before others.
    parts.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| of_law.contains(&b.0).cmp(&of_law.contains(&a.0))));
    let mut room = CONTRIBUTIONS.saturating_sub(parts.iter().filter(|part| of_law.contains(&part.0)).count());
    parts.retain(|part| {
        let is_told = of_law.contains(&part.0) || (part.1 > 0.0 && room > 0);
        if is_told && !of_law.contains(&part.0) {
            room -= 1;
        }
        is_told
    });
    let share = |part: f64| (sum > 0.0).then(|| part / sum);
    parts.into_iter().map(|(quantity, part)| contribution(evidence, present, quantity, share(part))).collect()
}

/// Squared distance from this machine's mean, in its standard deviations; 0 while nothing is known of it.
fn squared_distance(evidence: &Evidence<'_>, present: &Present, quantity: Quantity) -> f64 {
    let Some((mean, sd)) = (evidence.normal)(quantity) else { return 0.0 };
    // What never moved is known to the width of its last decimal only: the sd of rounding to it.
    let step = 10f64.powi(-i32::from(evidence.class.quantity_scale(quantity)));
    let distance = (present.value(quantity) - mean) / sd.max(step / 12f64.sqrt());
    distance * distance
}

fn contribution(evidence: &Evidence<'_>, present: &Present, quantity: Quantity, share: Option<f64>) -> Contribution {
    let normal = (evidence.normal)(quantity);
    Contribution {
        quantity: evidence.class.quantity_id(quantity).to_owned(),
        value: present.value(quantity),
        unit: evidence.class.quantity_unit(quantity).to_owned(),
        normal_low: normal.map(|(mean, sd)| mean - 2.0 * sd),
        normal_high: normal.map(|(mean, sd)| mean + 2.0 * sd),
        share,
    }
}

/// Seconds until the next worse level breaks (or this one, where it does not), as the windows of its quantities rise
/// or fall; `None` where a term that must still break has no window that moves towards its limit.
fn time_to_limit(evidence: &Evidence<'_>, present: &Present, law: usize, level: usize, slot: usize) -> Option<f64> {
    let levels = &evidence.class.laws[law].levels;
    for (ahead, of) in levels.iter().enumerate().skip(level) {
        let logic = &of.logic;
        let mut times = Vec::new();
        let mut unbroken = 0;
        for (nth, term) in logic.terms.iter().enumerate() {
            let term = JudgedTerm::of(evidence, present, term, slot + ahead - level, nth);
            if term.is_broken {
                continue;
            }
            unbroken += 1;
            let stats = (evidence.windows)(term.term.quantity).filter(|stats| stats.judged);
            let slope = stats.and_then(|stats| stats.slope_per_min).unwrap_or(0.0);
            let minutes = (term.limit - term.measured) / slope;
            if minutes.is_finite() && minutes >= 0.0 {
                times.push(minutes * 60.0);
            }
        }
        let breaks = match logic.mode {
            LogicMode::All => unbroken == 0,
            LogicMode::Any => unbroken < logic.terms.len(),
        };
        if breaks {
            continue;
        }
        return match logic.mode {
            LogicMode::All if times.len() == unbroken => times.into_iter().reduce(f64::max),
            LogicMode::All => None,
            LogicMode::Any => times.into_iter().reduce(f64::min),
        };
    }
    None
}
