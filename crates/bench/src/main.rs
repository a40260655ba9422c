//! `connlog-bench`: makes history, and measures on it.

use anyhow::Result;
use chrono::Utc;
use clap::{Parser, Subcommand};
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
        Command::Reads { database_url } => reads::measure(&database_url).await,
    }
}
