//! Configuration of `connlog-query`: each flag has an environment variable, shown by `--help`.

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Parser;
use connlog_model::clock::Clock;
use connlog_model::retention::parse_positive_duration;
use connlog_runtime::program::positive;
use connlog_runtime::tls::TlsOptions;

/// Answers for the connection log over REST.
#[derive(Debug, Clone, Parser)]
#[command(name = "connlog-query", version)]
pub struct Config {
    /// PostgreSQL, as postgresql://… or key=value.
    #[arg(long, env = "CODER_PG_CONNECTION_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
    /// A file with the password of the database, read anew for each connection. If neither it nor the URL gives one, the file that
    /// PGPASSFILE names, or ~/.pgpass, does.
    #[arg(long, env = "CONNLOG_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
    /// The database is reached through a pooler in transaction mode, `PgBouncer`, say; the one for reads too.
    #[arg(long, env = "CONNLOG_DATABASE_POOLED")]
    pub database_pooled: bool,
    /// PostgreSQL to read the log from, a replica, say. Tokens and the audit stay in --database-url. The password file is for both.
    #[arg(long, env = "CONNLOG_DATABASE_READ_URL", hide_env_values = true, value_name = "URL")]
    pub database_read_url: Option<String>,
    /// Where the API is served.
    #[arg(long, env = "CONNLOG_QUERY_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "CONNLOG_QUERY_ADMIN_LISTEN", default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
    /// TLS of the listener.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Database connections, and so queries that run at once.
    #[arg(long, env = "CONNLOG_QUERY_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=500), value_name = "N")]
    pub connections: u16,
    /// Where counting stops if an exact count has to be made row by row.
    #[arg(long, env = "CONNLOG_COUNT_CAP", default_value_t = 2000, value_parser = clap::value_parser!(i64).range(1..=1_000_000), value_name = "N")]
    pub count_cap: i64,
    /// How long counting row by row may take before the count is capped.
    #[arg(long, env = "CONNLOG_COUNT_BUDGET", default_value = "15ms", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub count_budget: TimeDelta,
    /// How long a page may look for entries that no index finds before it is given out incomplete.
    #[arg(long, env = "CONNLOG_SCAN_BUDGET", default_value = "1s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub scan_budget: TimeDelta,
    /// How long a request may take.
    #[arg(long, env = "CONNLOG_REQUEST_TIMEOUT", default_value = "30s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub request_timeout: TimeDelta,
    /// How long the head of a request may take, and a connection be idle.
    #[arg(long, env = "CONNLOG_IDLE_TIMEOUT", default_value = "75s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub idle_timeout: TimeDelta,
    /// Largest head of a request, its URL included, in bytes.
    #[arg(long, env = "CONNLOG_MAX_HEAD_BYTES", default_value_t = 64 << 10, value_parser = head_bytes, value_name = "N")]
    pub max_head_bytes: usize,
    /// Most connections at once; further ones wait to be accepted.
    #[arg(long, env = "CONNLOG_QUERY_MAX_CONNECTIONS", default_value_t = 2000, value_parser = positive, value_name = "N")]
    pub max_connections: usize,
    /// Most connections of peers that sent no token that is recognized; for each further one of them ends.
    #[arg(long, env = "CONNLOG_QUERY_MAX_UNRECOGNIZED", default_value_t = 256, value_parser = positive, value_name = "N")]
    pub max_unrecognized: usize,
    /// How long a peer may leave an answer where it is; one that takes 16 KiB in that time is slow, and stays.
    #[arg(long, env = "CONNLOG_STALL_TIMEOUT", default_value = "1m", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub stall_timeout: TimeDelta,
    /// How long a recognized token is remembered. All are forgotten within seconds of a revocation.
    #[arg(long, env = "CONNLOG_TOKEN_CACHE", default_value = "30s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub token_cache: TimeDelta,
    /// How long a session of the dashboard goes on without a use: 5m or more.
    #[arg(long, env = "CONNLOG_SESSION_IDLE", default_value = "8h", value_parser = at_least::<5>, value_name = "DURATION")]
    pub session_idle: TimeDelta,
    /// How long a session of the dashboard goes on in all; it ends with its token, too.
    #[arg(long, env = "CONNLOG_SESSION_LIFETIME", default_value = "7d", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub session_lifetime: TimeDelta,
    /// How old the secret in a session's cookie may be before a page replaces it: 1m or more.
    #[arg(long, env = "CONNLOG_SESSION_RENEWAL", default_value = "15m", value_parser = at_least::<1>, value_name = "DURATION")]
    pub session_renewal: TimeDelta,
    /// Leaves `Strict-Transport-Security` out of answers by TLS: it is for all ports of the host.
    #[arg(long, env = "CONNLOG_NO_HSTS")]
    pub no_hsts: bool,
    /// Most exports at once.
    #[arg(long, env = "CONNLOG_MAX_EXPORTS", default_value_t = 4, value_name = "N")]
    pub max_exports: usize,
    /// Most exports of one token at once, so that nobody takes all of them. Further ones wait.
    #[arg(long, env = "CONNLOG_MAX_EXPORTS_PER_TOKEN", default_value_t = 2, value_parser = positive, value_name = "N")]
    pub max_exports_per_token: usize,
    /// How long an export waits for its turn before it is refused.
    #[arg(long, env = "CONNLOG_EXPORT_PATIENCE", default_value = "10s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub export_patience: TimeDelta,
    /// Most tails at once.
    #[arg(long, env = "CONNLOG_MAX_TAILS", default_value_t = 100, value_name = "N")]
    pub max_tails: usize,
    /// Most tails of one token at once, so that nobody takes all of them.
    #[arg(long, env = "CONNLOG_MAX_TAILS_PER_TOKEN", default_value_t = 20, value_parser = positive, value_name = "N")]
    pub max_tails_per_token: usize,
    /// How far behind a tail is before its client is told so.
    #[arg(long, env = "CONNLOG_TAIL_LAG", default_value = "5s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub tail_lag: TimeDelta,
    /// How long a shutdown may take.
    #[arg(long, env = "CONNLOG_GRACE_PERIOD", default_value = "20s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub grace_period: TimeDelta,
    /// Where the time comes from.
    #[arg(skip)]
    pub clock: Clock,
}

/// A duration of so many minutes or more.
fn at_least<const MINUTES: i64>(text: &str) -> Result<TimeDelta, String> {
    let duration = parse_positive_duration(text)?;
    if duration < TimeDelta::minutes(MINUTES) { Err(format!("must be {MINUTES}m or more")) } else { Ok(duration) }
}

/// The HTTP library needs some room to read at all.
fn head_bytes(text: &str) -> Result<usize, String> {
    let number: Option<usize> = text.parse().ok();
    number.filter(|number| (8192..=1 << 20).contains(number)).ok_or_else(|| "must be from 8192 to 1048576".to_owned())
}
