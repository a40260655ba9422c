//! Configuration of `connlog-purge`: flag before environment before file. An empty variable is unset.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta};
use clap::Parser;
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::retention::{Retention, parse_duration};
use serde::Deserialize;

/// A key with at most so many wrong letters is taken for a slip. Any other unknown key is somebody else's.
const MISSPELT: usize = 2;

/// Removes connection logs that are older than the retention.
#[derive(Debug, Clone, Parser)]
#[command(name = "connlog-purge", version)]
pub struct Config {
    /// PostgreSQL, as postgresql://… or key=value.
    #[arg(long, env = "CODER_PG_CONNECTION_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
    /// A file with the password of the database, read anew for each connection. If neither it nor the URL gives one, the file that
    /// PGPASSFILE names, or ~/.pgpass, does.
    #[arg(long, env = "CONNLOG_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
    /// How long connection logs are kept, such as 90d; unset, 0 or negative keeps them for ever.
    #[arg(long, env = "CODER_CONNECTION_LOGS_RETENTION", value_name = "DURATION", allow_hyphen_values = true)]
    pub connection_logs_retention: Option<String>,
    /// How long dead letters are kept; as long as connection logs, if not given.
    #[arg(long, env = "CONNLOG_REJECTED_EVENTS_RETENTION", value_name = "DURATION", allow_hyphen_values = true)]
    pub rejected_events_retention: Option<String>,
    /// How long records of losses are kept; as long as connection logs, if not given.
    #[arg(long, env = "CONNLOG_LOST_EVENTS_RETENTION", value_name = "DURATION", allow_hyphen_values = true)]
    pub lost_events_retention: Option<String>,
    /// How long records of uses of the API are kept; as long as connection logs, if not given.
    #[arg(long, env = "CONNLOG_AUDIT_RETENTION", value_name = "DURATION", allow_hyphen_values = true)]
    pub audit_retention: Option<String>,
    /// A YAML file with `retention: {connection_logs: 90d}`, and there also `rejected_events`, `lost_events` and `audit`.
    #[arg(long, env = "CONNLOG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only shows what would go.
    #[arg(long)]
    pub dry_run: bool,
    /// Goes on running, and purges so often, for those without a scheduler; not with --dry-run or --now.
    #[arg(long, env = "CONNLOG_PURGE_EVERY", value_name = "DURATION", value_parser = interval)]
    pub every: Option<TimeDelta>,
    /// Where /livez, /readyz and /metrics are served while it goes on running.
    #[arg(long, env = "CONNLOG_PURGE_ADMIN_LISTEN", value_name = "ADDRESS", requires = "every")]
    pub admin_listen: Option<SocketAddr>,
    /// Writes metrics to this file after each run, for the textfile collector of the Prometheus node exporter.
    #[arg(long, env = "CONNLOG_PURGE_METRICS_TEXTFILE", value_name = "FILE")]
    pub metrics_textfile: Option<PathBuf>,
    /// Pushes metrics after each run to this Prometheus Pushgateway, as job connlog-purge.
    #[arg(long, env = "CONNLOG_PURGE_METRICS_PUSHGATEWAY", value_name = "URL", value_parser = http_url)]
    pub metrics_pushgateway: Option<String>,
    /// Purges as if it were this time; what is to come, by the clock of the database, stays.
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
    /// Rewrites days that are over without the room that their pages had for changes.
    #[arg(long, env = "CONNLOG_PURGE_COMPACT", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub compact: bool,
    /// Open connections of agents heard of within this time are kept.
    #[arg(long, env = "CONNLOG_AGENT_LOST_AFTER", default_value = "10m", value_parser = positive, value_name = "DURATION")]
    pub agent_lost_after: TimeDelta,
}

/// The configuration, with its retention resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The rest of the configuration.
    pub config: Config,
    /// How long each kind of record is kept.
    pub retentions: Retentions,
}

/// How long each kind of record is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retentions {
    /// The log.
    pub log: Retention,
    /// Dead letters.
    pub rejected: Retention,
    /// Losses.
    pub lost: Retention,
    /// Uses of the API.
    pub audit: Retention,
}

/// A configuration that others read, too: sections that are not known here are theirs.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    retention: RetentionSection,
}

#[derive(Debug, Default, Deserialize)]
struct RetentionSection {
    connection_logs: Option<String>,
    rejected_events: Option<String>,
    lost_events: Option<String>,
    audit: Option<String>,
}

impl Settings {
    /// Resolves the retentions; the error is one line that names the value.
    pub fn resolve(mut config: Config) -> Result<Self, String> {
        if config.dry_run || config.now.is_some() {
            // It may come from the environment of a container that usually goes on running.
            config.every = None;
        }
        let file = config.config.as_deref().map_or_else(|| Ok(RetentionSection::default()), from_file)?;
        let resolve = |flag: &str, given: &Option<String>, key: &str, of_file: &Option<String>| match (given, of_file) {
            (Some(text), _) => text.parse().map(Some).map_err(|error| format!("--{flag}: {error}")),
            (None, Some(text)) => {
                let path = config.config.as_deref().unwrap_or(Path::new("")).display();
                text.parse().map(Some).map_err(|error| format!("--config {path}: retention.{key}: {error}"))
            }
            (None, None) => Ok(None),
        };
        let log = resolve(
            "connection-logs-retention",
            &config.connection_logs_retention,
            "connection_logs",
            &file.connection_logs,
        )?
        .unwrap_or(Retention::Forever);
        let rejected = resolve(
            "rejected-events-retention",
            &config.rejected_events_retention,
            "rejected_events",
            &file.rejected_events,
        )?;
        let lost = resolve("lost-events-retention", &config.lost_events_retention, "lost_events", &file.lost_events)?;
        let audit = resolve("audit-retention", &config.audit_retention, "audit", &file.audit)?;
        let retentions = Retentions {
            log,
            rejected: rejected.unwrap_or(log),
            lost: lost.unwrap_or(log),
            audit: audit.unwrap_or(log),
        };
        Ok(Self { config, retentions })
    }
}

fn from_file(path: &Path) -> Result<RetentionSection, String> {
    let named = |error: &dyn std::fmt::Display| format!("--config {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    let retention = from_text(&text).map_err(|error| named(&error))?;
    if !text.trim().is_empty() && retention.connection_logs.is_none() {
        eprintln!("warning: --config {} has no retention.connection_logs", path.display());
    }
    Ok(retention)
}

/// Checks the text of a configuration file; the error says what is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    from_text(text).map(drop)
}

fn from_text(text: &str) -> Result<RetentionSection, String> {
    if text.trim().is_empty() {
        return Ok(RetentionSection::default());
    }
    let file: File = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let whole: serde_norway::Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let slip = slip(&whole, "", &["retention"]).or_else(|| {
        slip(whole.get("retention")?, "retention.", &["connection_logs", "rejected_events", "lost_events", "audit"])
    });
    slip.map_or(Ok(file.retention), Err)
}

/// A key of a section that nobody reads, and that looks like one of `known`.
fn slip(section: &serde_norway::Value, name: &str, known: &[&str]) -> Option<String> {
    let keys = section.as_mapping()?.keys().filter_map(serde_norway::Value::as_str);
    keys.filter(|key| !known.contains(key)).find_map(|key| {
        let is_near = |known: &&&str| strsim::damerau_levenshtein(known, &key.to_lowercase()) <= MISSPELT;
        let meant = known.iter().find(is_near)?;
        Some(format!("unknown key `{name}{key}`; did you mean `{name}{meant}`?"))
    })
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|error| format!("not an RFC 3339 time: {error}"))?;
    Ok(truncate_to_micros(time.to_utc()))
}

fn interval(text: &str) -> Result<TimeDelta, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    let in_range = (TimeDelta::seconds(1)..=TimeDelta::days(7)).contains(&duration);
    if in_range { Ok(duration) } else { Err("must be from 1s to 7d".to_owned()) }
}

fn http_url(text: &str) -> Result<String, String> {
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    if is_http {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("must begin with http:// or https://".to_owned())
    }
}

fn positive(text: &str) -> Result<TimeDelta, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    let in_range = (TimeDelta::milliseconds(1)..=TimeDelta::days(1)).contains(&duration);
    if in_range { Ok(duration) } else { Err("must be from 1ms to 1d".to_owned()) }
}
