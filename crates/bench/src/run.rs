//! All measurements in turn on one database.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::Utc;
use clap::ValueEnum;
use connlog_testkit::database::connect;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::ingest::{self, Size};
use crate::load::{self, Load, Mixed};
use crate::report::Report;
use crate::{costs, fleet, growth, history, peer, pooled, purge, reads, unary};

/// Days of history.
pub(crate) const DAYS: u32 = 90;
/// Files that this program and the services may have open, if the system lets them.
const OPEN_FILES: u64 = 200_000;

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Pages, counts, exports, and bytes a row.
    Reads,
    /// Events over streams.
    Ingest,
    /// What the steps of writing cost.
    Costs,
    /// Single calls.
    Unary,
    /// Thousands of agents.
    Load,
    /// Writing and reading at the same time.
    Mixed,
    /// Through a pooler.
    Pooled,
    /// How figures grow with history.
    Growth,
    /// A day that is over.
    Purge,
}

/// What is measured, and how much of it.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Only these; empty is everything.
    pub only: Vec<Part>,
    /// The database is filled already.
    pub filled: bool,
    /// The same database through a pooler in transaction mode.
    pub pooler_url: Option<String>,
    rows: i64,
    /// Further sizes of history, for how figures grow.
    sizes: Vec<i64>,
    size: Size,
    calls: u32,
    load: Load,
    mixed: Mixed,
    rows_of_purged_day: i64,
}

impl Scope {
    /// All of it: 10 M rows of history; and 50 M if it is to be `large`.
    pub fn full(large: bool) -> Self {
        let mut sizes = vec![1_000_000];
        sizes.extend(large.then_some(50_000_000));
        Self {
            only: Vec::new(),
            filled: false,
            pooler_url: None,
            rows: 10_000_000,
            sizes,
            size: Size { events: 200_000, agents: 40, rounds: 5 },
            calls: 1_000,
            load: Load {
                agents: 10_000,
                events: 200_000,
                idle: Duration::from_secs(30),
                largest: vec![15_000, 19_500],
            },
            mixed: Mixed { window: Duration::from_secs(8), rounds: 5 },
            rows_of_purged_day: 1_000_000,
        }
    }

    /// In a few minutes: 1 M rows of history.
    pub fn quick() -> Self {
        Self {
            rows: 1_000_000,
            sizes: vec![100_000],
            size: Size { events: 100_000, agents: 20, rounds: 5 },
            calls: 600,
            load: Load { agents: 2_000, events: 40_000, idle: Duration::from_secs(10), largest: vec![4_000] },
            mixed: Mixed { window: Duration::from_secs(2), rounds: 5 },
            rows_of_purged_day: 200_000,
            ..Self::full(false)
        }
    }

    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Fills an empty database, measures, prints, and writes the report to `file`. Returns the figures that miss a bound.
pub async fn run(database_url: &str, scope: &Scope, file: &Path) -> Result<Vec<&'static str>> {
    let began = Instant::now();
    allow_many_files()?;
    if !scope.filled {
        println!("filling a database with {} rows", scope.rows);
        history::generate(database_url, scope.rows, DAYS, Utc::now().date_naive()).await?;
    }
    let client = connect(database_url).await?;
    let mut report = Report::new(file);
    let agents = fleet::enlist(&client, scope.size.agents.max(load::MIXED_AGENTS)).await?;
    if scope.has(Part::Growth) {
        let points = growth::measure(database_url, scope.rows, &scope.sizes, scope.size, &mut report).await?;
        std::fs::write(file.with_file_name("growth.svg"), growth::chart(&points))?;
    }
    peer::make(&client).await?;
    if scope.has(Part::Reads) {
        reads::measure(database_url, &agents, &mut report).await?;
    }
    let service = ingest::start(database_url, &[])?;
    if scope.has(Part::Ingest) {
        ingest::measure(database_url, &service, &agents, scope.size, &mut report).await?;
    }
    if scope.has(Part::Costs) {
        costs::measure(database_url, &agents, scope.size.rounds).await?;
    }
    if scope.has(Part::Unary) {
        unary::measure(database_url, &service, &agents[0], (scope.calls, scope.size.rounds), &mut report).await?;
    }
    if let Some(pooler_url) = scope.pooler_url.as_deref().filter(|_| scope.has(Part::Pooled)) {
        pooled::measure(database_url, pooler_url, &service, &agents, scope.size, &mut report).await?;
    }
    if scope.has(Part::Purge) {
        purge::measure(database_url, scope.rows_of_purged_day, scope.size.rounds, &mut report).await?;
    }
    if scope.has(Part::Mixed) {
        load::measure_mixed(database_url, &service, &agents, scope.mixed, &mut report).await?;
    }
    drop(service);
    if scope.has(Part::Load) {
        load::measure(database_url, &scope.load, &mut report).await?;
    }
    report.print();
    println!("\nthe report is in {}; it took {:.1} minutes", file.display(), began.elapsed().as_secs_f64() / 60.0);
    Ok(report.missed())
}

/// Each agent has a socket, here and in the service, which inherits the limit.
pub(crate) fn allow_many_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Only root may go past the hard limit.
    if setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
