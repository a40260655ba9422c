//! `connlog-purge`: removes what is older than the retention, and proves that it did.
//!
//! It raises the retention floor first, so that nothing purged comes back; then removes what is due of what is open, drops whole days,
//! trims the day of the cutoff in batches, and compacts what is closed. A reader that holds a day for longer than purge
//! will wait costs only time: that day is trimmed row by row instead.

pub mod config;
mod report;
mod run;
mod serve;
mod summary;

pub use config::{Config, Settings};
pub use run::{Failure, run};
pub use serve::{open, serve};
pub use summary::{Outcome, Summary};
