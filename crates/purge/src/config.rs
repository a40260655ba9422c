//! Configuration of `connlog-purge`: flag before environment before file. An empty variable is unset.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta};
use clap::Parser;
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::retention::{Retention, parse_duration};
use serde::Deserialize;

/// Removes connection logs that are older than the retention.
#[derive(Debug, Clone, Parser)]
#[command(name = "connlog-purge", version)]
pub struct Config {
    /// PostgreSQL, as postgresql://… or key=value. Not a pooler: advisory locks need a session.
    #[arg(long, env = "CODER_PG_CONNECTION_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
    /// How long connection logs are kept, such as 90d; unset, 0 or negative keeps them for ever.
    #[arg(long, env = "CODER_CONNECTION_LOGS_RETENTION", value_name = "DURATION", allow_hyphen_values = true)]
    pub connection_logs_retention: Option<String>,
    /// A YAML file with `retention: {connection_logs: 90d}`.
    #[arg(long, env = "CONNLOG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only shows what would go.
    #[arg(long)]
    pub dry_run: bool,
    /// Purges as if it were this time.
    #[arg(long, value_name = "RFC3339", value_parser = time)]
    pub now: Option<Timestamp>,
    /// Prints the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// How long to wait for a lock, at a time; others wait behind purge no longer than this.
    #[arg(long, env = "CONNLOG_PURGE_LOCK_TIMEOUT", default_value = "50ms", value_parser = positive, value_name = "DURATION")]
    pub lock_timeout: TimeDelta,
    /// How often a lock is tried before the day is trimmed row by row.
    #[arg(long, env = "CONNLOG_PURGE_LOCK_ATTEMPTS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub lock_attempts: u32,
    /// Rows that are deleted in one transaction.
    #[arg(long, env = "CONNLOG_PURGE_BATCH_ROWS", default_value_t = 5000, value_parser = clap::value_parser!(i64).range(1..=100_000), value_name = "N")]
    pub batch_rows: i64,
    /// Open connections of agents heard of within this time are kept.
    #[arg(long, env = "CONNLOG_AGENT_LOST_AFTER", default_value = "10m", value_parser = positive, value_name = "DURATION")]
    pub agent_lost_after: TimeDelta,
}

/// The configuration, with its retention resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The rest of the configuration.
    pub config: Config,
    /// How long history is kept.
    pub retention: Retention,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    retention: RetentionSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionSection {
    connection_logs: Option<String>,
}

impl Settings {
    /// Resolves the retention; the error is one line that names the value.
    pub fn resolve(config: Config) -> Result<Self, String> {
        let retention = match &config.connection_logs_retention {
            Some(text) => text.parse().map_err(|error| format!("--connection-logs-retention: {error}"))?,
            None => config.config.as_deref().map_or(Ok(Retention::Forever), from_file)?,
        };
        Ok(Self { config, retention })
    }
}

fn from_file(path: &Path) -> Result<Retention, String> {
    let named = |error: &dyn std::fmt::Display| format!("--config {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    if text.trim().is_empty() {
        return Ok(Retention::Forever);
    }
    let file: File = serde_norway::from_str(&text).map_err(|error| named(&error))?;
    match file.retention.connection_logs {
        Some(text) => text.parse().map_err(|error| named(&format!("retention.connection_logs: {error}"))),
        None => Ok(Retention::Forever),
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|error| format!("not an RFC 3339 time: {error}"))?;
    Ok(truncate_to_micros(time.to_utc()))
}

fn positive(text: &str) -> Result<TimeDelta, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    let in_range = (TimeDelta::milliseconds(1)..=TimeDelta::days(1)).contains(&duration);
    if in_range { Ok(duration) } else { Err("must be from 1ms to 1d".to_owned()) }
}
