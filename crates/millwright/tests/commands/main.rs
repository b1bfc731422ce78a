//! The built program as people have it: commands on files, and `up` started, spoken to over HTTP, stopped.
#![cfg(test)]

mod alert_schema;
mod doctor;
mod documents;
mod evaluate;
mod json_output;
mod ledger;
mod product;
mod run;
mod schemas;
mod streams;
mod up;
