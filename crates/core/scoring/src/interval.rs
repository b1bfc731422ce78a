//! Expressions and logic over ranges of values: what may hold, and what must, for every reading of a box.
//!
//! Rounding to nearest is monotone, so that the rounded operation on the ends encloses the rounded operation on
//! everything between them: the bounds hold for the doubles that `expression` computes, without directed rounding.

use crate::{expression, logic};
use catalog::{Comparison, Expr, Function, LogicMode, Operator, Quantity, Statistic};

/// Where a value may lie. `low > high`: it is missing for sure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// It may be missing (NaN).
    pub(crate) missing: bool,
}

/// What a range of readings says of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truth {
    /// True for every reading.
    pub(crate) must: bool,
    /// Perhaps true for one of them.
    pub(crate) can: bool,
}

/// What an expression may name.
pub(crate) trait Ranges {
    fn parameter(&self, at: usize) -> f64;
    fn quantity(&self, quantity: Quantity) -> Interval;
    fn window(&self, statistic: Statistic, quantity: Quantity) -> Interval;
}

impl Interval {
    pub(crate) const MISSING: Interval = Interval { low: f64::INFINITY, high: f64::NEG_INFINITY, missing: true };
    const ANY: Interval = Interval { low: f64::NEG_INFINITY, high: f64::INFINITY, missing: true };

    pub(crate) fn point(value: f64) -> Interval {
        Interval::between(value, value)
    }

    /// Both ends included; NaN: missing.
    pub(crate) fn between(low: f64, high: f64) -> Interval {
        if low.is_nan() || high.is_nan() { Interval::MISSING } else { Interval { low, high, missing: false } }
    }

    fn is_missing(self) -> bool {
        self.low > self.high
    }

    /// What is not finite is not judged.
    pub(crate) fn finite(self) -> Interval {
        if self.low == self.high && self.low.is_infinite() {
            return Interval::MISSING;
        }
        Interval { missing: self.missing || self.low.is_infinite() || self.high.is_infinite(), ..self }
    }

    fn around(values: [f64; 4], missing: bool) -> Interval {
        if values.iter().any(|value| value.is_nan()) {
            return Interval::ANY;
        }
        let low = values.into_iter().fold(f64::INFINITY, f64::min);
        let high = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
        Interval { low, high, missing }
    }
}

impl Truth {
    pub(crate) const YES: Truth = Truth { must: true, can: true };

    pub(crate) fn and(self, other: Truth) -> Truth {
        Truth { must: self.must && other.must, can: self.can && other.can }
    }

    pub(crate) fn or(self, other: Truth) -> Truth {
        Truth { must: self.must || other.must, can: self.can || other.can }
    }

    pub(crate) fn not(self) -> Truth {
        Truth { must: !self.can, can: !self.must }
    }
}

/// The range of an expression.
pub(crate) fn evaluate(expr: &Expr, names: &impl Ranges) -> Interval {
    match expr {
        Expr::Number(number) => Interval::point(*number),
        Expr::Parameter(at) => Interval::point(names.parameter(*at)),
        Expr::Quantity(quantity) => names.quantity(*quantity),
        Expr::Window(statistic, quantity) => names.window(*statistic, *quantity),
        Expr::Negate(of) => {
            let of = evaluate(of, names);
            Interval { low: -of.high, high: -of.low, ..of }
        }
        Expr::Binary(operator, left, right) => binary(*operator, evaluate(left, names), evaluate(right, names)),
        Expr::Call(function, arguments) => {
            let mut ranges = arguments.iter().map(|argument| evaluate(argument, names));
            let first = ranges.next().unwrap_or(Interval::MISSING);
            match function {
                Function::Abs => absolute(first),
                Function::Sqrt => root(first),
                Function::Min => ranges.fold(first, |a, b| pick(a, b, expression::least)),
                Function::Max => ranges.fold(first, |a, b| pick(a, b, expression::greatest)),
            }
        }
    }
}

fn binary(operator: Operator, a: Interval, b: Interval) -> Interval {
    if a.is_missing() || b.is_missing() {
        return Interval::MISSING;
    }
    let missing = a.missing || b.missing;
    // Either sign of zero compares as zero, so that not even a division by the point 0 is known.
    if operator == Operator::Divide && b.low <= 0.0 && b.high >= 0.0 {
        return Interval::ANY;
    }
    if a.low == a.high && b.low == b.high {
        let value = Interval::point(expression::binary(operator, a.low, b.low));
        return Interval { missing: missing || value.missing, ..value };
    }
    let of = |a, b| expression::binary(operator, a, b);
    Interval::around([of(a.low, b.low), of(a.low, b.high), of(a.high, b.low), of(a.high, b.high)], missing)
}

fn absolute(of: Interval) -> Interval {
    if of.is_missing() || of.low >= 0.0 {
        of
    } else if of.high <= 0.0 {
        Interval { low: -of.high, high: -of.low, ..of }
    } else {
        Interval { low: 0.0, high: of.high.max(-of.low), ..of }
    }
}

fn root(of: Interval) -> Interval {
    if of.is_missing() || of.high < 0.0 {
        return Interval::MISSING;
    }
    Interval { low: of.low.max(0.0).sqrt(), high: of.high.sqrt(), missing: of.missing || of.low < 0.0 }
}

fn pick(a: Interval, b: Interval, of: fn(f64, f64) -> f64) -> Interval {
    if a.is_missing() || b.is_missing() {
        return Interval::MISSING;
    }
    Interval { low: of(a.low, b.low), high: of(a.high, b.high), missing: a.missing || b.missing }
}

/// One term with its limit as a number; a NaN limit is not judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) quantity: Quantity,
    pub(crate) comparison: Comparison,
    pub(crate) limit: f64,
}

/// Judges a logic over ranges: (it can be judged, it is judged and holds).
pub(crate) fn judge(mode: LogicMode, bounds: &[Bound], range: impl Fn(Quantity) -> Interval) -> (Truth, Truth) {
    let all = mode == LogicMode::All;
    let mut judged = Truth::YES;
    let mut holds = if all { Truth::YES } else { Truth::YES.not() };
    for bound in bounds {
        let value = range(bound.quantity);
        let there = !value.is_missing() && !bound.limit.is_nan();
        judged = judged.and(Truth { must: there && !value.missing, can: there });
        let at_low = logic::breaks(bound.comparison, value.low, bound.limit);
        let at_high = logic::breaks(bound.comparison, value.high, bound.limit);
        let breaks = Truth { must: there && at_low && at_high, can: there && (at_low || at_high) };
        holds = if all { holds.and(breaks) } else { holds.or(breaks) };
    }
    (judged, holds.and(judged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Names;
    use proptest::prelude::*;

    struct Box2 {
        low: [f64; 2],
        high: [f64; 2],
    }

    impl Ranges for Box2 {
        fn parameter(&self, _: usize) -> f64 {
            2.5
        }

        fn quantity(&self, quantity: Quantity) -> Interval {
            let Quantity::Channel(at) = quantity else { return Interval::MISSING };
            Interval::between(self.low[at], self.high[at])
        }

        fn window(&self, _: Statistic, quantity: Quantity) -> Interval {
            self.quantity(quantity)
        }
    }

    struct Point([f64; 2]);

    impl Names for Point {
        fn parameter(&self, _: usize) -> f64 {
            2.5
        }

        fn quantity(&self, quantity: Quantity) -> f64 {
            let Quantity::Channel(at) = quantity else { return f64::NAN };
            self.0[at]
        }

        fn window(&self, _: Statistic, quantity: Quantity) -> f64 {
            self.quantity(quantity)
        }
    }

    fn any_expr() -> impl Strategy<Value = Expr> {
        let leaf = prop_oneof![
            (-3.0f64..3.0).prop_map(Expr::Number),
            Just(Expr::Parameter(0)),
            (0usize..2).prop_map(|at| Expr::Quantity(Quantity::Channel(at))),
            (0usize..2).prop_map(|at| Expr::Window(Statistic::Mean, Quantity::Channel(at))),
        ];
        leaf.prop_recursive(5, 40, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|of| Expr::Negate(Box::new(of))),
                (
                    prop::sample::select(vec![Operator::Add, Operator::Subtract, Operator::Multiply, Operator::Divide]),
                    inner.clone(),
                    inner.clone()
                )
                    .prop_map(|(operator, a, b)| Expr::Binary(operator, Box::new(a), Box::new(b))),
                (prop::sample::select(vec![Function::Abs, Function::Sqrt]), inner.clone())
                    .prop_map(|(function, of)| Expr::Call(function, vec![of])),
                (prop::sample::select(vec![Function::Min, Function::Max]), inner.clone(), inner)
                    .prop_map(|(function, a, b)| Expr::Call(function, vec![a, b])),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_range_encloses_every_value(
            expr in any_expr(),
            low in prop::array::uniform2(-50i32..50),
            span in prop::array::uniform2(0i32..40),
            at in prop::array::uniform2(0.0f64..=1.0),
        ) {
            let place = |channel: usize| low[channel] + (f64::from(span[channel]) * at[channel]).floor() as i32;
            let unit = |value: i32| f64::from(value) / 10.0;
            let value = expression::finite(expression::evaluate(&expr, &Point([unit(place(0)), unit(place(1))])));
            let boxed = Box2 { low: low.map(unit), high: [unit(low[0] + span[0]), unit(low[1] + span[1])] };
            let range = evaluate(&expr, &boxed).finite();
            prop_assert!(if value.is_nan() { range.missing } else { range.low <= value && value <= range.high }, "{value} {range:?}");
            if span == [0, 0] && !range.missing {
                prop_assert!(range.low == value && range.high == value);
            }
        }
    }
}
