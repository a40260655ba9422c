//! Measures connlog against what one would otherwise have: ratios of two things measured in turn in one run.

mod cpu;
pub mod history;
pub mod ingest;
pub mod plain;
mod purge;
pub mod reads;
mod report;
pub mod run;
pub mod service;
mod unary;

/// The one in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
