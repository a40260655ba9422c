//! Configuration of `connlog-ingest`: each flag has an environment variable, shown by `--help`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use clap::Parser;
use connlog_model::clock::Clock;
use connlog_model::retention::parse_positive_duration;
use connlog_runtime::program::positive;
use connlog_runtime::tls::TlsOptions;

/// Receives connection events over gRPC and commits them to PostgreSQL.
#[derive(Debug, Clone, Parser)]
#[command(name = "connlog-ingest", version)]
pub struct Config {
    /// PostgreSQL, as postgresql://… or key=value.
    #[arg(long, env = "CODER_PG_CONNECTION_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
    /// A file with the password of the database, read anew for each connection. If neither it nor the URL gives one, the file that
    /// PGPASSFILE names, or ~/.pgpass, does.
    #[arg(long, env = "CONNLOG_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
    /// The database is reached through a pooler in transaction mode, `PgBouncer`, say.
    #[arg(long, env = "CONNLOG_DATABASE_POOLED")]
    pub database_pooled: bool,
    /// Where agents and reporters connect.
    #[arg(long, env = "CONNLOG_INGEST_LISTEN", default_value = "127.0.0.1:7070", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "CONNLOG_INGEST_ADMIN_LISTEN", default_value = "127.0.0.1:7071", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
    /// TLS of the listener.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Turns away whoever shows a client certificate that is not bound to their agent or token.
    #[arg(long, env = "CONNLOG_REQUIRE_BOUND_CERTIFICATES", requires = "tls_client_ca")]
    pub require_bound_certificates: bool,
    /// Each accepted event as one line of JSON, appended to this file.
    #[arg(long, env = "CODER_LOGGING_JSON", value_name = "PATH")]
    pub log_json: Option<PathBuf>,
    /// Each accepted event as one line for people, appended to this file.
    #[arg(long, env = "CODER_LOGGING_HUMAN", value_name = "PATH")]
    pub log_human: Option<PathBuf>,
    /// Writers, each with a database connection of its own: 1 to 15.
    #[arg(long, env = "CONNLOG_WRITERS", default_value_t = 2, value_parser = clap::value_parser!(i16).range(1..=15))]
    pub writers: i16,
    /// Most events in one transaction.
    #[arg(long, env = "CONNLOG_MAX_TRANSACTION_EVENTS", default_value_t = 2000, value_parser = positive, value_name = "N")]
    pub max_transaction_events: usize,
    /// Most events that wait for a writer; beyond it streams are not read and unary callers are told to come back.
    #[arg(long, env = "CONNLOG_MAX_QUEUED_EVENTS", default_value_t = 50_000, value_parser = positive, value_name = "N")]
    pub max_queued_events: usize,
    /// Most events in one message.
    #[arg(long, env = "CONNLOG_MAX_BATCH_EVENTS", default_value_t = 1000, value_parser = positive, value_name = "N")]
    pub max_batch_events: usize,
    /// Most unacknowledged events of one stream.
    #[arg(long, env = "CONNLOG_MAX_IN_FLIGHT_EVENTS", default_value_t = 4000, value_parser = positive, value_name = "N")]
    pub max_in_flight_events: usize,
    /// Largest message, in bytes.
    #[arg(long, env = "CONNLOG_MAX_MESSAGE_BYTES", default_value_t = 4 << 20, value_parser = positive, value_name = "N")]
    pub max_message_bytes: usize,
    /// Most bytes of messages that are not whole yet, of all callers; beyond it nobody is read until some are.
    #[arg(long, env = "CONNLOG_MAX_UNDECODED_BYTES", default_value_t = 128 << 20, value_parser = positive, value_name = "N")]
    pub max_undecoded_bytes: usize,
    /// The same of one caller.
    #[arg(long, env = "CONNLOG_MAX_UNDECODED_BYTES_PER_CALLER", default_value_t = 16 << 20, value_parser = positive, value_name = "N")]
    pub max_undecoded_bytes_per_caller: usize,
    /// How long a message may take from its first byte to its last.
    #[arg(long, env = "CONNLOG_MESSAGE_TIMEOUT", default_value = "1m", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub message_timeout: TimeDelta,
    /// KiB an hour of the dead letters of an agent or reporter that are kept whole, after four hours' worth at once; beyond it they are
    /// counted by cause.
    #[arg(long, env = "CONNLOG_LETTER_KIB_PER_HOUR", default_value = "1024", value_name = "N")]
    pub letter_kib_per_hour: NonZeroU32,
    /// Events a second that an agent may send, after a burst of ten seconds' worth; a stream is read no faster.
    #[arg(long, env = "CONNLOG_AGENT_RATE", default_value = "5000", value_name = "N")]
    pub agent_rate: NonZeroU32,
    /// Events a second that a reporter may send, after a burst of ten seconds' worth.
    #[arg(long, env = "CONNLOG_REPORTER_RATE", default_value = "20000", value_name = "N")]
    pub reporter_rate: NonZeroU32,
    /// Most streams of one agent, each with a spool of its own.
    #[arg(long, env = "CONNLOG_MAX_STREAMS_PER_AGENT", default_value_t = 8, value_parser = positive, value_name = "N")]
    pub max_streams_per_agent: usize,
    /// Most connections at once; further ones wait to be accepted.
    #[arg(long, env = "CONNLOG_INGEST_MAX_CONNECTIONS", default_value_t = 20_000, value_parser = positive, value_name = "N")]
    pub max_connections: usize,
    /// Most connections of peers that sent no token that is recognized; for each further one of them ends.
    #[arg(long, env = "CONNLOG_INGEST_MAX_UNRECOGNIZED", default_value_t = 2000, value_parser = positive, value_name = "N")]
    pub max_unrecognized: usize,
    /// How long a peer may leave an answer where it is; one that takes 16 KiB in that time is slow, and stays.
    #[arg(long, env = "CONNLOG_STALL_TIMEOUT", default_value = "1m", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub stall_timeout: TimeDelta,
    /// Oldest time that an event may have.
    #[arg(long, env = "CONNLOG_MAX_EVENT_AGE", default_value = "400d", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub max_event_age: TimeDelta,
    /// Silence after which what an agent had open is closed.
    #[arg(long, env = "CONNLOG_AGENT_LOST_AFTER", default_value = "10m", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub agent_lost_after: TimeDelta,
    /// Ends connections without a boot (reported by single calls, or by a reporter that gives no presence) that began longer ago
    /// than this. They end when their day is closed. Without it they stay open until their disconnect comes.
    #[arg(long, env = "CONNLOG_UNARY_LOST_AFTER", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub unary_lost_after: Option<TimeDelta>,
    /// How often agents give a sign of life.
    #[arg(long, env = "CONNLOG_HEARTBEAT_INTERVAL", default_value = "30s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub heartbeat_interval: TimeDelta,
    /// Age at which a stream is ended, so that agents spread over replicas.
    #[arg(long, env = "CONNLOG_MAX_STREAM_AGE", default_value = "1h", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub max_stream_age: TimeDelta,
    /// How long a recognized token is remembered. All are forgotten within seconds of a revocation.
    #[arg(long, env = "CONNLOG_TOKEN_CACHE", default_value = "30s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub token_cache: TimeDelta,
    /// How long a unary call waits for its commit.
    #[arg(long, env = "CONNLOG_COMMIT_TIMEOUT", default_value = "10s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub commit_timeout: TimeDelta,
    /// How long a shutdown may take.
    #[arg(long, env = "CONNLOG_GRACE_PERIOD", default_value = "20s", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub grace_period: TimeDelta,
    /// How long changes are kept for readers of the change feed: a position that is older is refused.
    #[arg(long, env = "CONNLOG_FEED_RETENTION", default_value = "7d", value_parser = parse_positive_duration, value_name = "DURATION")]
    pub feed_retention: TimeDelta,
    /// Most bytes of changes that are kept longer for consumers who have not read them; beyond it each of them has a gap.
    #[arg(long, env = "CONNLOG_FEED_MAX_BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(i64).range(0..), value_name = "N")]
    pub feed_max_bytes: i64,
    /// Where the time comes from.
    #[arg(skip)]
    pub clock: Clock,
}

/// A configured duration as the standard library has it.
pub(crate) fn std_duration(duration: TimeDelta) -> Duration {
    duration.to_std().unwrap_or_default()
}
