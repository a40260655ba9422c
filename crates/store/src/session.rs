//! The pool, and the one way of running a statement.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{NaiveDate, TimeDelta, Utc};
use connlog_model::clock::Timestamp;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime, Transaction};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Row};

use crate::{StoreError, tls};

/// A connection that is silent for so long is asked whether it is there, and how often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long what was sent may stay unconfirmed by the other machine.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Statements that a connection keeps prepared, about.
const MAX_PREPARED: usize = 150;

/// Checks that `url` can be read, for a command line: the error does not repeat it, since it may hold a password.
pub fn parse_url(url: &str) -> Result<(), String> {
    let (rest, tls) = tls::take_parameters(url)?;
    tokio_postgres::Config::from_str(&rest).map_err(|_| "is not a PostgreSQL URL")?;
    tls.client_config().map(|_| ()).map_err(|error| format!("has an unusable {error}"))
}

/// How to reach the database.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgresql://…`, or the key=value form of libpq.
    pub url: String,
    /// Most connections at once.
    pub max_connections: usize,
    /// Name of this program in `pg_stat_activity`.
    pub application_name: String,
    /// How long to wait for a connection before the database counts as unavailable.
    pub connect_timeout: Duration,
    /// How long a statement may run, so that nothing goes on for a caller who has left.
    pub statement_timeout: Option<Duration>,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Option<Duration>,
    /// Whether the connections are for reading the log: pages of it are planned as if in memory.
    pub reads: bool,
}

impl StoreConfig {
    /// A configuration with room for `max_connections` and a connect timeout of 5 s.
    pub fn new(url: impl Into<String>, application_name: impl Into<String>, max_connections: usize) -> Self {
        Self {
            url: url.into(),
            max_connections,
            application_name: application_name.into(),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: None,
            lock_timeout: None,
            reads: false,
        }
    }
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("application_name", &self.application_name).finish_non_exhaustive()
    }
}

/// The database. Clones share one pool.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    /// What the pool is called in metrics.
    name: Arc<str>,
    /// Days that are known to have a partition. Only a hint: purge may drop a day at any time.
    pub(crate) known_days: Arc<Mutex<HashSet<NaiveDate>>>,
}

impl Store {
    /// Prepares the pool. No connection is made yet.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let (url, tls) = tls::take_parameters(&config.url).map_err(StoreError::Url)?;
        let mut postgres =
            tokio_postgres::Config::from_str(&url).map_err(|error| StoreError::Url(error.to_string()))?;
        postgres.application_name(&config.application_name);
        postgres.connect_timeout(config.connect_timeout);
        if postgres.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            // As in libpq: there is no TLS on a socket of the file system.
            postgres.ssl_mode(SslMode::Disable);
        }
        // Partitions are pruned while planning only if the bounds are known: a generic plan would lock every one of them.
        let mut options = postgres.get_options().unwrap_or_default().to_owned();
        options.push_str(" -c plan_cache_mode=force_custom_plan -c jit=off -c timezone=UTC");
        if config.reads {
            // With the default of 4, a bitmap of a frequent app or method is made to save a few looks at rows: an owner's
            // connections of one type took 70 ms instead of 19 at 10 M rows.
            options.push_str(" -c random_page_cost=1.1");
            // Starting workers for a statement of a millisecond takes ten.
            options.push_str(" -c max_parallel_workers_per_gather=0");
        }
        if let Some(timeout) = config.statement_timeout {
            options = format!("{options} -c statement_timeout={}", timeout.as_millis());
        }
        if let Some(timeout) = config.lock_timeout {
            options = format!("{options} -c lock_timeout={}", timeout.as_millis());
        }
        // A server that vanished without a word, in a failover, say, is noticed within a minute.
        postgres.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(3);
        postgres.tcp_user_timeout(TCP_USER_TIMEOUT);
        postgres.options(options.trim());
        let manager = Manager::from_config(postgres, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(config.max_connections)
            // The connection that was used last has its statements prepared and its catalog in memory.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(config.connect_timeout))
            .create_timeout(Some(config.connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self { pool, name: config.application_name.as_str().into(), known_days: Arc::default() })
    }

    /// A connection of the pool.
    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        let began = Instant::now();
        let client = self.pool.get().await;
        metrics::histogram!("connlog_database_wait_seconds", "pool" => Arc::clone(&self.name))
            .record(began.elapsed().as_secs_f64());
        Ok(client?)
    }

    /// How far this machine's clock is ahead of the database's, to half the time that asking takes.
    pub async fn clock_lead(&self) -> Result<TimeDelta, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached("-- clock_lead\nSELECT clock_timestamp()").await?;
        let asked = Utc::now();
        let database: Timestamp = client.query_one(&statement, &[]).await?.try_get(0)?;
        let answered = Utc::now();
        Ok(asked + (answered - asked) / 2 - database)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        client.simple_query("-- ping\nSELECT").await?;
        Ok(())
    }
}

/// Begins a transaction of the write path. The isolation is spelled out: under REPEATABLE READ the same statements let a
/// connection be open and in history at once.
pub(crate) async fn begin_write(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?)
}

/// Begins a transaction that sees one snapshot and writes nothing.
pub(crate) async fn begin_read(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?)
}

/// Runs a prepared statement and returns its rows.
pub(crate) async fn query(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let run = async { transaction.query(&transaction.prepare_cached(sql).await?, parameters).await };
    Ok(traced(sql, run).await?)
}

/// Runs a statement as a span of the trace that it is part of, if it is part of one that is sent.
async fn traced<T>(
    sql: &str,
    run: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let trace = Context::current();
    if !trace.span().span_context().is_sampled() {
        return run.await;
    }
    let name = sql.lines().next().unwrap_or_default().trim_start_matches("-- ").to_owned();
    let tracer = global::tracer("connlog");
    let span = tracer
        .span_builder(name)
        .with_kind(SpanKind::Client)
        .with_attributes([KeyValue::new("db.system.name", "postgresql")])
        .start_with_context(&tracer, &trace);
    let trace = trace.with_span(span);
    let outcome = run.await;
    if let Err(error) = &outcome {
        // Its code: the message may have a value of the log in it.
        trace.span().set_status(Status::error(error.code().map_or("connection", |state| state.code()).to_owned()));
    }
    outcome
}

/// There are thousands of combinations of what callers ask for, and the server keeps each prepared one for each connection:
/// past a bound they are all given up.
fn bound_prepared(transaction: &Transaction<'_>) {
    if transaction.statement_cache.size() > MAX_PREPARED {
        transaction.statement_cache.clear();
    }
}

/// Runs a statement that is put together from what a caller asks for, and returns its rows.
pub(crate) async fn query_composed(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    bound_prepared(transaction);
    query(transaction, sql, parameters).await
}

const SET_PLAN_CACHE_MODE: &str = "-- set_plan_cache_mode
SELECT set_config('plan_cache_mode', $1, true)";

/// Runs a statement that names the partitions that it is about, and is planned once for all its parameters: planning is
/// most of what it costs.
pub(crate) async fn query_planned_once(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    bound_prepared(transaction);
    let set = transaction.prepare_cached(SET_PLAN_CACHE_MODE).await?;
    let statement = transaction.prepare_cached(sql).await?;
    // In one go: none waits for the answer to the one before.
    let (on, rows, off) = tokio::join!(
        transaction.execute(&set, &[&"force_generic_plan"]),
        traced(sql, transaction.query(&statement, parameters)),
        transaction.execute(&set, &[&"force_custom_plan"]),
    );
    on?;
    // What failed first says why: the last one only finds the transaction aborted.
    let rows = rows?;
    off?;
    Ok(rows)
}

/// Runs a prepared statement and returns how many rows it touched.
pub(crate) async fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let run = async { transaction.execute(&transaction.prepare_cached(sql).await?, parameters).await };
    Ok(traced(sql, run).await?)
}
