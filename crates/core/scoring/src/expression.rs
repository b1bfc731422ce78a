//! Evaluates an expression for one reading.
//!
//! The columns of a batch are evaluated by `columns` with the same operations in the same order: same bits.

use catalog::{Expr, Function, Operator, Quantity, Statistic};

/// What an expression may name. NaN stands for what is missing.
pub(crate) trait Names {
    fn parameter(&self, at: usize) -> f64;
    fn quantity(&self, quantity: Quantity) -> f64;
    fn window(&self, statistic: Statistic, quantity: Quantity) -> f64;
}

/// Parameters alone: what a limit may name.
pub(crate) struct Parameters<'a>(pub(crate) &'a [f64]);

impl Names for Parameters<'_> {
    fn parameter(&self, at: usize) -> f64 {
        self.0[at]
    }

    fn quantity(&self, _: Quantity) -> f64 {
        f64::NAN
    }

    fn window(&self, _: Statistic, _: Quantity) -> f64 {
        f64::NAN
    }
}

/// The value of an expression; NaN where something that it names is missing.
pub(crate) fn evaluate(expr: &Expr, names: &impl Names) -> f64 {
    match expr {
        Expr::Number(number) => *number,
        Expr::Parameter(at) => names.parameter(*at),
        Expr::Quantity(quantity) => names.quantity(*quantity),
        Expr::Window(statistic, quantity) => names.window(*statistic, *quantity),
        Expr::Negate(of) => -evaluate(of, names),
        Expr::Binary(operator, left, right) => binary(*operator, evaluate(left, names), evaluate(right, names)),
        Expr::Call(function, arguments) => {
            let mut values = arguments.iter().map(|argument| evaluate(argument, names));
            let first = values.next().unwrap_or(f64::NAN);
            match function {
                Function::Abs => first.abs(),
                Function::Sqrt => first.sqrt(),
                Function::Min => values.fold(first, least),
                Function::Max => values.fold(first, greatest),
            }
        }
    }
}

/// One operation.
pub(crate) fn binary(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
    }
}

/// The smaller one; NaN where either is, unlike `f64::min`.
pub(crate) fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// The larger one; NaN where either is, unlike `f64::max`.
pub(crate) fn greatest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// What is not finite is not judged: NaN.
pub(crate) fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}

/// Calls `seen` with every leaf.
pub(crate) fn walk<'a>(expr: &'a Expr, seen: &mut impl FnMut(&'a Expr)) {
    match expr {
        Expr::Negate(of) => walk(of, seen),
        Expr::Binary(_, left, right) => {
            walk(left, seen);
            walk(right, seen);
        }
        Expr::Call(_, arguments) => arguments.iter().for_each(|argument| walk(argument, seen)),
        leaf => seen(leaf),
    }
}
