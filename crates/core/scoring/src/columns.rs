//! A class compiled for judging whole batches: derived quantities, law verdicts and states, column by column.

use crate::{
    Settings, TermLimit, WindowStats,
    expression::{self, Names, Parameters},
    logic,
};
use catalog::{Class, Comparison, Expr, Function, Logic, LogicMode, Operator, Quantity, State, Statistic};
use std::{ops::Range, sync::Arc};
use wire::{Quality, ReadingBatch};

/// Rows that are judged at a time, so that what one step writes is still near when the next one reads it.
const BLOCK: usize = 512;

/// One level of one law: a bit in [`Verdicts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "places in the class")]
pub struct Slot {
    pub law: usize,
    pub level: usize,
}

/// A class compiled for judging. At most 64 slots (the catalog refuses more).
#[derive(Debug, Clone)]
pub struct Program {
    class: Arc<Class>,
    slots: Vec<Slot>,
    windowed: Vec<Quantity>,
    /// By derived quantity: its place in `windowed`, where it keeps one.
    derived_window: Vec<Option<usize>>,
    /// By derived quantity: it takes a statistic of a window, itself or through an earlier one.
    over_window: Vec<bool>,
    /// By channel: slots that depend on it.
    channel_slots: Vec<u64>,
    /// Slots, laws' `when` (bits are laws) and states that depend on a window.
    window_slots: u64,
    window_when: u64,
    window_states: bool,
    needs_windows: bool,
}

/// What the laws say of the rows of one batch. Bits are slots unless said otherwise; buffers are reused.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// Per channel, per row: value / 10^scale in f64; NaN where bad or missing.
    pub channels: Vec<Vec<f64>>,
    /// Per derived quantity, per row; NaN where not judged.
    pub derived: Vec<Vec<f64>>,
    /// The level could be judged: no value it needs is missing, bad or not finite, and the table has an entry.
    pub judged: Vec<u64>,
    /// The level's law is broken.
    pub broken: Vec<u64>,
    /// Broken with each limit moved back by its deadband: what stands until it is not held. Holds wherever `broken` does.
    pub held: Vec<u64>,
    /// Bits are laws (place in the class): its `when` is absent or true.
    pub when: Vec<u64>,
    /// Per row: the state that the class's rules give (`catalog::State` as its number), `ReadingBatch::NONE` where not judgeable.
    pub state: Vec<u8>,
    scratch: Scratch,
}

/// Buffers of one block.
#[derive(Debug, Clone, Default)]
struct Scratch {
    temporaries: Vec<Vec<f64>>,
    limits: Vec<f64>,
    judged: Vec<u64>,
    broken: Vec<u64>,
    held: Vec<u64>,
}

impl Program {
    /// Compiles a class.
    pub fn new(class: Arc<Class>) -> Program {
        let slots: Vec<Slot> = class
            .laws
            .iter()
            .enumerate()
            .flat_map(|(law, of)| (0..of.levels.len()).map(move |level| Slot { law, level }))
            .collect();
        let channels = (0..class.channels.len()).filter(|&at| class.channels[at].window).map(Quantity::Channel);
        let derived = (0..class.derived.len()).filter(|&at| class.derived[at].window).map(Quantity::Derived);
        let windowed: Vec<Quantity> = channels.chain(derived).collect();
        let derived_window = (0..class.derived.len())
            .map(|at| windowed.iter().position(|&quantity| quantity == Quantity::Derived(at)))
            .collect();
        let needs = Needs::of(&class);
        let of_logic = |logic: &Logic| {
            logic.terms.iter().fold(Need::default(), |need, term| need.or(needs.quantity(term.quantity)))
        };
        let mut program = Program {
            windowed,
            derived_window,
            over_window: needs.derived.iter().map(|need| need.window).collect(),
            channel_slots: vec![0; class.channels.len()],
            window_slots: 0,
            window_when: 0,
            needs_windows: false,
            window_states: class.states.iter().any(|rule| of_logic(&rule.logic).window),
            slots,
            class: Arc::clone(&class),
        };
        program.needs_windows =
            program.over_window.contains(&true) || program.derived_window.iter().any(Option::is_some);
        for (bit, slot) in program.slots.iter().enumerate() {
            let need = of_logic(&class.laws[slot.law].levels[slot.level].logic);
            program.window_slots |= u64::from(need.window) << bit;
            for (channel, slots) in program.channel_slots.iter_mut().enumerate() {
                *slots |= u64::from(need.channels >> channel & 1 == 1) << bit;
            }
        }
        for (law, of) in class.laws.iter().enumerate() {
            program.window_when |= u64::from(of.when.as_ref().is_some_and(|when| of_logic(when).window)) << law;
        }
        program
    }

    /// The class.
    pub fn class(&self) -> &Arc<Class> {
        &self.class
    }

    /// Law 0's levels first, lowest first; a slot's place is its bit.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Quantities that keep a 60 s window, in the order in which a machine stores its windows: channels in class order,
    /// then derived quantities in class order.
    pub fn windowed(&self) -> &[Quantity] {
        &self.windowed
    }

    /// Some verdict or derived quantity needs a window, so [`Program::judge_windowed`] must be called for each row.
    #[inline]
    pub fn needs_windows(&self) -> bool {
        self.needs_windows
    }

    /// Slots whose verdict depends on a channel, directly or through derived quantities and windows.
    pub fn slots_of_channel(&self, channel: usize) -> u64 {
        self.channel_slots[channel]
    }

    /// Judges every row, column by column. What depends on windows is left not judged (NaN, bit clear).
    /// `settings` is by place in `batch.machines`. Attributes: the row's own, else the settings'.
    /// A value of uncertain quality is judged like a good one; a bad or missing one is NaN.
    pub fn judge(&self, batch: &ReadingBatch, settings: &[&Settings], out: &mut Verdicts) {
        let rows = batch.rows();
        let Verdicts { channels, derived, judged, broken, held, when, state, scratch } = out;
        channels.resize_with(self.class.channels.len(), Vec::new);
        derived.resize_with(self.class.derived.len(), Vec::new);
        channels.iter_mut().chain(derived.iter_mut()).for_each(|column| column.resize(rows, 0.0));
        for bits in [&mut *judged, broken, held, when] {
            bits.clear();
            bits.resize(rows, 0);
        }
        state.resize(rows, State::Running as u8);
        let shared =
            settings.first().copied().filter(|first| settings.iter().all(|other| std::ptr::eq(*first, *other)));
        let mut start = 0;
        while start < rows {
            let block = start..rows.min(start + BLOCK);
            let view = Block { batch, settings, shared, rows: block.clone() };
            for (channel, column) in channels.iter_mut().enumerate() {
                view.decimals(channel, self.class.channels[channel].scale, &mut column[block.clone()]);
            }
            for (at, of) in self.class.derived.iter().enumerate() {
                let (before, rest) = derived.split_at_mut(at);
                let columns = Columns { channels, derived: before };
                let column = &mut rest[0][block.clone()];
                view.evaluate(&of.expression, columns, &mut scratch.temporaries, column);
                column.iter_mut().for_each(|value| *value = expression::finite(*value));
            }
            let columns = Columns { channels, derived };
            for (bit, slot) in self.slots.iter().enumerate() {
                let logic = &self.class.laws[slot.law].levels[slot.level].logic;
                view.logic(logic, bit, |settings| &settings.limits, columns, scratch);
                add_bits(&mut judged[block.clone()], &scratch.judged, bit);
                add_bits(&mut broken[block.clone()], &scratch.broken, bit);
                add_bits(&mut held[block.clone()], &scratch.held, bit);
            }
            for (law, of) in self.class.laws.iter().enumerate() {
                match &of.when {
                    None => when[block.clone()].iter_mut().for_each(|bits| *bits |= 1 << law),
                    Some(logic) => {
                        view.logic(logic, law, |settings| &settings.when_limits, columns, scratch);
                        add_bits(&mut when[block.clone()], &scratch.broken, law);
                    }
                }
            }
            if !self.class.states.is_empty() {
                let state = &mut state[block.clone()];
                state.fill(State::Idle as u8);
                // From the last rule to the first, so that the first that holds (or cannot be judged) wins.
                for (at, rule) in self.class.states.iter().enumerate().rev() {
                    view.logic(&rule.logic, at, |settings| &settings.state_limits, columns, scratch);
                    for ((state, judged), holds) in state.iter_mut().zip(&scratch.judged).zip(&scratch.broken) {
                        let decided = if *holds != 0 { rule.state as u8 } else { *state };
                        *state = if *judged != 0 { decided } else { ReadingBatch::NONE };
                    }
                }
            }
            start = block.end;
        }
        if self.class.states.is_empty() {
            state.fill(State::Running as u8);
        }
    }

    /// Completes one row with the windows of its machine (by place in [`Program::windowed`]); statistics that are not
    /// `judged` count as missing. Derived quantities that keep a window are pushed by `push_derived` (place in
    /// `windowed`, scaled value) in class order, before anything that takes a statistic of them is evaluated.
    /// A derived quantity that is not finite is not pushed.
    pub fn judge_windowed(
        &self,
        batch: &ReadingBatch,
        row: usize,
        settings: &Settings,
        windows: &mut dyn RowWindows,
        out: &mut Verdicts,
    ) {
        let Verdicts { channels, derived, judged, broken, held, when, state, .. } = out;
        for (at, of) in self.class.derived.iter().enumerate() {
            if self.over_window[at] {
                let names = RowNames { program: self, settings, row, channels, derived, windows: &*windows };
                derived[at][row] = expression::finite(expression::evaluate(&of.expression, &names));
            }
            if let Some(place) = self.derived_window[at]
                && let Some(value) = scaled(derived[at][row], of.scale)
            {
                windows.push_derived(place, value);
            }
        }
        let value = |quantity| match quantity {
            Quantity::Channel(at) => channels[at][row],
            Quantity::Derived(at) => derived[at][row],
        };
        let attribute = |at| attribute_of(batch, row, settings, at);
        for bit in bits(self.window_slots) {
            let slot = self.slots[bit];
            let level = &self.class.laws[slot.law].levels[slot.level];
            let verdict = logic::judge(&level.logic, &settings.limits[bit], value, attribute);
            set_bit(&mut judged[row], bit, verdict.judged);
            set_bit(&mut broken[row], bit, verdict.broken);
            set_bit(&mut held[row], bit, verdict.held);
        }
        for law in bits(self.window_when) {
            if let Some(logic) = &self.class.laws[law].when {
                set_bit(&mut when[row], law, logic::judge(logic, &settings.when_limits[law], value, attribute).broken);
            }
        }
        if self.window_states {
            state[row] =
                state_of(&self.class, settings, value, attribute).map_or(ReadingBatch::NONE, |state| state as u8);
        }
    }
}

impl Verdicts {
    /// Puts one row's channels into `out`, in class order.
    pub fn reading(&self, row: usize, out: &mut Vec<f64>) {
        out.clear();
        out.extend(self.channels.iter().map(|column| column[row]));
    }

    /// A quantity of one row; NaN where not judged.
    pub fn value(&self, quantity: Quantity, row: usize) -> f64 {
        match quantity {
            Quantity::Channel(at) => self.channels[at][row],
            Quantity::Derived(at) => self.derived[at][row],
        }
    }
}

/// The windows of one machine while one of its rows is judged.
pub trait RowWindows {
    /// Takes the row's value of a derived quantity that keeps a window (by place in [`Program::windowed`]).
    fn push_derived(&mut self, windowed: usize, value: i64);
    /// Statistics of a window (by place in [`Program::windowed`]).
    fn stats(&self, windowed: usize) -> Option<WindowStats>;
}

/// The state that a class's rules give one reading; `None` where it cannot be judged.
pub(crate) fn state_of(
    class: &Class,
    settings: &Settings,
    value: impl Fn(Quantity) -> f64,
    attribute: impl Fn(usize) -> Option<u8>,
) -> Option<State> {
    if class.states.is_empty() {
        return Some(State::Running);
    }
    for (rule, limits) in class.states.iter().zip(&settings.state_limits) {
        let verdict = logic::judge(&rule.logic, limits, &value, &attribute);
        if !verdict.judged {
            return None;
        }
        if verdict.broken {
            return Some(rule.state);
        }
    }
    Some(State::Idle)
}

/// A statistic of a window; NaN while it may not be judged.
pub(crate) fn statistic(stats: Option<WindowStats>, statistic: Statistic) -> f64 {
    let Some(stats) = stats.filter(|stats| stats.judged) else { return f64::NAN };
    match statistic {
        Statistic::Mean => stats.mean,
        Statistic::Std => stats.variance.sqrt(),
        Statistic::Min => stats.min,
        Statistic::Max => stats.max,
        Statistic::Slope => stats.slope_per_min.unwrap_or(f64::NAN),
    }
}

/// A derived quantity as it enters its window; `None` where it is not finite or does not fit.
fn scaled(value: f64, scale: u8) -> Option<i64> {
    let scaled = (value * 10f64.powi(i32::from(scale))).round();
    // 2^63 is the first f64 that does not fit.
    (scaled.abs() < 9_223_372_036_854_775_808.0).then_some(scaled as i64)
}

pub(crate) fn attribute_of(batch: &ReadingBatch, row: usize, settings: &Settings, at: usize) -> Option<u8> {
    let own = batch.attributes.get(at).and_then(|column| column.get(row)).copied();
    own.filter(|&value| value != ReadingBatch::NONE).or_else(|| settings.attributes.get(at).copied().flatten())
}

pub(crate) fn bits(mut of: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (of != 0).then(|| of.trailing_zeros() as usize)?;
        of &= of - 1;
        Some(bit)
    })
}

fn set_bit(bits: &mut u64, bit: usize, to: bool) {
    *bits = *bits & !(1 << bit) | u64::from(to) << bit;
}

/// Masks are all ones or 0.
fn add_bits(to: &mut [u64], masks: &[u64], bit: usize) {
    for (to, mask) in to.iter_mut().zip(masks) {
        *to |= mask & (1 << bit);
    }
}

/// What a quantity depends on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Need {
    pub(crate) channels: u64,
    pub(crate) window: bool,
}

impl Need {
    fn or(self, other: Need) -> Need {
        Need { channels: self.channels | other.channels, window: self.window || other.window }
    }
}

/// What each derived quantity depends on.
pub(crate) struct Needs {
    derived: Vec<Need>,
}

impl Needs {
    pub(crate) fn of(class: &Class) -> Needs {
        let mut needs = Needs { derived: Vec::new() };
        for derived in &class.derived {
            let mut need = Need::default();
            expression::walk(&derived.expression, &mut |leaf| match leaf {
                Expr::Quantity(quantity) => need = need.or(needs.quantity(*quantity)),
                Expr::Window(_, quantity) => need = Need { window: true, ..need.or(needs.quantity(*quantity)) },
                _ => {}
            });
            needs.derived.push(need);
        }
        needs
    }

    pub(crate) fn quantity(&self, quantity: Quantity) -> Need {
        match quantity {
            Quantity::Channel(at) => Need { channels: 1 << at, window: false },
            Quantity::Derived(at) => self.derived[at],
        }
    }
}

/// One row's names, with its machine's windows.
struct RowNames<'a> {
    program: &'a Program,
    settings: &'a Settings,
    row: usize,
    channels: &'a [Vec<f64>],
    derived: &'a [Vec<f64>],
    windows: &'a dyn RowWindows,
}

impl Names for RowNames<'_> {
    fn parameter(&self, at: usize) -> f64 {
        self.settings.parameters[at]
    }

    fn quantity(&self, quantity: Quantity) -> f64 {
        match quantity {
            Quantity::Channel(at) => self.channels[at][self.row],
            Quantity::Derived(at) => self.derived[at][self.row],
        }
    }

    fn window(&self, which: Statistic, quantity: Quantity) -> f64 {
        let place = self.program.windowed.iter().position(|&windowed| windowed == quantity);
        statistic(place.and_then(|place| self.windows.stats(place)), which)
    }
}

/// The columns that are there.
#[derive(Clone, Copy)]
struct Columns<'a> {
    channels: &'a [Vec<f64>],
    derived: &'a [Vec<f64>],
}

impl<'a> Columns<'a> {
    fn slice(self, quantity: Quantity, rows: &Range<usize>) -> &'a [f64] {
        match quantity {
            Quantity::Channel(at) => &self.channels[at][rows.clone()],
            Quantity::Derived(at) => &self.derived[at][rows.clone()],
        }
    }
}

/// The second operand of an operation.
enum Operand<'a> {
    Number(f64),
    Column(&'a [f64]),
    Computed,
}

/// Some rows of a batch.
struct Block<'a> {
    batch: &'a ReadingBatch,
    settings: &'a [&'a Settings],
    /// The settings of every machine, where they are the same.
    shared: Option<&'a Settings>,
    rows: Range<usize>,
}

impl Block<'_> {
    /// Fills a channel's decimals: true division, so that they are the doubles of the decimal texts.
    fn decimals(&self, channel: usize, scale: u8, out: &mut [f64]) {
        let values = &self.batch.values[channel][self.rows.clone()];
        if scale == 0 {
            for (out, value) in out.iter_mut().zip(values) {
                *out = *value as f64;
            }
        } else {
            let unit = 10f64.powi(i32::from(scale));
            for (out, value) in out.iter_mut().zip(values) {
                *out = *value as f64 / unit;
            }
        }
        if let Some(quality) = self.batch.quality.get(self.rows.clone()) {
            for (out, bits) in out.iter_mut().zip(quality) {
                if matches!(Quality::of(*bits, channel), Quality::Bad | Quality::Missing) {
                    *out = f64::NAN;
                }
            }
        }
    }

    fn settings_of(&self, row: usize) -> &Settings {
        self.settings[self.batch.machine[row] as usize]
    }

    /// Fills a column with an expression's values: `expression::evaluate`, an operation at a time.
    fn evaluate(&self, expr: &Expr, columns: Columns<'_>, temporaries: &mut Vec<Vec<f64>>, out: &mut [f64]) {
        if let Some(number) = self.number(expr) {
            out.fill(number);
            return;
        }
        match expr {
            Expr::Number(number) => out.fill(*number),
            Expr::Parameter(at) => {
                for (out, row) in out.iter_mut().zip(self.rows.clone()) {
                    *out = self.settings_of(row).parameters[*at];
                }
            }
            Expr::Quantity(quantity) => out.copy_from_slice(columns.slice(*quantity, &self.rows)),
            // Windows are one machine's: `judge_windowed`.
            Expr::Window(..) => out.fill(f64::NAN),
            Expr::Negate(of) => {
                self.evaluate(of, columns, temporaries, out);
                out.iter_mut().for_each(|value| *value = -*value);
            }
            Expr::Binary(operator, left, right) => {
                self.evaluate(left, columns, temporaries, out);
                let apply: fn(&mut [f64], Operand<'_>) = match operator {
                    Operator::Add => |out, right| combine(out, right, |a, b| a + b),
                    Operator::Subtract => |out, right| combine(out, right, |a, b| a - b),
                    Operator::Multiply => |out, right| combine(out, right, |a, b| a * b),
                    Operator::Divide => |out, right| combine(out, right, |a, b| a / b),
                };
                self.with_operand(right, columns, temporaries, |operand| apply(out, operand));
            }
            Expr::Call(function, arguments) => {
                let Some((first, others)) = arguments.split_first() else { return out.fill(f64::NAN) };
                self.evaluate(first, columns, temporaries, out);
                match function {
                    Function::Abs => out.iter_mut().for_each(|value| *value = value.abs()),
                    Function::Sqrt => out.iter_mut().for_each(|value| *value = value.sqrt()),
                    Function::Min | Function::Max => {
                        for other in others {
                            self.with_operand(other, columns, temporaries, |operand| match function {
                                Function::Min => combine(out, operand, expression::least),
                                _ => combine(out, operand, expression::greatest),
                            });
                        }
                    }
                }
            }
        }
    }

    /// Gives an expression to `apply`, computed in a temporary column where it must be.
    fn with_operand(
        &self,
        expr: &Expr,
        columns: Columns<'_>,
        temporaries: &mut Vec<Vec<f64>>,
        apply: impl FnOnce(Operand<'_>),
    ) {
        match self.operand(expr, columns) {
            Operand::Computed => {
                let mut column = temporaries.pop().unwrap_or_default();
                column.resize(self.rows.len(), 0.0);
                self.evaluate(expr, columns, temporaries, &mut column);
                apply(Operand::Column(&column));
                temporaries.push(column);
            }
            operand => apply(operand),
        }
    }

    fn operand<'c>(&self, expr: &Expr, columns: Columns<'c>) -> Operand<'c> {
        match (self.number(expr), expr) {
            (Some(number), _) => Operand::Number(number),
            (None, Expr::Quantity(quantity)) => Operand::Column(columns.slice(*quantity, &self.rows)),
            (None, _) => Operand::Computed,
        }
    }

    /// The value of an expression that is the same for every row.
    fn number(&self, expr: &Expr) -> Option<f64> {
        let mut same = true;
        expression::walk(expr, &mut |leaf| {
            same &= match leaf {
                Expr::Number(_) => true,
                Expr::Parameter(_) => self.shared.is_some(),
                _ => false,
            };
        });
        let parameters = self.shared.map_or(&[][..], |settings| &settings.parameters);
        same.then(|| expression::evaluate(expr, &Parameters(parameters)))
    }

    /// Judges a logic for every row, into the masks (all ones or 0) of `scratch`. `at` is its place in the limits.
    fn logic(
        &self,
        logic: &Logic,
        at: usize,
        limits: impl Fn(&Settings) -> &Vec<Vec<TermLimit>>,
        columns: Columns<'_>,
        scratch: &mut Scratch,
    ) {
        let rows = self.rows.len();
        let Scratch { limits: column, judged, broken, held, .. } = scratch;
        let all = logic.mode == LogicMode::All;
        for masks in [&mut *judged, broken, held] {
            masks.clear();
        }
        judged.resize(rows, u64::MAX);
        broken.resize(rows, if all { u64::MAX } else { 0 });
        held.resize(rows, if all { u64::MAX } else { 0 });
        for (nth, term) in logic.terms.iter().enumerate() {
            let values = columns.slice(term.quantity, &self.rows);
            let limit = self.limit(|settings| &limits(settings)[at][nth], column);
            let masks = Masks { judged, broken, held };
            match term.comparison {
                Comparison::Above => masks.term(values, limit, all, -term.deadband, |value, limit| value > limit),
                Comparison::Below => masks.term(values, limit, all, term.deadband, |value, limit| value < limit),
                Comparison::AtLeast => masks.term(values, limit, all, -term.deadband, |value, limit| value >= limit),
                Comparison::AtMost => masks.term(values, limit, all, term.deadband, |value, limit| value <= limit),
            }
        }
        for ((judged, broken), held) in judged.iter().zip(broken.iter_mut()).zip(held.iter_mut()) {
            *broken &= judged;
            *held &= judged;
        }
    }

    /// The limit of a term: one number where that will do, else a column.
    fn limit<'c>(&self, of: impl Fn(&Settings) -> &TermLimit, column: &'c mut Vec<f64>) -> Operand<'c> {
        let given = |at: usize| !self.batch.attributes[at].is_empty();
        let attribute = |row: usize, settings: &Settings, at: usize| attribute_of(self.batch, row, settings, at);
        match self.shared.map(|settings| (settings, of(settings))) {
            Some((_, TermLimit::Value(limit, _))) => return Operand::Number(*limit),
            Some((settings, limit @ TermLimit::Table { by, .. })) if !by.iter().any(|&at| given(at)) => {
                return Operand::Number(limit.of(|at| settings.attributes[at]));
            }
            Some((settings, limit @ TermLimit::Table { by, .. })) if by.len() == 1 => {
                // One attribute: a table of every byte that a row may hold.
                let by = by[0];
                let mut table = [limit.of(|_| settings.attributes[by]); 256];
                for (value, entry) in
                    (0..ReadingBatch::NONE).zip(table.iter_mut()).take(self.batch.class.attributes[by].values.len())
                {
                    *entry = limit.of(|_| Some(value));
                }
                column.clear();
                column.extend(
                    self.batch.attributes[by][self.rows.clone()].iter().map(|&value| table[usize::from(value)]),
                );
            }
            Some((settings, limit)) => {
                column.clear();
                column.extend(self.rows.clone().map(|row| limit.of(|at| attribute(row, settings, at))));
            }
            None => {
                column.clear();
                column.extend(self.rows.clone().map(|row| {
                    let settings = self.settings_of(row);
                    of(settings).of(|at| attribute(row, settings, at))
                }));
            }
        }
        Operand::Column(column)
    }
}

/// The masks of a logic while its terms are taken.
struct Masks<'a> {
    judged: &'a mut [u64],
    broken: &'a mut [u64],
    held: &'a mut [u64],
}

impl Masks<'_> {
    /// Takes one term; `back` moves its limit to the good side.
    fn term(self, values: &[f64], limit: Operand<'_>, all: bool, back: f64, breaks: impl Fn(f64, f64) -> bool) {
        match limit {
            Operand::Number(limit) => self.rows(values.iter().map(|&value| (value, limit)), all, back, breaks),
            Operand::Column(limits) => self.rows(values.iter().copied().zip(limits.iter().copied()), all, back, breaks),
            Operand::Computed => unreachable!("limits are numbers or columns"),
        }
    }

    fn rows(self, pairs: impl Iterator<Item = (f64, f64)>, all: bool, back: f64, breaks: impl Fn(f64, f64) -> bool) {
        let mask = |holds: bool| u64::from(holds).wrapping_neg();
        let masks = self.judged.iter_mut().zip(self.broken.iter_mut()).zip(self.held.iter_mut());
        for (((judged, broken), held), (value, limit)) in masks.zip(pairs) {
            let (is_broken, is_held) = (mask(breaks(value, limit)), mask(breaks(value, limit + back)));
            *judged &= mask(!value.is_nan() & !limit.is_nan());
            if all {
                *broken &= is_broken;
                *held &= is_held;
            } else {
                *broken |= is_broken;
                *held |= is_held;
            }
        }
    }
}

fn combine(out: &mut [f64], right: Operand<'_>, operation: impl Fn(f64, f64) -> f64) {
    match right {
        Operand::Number(number) => out.iter_mut().for_each(|value| *value = operation(*value, number)),
        Operand::Column(column) => {
            for (value, right) in out.iter_mut().zip(column) {
                *value = operation(*value, *right);
            }
        }
        Operand::Computed => unreachable!("computed before it is combined"),
    }
}

#[cfg(test)]
mod tests;
