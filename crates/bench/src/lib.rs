//! Measures connlog against what one would otherwise have: ratios of two things measured in turn in one run.

pub mod history;
pub mod plain;
pub mod reads;
pub mod service;
