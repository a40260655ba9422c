//! Races that need other parts than the explorer's actors: inside one statement, a reader of the feed, a day that somebody
//! detaches. Each is shown twice: with the shipped SQL, which holds, and with a change of it, which has to fail.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveTime, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::event::Event;
use connlog_model::identity::AgentIdentity;
use connlog_model::search::Search;
use connlog_store::infer::{Hello, SignOfLife};
use connlog_store::read::Reach;
use connlog_store::write::{Batch, Stamp};
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::gate::{Change, Gate, Report, Rewrite, Waiting, changing, changing_function};
use connlog_testkit::wait::until;
use tokio_postgres::Client;
use uuid::Uuid;

async fn apply(store: &Store, event: Event, shard: i16) {
    store.apply_batch(&Batch { events: vec![event], ..Batch::default() }, shard, now()).await.unwrap();
}

/// A gate, and a store whose statements pass it.
async fn gated(database: &TestDatabase, rewrite: Option<Rewrite>) -> (Gate, Store) {
    let (gate, url) = Gate::before(database.url(), rewrite).await.unwrap();
    (gate, Store::new(&StoreConfig { by_key: true, ..StoreConfig::new(url, "gated", 1) }).unwrap())
}

async fn waits_for_a_lock(client: &Client) -> bool {
    let sql =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A connection of a closed day with an inferred end, whose agent a heartbeat may come from.
struct Lost {
    database: TestDatabase,
    store: Store,
    client: Client,
    agent: Arc<AgentIdentity>,
    began: Timestamp,
}

const SPOOL: Uuid = Uuid::from_u128(1);
const BOOT: Uuid = Uuid::from_u128(2);
const STREAM: Uuid = Uuid::from_u128(3);

impl Lost {
    async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let (store, client, site) = (database.store().unwrap(), database.client().await.unwrap(), fixtures::site(1, 1));
        fixtures::import(&store, &site.directory, now()).await.unwrap();
        let agent = Arc::clone(&site.agent);
        let hello = Hello {
            agent: Arc::clone(&agent),
            spool_id: SPOOL,
            boot_id: BOOT,
            stream_id: STREAM,
            first_unacked_seq: 1,
            last_seq: 0,
            received_at: now() - TimeDelta::hours(2),
        };
        store.greet(&hello).await.unwrap();
        let began = now() - TimeDelta::days(30);
        apply(&store, fixtures::connect(&agent, 1, began), 1).await;
        let silent_since = now() - TimeDelta::hours(1);
        let swept = store.sweep_silent(silent_since, now() - TimeDelta::days(1), TimeDelta::hours(1)).await;
        assert_eq!(swept.unwrap().len(), 1);
        store.close_days(now()).await.unwrap();
        Self { database, store, client, agent, began }
    }

    async fn change(&self, function: &str, changes: &[(&str, &str)]) {
        self.client.batch_execute(&changing_function(function, changes)).await.unwrap();
    }

    /// The heartbeat that lists it.
    async fn reopen(agent: &Arc<AgentIdentity>, store: &Store) {
        let (agent, listed) = (Arc::clone(agent), [Uuid::from_u128(1)]);
        let (spool_id, stream_id) = (SPOOL, STREAM);
        let stamp = Stamp { agent: Arc::clone(&agent), spool_id, stream_id, committed_seq: None, seen_at: now() };
        store.sign_of_life(&SignOfLife { agent: &agent, stamp, boot_id: BOOT, listed: &listed }).await.unwrap();
    }

    async fn open_rows(&self) -> i64 {
        let open = "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL";
        self.client.query_one(open, &[]).await.unwrap().get(0)
    }
}

/// Lets a store's statements through up to its commit.
async fn up_to_commit(gate: &mut Gate) -> Waiting {
    loop {
        match gate.report().await.unwrap() {
            Report::Arrived(waiting) if waiting.name == "commit" => return waiting,
            Report::Arrived(waiting) => waiting.release(),
            Report::Answered => {}
        }
    }
}

/// A heartbeat reopens a connection between the snapshot of a trim and its look at the row. Returns how many rows were
/// trimmed.
async fn trimmed_while_it_reopens(further: &[(&str, &str)]) -> i64 {
    let lost = Lost::new().await;
    let held =
        ("connect_time < $1 AND", "(SELECT count(*) FROM pg_advisory_xact_lock(777)) > 0 AND connect_time < $1 AND");
    lost.change("trim_day", &[held]).await;
    lost.change("trim_day", further).await;
    lost.client.batch_execute("SELECT pg_advisory_lock(777)").await.unwrap();
    let (store, began) = (lost.store.clone(), lost.began);
    let trimming = tokio::spawn(async move { store.trim(began.date_naive(), now() - TimeDelta::days(20), 10).await });
    until("the trim waits in its statement", async || waits_for_a_lock(&lost.client).await).await;
    Lost::reopen(&lost.agent, &lost.store).await;
    assert_eq!(lost.open_rows().await, 1);
    lost.client.batch_execute("SELECT pg_advisory_unlock(777)").await.unwrap();
    trimming.await.unwrap().unwrap()
}

/// A heartbeat that reopens a connection commits while a drop of its day waits. Returns how many rows were dropped.
async fn dropped_while_it_reopens(changes: &[(&str, &str)]) -> Option<i64> {
    let lost = Lost::new().await;
    lost.change("drop_day", changes).await;
    let (mut gate, slow) = gated(&lost.database, None).await;
    slow.ping().await.unwrap();
    gate.close().await;
    let agent = Arc::clone(&lost.agent);
    let reopening = tokio::spawn(async move { Lost::reopen(&agent, &slow).await });
    let commit = up_to_commit(&mut gate).await;
    let (store, day) = (lost.store.clone(), lost.began.date_naive());
    let dropping = tokio::spawn(async move { store.drop_day(day, Duration::from_mins(1)).await });
    until("the drop waits", async || waits_for_a_lock(&lost.client).await).await;
    commit.release();
    gate.reopen().await;
    reopening.await.unwrap();
    dropping.await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_which_something_reopens_is_not_dropped() {
    assert_eq!(dropped_while_it_reopens(&[]).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_that_tests_before_it_locks_is_caught() {
    let hold = "PERFORM public.hold_day(public.day_table(drop_day.day), patience);";
    let late = format!("{hold} EXECUTE format('DROP TABLE");
    let changes = [(hold, ""), ("EXECUTE format('DROP TABLE", late.as_str())];
    assert_eq!(dropped_while_it_reopens(&changes).await, Some(1));
}

#[tokio::test]
async fn a_connection_that_reopens_is_not_trimmed() {
    assert_eq!(trimmed_while_it_reopens(&[]).await, 0);
}

/// One of the two changes alone is harmless: a version of a row that is younger than the snapshot is not deleted by its place.
#[tokio::test]
async fn a_trim_that_asks_the_list_of_open_rows_is_caught() {
    let anti_join = "NOT EXISTS (SELECT FROM public.ongoing AS o WHERE o.id = %1$I.id)";
    let by_id = [("SELECT ctid", "SELECT id"), ("h.ctid = due.ctid", "h.id = due.id")];
    let ask_the_list = [("(disconnect_time IS NOT NULL OR method >= 3)", anti_join)];
    assert_eq!(trimmed_while_it_reopens(&[&by_id[..], &ask_the_list].concat()).await, 1);
}

/// One write begins before another and commits after it. Returns which of the two, and of a third, a reader has got.
async fn read_while_writes_overtake(rewrite: Option<Rewrite>) -> BTreeSet<u128> {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let sites = [1, 2, 3].map(|number| fixtures::site(number, 1));
    for site in &sites {
        fixtures::import(&store, &site.directory, now()).await.unwrap();
    }
    let event = |number: u128| {
        let site = &sites[usize::try_from(number).unwrap() - 1];
        fixtures::connect(&site.agent, number, now() - TimeDelta::minutes(5))
    };
    let (mut gate, slow) = gated(&database, None).await;
    let (_open, reader) = gated(&database, rewrite).await;
    slow.ping().await.unwrap();
    let mut position = store.feed_start().await.unwrap();
    gate.close().await;
    let first = event(1);
    let writing = tokio::spawn(async move { apply(&slow, first, 1).await });
    let commit = up_to_commit(&mut gate).await;
    apply(&store, event(2), 2).await;
    let row = |number: u128| sites[usize::try_from(number).unwrap() - 1].agent.row_id(Uuid::from_u128(number));
    let mut found = BTreeSet::new();
    let mut read = async || {
        let changes = reader.changes(&Search::default(), &Reach::default(), position, 100, now()).await;
        let changes = changes.unwrap().unwrap();
        position = changes.position;
        found.extend((1..=3).filter(|number| changes.entries.iter().any(|entry| entry.id == row(*number))));
        found.clone()
    };
    read().await;
    commit.release();
    gate.reopen().await;
    writing.await.unwrap();
    apply(&store, event(3), 3).await;
    // The feed ends where the oldest transaction of the server does, another test's, say.
    until("the last one is read", async || read().await.contains(&3)).await;
    found
}

#[tokio::test]
async fn a_reader_of_the_feed_misses_nothing_that_commits_late() {
    assert_eq!(read_while_writes_overtake(None).await, BTreeSet::from([1, 2, 3]));
}

#[tokio::test]
async fn a_feed_without_its_bound_is_caught() {
    const UNBOUND: &[Change] =
        &[("read_changes", " AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::xid8", "")];
    assert_eq!(read_while_writes_overtake(Some(changing(UNBOUND))).await, BTreeSet::from([2, 3]));
}

/// A beginning and an end on one day, whatever time it is. An end of the next day has a day of its own to be recorded on.
fn within_a_day() -> (Timestamp, Timestamp) {
    let noon = (now() - TimeDelta::days(1)).date_naive().and_time(NaiveTime::MIN).and_utc() + TimeDelta::hours(12);
    (noon, noon + TimeDelta::hours(1))
}

/// Somebody detaches the day of a connection before or after each statement of the batch that ends it. Returns how often an
/// end was accepted although the log no longer had the day, and how often it was refused for that.
async fn ends_on_a_detached_day(rewrite: Option<Rewrite>) -> (usize, usize) {
    let database = TestDatabase::create().await.unwrap();
    let (store, client, site) = (database.store().unwrap(), database.client().await.unwrap(), fixtures::site(1, 1));
    fixtures::import(&store, &site.directory, now()).await.unwrap();
    let (mut gate, writer) = gated(&database, rewrite).await;
    let (began, ended) = within_a_day();
    let table = format!("connection_logs_{}", began.format("%Y%m%d"));
    let (day, next) = (began.date_naive(), began.date_naive() + TimeDelta::days(1));
    let attach =
        format!("ALTER TABLE connection_logs ATTACH PARTITION {table} FOR VALUES FROM ('{day}Z') TO ('{next}Z')");
    let detach = Arc::new(format!("ALTER TABLE connection_logs DETACH PARTITION {table}"));
    let (mut accepted, mut refused) = (0, 0);
    for before in 0.. {
        let number = u128::try_from(before).unwrap() + 1;
        apply(&store, fixtures::connect(&site.agent, number, began), 1).await;
        writer.ping().await.unwrap();
        gate.close().await;
        let batch = Batch { events: vec![fixtures::disconnect(&site.agent, number, ended)], ..Batch::default() };
        let store_of_batch = writer.clone();
        let mut ending = tokio::spawn(async move { store_of_batch.apply_batch(&batch, 1, now()).await });
        let (mut statements, mut detaching, mut is_detached_first) = (0, None, false);
        let outcome = loop {
            let waiting = tokio::select! {
                ended = &mut ending => break ended.unwrap(),
                report = gate.report() => match report.unwrap() {
                    Report::Arrived(waiting) => waiting,
                    Report::Answered => continue,
                },
            };
            if statements == before {
                let (database_url, detach) = (database.url().to_owned(), Arc::clone(&detach));
                let task = tokio::spawn(async move {
                    let client = connlog_testkit::database::connect(&database_url).await.unwrap();
                    client.batch_execute(&detach).await.unwrap();
                });
                until("it is detached, or waits", async || task.is_finished() || waits_for_a_lock(&client).await).await;
                is_detached_first = task.is_finished();
                detaching = Some(task);
            }
            statements += 1;
            waiting.release();
        };
        gate.reopen().await;
        let Some(detaching) = detaching else { break };
        detaching.await.unwrap();
        client.batch_execute(&attach).await.unwrap();
        match outcome {
            Ok(_) if is_detached_first => accepted += 1,
            Ok(_) => {}
            Err(_) => {
                assert!(is_detached_first, "a batch is refused only for a day that is not there");
                refused += 1;
            }
        }
    }
    (accepted, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_for_a_day_that_was_detached() {
    let (accepted, refused) = ends_on_a_detached_day(None).await;
    assert_eq!(accepted, 0);
    assert!(refused > 0, "it was detached before the batch held the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_written_by_name_without_asking_whether_it_is_attached_is_caught() {
    const BY_NAME: &[Change] = &[(
        "read_bounds",
        "WHERE inhparent = 'connection_logs'::regclass AND NOT inhdetachpending",
        "WHERE inhparent = 'connection_logs'::regclass UNION SELECT right(relname, 8) FROM pg_class \
         WHERE relkind = 'r' AND relname ~ '^connection_logs_[0-9]{8}$'",
    )];
    assert!(ends_on_a_detached_day(Some(changing(BY_NAME))).await.0 > 0);
}

/// A batch that ends a connection waits for somebody who detaches its day. Returns whether it was accepted.
async fn is_accepted_after_its_day_went(rewrite: Option<Rewrite>) -> bool {
    let database = TestDatabase::create().await.unwrap();
    let (store, client, site) = (database.store().unwrap(), database.client().await.unwrap(), fixtures::site(1, 1));
    fixtures::import(&store, &site.directory, now()).await.unwrap();
    let (_open, writer) = gated(&database, rewrite).await;
    let (began, ended) = within_a_day();
    apply(&writer, fixtures::connect(&site.agent, 1, began), 1).await;
    client.batch_execute("BEGIN; LOCK TABLE connection_logs IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let batch = Batch { events: vec![fixtures::disconnect(&site.agent, 1, ended)], ..Batch::default() };
    let writing = tokio::spawn(async move { writer.apply_batch(&batch, 1, now()).await });
    until("the batch waits", async || waits_for_a_lock(&client).await).await;
    let detach =
        format!("ALTER TABLE connection_logs DETACH PARTITION connection_logs_{}; COMMIT", began.format("%Y%m%d"));
    client.batch_execute(&detach).await.unwrap();
    writing.await.unwrap().is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_waits_for_a_detachment_sees_it() {
    assert!(!is_accepted_after_its_day_went(None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_are_read_before_the_log_is_locked_are_caught() {
    const BEFORE: &[Change] = &[
        (
            "begin_log_write",
            "; LOCK TABLE",
            "; SELECT set_config('test.days', ARRAY(SELECT right(inhrelid::regclass::text, 8) FROM pg_inherits \
             WHERE inhparent = 'connection_logs'::regclass)::text, true); LOCK TABLE",
        ),
        ("read_bounds", "ARRAY(", "current_setting('test.days')::text[] AS days, ARRAY("),
        ("read_bounds", "AS days\nFROM floor", "AS later_days\nFROM floor"),
    ];
    assert!(is_accepted_after_its_day_went(Some(changing(BEFORE))).await);
}
