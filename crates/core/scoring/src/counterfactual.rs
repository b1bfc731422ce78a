//! The smallest change of a reading after which it breaks no law (DOMAIN.md 5).
//!
//! An exact search: a range of values is skipped only where interval arithmetic proves that none of them will do, and
//! taken only where it proves that all do, so that the nearest one is found without looking at each. Where several
//! channels must move at once and that takes too long, the way back to this machine's normal is tried instead.

use crate::{
    Evidence, Scorer, TermLimit,
    columns::statistic,
    interval::{self, Bound, Interval, Ranges, Truth},
    logic,
    present::{Present, decimal},
};
use catalog::{Adjust, Logic, LogicMode, Quantity, State, Statistic};
use std::{cmp::Ordering, collections::BinaryHeap};

/// Ranges that a search may look at before it gives up. The real data set takes a few hundred.
const PATIENCE: u32 = 40_000;
/// Channels moved together at most: those that people set, and any.
const SET_TOGETHER: usize = 3;
const MOVED_TOGETHER: usize = 4;

/// What must no longer hold.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Law(usize),
    Score { scorer: &'a Scorer<'a>, threshold: f64 },
}

/// The smallest change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counterfactual {
    pub(crate) steps: Vec<Step>,
    pub(crate) way: Way,
}

/// How the channels are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// An operator sets them.
    Set,
    /// A part is replaced, and perhaps an operator sets others.
    Replace,
    /// Nobody can.
    Free,
}

/// One channel to move, in scaled integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) channel: usize,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Finds the smallest change; `None` where nothing needs to change or no change will do.
pub(crate) fn smallest(evidence: &Evidence<'_>, present: &Present, target: Target<'_>) -> Option<Counterfactual> {
    let mut search = Search::new(evidence, present, target);
    if search.verdict(&[]).must {
        return None;
    }
    let class = evidence.class;
    let there = |at: &usize| !present.channels[*at].is_nan();
    let with =
        |adjust: Adjust| (0..class.channels.len()).filter(move |&at| class.channels[at].adjust == adjust).filter(there);
    let set: Vec<Move> = with(Adjust::Set).filter_map(|at| search.free(at)).collect();
    if let Some(steps) = search.together(&set, SET_TOGETHER, |_| true) {
        return Some(Counterfactual { steps, way: Way::Set });
    }
    let replaced: Vec<Move> = with(Adjust::Replace).map(|at| search.replaced(at)).collect();
    let is_replaced = |of: &Move| class.channels[of.channel].adjust == Adjust::Replace;
    let mut moves: Vec<Move> = replaced.into_iter().chain(set).collect();
    moves.sort_by_key(|of| of.channel);
    if let Some(steps) = search.together(&moves, SET_TOGETHER, |chosen| chosen.iter().any(is_replaced)) {
        return Some(Counterfactual { steps, way: Way::Replace });
    }
    let all: Vec<Move> = (0..class.channels.len()).filter(there).filter_map(|at| search.free(at)).collect();
    let steps = search.together(&all, MOVED_TOGETHER, |_| true)?;
    Some(Counterfactual { steps, way: Way::Free })
}

/// A channel and the values that it may take.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Move {
    channel: usize,
    low: i64,
    high: i64,
}

/// What the changed reading must satisfy.
enum Requirement<'a> {
    /// The class's rules give `running`, as they do for the reading.
    Running,
    /// A level can be judged and does not hold.
    Clear { when: Option<Bounds>, level: Bounds },
    /// A level does not hold, and can be judged where it can be for the reading.
    Unbroken { when: Option<Bounds>, level: Bounds, judged: bool },
    /// The detector's score is not over its threshold.
    Usual { scorer: &'a Scorer<'a>, threshold: f64 },
}

struct Bounds {
    mode: LogicMode,
    terms: Vec<Bound>,
}

struct Search<'a> {
    evidence: &'a Evidence<'a>,
    present: &'a Present,
    states: Vec<(State, Bounds)>,
    requirements: Vec<Requirement<'a>>,
    /// Ranges of the box that is looked at.
    channels: Vec<Interval>,
    derived: Vec<Interval>,
    /// Channels that the box moves.
    moved: u64,
    patience: u32,
}

impl<'a> Search<'a> {
    fn new(evidence: &'a Evidence<'a>, present: &'a Present, target: Target<'a>) -> Search<'a> {
        let (class, settings) = (evidence.class, evidence.settings);
        let at_limits = |logic: &Logic, limits: &[TermLimit]| bounds(evidence, logic, limits, false);
        let states = class.states.iter().zip(&settings.state_limits);
        let states = states.map(|(rule, limits)| (rule.state, at_limits(&rule.logic, limits))).collect();
        let mut search = Search {
            evidence,
            present,
            states,
            requirements: Vec::new(),
            channels: Vec::new(),
            derived: Vec::new(),
            moved: 0,
            patience: PATIENCE,
        };
        search.place(&[]);
        let mut requirements = Vec::new();
        if search.is_running().must {
            requirements.push(Requirement::Running);
        }
        let aim = match target {
            Target::Law(law) => Some(law),
            Target::Score { .. } => None,
        };
        let is_notice = aim.is_some_and(|law| class.laws[law].notice);
        let mut slot = 0;
        for (law, of) in class.laws.iter().enumerate() {
            for level in &of.levels {
                let limits = &settings.limits[slot];
                slot += 1;
                let when = || of.when.as_ref().map(|when| at_limits(when, &settings.when_limits[law]));
                let now = at_limits(&level.logic, limits);
                let (judged, broken) = interval::judge(now.mode, &now.terms, |quantity| search.range(quantity));
                if aim == Some(law) {
                    let level = bounds(evidence, &level.logic, limits, true);
                    requirements.push(if judged.must {
                        Requirement::Clear { when: when(), level }
                    } else {
                        Requirement::Unbroken { when: when(), level, judged: false }
                    });
                } else if !(of.notice || is_notice && broken.must) {
                    // What is broken beside a notice is no matter of the notice.
                    requirements.push(Requirement::Unbroken { when: when(), level: now, judged: judged.must });
                }
            }
        }
        if let Target::Score { scorer, threshold } = target {
            requirements.push(Requirement::Usual { scorer, threshold });
        }
        search.requirements = requirements;
        search
    }

    /// A channel over its whole range; a value that is not plausible would not be judged.
    fn free(&self, channel: usize) -> Option<Move> {
        let of = &self.evidence.class.channels[channel];
        let (low, high) = (of.range.0.max(of.plausible.0), of.range.1.min(of.plausible.1));
        (low <= high).then_some(Move { channel, low, high })
    }

    fn replaced(&self, channel: usize) -> Move {
        let value = self.evidence.class.channels[channel].replace_with;
        Move { channel, low: value, high: value }
    }

    /// The smallest change of as few of these channels as will do.
    fn together(&mut self, moves: &[Move], most: usize, wanted: impl Fn(&[Move]) -> bool) -> Option<Vec<Step>> {
        self.patience = PATIENCE;
        for many in 1..=most.min(moves.len()) {
            let mut best: Option<(Cost, Vec<Step>)> = None;
            let mut chosen = Vec::new();
            choose(moves, many, &mut chosen, &mut |chosen| {
                if !wanted(chosen) || !self.verdict(chosen).can {
                    return;
                }
                let found = match chosen {
                    [one] => self.one(*one),
                    several => self.several(several, best.as_ref().map(|best| best.0)),
                };
                if let Some(found) = found
                    && best.as_ref().is_none_or(|best| found.0.order(&best.0) == Ordering::Less)
                {
                    best = Some(found);
                }
            });
            if let Some((_, steps)) = best {
                return Some(steps);
            }
        }
        if self.patience == 0 { self.toward_normal(moves, most, wanted) } else { None }
    }

    /// As few of these channels as will do, moved towards this machine's normal only as far as it takes: a change that
    /// will do, though perhaps not the smallest.
    fn toward_normal(&mut self, moves: &[Move], most: usize, wanted: impl Fn(&[Move]) -> bool) -> Option<Vec<Step>> {
        self.patience = PATIENCE;
        for many in 2..=most.min(moves.len()) {
            let mut best: Option<(Cost, Vec<Move>)> = None;
            let mut chosen = Vec::new();
            choose(moves, many, &mut chosen, &mut |chosen| {
                if let Some(there) = wanted(chosen).then(|| self.normal_of(chosen)).flatten()
                    && self.verdict(&there).must
                {
                    let near = self.drawn_back(chosen, there);
                    let cost = self.cost(&near);
                    if best.as_ref().is_none_or(|best| cost.order(&best.0) == Ordering::Less) {
                        best = Some((cost, near));
                    }
                }
            });
            if let Some((_, points)) = best {
                let step = |of: Move| Step { channel: of.channel, from: self.evidence.values[of.channel], to: of.low };
                return Some(points.into_iter().map(step).collect());
            }
        }
        None
    }

    /// Channels at their means; `None` while one of them has none.
    fn normal_of(&self, chosen: &[Move]) -> Option<Vec<Move>> {
        let at_mean = |of: &Move| {
            let (mean, _) = (self.evidence.normal)(Quantity::Channel(of.channel))?;
            let scaled = mean * 10f64.powi(i32::from(self.evidence.class.channels[of.channel].scale));
            let value = (scaled.round() as i64).clamp(of.low, of.high);
            Some(Move { low: value, high: value, ..*of })
        };
        chosen.iter().map(at_mean).collect()
    }

    /// Each channel in turn as near to its present value as the others let it.
    fn drawn_back(&mut self, ranges: &[Move], mut points: Vec<Move>) -> Vec<Move> {
        for (at, range) in ranges.iter().enumerate() {
            let (from, there) = (self.evidence.values[range.channel], points[at].low);
            let (low, high) = (from.min(there), from.max(there));
            let mut others = points.clone();
            others.remove(at);
            if let Some(to) = self.nearest(Move { low, high, ..*range }, &others, from <= there) {
                points[at] = Move { low: to, high: to, ..*range };
            }
        }
        points
    }

    /// The nearest value of one channel that will do, on either side.
    fn one(&mut self, of: Move) -> Option<(Cost, Vec<Step>)> {
        let from = self.evidence.values[of.channel];
        // Where a window counts as if it held the value throughout, the present value itself may do.
        let stays = (of.low..=of.high)
            .contains(&from)
            .then(|| self.nearest(Move { low: from, high: from, ..of }, &[], true))
            .flatten();
        let down = from.checked_sub(1).map(|high| Move { high: high.min(of.high), ..of });
        let up = from.checked_add(1).map(|low| Move { low: low.max(of.low), ..of });
        let down = down.filter(|of| of.low <= of.high).and_then(|of| self.nearest(of, &[], false));
        let up = up.filter(|of| of.low <= of.high).and_then(|of| self.nearest(of, &[], true));
        let to = [stays, down, up].into_iter().flatten().min_by_key(|to| to.abs_diff(from))?;
        let step = Step { channel: of.channel, from, to };
        Some((self.cost(&[Move { low: to, high: to, ..of }]), vec![step]))
    }

    /// The first value of a range that will do beside the others, from its low or its high end.
    fn nearest(&mut self, of: Move, others: &[Move], from_low: bool) -> Option<i64> {
        let verdict = self.verdict(&[&[of], others].concat());
        if verdict.must {
            return Some(if from_low { of.low } else { of.high });
        }
        if !verdict.can || of.low == of.high {
            return None;
        }
        let (below, above) = halves(of);
        let (first, second) = if from_low { (below, above) } else { (above, below) };
        self.nearest(first, others, from_low).or_else(|| self.nearest(second, others, from_low))
    }

    /// The nearest values of several channels: the box with the least possible cost is looked at first.
    fn several(&mut self, moves: &[Move], limit: Option<Cost>) -> Option<(Cost, Vec<Step>)> {
        let mut boxes = BinaryHeap::new();
        boxes.push(Candidate { cost: self.cost(moves), moves: moves.to_vec() });
        while let Some(Candidate { cost, moves }) = boxes.pop() {
            if limit.is_some_and(|limit| cost.order(&limit) != Ordering::Less) {
                return None;
            }
            let verdict = self.verdict(&moves);
            if verdict.must {
                let steps = moves.iter().map(|of| {
                    let from = self.evidence.values[of.channel];
                    Step { channel: of.channel, from, to: from.clamp(of.low, of.high) }
                });
                return Some((cost, steps.collect()));
            }
            let widest = (0..moves.len()).max_by(|&a, &b| self.width(moves[a]).total_cmp(&self.width(moves[b])))?;
            if !verdict.can || moves[widest].low == moves[widest].high {
                continue;
            }
            let (below, above) = halves(moves[widest]);
            for half in [below, above] {
                let mut moves = moves.clone();
                moves[widest] = half;
                boxes.push(Candidate { cost: self.cost(&moves), moves });
            }
        }
        None
    }

    fn width(&self, of: Move) -> f64 {
        let channel = &self.evidence.class.channels[of.channel];
        let range = channel.range.1.abs_diff(channel.range.0).max(1);
        if of.low == of.high { -1.0 } else { of.high.abs_diff(of.low) as f64 / range as f64 }
    }

    /// The least cost of moving into a box.
    fn cost(&self, moves: &[Move]) -> Cost {
        let mut cost = Cost { percent: 0.0, ranges: 0.0 };
        for of in moves {
            let channel = &self.evidence.class.channels[of.channel];
            let from = self.evidence.values[of.channel];
            let distance = from.abs_diff(from.clamp(of.low, of.high));
            if distance == 0 {
                continue;
            }
            cost.ranges += distance as f64 / channel.range.1.abs_diff(channel.range.0).max(1) as f64;
            cost.percent += match is_temperature(&channel.unit) {
                // A degree counts like one percent: percent of a temperature's own value says nothing.
                true => distance as f64 / 10f64.powi(i32::from(channel.scale)),
                false => distance as f64 * 100.0 / from.unsigned_abs() as f64,
            };
        }
        cost
    }

    /// Whether every reading of a box will do, or one of them can.
    fn verdict(&mut self, moves: &[Move]) -> Truth {
        if self.patience == 0 {
            return Truth::YES.not();
        }
        self.patience -= 1;
        self.place(moves);
        let mut verdict = Truth::YES;
        for requirement in &self.requirements {
            verdict = verdict.and(self.satisfied(requirement));
            if !verdict.can {
                break;
            }
        }
        verdict
    }

    /// Sets the ranges of channels and derived quantities.
    fn place(&mut self, moves: &[Move]) {
        let class = self.evidence.class;
        self.moved = 0;
        self.channels.clear();
        self.channels.extend(self.present.channels.iter().copied().map(Interval::point));
        for of in moves {
            let scale = class.channels[of.channel].scale;
            self.moved |= 1 << of.channel;
            self.channels[of.channel] = Interval::between(decimal(of.low, scale), decimal(of.high, scale));
        }
        self.derived.clear();
        for (at, derived) in class.derived.iter().enumerate() {
            let range = if self.present.needs.quantity(Quantity::Derived(at)).channels & self.moved == 0 {
                Interval::point(self.present.derived[at])
            } else {
                interval::evaluate(&derived.expression, self).finite()
            };
            self.derived.push(range);
        }
    }

    fn range(&self, quantity: Quantity) -> Interval {
        match quantity {
            Quantity::Channel(at) => self.channels[at],
            Quantity::Derived(at) => self.derived[at],
        }
    }

    fn judge(&self, bounds: &Bounds) -> (Truth, Truth) {
        interval::judge(bounds.mode, &bounds.terms, |quantity| self.range(quantity))
    }

    fn satisfied(&self, requirement: &Requirement<'_>) -> Truth {
        match requirement {
            Requirement::Running => self.is_running(),
            Requirement::Clear { when, level } => {
                let (judged, holds) = self.judge(level);
                let when = when.as_ref().map_or(Truth::YES, |when| self.judge(when).1);
                judged.and(holds.not()).and(when)
            }
            Requirement::Unbroken { when, level, judged: needed } => {
                let (judged, holds) = self.judge(level);
                let when = when.as_ref().map_or(Truth::YES, |when| self.judge(when).1);
                let unbroken = when.and(holds).not();
                if *needed { unbroken.and(judged.or(when.not())) } else { unbroken }
            }
            Requirement::Usual { scorer, threshold } => scorer.is_usual(&self.channels, *threshold),
        }
    }

    /// The first rule that holds says running; none before it is left unjudged.
    fn is_running(&self) -> Truth {
        if self.evidence.class.states.is_empty() {
            return Truth::YES;
        }
        let (mut running, mut reached) = (Truth::YES.not(), Truth::YES);
        for (state, rule) in &self.states {
            let (judged, holds) = self.judge(rule);
            if *state == State::Running {
                running = running.or(reached.and(holds));
            }
            reached = reached.and(judged).and(holds.not());
        }
        running
    }
}

impl Ranges for Search<'_> {
    fn parameter(&self, at: usize) -> f64 {
        self.evidence.settings.parameters[at]
    }

    fn quantity(&self, quantity: Quantity) -> Interval {
        self.range(quantity)
    }

    /// A window over what is moved counts as if it held the value throughout.
    fn window(&self, which: Statistic, quantity: Quantity) -> Interval {
        if self.present.needs.quantity(quantity).channels & self.moved == 0 {
            return Interval::point(statistic((self.evidence.windows)(quantity), which));
        }
        let range = self.range(quantity);
        match which {
            Statistic::Mean | Statistic::Min | Statistic::Max => range,
            Statistic::Std | Statistic::Slope if range.low <= range.high => Interval { low: 0.0, high: 0.0, ..range },
            Statistic::Std | Statistic::Slope => range,
        }
    }
}

/// Kelvin and degrees Celsius: changes are differences, never percent.
pub(crate) fn is_temperature(unit: &str) -> bool {
    matches!(unit, "K" | "degC" | "°C")
}

fn bounds(evidence: &Evidence<'_>, logic: &Logic, limits: &[TermLimit], moved_back: bool) -> Bounds {
    let terms = logic.terms.iter().zip(limits).map(|(term, limit)| {
        let limit = limit.of(|at| evidence.attributes[at]);
        let limit = if moved_back { logic::moved_back(term.comparison, limit, term.deadband) } else { limit };
        Bound { quantity: term.quantity, comparison: term.comparison, limit }
    });
    Bounds { mode: logic.mode, terms: terms.collect() }
}

/// Calls `each` with every choice of so many, in class order.
fn choose(from: &[Move], many: usize, chosen: &mut Vec<Move>, each: &mut impl FnMut(&[Move])) {
    if many == 0 {
        return each(chosen);
    }
    for (at, of) in from.iter().enumerate() {
        chosen.push(*of);
        choose(&from[at + 1..], many - 1, chosen, each);
        chosen.pop();
    }
}

fn halves(of: Move) -> (Move, Move) {
    let middle = i64::midpoint(of.low, of.high);
    // `midpoint` rounds towards zero, which for negative ends may be the high one.
    let middle = middle.min(of.high - 1);
    (Move { high: middle, ..of }, Move { low: middle + 1, ..of })
}

/// How large a change is: percent of the present values, then (from 0, where percent says nothing) shares of the ranges.
#[derive(Debug, Clone, Copy)]
struct Cost {
    percent: f64,
    ranges: f64,
}

impl Cost {
    fn order(&self, other: &Cost) -> Ordering {
        self.percent.total_cmp(&other.percent).then(self.ranges.total_cmp(&other.ranges))
    }
}

/// A box in the heap: the cheapest is on top, of equal ones the one nearest to the class's order.
struct Candidate {
    cost: Cost,
    moves: Vec<Move>,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        let place = |candidate: &Candidate| candidate.moves.iter().map(|of| (of.low, of.high)).collect::<Vec<_>>();
        other.cost.order(&self.cost).then_with(|| place(other).cmp(&place(self)))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Candidate) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}
