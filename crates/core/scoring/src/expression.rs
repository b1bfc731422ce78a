//! Evaluates an expression for one reading.
