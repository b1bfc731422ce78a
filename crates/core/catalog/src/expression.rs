//! Expressions of a class file, parsed and resolved.

use crate::Quantity;

/// An expression in f64 over one reading.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Expr {
    Number(f64),
    /// Index into the class's parameters.
    Parameter(usize),
    Quantity(Quantity),
    /// `mean60(x)` and its kin.
    Window(Statistic, Quantity),
    Negate(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// `abs` and `sqrt` take one argument, `min` and `max` two or more.
    Call(Function, Vec<Expr>),
}

/// A statistic of a 60 s window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Statistic {
    Mean,
    /// Population standard deviation.
    Std,
    Min,
    Max,
    /// Least squares, per minute.
    Slope,
}

/// `+ - * /`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// The functions of one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Function {
    Abs,
    Min,
    Max,
    Sqrt,
}
