//! `connlog-bench`: makes history, and measures on it.

use anyhow::Result;
use chrono::Utc;
use clap::{Parser, Subcommand};
use connlog_bench::ingest::{self, Size};
use connlog_bench::{history, reads};

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
    /// Measures writing, on a database that was filled so.
    Ingest {
        /// PostgreSQL, as postgresql://… or key=value, on this machine.
        #[arg(long, value_name = "URL")]
        database_url: String,
        /// Events of a round.
        #[arg(long, default_value_t = 200_000, value_name = "N")]
        events: u32,
        /// Agents, each with a stream.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
        agents: u32,
        /// Rounds.
        #[arg(long, default_value_t = 5, value_name = "N")]
        rounds: u32,
    },
    /// Measures pages, counts, exports and storage on a database that was filled so.
    Reads {
        /// PostgreSQL, as postgresql://… or key=value.
        #[arg(long, value_name = "URL")]
        database_url: String,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Generate { database_url, rows, days } => {
            history::generate(&database_url, rows, days, Utc::now().date_naive()).await
        }
        Command::Ingest { database_url, events, agents, rounds } => {
            ingest::measure(&database_url, Size { events, agents, rounds }).await
        }
        Command::Reads { database_url } => reads::measure(&database_url).await,
    }
}
