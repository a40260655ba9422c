//! All measurements in turn on one database.

use std::path::Path;

use anyhow::Result;
use chrono::Utc;
use connlog_testkit::database::connect;

use crate::ingest::{self, Size};
use crate::report::Report;
use crate::service::Ingest;
use crate::{history, plain, purge, reads, unary};

/// Days of history.
const DAYS: u32 = 90;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    rows: i64,
    size: Size,
    calls: u32,
    rows_of_purged_day: i64,
}

impl Scope {
    /// All of it: 10 M rows of history.
    pub fn full() -> Self {
        let size = Size { events: 200_000, agents: 16, rounds: 5 };
        Self { rows: 10_000_000, size, calls: 2_000, rows_of_purged_day: 1_000_000 }
    }

    /// In a few minutes: 1 M rows of history.
    pub fn quick() -> Self {
        let size = Size { events: 100_000, agents: 16, rounds: 5 };
        Self { rows: 1_000_000, size, calls: 600, rows_of_purged_day: 200_000 }
    }
}

/// Fills an empty database, measures, prints, and writes the report to `file`.
pub async fn run(database_url: &str, scope: Scope, file: &Path) -> Result<()> {
    println!("filling a database with {} rows", scope.rows);
    history::generate(database_url, scope.rows, DAYS, Utc::now().date_naive()).await?;
    plain::make(&connect(database_url).await?).await?;
    let mut report = Report::default();
    reads::measure(database_url, &mut report).await?;
    let sites = ingest::sites(database_url, scope.size.agents).await?;
    let service = Ingest::start(database_url, ingest::WRITERS)?;
    ingest::measure(database_url, &service, &sites, scope.size, &mut report).await?;
    unary::measure(database_url, &service, &sites[0], (scope.calls, scope.size.rounds), &mut report).await?;
    drop(service);
    purge::measure(database_url, scope.rows_of_purged_day, &mut report).await?;
    report.print();
    report.write(file)?;
    println!("\nthe report is in {}", file.display());
    Ok(())
}
