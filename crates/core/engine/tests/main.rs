//! The engine from outside: the same effects in any split and through any crash, alarms that are faults alone, and laws
//! held to arithmetic of the tests' own.

mod arithmetic;
mod classes;
mod delays;
mod faults;
mod journal;
mod line;
mod lots;
mod mill_laws;
mod occurrences;
mod readings;
mod scenario;
mod shapes;
mod shift;
mod snapshots;
mod splits;
mod windows;
mod workshop;
