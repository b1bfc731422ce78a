//! Explanations of the real data set, checked by arithmetic of their own.

mod ai4i;
mod real_failures;
