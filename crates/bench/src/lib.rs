//! Measures connlog against what one would otherwise have: ratios of two things measured in turn in one run.

pub mod abuse;
mod costs;
mod cpu;
mod figures;
mod fleet;
mod growth;
pub mod history;
pub mod ingest;
mod load;
pub mod peer;
mod pooled;
mod purge;
pub mod reads;
mod report;
pub mod run;
pub mod service;
mod sessions;
mod stream;
mod unary;
mod wire;

/// The one in the middle.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 50)
}

/// What so many percent of the values do not exceed.
pub(crate) fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
