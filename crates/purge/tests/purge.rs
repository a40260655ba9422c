//! The purge: exact at its cutoff, alone, patient with readers, and proven.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{Read as _, Write as _};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use clap::Parser;
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::event::Event;
use connlog_model::identity::BootNumber;
use connlog_model::method::Method;
use connlog_purge::{Config, Failure, Outcome, Settings, Summary};
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use connlog_store::infer::Hello;
use connlog_store::roles::PURGE;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::write;
use connlog_testkit::wait::until;
use tokio_postgres::Client;
use uuid::Uuid;

fn settings(database: &TestDatabase, flags: &[&str]) -> Settings {
    let url = database.url_as(PURGE);
    let mut arguments = vec!["connlog-purge", "--database-url", &url];
    arguments.extend(flags);
    Settings::resolve(Config::try_parse_from(arguments).unwrap()).unwrap()
}

async fn purge(database: &TestDatabase, flags: &[&str]) -> Result<Summary, Failure> {
    let store = connlog_purge::open(&database.url_as(PURGE), None).unwrap();
    let settings = settings(database, flags);
    connlog_purge::run(&settings, &store, &Shutdown::new()).await
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

const OPEN: &str = "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL AND method <= 2";

async fn counts_are_right(client: &Client) -> bool {
    let sql = "SELECT count(*) FROM (SELECT day, sum(entries) AS n FROM connection_log_counts GROUP BY day) c
        FULL JOIN (SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, count(*) AS n FROM connection_logs GROUP BY 1) h
        USING (day) WHERE coalesce(c.n, 0) <> coalesce(h.n, 0)";
    number(client, sql).await == 0
}

/// `per_day` web events on each of the last `days` days.
async fn history(store: &Store, days: i64, per_day: u128) {
    let site = fixtures::site(1, 1);
    for day in 0..days {
        let time = now() - TimeDelta::days(day);
        let base = u128::try_from(day).unwrap() * 1_000_000 + 1;
        write(store, (0..per_day).map(|n| fixtures::web(&site.agent, base + n, time, Method::Tunnel)).collect()).await;
    }
}

#[tokio::test]
async fn the_cutoff_is_exact_at_the_microsecond() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let agent = fixtures::site(1, 1).agent;
    let now = now();
    let cutoff = now - TimeDelta::days(30);
    let micro = TimeDelta::microseconds(1);
    write(
        &store,
        vec![
            fixtures::web(&agent, 1, cutoff - TimeDelta::days(3), Method::Tunnel),
            fixtures::web(&agent, 2, cutoff - micro, Method::Tunnel),
            fixtures::web(&agent, 3, cutoff, Method::Tunnel),
            fixtures::web(&agent, 4, cutoff + micro, Method::Tunnel),
            fixtures::connect(&agent, 5, cutoff - micro),
            fixtures::connect(&agent, 6, cutoff),
        ],
    )
    .await;
    let flags = ["--connection-logs-retention", "30d", "--now", &rfc3339(now)];
    let dry = purge(&database, &[&flags[..], &["--dry-run"]].concat()).await.unwrap();
    assert_eq!(dry.outcome, Outcome::DryRun);
    let client = database.client().await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 6, "a dry run changes nothing");
    assert_eq!(number(&client, "SELECT count(*) FROM purge_runs").await, 0);

    let summary = purge(&database, &flags).await.unwrap();
    assert_eq!(summary.outcome, Outcome::Complete);
    assert_eq!((summary.days_dropped, summary.rows_dropped), (1, 1));
    assert_eq!((summary.rows_trimmed, summary.open_removed, summary.rows_left), (1, 1, 0));
    assert_eq!(
        (dry.days_dropped, dry.rows_dropped, dry.rows_trimmed, dry.open_removed),
        (summary.days_dropped, summary.rows_dropped, summary.rows_trimmed, summary.open_removed)
    );
    let left = client.query("SELECT connect_time FROM connection_logs ORDER BY 1", &[]).await.unwrap();
    let left: Vec<Timestamp> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [cutoff, cutoff, cutoff + micro]);
    assert_eq!(number(&client, OPEN).await, 1);
    assert!(counts_are_right(&client).await);
    let runs = store.purge_runs(10).await.unwrap();
    assert_eq!((runs.len(), runs[0].cutoff, runs[0].outcome.as_str()), (1, Some(cutoff), "complete"));
    let again = purge(&database, &flags).await.unwrap();
    assert_eq!((again.days_dropped, again.rows_trimmed, again.open_removed), (0, 0, 0));
}

#[tokio::test]
async fn what_a_live_agent_lists_is_kept_past_its_retention_and_goes_once_it_ends() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let start = now() - TimeDelta::days(40);
    let Event::Agent(mut streamed) = fixtures::connect(&site.agent, 1, start) else { unreachable!() };
    streamed.boot = Some(BootNumber::of(Uuid::from_u128(1)));
    write(&store, vec![Event::Agent(streamed), fixtures::connect(&site.agent, 2, start)]).await;
    let hello = Hello {
        agent: Arc::clone(&site.agent),
        spool_id: Uuid::from_u128(2),
        boot_id: Uuid::from_u128(1),
        stream_id: Uuid::from_u128(3),
        first_unacked_seq: 1,
        last_seq: 0,
        received_at: now(),
    };
    store.greet(&hello).await.unwrap();
    let summary = purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap();
    assert_eq!((summary.outcome, summary.open_removed), (Outcome::Complete, 1), "the one that no stream lists goes");
    let client = database.client().await.unwrap();
    write(&store, vec![fixtures::disconnect(&site.agent, 1, now())]).await;
    let count = async || number(&client, "SELECT count(*) FROM connection_logs").await;
    assert_eq!(count().await, 1, "it is completed like any other");
    let summary = purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap();
    assert_eq!((summary.outcome, summary.rows_dropped, count().await), (Outcome::Complete, 1, 0));
    assert!(counts_are_right(&client).await);
}

#[tokio::test]
async fn an_outage_of_ingest_is_not_taken_for_the_death_of_its_agents() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let Event::Agent(mut streamed) = fixtures::connect(&site.agent, 1, now() - TimeDelta::days(40)) else {
        unreachable!()
    };
    streamed.boot = Some(BootNumber::of(Uuid::from_u128(1)));
    write(&store, vec![Event::Agent(streamed)]).await;
    let an_hour_ago = now() - TimeDelta::hours(1);
    let hello = Hello {
        agent: Arc::clone(&site.agent),
        spool_id: Uuid::from_u128(2),
        boot_id: Uuid::from_u128(1),
        stream_id: Uuid::from_u128(3),
        first_unacked_seq: 1,
        last_seq: 0,
        received_at: an_hour_ago,
    };
    store.greet(&hello).await.unwrap();
    store.attend(an_hour_ago, TimeDelta::seconds(60)).await.unwrap();
    let removed = async || purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap().open_removed;
    assert_eq!(removed().await, 0, "nobody attends");
    store.attend(now(), TimeDelta::seconds(60)).await.unwrap();
    assert_eq!(removed().await, 0, "somebody attends again, but not for long enough");
    store.attend(now() - TimeDelta::minutes(20), TimeDelta::seconds(60)).await.unwrap();
    let client = database.client().await.unwrap();
    client
        .execute("UPDATE ingest_attendance SET heard_since = $1", &[&(now() - TimeDelta::minutes(20))])
        .await
        .unwrap();
    assert_eq!(removed().await, 1, "it could have been heard and was not");
}

#[tokio::test]
async fn a_purge_as_of_the_future_does_not_raise_the_floor_past_the_clock() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    history(&store, 3, 5).await;
    let future = rfc3339(now() + TimeDelta::days(400));
    let summary = purge(&database, &["--connection-logs-retention", "90d", "--now", &future]).await.unwrap();
    // Of today and yesterday, which are not closed, row by row.
    assert_eq!((summary.outcome, summary.rows_dropped, summary.rows_trimmed), (Outcome::Complete, 5, 10));
    history(&store, 3, 5).await;
    let client = database.client().await.unwrap();
    assert_eq!(
        number(&client, "SELECT count(*) FROM connection_logs").await,
        15,
        "what is not below the floor is accepted"
    );
    let floor: Timestamp = client.query_one("SELECT cutoff FROM floor", &[]).await.unwrap().get(0);
    assert!(floor <= now() - TimeDelta::days(90));
}

#[tokio::test]
async fn what_is_younger_than_the_minimum_retention_is_not_due_whatever_a_purge_is_told() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    history(&store, 40, 1).await;
    store.set_minimum_retention(TimeDelta::days(30)).await.unwrap();
    let future = rfc3339(now() + TimeDelta::days(400));
    for flags in [&["--connection-logs-retention", "7d"][..], &["--connection-logs-retention", "7d", "--now", &future]]
    {
        let dry = purge(&database, &[flags, &["--dry-run"]].concat()).await.unwrap();
        let summary = purge(&database, flags).await.unwrap();
        assert_eq!(summary.outcome, Outcome::Complete);
        assert_eq!((dry.rows_dropped, dry.rows_trimmed), (summary.rows_dropped, summary.rows_trimmed));
        let client = database.client().await.unwrap();
        // Thirty times a day ago, and today's; the one of thirty days ago has just become due.
        assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 30);
    }
    let floor: Timestamp =
        database.client().await.unwrap().query_one("SELECT cutoff FROM floor", &[]).await.unwrap().get(0);
    assert!(floor <= now() - TimeDelta::days(30));
}

#[tokio::test]
async fn a_day_that_cannot_go_keeps_no_other_and_neither_does_one_that_cannot_be_made() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    history(&store, 40, 1).await;
    let client = database.client().await.unwrap();
    let (stays, tomorrow) = (now() - TimeDelta::days(38), now() + TimeDelta::days(1));
    let of = |time: Timestamp| format!("connection_logs_{}", time.format("%Y%m%d"));
    let obstacles = format!("CREATE VIEW somebodys AS TABLE {}; CREATE TABLE {} ()", of(stays), of(tomorrow));
    client.batch_execute(&obstacles).await.unwrap();
    let summary = purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap();
    assert_eq!((summary.outcome, summary.rows_dropped, summary.rows_left), (Outcome::Incomplete, 8, 1));
    client.batch_execute(&format!("DROP VIEW somebodys; DROP TABLE {}", of(tomorrow))).await.unwrap();
    let summary = purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap();
    assert_eq!((summary.outcome, summary.rows_dropped), (Outcome::Complete, 1));
}

/// What is open of all days goes in one call, which the lock of one of them fails.
#[tokio::test]
async fn a_locked_day_of_which_something_open_is_due_keeps_no_other() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    history(&store, 40, 1).await;
    let locked = now() - TimeDelta::days(39);
    write(&store, vec![fixtures::connect(&fixtures::site(1, 1).agent, 7, locked)]).await;
    let mut somebody = database.client().await.unwrap();
    let lock = somebody.transaction().await.unwrap();
    let table = format!("connection_logs_{}", locked.format("%Y%m%d"));
    lock.batch_execute(&format!("LOCK TABLE {table} IN SHARE MODE")).await.unwrap();
    let flags = ["--connection-logs-retention", "35d", "--lock-timeout", "50ms", "--lock-attempts", "1"];
    let summary = purge(&database, &flags).await.unwrap();
    assert_eq!((summary.outcome, summary.rows_dropped, summary.rows_left), (Outcome::Incomplete, 3, 2));
    let error = database.store().unwrap().purge_runs(1).await.unwrap().remove(0).error.unwrap();
    assert!(error.contains("what is open: a lock was not granted in time"), "{error}");
    lock.rollback().await.unwrap();
    let summary = purge(&database, &flags).await.unwrap();
    assert_eq!((summary.outcome, summary.open_removed, summary.rows_left), (Outcome::Complete, 1, 0));
}

/// Without this, a lock that somebody holds on the oldest day keeps all of them, and the summary says that nothing is left.
#[tokio::test]
async fn a_day_that_somebody_has_locked_keeps_no_other_and_the_summary_says_what_is_left_and_why() {
    let database = TestDatabase::create().await.unwrap();
    history(&database.store().unwrap(), 40, 1).await;
    for (mode, oldest) in [("ACCESS EXCLUSIVE", 39), ("SHARE", 34)] {
        let locked = now() - TimeDelta::days(oldest);
        let mut somebody = database.client().await.unwrap();
        let lock = somebody.transaction().await.unwrap();
        let table = format!("connection_logs_{}", locked.format("%Y%m%d"));
        lock.batch_execute(&format!("LOCK TABLE {table} IN {mode} MODE")).await.unwrap();
        let retention = format!("{}d", oldest - 4);
        let flags = ["--connection-logs-retention", &retention, "--lock-timeout", "50ms", "--lock-attempts", "1"];
        let summary = purge(&database, &flags).await.unwrap();
        let found = (summary.outcome, summary.rows_dropped, summary.rows_left);
        assert_eq!(found, (Outcome::Incomplete, 3, 1), "{mode}");
        let run = database.store().unwrap().purge_runs(1).await.unwrap().remove(0);
        let (error, day) = (run.error.unwrap(), format!("day {}", locked.date_naive()));
        assert!(error.contains(&day) && error.contains("a lock was not granted in time"), "{error}");
        lock.rollback().await.unwrap();
        let summary = purge(&database, &flags).await.unwrap();
        assert_eq!((summary.outcome, summary.rows_dropped, summary.rows_left), (Outcome::Complete, 1, 0));
    }
}

#[tokio::test]
async fn what_contradicts_an_old_connection_stays_as_long_as_it_is_open() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let (one, two) = (fixtures::site(1, 1), fixtures::site(2, 1));
    let start = now() - TimeDelta::days(40);
    for site in [&one, &two] {
        let Event::Agent(mut first) = fixtures::connect(&site.agent, 1, start) else { unreachable!() };
        first.boot = Some(BootNumber::of(Uuid::from_u128(1)));
        let mut other = first.clone();
        other.client.ip = Some([203, 0, 113, 9].into());
        write(&store, vec![Event::Agent(first), Event::Agent(other)]).await;
    }
    let hello = Hello {
        agent: Arc::clone(&one.agent),
        spool_id: Uuid::from_u128(2),
        boot_id: Uuid::from_u128(1),
        stream_id: Uuid::from_u128(3),
        first_unacked_seq: 1,
        last_seq: 0,
        received_at: now(),
    };
    store.greet(&hello).await.unwrap();
    store.attend(now() - TimeDelta::hours(1), TimeDelta::seconds(60)).await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute("UPDATE ingest_attendance SET attended_at = now()").await.unwrap();
    let summary = purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap();
    assert_eq!((summary.outcome, summary.open_removed), (Outcome::Complete, 1));
    let left: Uuid = client.query_one("SELECT row_id FROM contradictions", &[]).await.unwrap().get(0);
    assert_eq!(left, one.agent.row_id(Uuid::from_u128(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_export_held_open_nobody_waits_longer_than_the_lock_timeout_and_everything_due_goes() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    history(&store, 40, 20).await;
    let mut export = database.client().await.unwrap();
    let export = export
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await
        .unwrap();
    export.query("SELECT count(*) FROM connection_logs", &[]).await.unwrap();

    let running = tokio::spawn({
        let flags = ["--connection-logs-retention", "35d", "--lock-timeout", "40ms", "--lock-attempts", "3"];
        let (settings, store) = (settings(&database, &flags), store.clone());
        async move { connlog_purge::run(&settings, &store, &Shutdown::new()).await }
    });
    // Others read and write meanwhile. What one waits for a lock is asked of the server, not of the clock of this test.
    let reader = database.client().await.unwrap();
    let monitor = database.client().await.unwrap();
    let (reading, site) = (
        tokio::spawn(async move {
            loop {
                if reader
                    .query("SELECT count(*) FROM connection_logs WHERE connect_time > now() - interval '1 hour'", &[])
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }),
        fixtures::site(1, 1),
    );
    let (mut longest, mut waited_for) = (Duration::ZERO, String::new());
    let mut number_of_writes = 0;
    // The purge itself may wait for a vacuum of the day to give way, with a lock that keeps nobody else.
    let sql = "SELECT (extract(epoch FROM clock_timestamp() - waitstart) * 1000)::bigint, concat_ws(' ', mode, relation::regclass, query)
        FROM pg_locks JOIN pg_stat_activity AS a USING (pid)
        WHERE NOT granted AND a.datname = current_database() AND pid <> pg_backend_pid() AND mode <> 'ShareUpdateExclusiveLock'
            AND waitstart IS NOT NULL
        ORDER BY waitstart LIMIT 1";
    while !running.is_finished() {
        number_of_writes += 1;
        write(&store, vec![fixtures::web(&site.agent, 900_000_000 + number_of_writes, now(), Method::Tunnel)]).await;
        if let Some(row) = monitor.query_opt(sql, &[]).await.unwrap() {
            let waited = Duration::from_millis(u64::try_from(row.get::<_, i64>(0)).unwrap());
            if waited > longest {
                (longest, waited_for) = (waited, row.get(1));
            }
        }
    }
    reading.abort();
    let summary = running.await.unwrap().unwrap();
    assert_eq!((summary.outcome, summary.rows_left), (Outcome::Complete, 0), "{summary}");
    assert_eq!((summary.days_dropped, summary.rows_trimmed), (0, 100), "days that are read are trimmed instead");
    // A server without a free core is late by a hundred milliseconds. The next longer timeout, for a vacuum, is two seconds.
    assert!(longest < Duration::from_secs(1), "somebody waited for {longest:?}: {waited_for}");
    assert!(number_of_writes > 10);
    export.rollback().await.unwrap();
    let next = purge(&database, &["--connection-logs-retention", "35d"]).await.unwrap();
    assert_eq!(next.days_dropped, 4, "the empty days go once nobody reads them");
    assert!(counts_are_right(&database.client().await.unwrap()).await);
}

/// Without this, a connection that is open is dropped with its day, and its end makes another row.
#[tokio::test]
async fn a_day_stays_whole_as_long_as_something_of_it_is_open() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let (one, two) = (fixtures::site(1, 1), fixtures::site(2, 1));
    let old = now() - TimeDelta::days(40);
    write(&store, vec![fixtures::connect(&one.agent, 1, old), fixtures::web(&two.agent, 2, old, Method::Tunnel)]).await;
    // Whoever writes connections of an agent holds its row: the purge does not wait for it.
    let mut other = database.client().await.unwrap();
    let held = other.transaction().await.unwrap();
    let agent = "SELECT FROM agents WHERE workspace_id = $1 FOR NO KEY UPDATE";
    held.query_one(agent, &[&one.agent.workspace.workspace_id]).await.unwrap();
    let retention = ["--connection-logs-retention", "30d"];
    let summary = purge(&database, &retention).await.unwrap();
    assert_eq!((summary.outcome, summary.open_removed, summary.days_dropped), (Outcome::Incomplete, 0, 0));
    assert_eq!((summary.rows_trimmed, summary.rows_left), (1, 1), "what has ended goes all the same");
    held.commit().await.unwrap();
    let summary = purge(&database, &retention).await.unwrap();
    assert_eq!((summary.outcome, summary.open_removed, summary.days_dropped), (Outcome::Complete, 1, 1));
    assert!(counts_are_right(&database.client().await.unwrap()).await);
}

#[tokio::test]
async fn closed_days_are_compacted_once_and_are_as_they_were() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client) = (database.store().unwrap(), database.client().await.unwrap());
    let agent = fixtures::site(1, 1).agent;
    let (old, today) = (now() - TimeDelta::days(5), now() - TimeDelta::minutes(5));
    let mut events: Vec<Event> = (1..=300).map(|number| fixtures::connect(&agent, number, old)).collect();
    events.extend((1..300).map(|number| fixtures::disconnect(&agent, number, old + TimeDelta::minutes(1))));
    events.extend([fixtures::web(&agent, 400, old, Method::Tunnel), fixtures::connect(&agent, 401, today)]);
    write(&store, events).await;
    let all = "SELECT md5(string_agg(log::text, ',' ORDER BY id)) FROM connection_logs AS log";
    let rows = async || client.query_one(all, &[]).await.unwrap().get::<_, String>(0);
    let before = rows().await;
    let bytes = format!("SELECT pg_total_relation_size('connection_logs_{}')", old.format("%Y%m%d"));
    let (bytes_before, feed_before) = (number(&client, &bytes).await, store.feed_end().await.unwrap());

    let left = purge(&database, &["--compact", "false"]).await.unwrap();
    assert_eq!((left.outcome, left.days_compacted), (Outcome::KeptForever, 0));
    let dry = purge(&database, &["--dry-run"]).await.unwrap();
    assert_eq!(dry.days_compacted, 0);
    let summary = purge(&database, &[]).await.unwrap();
    assert_eq!(summary.days_compacted, 1, "today is not closed: {summary}");
    assert_eq!(purge(&database, &[]).await.unwrap().days_compacted, 0);
    assert_eq!(rows().await, before);
    assert!(number(&client, &bytes).await < bytes_before, "there is no room for changes any more");
    assert!(counts_are_right(&client).await);
    assert!(store.knows_position(feed_before).await.unwrap());
    assert_eq!(number(&client, "SELECT count(*) FROM pg_class WHERE relname ~ '^compacted_'").await, 0);

    // It takes what comes late, and the end of what was open.
    write(&store, vec![fixtures::web(&agent, 402, old, Method::Tunnel), fixtures::disconnect(&agent, 300, now())])
        .await;
    assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 303);
    assert_eq!((number(&client, OPEN).await, number(&client, "SELECT count(*) FROM ongoing").await), (1, 0));
    assert!(counts_are_right(&client).await);

    // Once a twentieth of it came or ended late, it is due again.
    let due = async || store.retention_state(1, now()).await.unwrap().days_uncompacted;
    assert_eq!((purge(&database, &[]).await.unwrap().days_compacted, due().await), (0, 0));
    write(&store, (500..520).map(|number| fixtures::web(&agent, number, old, Method::Tunnel)).collect()).await;
    let before = rows().await;
    assert_eq!(due().await, 1);
    assert_eq!(purge(&database, &[]).await.unwrap().days_compacted, 1);
    assert_eq!((rows().await, due().await), (before, 0));
    assert!(counts_are_right(&client).await);
}

#[test]
fn a_bad_url_is_named_and_not_repeated() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connlog-purge"));
    let output = command.args(["--database-url", "postgresql://me:secret@[host/db"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: --database-url is not a PostgreSQL URL\n");
}

fn binary(database: &TestDatabase, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connlog-purge"));
    command.args(["--database-url", &database.url_as(PURGE)]).args(flags).env_remove("CODER_CONNECTION_LOGS_RETENTION");
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_purges_one_works_and_the_other_says_so() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let other = Uuid::new_v4();
    assert!(store.take_purge_lease(other).await.unwrap());
    let output = binary(&database, &["--connection-logs-retention", "30d"]);
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().last(), Some("error: another purge is running"));
    assert!(store.take_purge_lease(other).await.unwrap(), "whoever has it prolongs it");
    // One that died gave nothing back: its lease ends by itself.
    let client = database.client().await.unwrap();
    client.batch_execute("UPDATE purge_lease SET expires_at = now() - interval '1 second'").await.unwrap();
    assert!(binary(&database, &["--connection-logs-retention", "30d"]).status.success());
    assert!(store.take_purge_lease(other).await.unwrap(), "a run gives it back");
    store.give_purge_lease(other).await.unwrap();
    assert!(binary(&database, &["--connection-logs-retention", "30d"]).status.success());
}

#[tokio::test]
async fn the_retention_comes_from_flag_then_environment_then_file() {
    let database = TestDatabase::create().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("connlog.yaml");
    std::fs::write(&file, "retention: {connection_logs: 10d}\n").unwrap();
    let file = file.to_str().unwrap();
    let cutoff = |flags: &[&str], variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connlog-purge"));
        command
            .args(["--database-url", &database.url_as(PURGE), "--dry-run", "--json", "--now", "2026-01-31T00:00:00Z"])
            .args(flags);
        match variable {
            Some(value) => command.env("CODER_CONNECTION_LOGS_RETENTION", value),
            None => command.env_remove("CODER_CONNECTION_LOGS_RETENTION"),
        };
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let printed: serde_json::Value = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
        (output.status.code(), printed["cutoff"].as_str().map(str::to_owned), String::from_utf8(output.stderr).unwrap())
    };
    let day = |day: u32| Some(format!("2026-01-{day:02}T00:00:00Z"));
    assert_eq!(cutoff(&["--connection-logs-retention", "3d", "--config", file], Some("5d")).1, day(28));
    assert_eq!(cutoff(&["--config", file], Some("5d")).1, day(26));
    assert_eq!(cutoff(&["--config", file], Some("")).1, day(21), "an empty variable is unset");
    assert_eq!(cutoff(&["--config", file], None).1, day(21));
    for (flags, variable) in [(&[][..], None), (&[], Some("0")), (&["--connection-logs-retention", "-5d"], None)] {
        let (code, cutoff, _) = cutoff(flags, variable);
        assert_eq!((code, cutoff), (Some(0), None), "kept for ever");
    }
    for (flags, variable, named) in [
        (&["--connection-logs-retention", "90"][..], None, "--connection-logs-retention"),
        (&["--connection-logs-retention", ""], None, "--connection-logs-retention"),
        (&[], Some("1 month"), "--connection-logs-retention"),
        (&["--config", "/nowhere.yaml"], None, "--config /nowhere.yaml"),
        (&["--now", "tomorrow"], None, "--now"),
        (&["--lock-timeout", "0"], None, "--lock-timeout"),
        (&["--lock-timeout", "50d"], None, "--lock-timeout"),
    ] {
        let (code, _, stderr) = cutoff(flags, variable);
        assert_eq!(code, Some(64), "{flags:?}");
        assert!(stderr.lines().count() == 1 && stderr.contains(named), "{flags:?}: {stderr}");
    }
}

#[tokio::test]
async fn each_kind_of_record_has_its_retention_and_by_default_that_of_the_log() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    let old_records = "
        INSERT INTO rejected_events (id, received_at, message_type, message, field, reason, events, is_merged)
            SELECT gen_random_uuid(), now() - n * interval '1 day', 't', '', 'f', 'r', 1, false FROM generate_series(1, 40) AS n;
        INSERT INTO lost_events SELECT gen_random_uuid(), now() - n * interval '1 day', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
            gen_random_uuid(), 1, 2, 2, NULL, NULL, 'c' FROM generate_series(1, 40) AS n;
        INSERT INTO api_audit (id, at, token_id, endpoint, query, status)
            SELECT gen_random_uuid(), now() - n * interval '1 day', gen_random_uuid(), 'e', 'q', 200 FROM generate_series(1, 40) AS n;
        INSERT INTO agent_spools (agent, spool_id, boot_id, stream_id, earlier_boot_seq, last_seen_at)
            SELECT n, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 0, now() - n * interval '1 day' FROM generate_series(1, 40) AS n";
    client.batch_execute(old_records).await.unwrap();
    let kept = async || {
        let sql = "SELECT ARRAY[(SELECT count(*) FROM rejected_events), (SELECT count(*) FROM lost_events), (SELECT count(*) FROM api_audit),
            (SELECT count(*) FROM agent_spools)]";
        client.query_one(sql, &[]).await.unwrap().get::<_, Vec<i64>>(0)
    };
    // The log is kept for ever, and so is what has no retention of its own.
    let flags = ["--rejected-events-retention", "35d12h", "--batch-rows", "2"];
    let dry = purge(&database, &[&flags[..], &["--dry-run"]].concat()).await.unwrap();
    assert_eq!((dry.rejected_removed, dry.cutoff, kept().await), (5, None, vec![40, 40, 40, 40]));
    let summary = purge(&database, &flags).await.unwrap();
    assert_eq!((summary.outcome, summary.rejected_removed, summary.cutoff), (Outcome::Complete, 5, None));
    assert_eq!(kept().await, [35, 40, 40, 40]);
    assert_eq!(purge(&database, &["--connection-logs-retention", "0"]).await.unwrap().outcome, Outcome::KeptForever);

    let flags =
        ["--connection-logs-retention", "30d12h", "--lost-events-retention", "20d12h", "--audit-retention", "0"];
    let summary = purge(&database, &flags).await.unwrap();
    assert_eq!((summary.rejected_removed, summary.lost_removed, summary.audit_removed), (5, 20, 0));
    assert_eq!(kept().await, [30, 20, 40, 30]);
    let runs = database.store().unwrap().purge_runs(10).await.unwrap();
    assert_eq!((runs.len(), runs[0].removed.lost_removed, runs[1].cutoff), (2, 20, None));

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("connlog.yaml");
    std::fs::write(&config, "retention: {rejected_events: 10d12h, lost_events: 10d12h, audit: 10d12h}\n").unwrap();
    let summary =
        purge(&database, &["--config", config.to_str().unwrap(), "--audit-retention", "39d12h"]).await.unwrap();
    assert_eq!((summary.rejected_removed, summary.lost_removed, summary.audit_removed), (20, 10, 1));
    for (text, wrong) in [
        ("retention: {audit: soon}", "retention.audit: \"soon\" is not a duration"),
        ("retension: {connection_logs: 90d}", "unknown key `retension`; did you mean `retention`?"),
        ("Retention: {connection_logs: 90d}", "unknown key `Retention`; did you mean `retention`?"),
        (
            "retention: {connection-logs: 90d}",
            "unknown key `retention.connection-logs`; did you mean `retention.connection_logs`?",
        ),
    ] {
        std::fs::write(&config, format!("{text}\n")).unwrap();
        let output = binary(&database, &["--config", config.to_str().unwrap()]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{text}: {stderr}");
        assert!(stderr.contains(wrong), "{text}: {stderr}");
    }
    // What others read of the same file is theirs.
    std::fs::write(&config, "networking: {http_address: a}\nretention: {audit_logs: 7d, audit: 0}\n").unwrap();
    assert_eq!(binary(&database, &["--config", config.to_str().unwrap()]).status.code(), Some(0));
}

/// A Pushgateway's side of a push: takes one request and answers 200.
fn take_push(listener: &std::net::TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let length =
            text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
        let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if read == 0 || length.is_some_and(|length: usize| body >= length) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_did_is_told_in_a_textfile_and_pushed() {
    let database = TestDatabase::create().await.unwrap();
    history(&database.store().unwrap(), 5, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("connlog.prom");
    let gateway = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", gateway.local_addr().unwrap());
    let pushed = std::thread::spawn(move || take_push(&gateway));
    let flags = [
        "--connection-logs-retention",
        "1d",
        "--metrics-textfile",
        file.to_str().unwrap(),
        "--metrics-pushgateway",
        &url,
    ];
    let output = binary(&database, &flags);
    assert!(output.status.success(), "{output:?}");
    let pushed = pushed.join().unwrap();
    assert!(pushed.starts_with("PUT /metrics/job/connlog-purge HTTP/1.1\r\n"), "{pushed}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(pushed.ends_with(&text), "both are told the same");
    for line in [
        "coderd_dbpurge_records_purged_total{record_type=\"connection_logs\"} 12",
        "connlog_purge_runs_total{outcome=\"complete\"} 1",
        "connlog_purge_backlog_rows 0",
        "connlog_retention_seconds 86400",
        "coderd_dbpurge_iteration_duration_seconds_count{success=\"true\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in {text}");
    }
    // Nobody listens there, and the folder is missing: it is said, and the purge is none the worse.
    let nowhere = folder.path().join("nowhere/connlog.prom");
    let flags = [
        "--connection-logs-retention",
        "1d",
        "--metrics-textfile",
        nowhere.to_str().unwrap(),
        "--metrics-pushgateway",
        &url,
    ];
    let output = binary(&database, &flags);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("metrics were not written") && said.contains("metrics were not pushed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_interval_it_purges_again_and_again_until_it_is_told_to_stop() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    history(&store, 5, 3).await;
    let admin = connlog_testkit::process::free_address().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_connlog-purge"));
    command.args(["--database-url", &database.url_as(PURGE), "--connection-logs-retention", "2d", "--every", "1s"]);
    command.args(["--admin-listen", &admin.to_string()]);
    let mut process = connlog_testkit::process::Process::spawn("connlog-purge", &command, "TERM").unwrap();
    process.wait_until_listening(admin, Duration::from_secs(30)).unwrap();
    let runs = async || store.purge_runs(10).await.unwrap().len();
    until("the first run is written down", async || runs().await >= 1).await;
    assert_eq!(number(&database.client().await.unwrap(), "SELECT count(*) FROM connection_logs").await, 6);
    // Another one has the lease for a while: that is no failure.
    let other = Uuid::new_v4();
    until("the lease is free", async || store.take_purge_lease(other).await.unwrap()).await;
    let get = async |path: &str| reqwest::get(format!("http://{admin}{path}")).await.unwrap().text().await.unwrap();
    let turned_away = "coderd_dbpurge_iteration_duration_seconds_count{success=\"false\"}";
    until("it finds the lease taken", async || get("/metrics").await.contains(turned_away)).await;
    store.give_purge_lease(other).await.unwrap();
    let so_far = runs().await;
    until("it purges again", async || runs().await > so_far).await;
    assert_eq!(get("/readyz").await, "ok\n");
    assert!(get("/metrics").await.contains("coderd_dbpurge_records_purged_total{record_type=\"connection_logs\"} 9"));
    process.signal(connlog_testkit::process::Signal::SIGTERM).unwrap();
    assert!(process.wait(Duration::from_secs(20)).unwrap().success());
}

#[tokio::test]
async fn a_machine_whose_clock_is_ahead_goes_by_the_clock_of_the_database() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    // As if the database were an hour behind.
    let behind = "CREATE OR REPLACE FUNCTION raise_floor(wanted timestamptz, retention_seconds double precision) RETURNS timestamptz
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            UPDATE public.floor SET cutoff = greatest(cutoff,
                least(wanted, clock_timestamp() - interval '1 hour' - make_interval(secs => retention_seconds)))
            RETURNING cutoff $$";
    client.batch_execute(behind).await.unwrap();
    let agent = fixtures::site(1, 1).agent;
    let due = now() - TimeDelta::days(30);
    let between = fixtures::web(&agent, 1, due - TimeDelta::minutes(30), Method::Tunnel);
    let before = fixtures::web(&agent, 2, due - TimeDelta::minutes(90), Method::Tunnel);
    write(&database.store().unwrap(), vec![between, before]).await;
    let summary = purge(&database, &["--connection-logs-retention", "30d"]).await.unwrap();
    assert_eq!((summary.outcome, summary.rows_left), (Outcome::Complete, 0));
    assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 1);
    let floor: Timestamp = client.query_one("SELECT cutoff FROM floor", &[]).await.unwrap().get(0);
    assert_eq!(summary.cutoff, Some(rfc3339(floor)), "what is written down is what was in force");
}
