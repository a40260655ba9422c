//! `connlog-bench`: makes history, and measures on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use chrono::Utc;
use clap::{Parser, Subcommand};
use connlog_bench::run::{Part, Scope, run};
use connlog_bench::{abuse, history};

/// Exit code if a figure misses its bound; a failure is 1.
const MISSED: u8 = 3;

/// Rows of the log that the services have which are attacked.
const ABUSED_ROWS: i64 = 20_000;

/// Measures connlog.
#[derive(Debug, Parser)]
#[command(name = "connlog-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fills an empty database with history that ends today.
    Generate {
        /// PostgreSQL, as postgresql://… or key=value.
        #[arg(long, value_name = "URL")]
        database_url: String,
        /// How many rows.
        #[arg(long, default_value_t = 10_000_000, value_name = "N")]
        rows: i64,
        /// Over how many days.
        #[arg(long, default_value_t = 90, value_name = "N")]
        days: u32,
    },
    /// Fills an empty database and measures everything on it. `cargo xtask bench` does this on a server of its own.
    Run {
        /// PostgreSQL on this machine, as postgresql://… or key=value.
        #[arg(long, value_name = "URL")]
        database_url: String,
        /// In a few minutes, on a tenth of the history.
        #[arg(long)]
        quick: bool,
        /// Also with 50 M rows of history.
        #[arg(long, conflicts_with = "quick")]
        large: bool,
        /// The same database through a pooler in transaction mode.
        #[arg(long, value_name = "URL")]
        pooler_url: Option<String>,
        /// Only this, and nothing else; may be repeated.
        #[arg(long, value_name = "PART")]
        only: Vec<Part>,
        /// The database is filled: `generate`, or an earlier run, has done it.
        #[arg(long)]
        filled: bool,
        /// Where the figures are written, as JSON.
        #[arg(long, value_name = "FILE")]
        report: PathBuf,
    },
    /// Fills an empty database, attacks services on it, and measures what that costs them and others.
    Abuse {
        /// PostgreSQL on this machine, as postgresql://… or key=value.
        #[arg(long, value_name = "URL")]
        database_url: String,
        /// How long each attack goes on, in seconds.
        #[arg(long, default_value_t = 60, value_name = "N")]
        seconds: u64,
    },
    /// One attack by itself, as `abuse` starts it.
    #[command(hide = true)]
    Attack {
        #[arg(long)]
        name: String,
        #[arg(long)]
        ingest: SocketAddr,
        #[arg(long)]
        query: SocketAddr,
        #[arg(long)]
        token: String,
        #[arg(long)]
        seconds: u64,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Generate { database_url, rows, days } => {
            history::generate(&database_url, rows, days, Utc::now().date_naive()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { database_url, quick, large, pooler_url, only, filled, report } => {
            let mut scope = if quick { Scope::quick() } else { Scope::full(large) };
            (scope.only, scope.filled, scope.pooler_url) = (only, filled, pooler_url);
            Ok(ended(&run(&database_url, &scope, &report).await?))
        }
        Command::Abuse { database_url, seconds } => {
            history::generate(&database_url, ABUSED_ROWS, 2, Utc::now().date_naive()).await?;
            Ok(ended(&abuse::run(&database_url, Duration::from_secs(seconds)).await?))
        }
        Command::Attack { name, ingest, query, token, seconds } => {
            abuse::attack(&name, ingest, query, &token, Duration::from_secs(seconds)).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn ended(missed: &[&str]) -> ExitCode {
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("these miss what is wanted: {}", missed.join(", "));
    ExitCode::from(MISSED)
}
