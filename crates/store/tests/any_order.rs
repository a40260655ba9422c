//! Any order, any duplication, any split: what two concurrent writers make of shuffled events is what the merge rules
//! make of their set, and a key is never both open and in history.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome};
use connlog_model::identity::AgentIdentity;
use connlog_model::method::Method;
use connlog_store::Store;
use connlog_store::write::Batch;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio_postgres::Row;
use uuid::Uuid;

/// Cases, unless everything is asked for.
const CASES: u32 = 40;

/// One event of a story, in minutes and small numbers so that ties are common.
#[derive(Debug, Clone)]
struct Drawn {
    minute: i64,
    app: Option<u8>,
    ip: Option<u8>,
    user: Option<u8>,
    session: Option<u8>,
    terminal: bool,
    /// Minute of `connected_at`, reason, code, received bytes.
    disconnect: Option<(Option<i64>, u8, i32, Option<i64>)>,
}

/// A row as both sides show it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    connect_time: Timestamp,
    method: i16,
    app: Option<String>,
    ip: Option<IpAddr>,
    user: Option<Uuid>,
    session: Option<Uuid>,
    end: Option<(Timestamp, String, i32, Option<i64>)>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let small = || proptest::option::of(0..3_u8);
    // From one day to the next and back, so that rows move between partitions.
    let minute = || prop_oneof![0..6_i64, 1_430..1_446_i64];
    let disconnect = (proptest::option::of(minute()), 0..2_u8, 0..2_i32, proptest::option::of(1..3_i64));
    (minute(), small(), small(), small(), small(), any::<bool>(), proptest::option::of(disconnect)).prop_map(
        |(minute, app, ip, user, session, terminal, disconnect)| Drawn {
            minute,
            app,
            ip,
            user,
            session,
            terminal,
            disconnect,
        },
    )
}

fn at(minute: i64) -> Timestamp {
    let midnight = (Utc::now().date_naive() - TimeDelta::days(3)).and_time(chrono::NaiveTime::MIN).and_utc();
    truncate_to_micros(midnight + TimeDelta::minutes(minute))
}

impl Drawn {
    fn client(&self) -> Client {
        Client {
            method: if self.terminal { Method::ReconnectingPty } else { Method::Ssh },
            app_name: self.app.map(|app| format!("app_{app}")),
            ip: self.ip.map(|last| IpAddr::from([10, 0, 0, last])),
            session_id: self.session.map(|session| Uuid::from_u128(u128::from(session) + 1)),
            user_id: self.user.map(|user| Uuid::from_u128(u128::from(user) + 100)),
        }
    }

    fn event(&self, agent: &Arc<AgentIdentity>, connection_id: Uuid) -> Event {
        let action = match self.disconnect {
            None => Action::Connect,
            Some((connected_at, reason, code, rx_bytes)) => Action::Disconnect {
                connected_at: connected_at.map(at),
                outcome: Outcome { reason: format!("reason {reason}"), code, rx_bytes, tx_bytes: None },
            },
        };
        Event::Agent(AgentEvent {
            agent: Arc::clone(agent),
            connection_id,
            boot_id: None,
            time: at(self.minute),
            time_is_receipt: false,
            client: self.client(),
            action,
        })
    }
}

/// The value from the earliest connect that has one, else from the earliest disconnect.
fn first<T: Ord + Clone>(connects: &[&Drawn], disconnects: &[&Drawn], of: impl Fn(&Client) -> Option<T>) -> Option<T> {
    let earliest = |events: &[&Drawn]| {
        events.iter().filter_map(|drawn| Some((drawn.minute, of(&drawn.client())?))).min().map(|(_, value)| value)
    };
    earliest(connects).or_else(|| earliest(disconnects))
}

/// The merge rules, written from their wording alone.
fn oracle(story: &[Drawn]) -> Shown {
    let (disconnects, connects): (Vec<&Drawn>, Vec<&Drawn>) =
        story.iter().partition(|drawn| drawn.disconnect.is_some());
    let starts = story.iter().flat_map(|drawn| {
        let connected_at = drawn.disconnect.and_then(|(connected_at, ..)| connected_at);
        [Some(drawn.minute), connected_at].into_iter().flatten()
    });
    let end = disconnects
        .iter()
        .filter_map(|drawn| {
            let (_, reason, code, rx_bytes) = drawn.disconnect?;
            Some((at(drawn.minute), format!("reason {reason}"), code, rx_bytes))
        })
        .min();
    Shown {
        connect_time: at(starts.min().unwrap()),
        method: first(&connects, &disconnects, |client| Some(client.method)).unwrap().code(),
        app: first(&connects, &disconnects, |client| client.app_name.clone()),
        ip: first(&connects, &disconnects, |client| client.ip),
        user: first(&connects, &disconnects, |client| client.user_id),
        session: first(&connects, &disconnects, |client| client.session_id),
        end,
    }
}

fn shown(row: &Row) -> Shown {
    let end: Option<Timestamp> = row.get("disconnect_time");
    Shown {
        connect_time: row.get("connect_time"),
        method: row.get("method"),
        app: row.get("app_name"),
        ip: row.get("ip"),
        user: row.get("user_id"),
        session: row.get("client_session_id"),
        end: end.map(|time| (time, row.get("disconnect_reason"), row.get("code"), row.get("rx_bytes"))),
    }
}

const ROWS: &str = "SELECT id, connect_time, method, app_name, ip, user_id, client_session_id,
    NULL::timestamptz AS disconnect_time, NULL::text AS disconnect_reason, NULL::int AS code, NULL::bigint AS rx_bytes
FROM open_connections WHERE id = ANY($1)
UNION ALL
SELECT id, connect_time, method, app_name, ip, user_id, client_session_id,
    disconnect_time, disconnect_reason, code, rx_bytes
FROM connection_logs WHERE id = ANY($1)";

async fn write(store: &Store, batches: Vec<Vec<Event>>, shard: i16) {
    for events in batches {
        store.apply_batch(&Batch { events, ..Batch::default() }, shard, at(3 * 1440)).await.unwrap();
    }
}

async fn check(database: &TestDatabase, store: &Store, stories: &[Vec<Drawn>], seed: u64, case: u64) {
    let agent = fixtures::site(1, 1).agent;
    let connection = |number: usize| Uuid::from_u128((u128::from(case) << 64) + number as u128 + 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut events: Vec<Event> = Vec::new();
    for (number, story) in stories.iter().enumerate() {
        for drawn in story {
            let copies = if random.random_ratio(1, 3) { 2 } else { 1 };
            events.extend((0..copies).map(|_| drawn.event(&agent, connection(number))));
        }
    }
    events.shuffle(&mut random);
    let mut writers: [Vec<Vec<Event>>; 2] = [Vec::new(), Vec::new()];
    while !events.is_empty() {
        let size = random.random_range(1..=events.len().min(20));
        writers[random.random_range(0..2)].push(events.drain(..size).collect());
    }
    // The same batch on two replicas: the first one of each is given to the other, too.
    if let (Some(first), Some(second)) = (writers[0].first().cloned(), writers[1].first().cloned()) {
        writers[0].push(second);
        writers[1].push(first);
    }
    let [first, second] = writers;
    tokio::join!(write(store, first, 1), write(store, second, 2));

    let ids: Vec<Uuid> = (0..stories.len()).map(|number| agent.row_id(connection(number))).collect();
    let rows = database.client().await.unwrap().query(ROWS, &[&ids]).await.unwrap();
    let mut found: BTreeMap<Uuid, Vec<Shown>> = BTreeMap::new();
    for row in &rows {
        found.entry(row.get("id")).or_default().push(shown(row));
    }
    for (id, story) in ids.iter().zip(stories) {
        assert_eq!(found.get(id), Some(&vec![oracle(story)]), "seed {seed}, of {story:?}");
    }
}

#[test]
fn two_writers_make_of_shuffled_events_what_the_rules_make_of_their_set() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::create()).unwrap();
    let store = runtime.block_on(async { database.store() }).unwrap();
    let cases = if std::env::var_os("CONNLOG_TEST_FULL").is_some() { 1_000 } else { CASES };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let stories = proptest::collection::vec(proptest::collection::vec(drawn(), 1..6), 1..40);
    let case = AtomicU64::new(0);
    runner
        .run(&(stories, any::<u64>()), |(stories, seed)| {
            let case = case.fetch_add(1, Ordering::Relaxed);
            runtime.block_on(check(&database, &store, &stories, seed, case));
            Ok(())
        })
        .unwrap();
}
