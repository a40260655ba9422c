//! The pool, and the one way of running a statement.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::{TimeDelta, Utc};
use connlog_model::clock::Timestamp;
use deadpool_postgres::{Hook, Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime};
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use futures::{FutureExt as _, SinkExt as _};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};
use tokio_postgres::Row;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{IsNull, ToSql, Type};

use crate::argument::Argument;
use crate::days::KnownDays;
use crate::numbers::KnownNumbers;
use crate::password::{Connector, Password};
use crate::row::RowArrays;
use crate::{StoreError, tls};

/// A connection that is silent for so long is asked whether it is there, and how often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long what was sent may stay unconfirmed by the other machine.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Statements that a connection keeps prepared, about.
const MAX_PREPARED: usize = 150;

/// Checks a URL, and the file of its password, for a command line. Returns whether the URL has a password. The error does not
/// repeat the URL.
pub fn check_url(url: &str, password_file: Option<&Path>) -> Result<bool, String> {
    let (rest, tls) = tls::take_parameters(url.trim()).map_err(|error| format!("--database-url {error}"))?;
    let config = tokio_postgres::Config::from_str(&rest).map_err(|_| "--database-url is not a PostgreSQL URL")?;
    tls.client_config().map_err(|error| format!("--database-url has an unusable {error}"))?;
    let has_password = config.get_password().is_some();
    if has_password && password_file.is_some() {
        return Err("--database-password-file goes with a URL that has no password".to_owned());
    }
    Password::of(&config, password_file).map_err(|error| format!("--database-password-file {error}"))?;
    Ok(has_password)
}

/// How to reach the database.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgresql://…`, or the key=value form of libpq.
    pub url: String,
    /// A file with the password, which is read anew for each connection.
    pub password_file: Option<PathBuf>,
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
    /// How long a transaction may wait for its client: then its locks are let go of. Nobody is there any more.
    pub idle_timeout: Duration,
    /// Whether the connections are for reading the log: pages of it are planned as if in memory.
    pub reads: bool,
    /// Whether what is large is only ever asked for by a key, whatever statistics say: no table is scanned, and statements
    /// have one plan for all parameters.
    pub by_key: bool,
    /// Whether a pooler in transaction mode lies between: statements have no names then, and settings are made in each transaction.
    pub pooled: bool,
}

impl StoreConfig {
    /// A configuration with room for `max_connections` and a connect timeout of 5 s.
    pub fn new(url: impl Into<String>, application_name: impl Into<String>, max_connections: usize) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            max_connections,
            application_name: application_name.into(),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: None,
            lock_timeout: None,
            idle_timeout: Duration::from_mins(1),
            reads: false,
            by_key: false,
            pooled: false,
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
    /// With a pooler in transaction mode: how each transaction is set up.
    pooled: Option<Arc<str>>,
    /// What is known of days. Only a hint: purge may drop one at any time.
    pub(crate) known_days: Arc<Mutex<KnownDays>>,
    /// Agents and targets that are known to be in the database, since the newest connection was made.
    pub(crate) known_numbers: Arc<Mutex<KnownNumbers>>,
}

impl Store {
    /// Prepares the pool. No connection is made yet.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let (url, tls) = tls::take_parameters(config.url.trim()).map_err(StoreError::Url)?;
        let mut postgres =
            tokio_postgres::Config::from_str(&url).map_err(|error| StoreError::Url(error.to_string()))?;
        postgres.application_name(&config.application_name);
        postgres.connect_timeout(config.connect_timeout);
        if postgres.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            // As in libpq: there is no TLS on a socket of the file system.
            postgres.ssl_mode(SslMode::Disable);
        }
        let settings = settings(config);
        if !config.pooled {
            // A pooler refuses them.
            let mut options = postgres.get_options().unwrap_or_default().to_owned();
            options.extend(settings.iter().map(|(name, value)| format!(" -c {name}={value}")));
            postgres.options(options.trim());
        }
        // A server that vanished without a word, in a failover, say, is noticed within a minute.
        postgres.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(3);
        postgres.tcp_user_timeout(TCP_USER_TIMEOUT);
        let known_numbers: Arc<Mutex<KnownNumbers>> = Arc::default();
        let known = Arc::clone(&known_numbers);
        // It may be to a database that was restored from before.
        let forget_numbers = Hook::sync_fn(move |_, _| {
            *known.lock().expect("no one panics while holding the known numbers") = KnownNumbers::default();
            Ok(())
        });
        let password = Password::of(&postgres, config.password_file.as_deref())
            .map_err(|error| StoreError::Url(format!("the password file {error}")))?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(postgres, Connector::new(password, tls), recycling);
        let pool = Pool::builder(manager)
            .max_size(config.max_connections)
            // The connection that was used last has its statements prepared and its catalog in memory.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(config.connect_timeout))
            .create_timeout(Some(config.connect_timeout))
            .runtime(Runtime::Tokio1)
            .post_create(forget_numbers)
            .build()
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        let set_up: Vec<String> =
            settings.iter().map(|(name, value)| format!("SET LOCAL {name} = '{value}'")).collect();
        let pooled = config.pooled.then(|| format!("-- set_up\n{}", set_up.join("; ")).into());
        Ok(Self {
            pool,
            name: config.application_name.as_str().into(),
            pooled,
            known_days: Arc::default(),
            known_numbers,
        })
    }

    /// A connection of the pool.
    pub(crate) async fn client(&self) -> Result<Session, StoreError> {
        let began = Instant::now();
        let client = self.pool.get().await;
        metrics::histogram!("connlog_database_wait_seconds", "pool" => Arc::clone(&self.name))
            .record(began.elapsed().as_secs_f64());
        Ok(Session { client: client?, pooled: self.pooled.clone() })
    }

    /// How far this machine's clock is ahead of the database's, to half the time that asking takes.
    pub async fn clock_lead(&self) -> Result<TimeDelta, StoreError> {
        let client = self.client().await?;
        let sql = "-- clock_lead\nSELECT clock_timestamp()";
        client.prepare(sql).await?;
        let asked = Utc::now();
        let database: Timestamp = client.query_one(sql, &[]).await?.try_get(0)?;
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

/// A plan for all parameters: for what is asked for by key, or names its partitions. With thousands of keys before its eyes
/// the planner would rather read the whole of a table that it takes for small.
const ONE_PLAN: &str = "force_generic_plan";
/// A plan for the parameters at hand. Partitions are pruned while planning only if the bounds are known: a plan for all
/// parameters locks every one of them.
const PLAN_FOR_EACH: &str = "force_custom_plan";

/// The settings of a connection.
fn settings(config: &StoreConfig) -> Vec<(&'static str, String)> {
    let plans = if config.by_key { ONE_PLAN } else { PLAN_FOR_EACH };
    let mut settings = vec![
        ("plan_cache_mode", plans.to_owned()),
        ("jit", "off".to_owned()),
        ("timezone", "UTC".to_owned()),
        // Otherwise a schema with the name of the role would come first.
        ("search_path", "public".to_owned()),
        // Starting workers for a statement of a millisecond takes ten.
        ("max_parallel_workers_per_gather", "0".to_owned()),
    ];
    if config.by_key {
        // A day that has just begun looks small in the eyes of the planner, and a list of keys short.
        settings.extend([("enable_seqscan", "off".to_owned()), ("enable_nestloop", "off".to_owned())]);
    }
    if config.reads {
        // With the default of 4, a bitmap of a frequent app or method is made to save a few looks at rows: an owner's
        // connections of one type took 70 ms instead of 19 at 10 M rows.
        settings.push(("random_page_cost", "1.1".to_owned()));
    }
    if !config.pooled {
        // A client whose machine is gone does not hold its locks until the system's own two hours are over.
        let keepalives =
            [("tcp_keepalives_idle", "20"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
        settings.extend(keepalives.map(|(name, value)| (name, value.to_owned())));
    }
    settings.push(("idle_in_transaction_session_timeout", config.idle_timeout.as_millis().to_string()));
    let timeouts = [("statement_timeout", config.statement_timeout), ("lock_timeout", config.lock_timeout)];
    settings.extend(timeouts.into_iter().filter_map(|(name, timeout)| Some((name, timeout?.as_millis().to_string()))));
    settings
}

/// A connection of the pool.
pub struct Session {
    client: Object,
    pooled: Option<Arc<str>>,
}

impl Session {
    /// Runs a statement by itself, and returns its rows.
    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[&dyn Argument],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.pooled.is_some() {
            return self.client.query_typed(sql, &typed(parameters)).await;
        }
        self.client.query(&self.client.prepare_cached(sql).await?, &untyped(parameters)).await
    }

    /// Runs a statement that gives one row.
    pub(crate) async fn query_one(&self, sql: &str, parameters: &[&dyn Argument]) -> Result<Row, StoreError> {
        self.query_opt(sql, parameters)
            .await?
            .ok_or_else(|| StoreError::Inconsistent("a statement gave no row".to_owned()))
    }

    /// Runs a statement that gives one row at most.
    pub(crate) async fn query_opt(&self, sql: &str, parameters: &[&dyn Argument]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, parameters).await?.into_iter().next())
    }

    /// Runs a statement by itself, and returns how many rows it touched.
    pub(crate) async fn execute(&self, sql: &str, parameters: &[&dyn Argument]) -> Result<u64, tokio_postgres::Error> {
        if self.pooled.is_some() {
            return self.client.execute_typed(sql, &typed(parameters)).await;
        }
        self.client.execute(&self.client.prepare_cached(sql).await?, &untyped(parameters)).await
    }

    /// Prepares a statement where it can have a name, so that running it is one exchange.
    async fn prepare(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        if self.pooled.is_none() {
            self.client.prepare_cached(sql).await?;
        }
        Ok(())
    }

    /// Whether a pooler may stand between.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }
}

impl Deref for Session {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.client
    }
}

/// A transaction. One that is dropped is rolled back.
pub(crate) struct Transaction<'a> {
    session: &'a mut Session,
    is_over: bool,
}

impl<'a> Transaction<'a> {
    async fn begin(session: &'a mut Session, begin: &str) -> Result<Self, StoreError> {
        let transaction = Self::of(session);
        transaction.batch_execute(&transaction.set_up(begin)).await?;
        Ok(transaction)
    }

    /// A transaction that begins with what is sent next: [`send`](Self::send) has to be told how.
    pub(crate) fn of(session: &'a mut Session) -> Self {
        Self { session, is_over: false }
    }

    /// How it begins, with the settings that a pooler has forgotten: before any lock, so that it is waited for no longer than they say.
    fn set_up(&self, begin: &str) -> String {
        let Some(settings) = &self.session.pooled else { return begin.to_owned() };
        match begin.split_once("; ") {
            Some((begin, lock)) => format!("{begin}; {settings}; {lock}"),
            None => format!("{begin}; {settings}"),
        }
    }

    /// Ends one that wrote nothing. Nobody waits for it: the rollback is on its way before what is next on the connection.
    pub(crate) fn end(self) {
        drop(self);
    }

    /// Commits it. To be called only after the results of all its statements were looked at: PostgreSQL answers the commit of a
    /// failed transaction with a rollback that is no error.
    pub(crate) async fn commit(mut self) -> Result<(), tokio_postgres::Error> {
        self.is_over = true;
        self.session.client.batch_execute("-- commit\nCOMMIT").await
    }

    /// Whether a pooler may stand between, so that statements must not have names.
    pub(crate) fn is_pooled(&self) -> bool {
        self.session.is_pooled()
    }

    /// Sends all steps in one go, none of which waits for the answer to the one before, and returns the rows of each. A step
    /// that begins the transaction comes first.
    pub(crate) async fn send(&self, begin: Option<&str>, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        bound_prepared(self);
        if !self.is_pooled() {
            // Beforehand: what is not prepared would be sent later than what follows it.
            for step in steps {
                self.prepare_cached(step.sql()).await?;
            }
        }
        let begin = begin.map(|begin| self.set_up(begin));
        let mut futures: Vec<Pin<Box<MaybeDone<BoxFuture<'_, Answer>>>>> = Vec::with_capacity(steps.len() + 1);
        if let Some(begin) = &begin {
            let first = async { Ok(self.batch_execute(begin).await.map(|()| Vec::new())?) };
            futures.push(Box::pin(maybe_done(first.boxed())));
        }
        futures.extend(steps.iter().map(|step| Box::pin(maybe_done(self.step(step).boxed()))));
        // Each is asked in its turn: the first time it is, it is sent.
        poll_fn(|context| {
            let mut is_done = true;
            for future in &mut futures {
                is_done &= future.as_mut().poll(context).is_ready();
            }
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let answers = futures.iter_mut().map(|future| future.as_mut().take_output());
        let mut rows = Vec::with_capacity(steps.len());
        for answer in answers {
            // What failed first says why: the later ones only find the transaction aborted.
            rows.push(answer.expect("all have been answered")?);
        }
        if begin.is_some() {
            rows.remove(0);
        }
        Ok(rows)
    }

    async fn step(&self, step: &Step<'_>) -> Answer {
        match step {
            Step::Query(sql, parameters) => Ok(run(self, sql, parameters).await?),
            Step::Copy(sql, rows, count) => {
                let copy = async {
                    let statement = self.prepare_cached(sql).await?;
                    let mut sink = pin!(self.copy_in::<_, Bytes>(&statement).await?);
                    sink.send(rows.clone()).await?;
                    sink.finish().await
                };
                let came = usize::try_from(traced(sql, copy).await?).unwrap_or(usize::MAX);
                if came == *count { Ok(Vec::new()) } else { Err(StoreError::LeftOut { of: *count, came }) }
            }
        }
    }
}

type Answer = Result<Vec<Row>, StoreError>;

/// A statement among others that are sent together.
pub(crate) enum Step<'a> {
    /// One that gives rows, or none.
    Query(&'a str, Vec<&'a dyn Argument>),
    /// A binary `COPY … FROM STDIN` of so many encoded rows. It comes last: it needs an answer of its own before its rows are sent.
    Copy(&'a str, Bytes, usize),
}

impl Step<'_> {
    fn sql(&self) -> &str {
        match self {
            Self::Query(sql, _) | Self::Copy(sql, _, _) => sql,
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Polled once, it is sent; nobody waits for the answer.
            let _answer = self.session.client.batch_execute("-- rollback\nROLLBACK").now_or_never();
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.session.client
    }
}

/// Begins a transaction that writes. The isolation is spelled out: under REPEATABLE READ the same statements would not see what
/// was committed while they waited for a lock.
pub(crate) async fn begin_write(session: &mut Session) -> Result<Transaction<'_>, StoreError> {
    Transaction::begin(session, "-- begin_write\nBEGIN ISOLATION LEVEL READ COMMITTED").await
}

/// How a transaction begins that changes the log: the log before any day, in a mode in which it waits for whoever raises the floor,
/// closes or swaps a day.
pub(crate) const BEGIN_LOG_WRITE: &str = "-- begin_log_write\nBEGIN ISOLATION LEVEL READ COMMITTED; \
     LOCK TABLE ONLY connection_logs IN ROW EXCLUSIVE MODE";

/// Begins a transaction that sees one snapshot and writes nothing. The log is locked before the snapshot is taken: a day that is
/// swapped or dropped later is still there for it.
pub(crate) async fn begin_read(session: &mut Session) -> Result<Transaction<'_>, StoreError> {
    let begin = "-- begin_read\nBEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 LOCK TABLE ONLY connection_logs IN ACCESS SHARE MODE";
    Transaction::begin(session, begin).await
}

/// Runs a prepared statement and returns its rows.
pub(crate) async fn query(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&dyn Argument],
) -> Result<Vec<Row>, StoreError> {
    Ok(run(transaction, sql, parameters).await?)
}

async fn run(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&dyn Argument],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let run = async {
        if transaction.is_pooled() {
            return transaction.query_typed(sql, &typed(parameters)).await;
        }
        transaction.query(&transaction.prepare_cached(sql).await?, &untyped(parameters)).await
    };
    traced(sql, run).await
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
    parameters: &[&dyn Argument],
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
    parameters: &[&dyn Argument],
) -> Result<Vec<Row>, StoreError> {
    if transaction.is_pooled() {
        return query(transaction, sql, parameters).await;
    }
    bound_prepared(transaction);
    let set = transaction.prepare_cached(SET_PLAN_CACHE_MODE).await?;
    let statement = transaction.prepare_cached(sql).await?;
    let parameters = untyped(parameters);
    // In one go: none waits for the answer to the one before.
    let (on, rows, off) = tokio::join!(
        transaction.execute(&set, &[&ONE_PLAN]),
        traced(sql, transaction.query(&statement, &parameters)),
        transaction.execute(&set, &[&PLAN_FOR_EACH]),
    );
    on?;
    // What failed first says why: the last one only finds the transaction aborted.
    let rows = rows?;
    off?;
    Ok(rows)
}

fn untyped<'a>(parameters: &[&'a dyn Argument]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| parameter.as_sql()).collect()
}

fn typed<'a>(parameters: &[&'a dyn Argument]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    parameters.iter().map(|parameter| (parameter.as_sql(), parameter.postgres_type())).collect()
}

/// Rows in the binary format of COPY (the PostgreSQL documentation, "COPY", "Binary Format"), as one message: the writer of the
/// driver hands over, and waits for, every 4 KiB.
pub(crate) fn encode_rows(columns: &RowArrays<'_>) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    // Signature, flags, length of the header's extension.
    bytes.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for index in 0..columns.len() {
        let row = columns.row(index);
        bytes.put_i16(i16::try_from(row.len()).map_err(unencodable)?);
        for value in row {
            let at = bytes.len();
            bytes.put_i32(-1);
            if let IsNull::No =
                value.as_sql().to_sql_checked(&value.postgres_type(), &mut bytes).map_err(unencodable)?
            {
                let length = i32::try_from(bytes.len() - at - size_of::<i32>()).map_err(unencodable)?;
                bytes[at..at + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
    bytes.put_i16(-1);
    Ok(bytes.freeze())
}

fn unencodable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Invalid(format!("a value cannot be sent to the database: {error}"))
}

/// Runs a prepared statement and returns how many rows it touched.
pub(crate) async fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&dyn Argument],
) -> Result<u64, StoreError> {
    let run = async {
        if transaction.is_pooled() {
            return transaction.execute_typed(sql, &typed(parameters)).await;
        }
        transaction.execute(&transaction.prepare_cached(sql).await?, &untyped(parameters)).await
    };
    Ok(traced(sql, run).await?)
}
