//! The write path on a real database: what single batches do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;

use chrono::{NaiveTime, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::event::{Action, Event, Outcome};
use connlog_model::identity::AgentIdentity;
use connlog_model::method::Method;
use connlog_model::search::Search;
use connlog_store::infer::Hello;
use connlog_store::read::{Page, PageRequest, Reach};
use connlog_store::write::{Applied, Batch, Refusal, Stamp};
use connlog_store::{Hole, LostRecord, Store, StoreConfig};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::gate::{Gate, Report};
use connlog_testkit::wait::until_value;
use uuid::Uuid;

async fn apply(store: &Store, events: Vec<Event>) -> Applied {
    store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.unwrap()
}

async fn page(store: &Store, query: &str) -> Page {
    let request = PageRequest::first(100, now());
    store.page(&Search::parse(query).unwrap(), &Reach::default(), request).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_connection_opens_and_completes() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let start = now() - TimeDelta::hours(1);

    apply(&store, vec![fixtures::connect(&site.agent, 7, start)]).await;
    assert_eq!(page(&store, "status:ongoing").await.count.entries, 1);

    let outcome = Outcome { reason: "closed".to_owned(), code: Some(3), rx_bytes: Some(5), tx_bytes: None };
    let end = start + TimeDelta::minutes(5);
    let disconnect = Action::Disconnect { connected_at: None, outcome };
    apply(&store, vec![fixtures::agent_event(&site.agent, 7, end, disconnect)]).await;

    let completed = page(&store, "status:completed").await;
    assert_eq!(completed.count.entries, 1);
    let entry = &completed.entries[0];
    assert_eq!((entry.connect_time, entry.disconnect_time, entry.code), (start, Some(end), Some(3)));
    assert_eq!(entry.rx_bytes, Some(5));
    assert_eq!(page(&store, "status:ongoing").await.entries, vec![]);
}

#[tokio::test]
async fn a_replay_of_everything_changes_nothing() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let start = now() - TimeDelta::hours(1);
    let events = vec![
        fixtures::connect(&site.agent, 7, start),
        fixtures::disconnect(&site.agent, 7, start + TimeDelta::minutes(5)),
        fixtures::connect(&site.agent, 8, start),
        fixtures::web(&site.agent, 9, start, Method::WorkspaceApp),
    ];
    for event in &events {
        apply(&store, vec![event.clone()]).await;
    }
    let before = page(&store, "").await;
    apply(&store, events.iter().rev().cloned().collect()).await;
    apply(&store, events).await;
    let after = page(&store, "").await;
    assert_eq!(before.entries, after.entries);
    assert_eq!(after.count.entries, 3);
}

#[tokio::test]
async fn an_event_id_that_another_event_of_the_day_has_is_refused_and_a_replay_is_not() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let noon = start_of_yesterday() + TimeDelta::hours(12);
    let at = |time| fixtures::web(&site.agent, 9, time, Method::WorkspaceApp);
    assert_eq!(apply(&store, vec![at(noon)]).await.refused, vec![]);

    let taken = |index| (index, Refusal::EventIdTaken);
    let (later, day_before) = (at(noon + TimeDelta::hours(1)), at(noon - TimeDelta::days(1)));
    assert_eq!(apply(&store, vec![at(noon), later.clone(), day_before.clone()]).await.refused, vec![taken(1)]);
    assert_eq!(apply(&store, vec![later.clone(), day_before, at(noon), later]).await.refused, vec![taken(0), taken(3)]);
    // Two of one batch, neither there before: the earlier one is it, whatever their order.
    let of_batch = |minutes| fixtures::web(&site.agent, 10, noon + TimeDelta::minutes(minutes), Method::PortForwarding);
    assert_eq!(apply(&store, vec![of_batch(2), of_batch(1)]).await.refused, vec![taken(0)]);

    let times: Vec<_> = page(&store, "").await.entries.iter().map(|entry| entry.connect_time).collect();
    assert_eq!(times, vec![noon + TimeDelta::minutes(1), noon, noon - TimeDelta::days(1)]);
}

#[tokio::test]
async fn nobody_takes_the_event_id_of_another_workspace() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let (one, two) = (fixtures::site(1, 1), fixtures::site(2, 2));
    let noon = start_of_yesterday() + TimeDelta::hours(12);
    // The same id, in one batch and in another, at the same time of the day and at another.
    let at = |agent, minutes| fixtures::web(agent, 9, noon + TimeDelta::minutes(minutes), Method::Tunnel);
    assert_eq!(apply(&store, vec![at(&two.agent, 0), at(&one.agent, 0)]).await.refused, vec![]);
    assert_eq!(apply(&store, vec![at(&two.agent, 0)]).await.refused, vec![]);
    assert_eq!(page(&store, "").await.entries.len(), 2);
    assert_eq!(apply(&store, vec![at(&one.agent, 1)]).await.refused, vec![(0, Refusal::EventIdTaken)]);
}

fn start_of_yesterday() -> Timestamp {
    (now() - TimeDelta::days(1)).date_naive().and_time(NaiveTime::MIN).and_utc()
}

#[tokio::test]
async fn a_late_connect_lowers_the_start_and_moves_the_row_to_its_day() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let end = now() - TimeDelta::hours(1);
    let start = end - TimeDelta::days(3);
    apply(&store, vec![fixtures::disconnect(&site.agent, 7, end)]).await;
    apply(&store, vec![fixtures::connect(&site.agent, 7, start)]).await;
    let entry = &page(&store, "").await.entries[0];
    assert_eq!((entry.connect_time, entry.disconnect_time), (start, Some(end)));
    let client = database.client().await.unwrap();
    let wrong: i64 = client
        .query_one(
            "SELECT count(*) FROM (SELECT day, sum(entries) AS n FROM connection_log_counts GROUP BY day) c
             FULL JOIN (SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, count(*) AS n FROM connection_logs GROUP BY 1) h
             USING (day) WHERE coalesce(c.n, 0) <> coalesce(h.n, 0)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(wrong, 0);
}

/// Without this, a batch that an older stream left in a queue brings what the newer one has reported as lost.
#[tokio::test]
async fn nothing_of_a_stream_that_no_longer_owns_its_spool_is_committed() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    let (agent, spool_id, time) = (&site.agent, Uuid::new_v4(), now());
    let hello = Hello {
        agent: Arc::clone(agent),
        spool_id,
        boot_id: Uuid::new_v4(),
        stream_id: Uuid::new_v4(),
        first_unacked_seq: 1,
        last_seq: 9,
        received_at: time,
    };
    store.greet(&hello).await.unwrap();
    let newer = Hello { stream_id: Uuid::new_v4(), ..hello.clone() };
    assert_eq!(store.greet(&newer).await.unwrap().committed_seq, None);

    let lost = LostRecord {
        id: Uuid::new_v4(),
        recorded_at: time,
        organization_id: site.agent.workspace.organization_id,
        workspace_id: site.agent.workspace.workspace_id,
        agent_id: agent.agent_id,
        hole: Some(Hole { spool_id, first_seq: 1, last_seq: 2 }),
        events: 2,
        since: None,
        until: None,
        cause: "spool full".to_owned(),
    };
    let batch_of = |stream_id| Batch {
        events: vec![fixtures::connect(&site.agent, 7, time)],
        stamps: vec![Stamp { agent: Arc::clone(agent), spool_id, stream_id, committed_seq: Some(3), seen_at: time }],
        lost: vec![lost.clone()],
        rejected: Vec::new(),
    };
    let applied = store.apply_batch(&batch_of(hello.stream_id), 1, time).await.unwrap();
    assert_eq!(applied.displaced, [hello.stream_id]);
    assert_eq!(page(&store, "").await.count.entries, 0);
    let client = database.client().await.unwrap();
    let losses = async || client.query_one("SELECT count(*) FROM lost_events", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(losses().await, 0);
    assert_eq!(store.apply_batch(&batch_of(newer.stream_id), 1, time).await.unwrap().displaced, Vec::<Uuid>::new());
    assert_eq!((page(&store, "").await.count.entries, losses().await), (1, 1));
    assert_eq!(store.greet(&newer).await.unwrap().committed_seq, Some(3));
}

#[tokio::test]
async fn rows_have_the_number_of_their_target_and_never_that_of_another() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client) = (database.store().unwrap(), database.client().await.unwrap());
    let (site, other, time) = (fixtures::site(1, 1), fixtures::site(2, 2), now());
    // A connection, a completed one and a web event, of an agent that no directory knows.
    let events = vec![
        fixtures::connect(&site.agent, 1, time),
        fixtures::connect(&site.agent, 2, time),
        fixtures::disconnect(&site.agent, 2, time),
        fixtures::web(&site.agent, 3, time, Method::Tunnel),
    ];
    apply(&store, events).await;
    let sql = "SELECT count(*), bool_and(workspace_id = $1 AND agent IN (SELECT agent FROM agents))
        FROM connection_logs JOIN targets USING (target)";
    let row = client.query_one(sql, &[&site.agent.workspace.workspace_id]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (3, true));

    // Somebody else has the number of a target: the next one is taken, so that nobody's connection is shown as another's.
    apply(&store, vec![fixtures::connect(&other.agent, 4, time)]).await;
    let (somebody, workspace) = (Uuid::new_v4(), other.agent.workspace.workspace_id);
    let forged = "UPDATE targets SET owner_id = $1 WHERE workspace_id = $2";
    client.execute(forged, &[&somebody, &workspace]).await.unwrap();
    apply(&database.store().unwrap(), vec![fixtures::connect(&other.agent, 5, time)]).await;
    let page = page(&store, &format!("workspace_id:{workspace}")).await;
    let mut owners: Vec<_> =
        page.entries.iter().map(|entry| (entry.connection_id.unwrap().as_u128(), entry.workspace_owner_id)).collect();
    owners.sort();
    assert_eq!(owners, [(4, somebody), (5, other.agent.workspace.owner_id)]);
}

/// Without this, rows that are written after an older backup was restored under a running service cannot be read.
#[tokio::test]
async fn agents_and_targets_are_noted_anew_in_a_database_that_was_restored() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client) = (database.store().unwrap(), database.client().await.unwrap());
    let (site, time) = (fixtures::site(1, 1), now());
    let batch_of =
        |connection| Batch { events: vec![fixtures::connect(&site.agent, connection, time)], ..Batch::default() };
    store.apply_batch(&batch_of(1), 1, time).await.unwrap();

    client
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
             DELETE FROM connection_logs; DELETE FROM targets; DELETE FROM agents;",
        )
        .await
        .unwrap();
    let apply = async || store.apply_batch(&batch_of(2), 1, time).await;
    until_value("a new connection takes the place of the ended one", apply, Result::is_ok).await.unwrap();
    assert_eq!(page(&store, "").await.entries[0].workspace_id, site.agent.workspace.workspace_id);
}

/// What is wrong with the log, in one number: rows against counts, what is open of closed days, and the feed.
const WRONG: &str = "SELECT
    (SELECT count(*) FROM (SELECT day, sum(entries) AS n, sum(ended) AS ended FROM connection_log_counts GROUP BY 1) AS c
     FULL JOIN (SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, count(*) AS n, count(disconnect_time) AS ended
                FROM connection_logs GROUP BY 1) AS l USING (day)
     WHERE (coalesce(c.n, 0), coalesce(c.ended, 0)) <> (coalesce(l.n, 0), coalesce(l.ended, 0)))
    + (SELECT count(*) FROM ongoing FULL JOIN (
           SELECT id, true AS is_there FROM connection_logs, floor
           WHERE disconnect_time IS NULL AND method <= 2 AND connect_time < closed_before) AS open USING (id)
       WHERE agent IS NULL OR is_there IS NULL)
    + (SELECT count(*) FROM connection_logs WHERE id NOT IN (SELECT unnest(ids) FROM changes))";

/// Everything that a batch can hold: new rows, ends, an attribute that is filled in, a beginning that moves its row, contradictions, on closed days and today.
fn full_batch(agent: &Arc<AgentIdentity>, stream: &Hello, time: Timestamp) -> Batch {
    let old = time - TimeDelta::days(9);
    let mut contradicting = fixtures::connect(agent, 1, old);
    if let Event::Agent(event) = &mut contradicting {
        event.client.ip = Some([203, 0, 113, 9].into());
    }
    let mut named = fixtures::connect(agent, 6, old);
    if let Event::Agent(event) = &mut named {
        event.client.session_id = Some(Uuid::from_u128(6));
    }
    let spool_id = stream.spool_id;
    Batch {
        events: vec![
            fixtures::disconnect(agent, 1, old + TimeDelta::hours(1)),
            contradicting,
            fixtures::connect(agent, 2, old - TimeDelta::days(2)),
            fixtures::connect(agent, 3, old),
            named,
            fixtures::connect(agent, 4, time),
            fixtures::web(agent, 5, time, Method::PortForwarding),
        ],
        stamps: vec![Stamp {
            agent: Arc::clone(agent),
            spool_id,
            stream_id: stream.stream_id,
            committed_seq: Some(9),
            seen_at: time,
        }],
        lost: vec![LostRecord {
            id: Uuid::new_v5(&spool_id, b"lost"),
            recorded_at: time,
            organization_id: agent.workspace.organization_id,
            workspace_id: agent.workspace.workspace_id,
            agent_id: agent.agent_id,
            hole: Some(Hole { spool_id, first_seq: 7, last_seq: 8 }),
            events: 2,
            since: None,
            until: None,
            cause: "spool full".to_owned(),
        }],
        rejected: Vec::new(),
    }
}

/// The connection is cut before each statement of a batch in turn: nothing of it is there, or all of it, and doing it again
/// makes it whole.
#[tokio::test]
async fn a_batch_that_breaks_off_at_any_statement_leaves_nothing_half_done() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client) = (database.store().unwrap(), database.client().await.unwrap());
    let mut names = Vec::new();
    for cut in 0.. {
        let site = fixtures::site(u128::from(1000_u32 + cut), 1);
        let (agent, time) = (&site.agent, now());
        let before = time - TimeDelta::days(9);
        let (open, unknown) = (fixtures::connect(agent, 1, before), fixtures::disconnect(agent, 2, before));
        apply(&store, vec![open, unknown, fixtures::connect(agent, 6, before)]).await;
        let hello = Hello {
            agent: Arc::clone(agent),
            spool_id: Uuid::new_v4(),
            boot_id: Uuid::new_v4(),
            stream_id: Uuid::new_v4(),
            first_unacked_seq: 1,
            last_seq: 9,
            received_at: time,
        };
        store.greet(&hello).await.unwrap();
        let batch = full_batch(agent, &hello, time);
        let of_agent = "SELECT count(*), count(disconnect_time) FROM connection_logs JOIN targets USING (target) WHERE workspace_id = $1";
        let rows = async || {
            let row = client.query_one(of_agent, &[&agent.workspace.workspace_id]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1))
        };

        let (mut gate, url) = Gate::before(database.url(), None).await.unwrap();
        let cut_off = Store::new(&StoreConfig::new(url, "cut off", 1)).unwrap();
        cut_off.ping().await.unwrap();
        gate.close().await;
        let (mut applying, mut seen) = (Box::pin(cut_off.apply_batch(&batch, 2, time)), 0);
        let outcome = loop {
            tokio::select! {
                outcome = &mut applying => break outcome,
                report = gate.report() => {
                    if let Ok(Report::Arrived(waiting)) = report {
                        seen += 1;
                        if seen > cut {
                            names.push(waiting.name.clone());
                            // Not let through: the connection ends.
                            drop(waiting);
                            gate.reopen().await;
                        } else {
                            waiting.release();
                        }
                    }
                }
            }
        };
        let whole = outcome.is_ok();
        assert!(whole || rows().await == (3, 1), "cut at {:?}: {:?}", names.last(), rows().await);
        for _ in 0..2 {
            store.apply_batch(&batch, 1, time).await.unwrap();
            assert_eq!(rows().await, (6, 2), "cut at {:?}", names.last());
        }
        assert_eq!(client.query_one(WRONG, &[]).await.unwrap().get::<_, i64>(0), 0, "cut at {:?}", names.last());
        assert_eq!(store.greet(&hello).await.unwrap().committed_seq, Some(9));
        if whole {
            break;
        }
    }
    for expected in [
        "lock_agents",
        "look_up",
        "update_rows",
        "end_rows",
        "take_unknown_starts",
        "add_ongoing",
        "insert_rows",
        "commit",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:?}");
    }
    let sql = "SELECT (SELECT count(*) FROM lost_events), (SELECT count(*) FROM contradictions)";
    let row = client.query_one(sql, &[]).await.unwrap();
    let tries = i64::try_from(names.len()).unwrap() + 1;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (tries, tries));
}

async fn one(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A connect that does not say when.
fn connect_without_time(agent: &Arc<AgentIdentity>, number: u128, received_at: Timestamp) -> Event {
    let mut event = fixtures::connect(agent, number, received_at);
    if let Event::Agent(event) = &mut event {
        event.time_is_receipt = true;
    }
    event
}

/// Without this, the list names a day on which the connection is not: nobody ends it, and the day is never dropped.
#[tokio::test]
async fn what_is_open_and_moves_is_listed_where_it_is() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client, site) = (database.store().unwrap(), database.client().await.unwrap(), fixtures::site(1, 1));
    let (old, older, today) = (now() - TimeDelta::days(9), now() - TimeDelta::days(12), now());
    apply(&store, vec![connect_without_time(&site.agent, 1, old), connect_without_time(&site.agent, 2, old)]).await;
    assert_eq!(one(&client, WRONG).await, 0);
    apply(&store, vec![fixtures::connect(&site.agent, 1, older)]).await;
    let listed = "SELECT connect_time FROM ongoing ORDER BY connect_time";
    let times: Vec<Timestamp> = client.query(listed, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(times, [older, old]);
    // To a day that is still being written.
    apply(&store, vec![fixtures::connect(&site.agent, 2, today)]).await;
    let times: Vec<Timestamp> = client.query(listed, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(times, [older]);
    assert_eq!(one(&client, "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL").await, 2);
}

/// Without this, whoever speaks of a connection whose beginning is unknown backdates it to where the next purge takes it.
#[tokio::test]
async fn a_beginning_that_lies_far_before_the_first_word_contradicts_it() {
    let database = TestDatabase::create().await.unwrap();
    let (store, site, end) = (database.store().unwrap(), fixtures::site(1, 1), now() - TimeDelta::days(1));
    apply(&store, vec![fixtures::disconnect(&site.agent, 1, end)]).await;
    let far = end - TimeDelta::days(46);
    assert_eq!(apply(&store, vec![fixtures::connect(&site.agent, 1, far)]).await.contradicting, 1);
    assert_eq!(page(&store, "").await.entries[0].connect_time, end);
    let near = end - TimeDelta::days(44);
    assert_eq!(apply(&store, vec![fixtures::connect(&site.agent, 1, near)]).await.contradicting, 0);
    assert_eq!(page(&store, "").await.entries[0].connect_time, near);
}

/// Without this, a beginning that another source puts a day ahead makes a second row beside the one that is open.
#[tokio::test]
async fn a_connection_is_found_on_all_days_that_are_written() {
    let database = TestDatabase::create().await.unwrap();
    let (store, site) = (database.store().unwrap(), fixtures::site(1, 1));
    let yesterday = start_of_yesterday() + TimeDelta::hours(1);
    apply(&store, vec![fixtures::connect(&site.agent, 1, yesterday)]).await;
    let ahead = now() + TimeDelta::hours(23);
    assert_eq!(apply(&store, vec![fixtures::connect(&site.agent, 1, ahead)]).await.contradicting, 1);
    assert_eq!(page(&store, "").await.entries.len(), 1);
}

#[tokio::test]
async fn a_web_event_with_the_id_and_time_of_another_and_other_content_is_refused() {
    let database = TestDatabase::create().await.unwrap();
    let (store, site, time) = (database.store().unwrap(), fixtures::site(1, 1), now() - TimeDelta::hours(1));
    let said = fixtures::web_event(&site.agent, 9, time, Method::WorkspaceApp);
    let other = connlog_model::event::WebEvent { status_code: 500, ..said.clone() };
    let (said, other) = (Event::Web(said), Event::Web(other));
    assert_eq!(apply(&store, vec![said.clone(), other.clone()]).await.refused, [(1, Refusal::EventIdTaken)]);
    assert_eq!(apply(&store, vec![other, said]).await.refused, [(0, Refusal::EventIdTaken)]);
}

/// Without this, one agent whose rows cannot be changed keeps the sweep from all others.
#[tokio::test]
async fn an_agent_whose_rows_cannot_be_changed_keeps_the_sweep_from_nobody() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client) = (database.store().unwrap(), database.client().await.unwrap());
    let sites = [fixtures::site(1, 1), fixtures::site(2, 1), fixtures::site(3, 1)];
    let time = now() - TimeDelta::hours(5);
    for site in &sites {
        let (spool_id, boot_id, stream_id) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let agent = Arc::clone(&site.agent);
        let hello = Hello { agent, spool_id, boot_id, stream_id, first_unacked_seq: 1, last_seq: 0, received_at: time };
        store.greet(&hello).await.unwrap();
        apply(&store, vec![fixtures::connect(&site.agent, 1, time)]).await;
    }
    let by_hand = "DO $$ BEGIN EXECUTE format('ALTER TABLE connection_logs ADD CONSTRAINT by_hand
        CHECK (disconnect_time IS NULL OR target <> %L) NOT VALID', (SELECT target FROM targets ORDER BY target LIMIT 1)); END $$";
    client.batch_execute(by_hand).await.unwrap();
    let ended = store.sweep_silent(now(), now() - TimeDelta::days(1), TimeDelta::minutes(10)).await.unwrap();
    assert_eq!(ended.len(), 2);
}

/// Without this, what is open of a day that somebody detached for a while is open for ever: it is not listed when its day is closed.
#[tokio::test]
async fn a_day_that_is_detached_is_not_closed_and_neither_is_a_later_one() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client, site) = (database.store().unwrap(), database.client().await.unwrap(), fixtures::site(1, 1));
    client
        .batch_execute("UPDATE floor SET closed_before = date_trunc('day', now() - interval '9 days', 'UTC')")
        .await
        .unwrap();
    let day_of = |days| (now() - TimeDelta::days(days)).date_naive();
    let time = |days| day_of(days).and_time(NaiveTime::MIN).and_utc() + TimeDelta::hours(1);
    apply(&store, vec![fixtures::connect(&site.agent, 1, time(6)), fixtures::connect(&site.agent, 2, time(4))]).await;
    let table = format!("connection_logs_{}", day_of(6).format("%Y%m%d"));
    client.batch_execute(&format!("ALTER TABLE connection_logs DETACH PARTITION {table}")).await.unwrap();
    store.close_days(now()).await.unwrap();
    let closed_before = "SELECT closed_before FROM floor";
    let closed: Timestamp = client.query_one(closed_before, &[]).await.unwrap().get(0);
    assert_eq!((closed.date_naive(), one(&client, "SELECT count(*) FROM ongoing").await), (day_of(6), 0));
    assert_eq!(store.unattached_days().await.unwrap(), [day_of(6)]);
    let attach = format!(
        "ALTER TABLE connection_logs ATTACH PARTITION {table} FOR VALUES FROM ('{}Z') TO ('{}Z')",
        day_of(6),
        day_of(5)
    );
    client.batch_execute(&attach).await.unwrap();
    store.close_days(now()).await.unwrap();
    assert_eq!((one(&client, "SELECT count(*) FROM ongoing").await, one(&client, WRONG).await), (2, 0));
}

/// Without this, a partition of somebody's with another name makes each event of a new day a dead letter.
#[tokio::test]
async fn a_partition_that_is_no_day_is_in_nobodys_way() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client, site) = (database.store().unwrap(), database.client().await.unwrap(), fixtures::site(1, 1));
    for sql in [
        "CREATE TABLE connection_logs_default PARTITION OF connection_logs DEFAULT",
        "CREATE TABLE connection_logs_202001 PARTITION OF connection_logs FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let began = |number, days| fixtures::connect(&site.agent, number, now() - TimeDelta::days(days));
    assert_eq!(apply(&store, vec![began(1, 30), began(2, 3)]).await.refused, []);
    store.close_days(now()).await.unwrap();
    assert_eq!(store.uncompacted_days().await.unwrap().len(), 2);
    assert_eq!(page(&store, "").await.entries.len(), 2);
}
