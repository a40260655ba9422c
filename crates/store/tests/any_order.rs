//! Any order, any duplication, any split, two concurrent writers: events that agree give the row that they say together,
//! and of events that disagree each is in the row, or is kept as a contradiction.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, rfc3339, truncate_to_micros};
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source};
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
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

/// Cases, unless everything is asked for.
const CASES: u32 = 30;

/// Minute of `connected_at`, reason, code, received bytes.
type DrawnOutcome = (Option<i64>, u8, Option<i32>, Option<i64>);
/// Time, reason, code, received bytes.
type ShownEnd = (Timestamp, Option<String>, Option<i32>, Option<i64>);

/// One event, in minutes and small numbers so that ties are common.
#[derive(Debug, Clone)]
struct Drawn {
    reporter: bool,
    minute: i64,
    method: Option<Method>,
    app: Option<u8>,
    ip: Option<u8>,
    user: Option<u8>,
    disconnect: Option<DrawnOutcome>,
}

/// A row as both sides show it. What no event says is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    connect_time: Timestamp,
    start_is_known: bool,
    method: Option<i16>,
    app: Option<String>,
    ip: Option<IpAddr>,
    user: Option<Uuid>,
    end: Option<ShownEnd>,
}

/// From one day to the next, so that rows move between partitions.
fn minute() -> impl Strategy<Value = i64> {
    prop_oneof![0..6_i64, 1_430..1_446_i64]
}

/// Any event at all.
fn drawn() -> impl Strategy<Value = Drawn> {
    let small = || proptest::option::of(0..2_u8);
    let method = proptest::option::of(prop_oneof![Just(Method::Ssh), Just(Method::ReconnectingPty)]);
    let disconnect =
        (proptest::option::of(minute()), 0..3_u8, proptest::option::of(0..2_i32), proptest::option::of(1..3_i64));
    (any::<bool>(), minute(), method, small(), small(), small(), proptest::option::of(disconnect)).prop_map(
        |(reporter, minute, method, app, ip, user, disconnect)| {
            let user = user.filter(|_| reporter);
            Drawn { reporter, minute, method, app, ip, user, disconnect }
        },
    )
}

/// Events that each say a part of the same story.
fn agreeing() -> impl Strategy<Value = Vec<Drawn>> {
    let parts = proptest::collection::vec((any::<[bool; 8]>(), any::<bool>(), any::<bool>()), 1..6);
    (drawn(), 0..6_i64, 1_430..1_446_i64, 1..3_u8, parts).prop_map(|(whole, start, end, reason, parts)| {
        let part = |(says, reporter, is_end): ([bool; 8], bool, bool)| {
            let told = |number: usize, of: Option<u8>| of.filter(|_| says[number]);
            let (_, _, code, rx_bytes) = whole.disconnect.unwrap_or((None, 0, Some(1), Some(2)));
            Drawn {
                reporter,
                minute: if is_end { end } else { start },
                method: whole.method.filter(|_| says[0]),
                app: told(1, whole.app),
                ip: told(2, whole.ip),
                user: told(3, Some(1)).filter(|_| reporter),
                disconnect: is_end.then(|| {
                    let connected_at = says[4].then_some(start);
                    let reason = if says[5] { reason } else { 0 };
                    (connected_at, reason, code.filter(|_| says[6]), rx_bytes.filter(|_| says[7]))
                }),
            }
        };
        parts.into_iter().map(part).collect()
    })
}

fn at(minute: i64) -> Timestamp {
    let midnight = (Utc::now().date_naive() - TimeDelta::days(3)).and_time(chrono::NaiveTime::MIN).and_utc();
    truncate_to_micros(midnight + TimeDelta::minutes(minute))
}

fn reason_text(reason: u8) -> String {
    if reason == 0 { String::new() } else { format!("reason {reason}") }
}

impl Drawn {
    fn client(&self) -> Client {
        Client {
            method: self.method,
            app_name: self.app.map(|app| format!("app_{app}")),
            ip: self.ip.map(|last| IpAddr::from([10, 0, 0, last])),
            user_id: self.user.map(|user| Uuid::from_u128(u128::from(user) + 100)),
            ..Client::default()
        }
    }

    fn event(&self, agent: &Arc<AgentIdentity>, connection_id: Uuid) -> Event {
        let action = match self.disconnect {
            None => Action::Connect,
            Some((connected_at, reason, code, rx_bytes)) => Action::Disconnect {
                connected_at: connected_at.map(at),
                outcome: Outcome { reason: reason_text(reason), code, rx_bytes, tx_bytes: None },
            },
        };
        Event::Agent(AgentEvent {
            agent: Arc::clone(agent),
            connection_id,
            boot: None,
            time: at(self.minute),
            time_is_receipt: false,
            source: if self.reporter { Source::Reporter } else { Source::Agent },
            received_at: at(3 * 1440),
            client: self.client(),
            action,
        })
    }

    /// Whether everything that it says is in the row.
    fn is_in(&self, row: &Shown) -> bool {
        let client = self.client();
        let same = |told: bool, is: bool| !told || is;
        let start = if self.disconnect.is_none() { Some(self.minute) } else { self.disconnect.and_then(|told| told.0) };
        let end = self.disconnect.is_none_or(|(_, reason, code, rx_bytes)| {
            row.end.as_ref().is_some_and(|(time, known_reason, known_code, known_bytes)| {
                *time == at(self.minute)
                    && same(reason != 0, *known_reason == Some(reason_text(reason)))
                    && same(code.is_some(), *known_code == code)
                    && same(rx_bytes.is_some(), *known_bytes == rx_bytes)
            })
        });
        end && same(start.is_some(), row.start_is_known && start.map(at) == Some(row.connect_time))
            && same(client.method.is_some(), row.method == client.method.map(Method::code))
            && same(client.app_name.is_some(), row.app == client.app_name)
            && same(client.ip.is_some(), row.ip == client.ip)
            && same(client.user_id.is_some(), row.user == client.user_id)
    }

    /// Whether a claim has its words.
    fn is(&self, source: i16, claim: &Value) -> bool {
        let client = self.client();
        let action = if self.disconnect.is_some() { "disconnect" } else { "connect" };
        let (connected_at, reason, code, rx_bytes) = self.disconnect.unwrap_or_default();
        let text = |key: &str| claim[key].as_str().map(str::to_owned);
        source == i16::from(self.reporter)
            && text("action").as_deref() == Some(action)
            && text("time") == Some(rfc3339(at(self.minute)))
            && text("connected_at") == connected_at.map(|minute| rfc3339(at(minute)))
            && text("reason").unwrap_or_default() == reason_text(reason)
            && claim["code"].as_i64() == code.map(i64::from)
            && claim["rx_bytes"].as_i64() == rx_bytes
            && text("method").as_deref() == client.method.map(Method::as_str)
            && text("app_name") == client.app_name
            && text("ip") == client.ip.map(|ip| ip.to_string())
            && text("user_id") == client.user_id.map(|id| id.to_string())
    }
}

/// What events that agree say together.
fn together(story: &[Drawn]) -> Shown {
    let said = |of: &dyn Fn(&Drawn) -> Option<i64>| story.iter().find_map(of);
    let start = said(&|drawn| match drawn.disconnect {
        None => Some(drawn.minute),
        Some((connected_at, ..)) => connected_at,
    });
    let ended = story.iter().find(|drawn| drawn.disconnect.is_some());
    let end = ended.map(|ended| {
        let outcomes = || story.iter().filter_map(|drawn| drawn.disconnect);
        let reason = outcomes().find(|(_, reason, ..)| *reason != 0).map(|(_, reason, ..)| reason_text(reason));
        let code = outcomes().find_map(|(_, _, code, _)| code);
        (at(ended.minute), reason, code, outcomes().find_map(|(_, _, _, rx_bytes)| rx_bytes))
    });
    let clients = || story.iter().map(Drawn::client);
    Shown {
        connect_time: at(start.or(ended.map(|ended| ended.minute)).unwrap()),
        start_is_known: start.is_some(),
        method: clients().find_map(|client| client.method).map(Method::code),
        app: clients().find_map(|client| client.app_name),
        ip: clients().find_map(|client| client.ip),
        user: clients().find_map(|client| client.user_id),
        end,
    }
}

fn shown(row: &Row) -> Shown {
    let end: Option<Timestamp> = row.get("disconnect_time");
    Shown {
        connect_time: row.get("connect_time"),
        start_is_known: row.get::<_, Option<i16>>("start_source").is_some(),
        method: Some(row.get("method")).filter(|_| row.get("method_known")),
        app: row.get("app_name"),
        ip: row.get("ip"),
        user: row.get("user_id"),
        end: end.map(|time| (time, row.get("disconnect_reason"), row.get("code"), row.get("rx_bytes"))),
    }
}

const ROWS: &str = "SELECT id, connect_time, start_source, method, method_known, app_name, ip, user_id,
    disconnect_time, disconnect_reason, code, rx_bytes
FROM connection_logs WHERE id = ANY($1)";

const CLAIMS: &str = "SELECT row_id, source, claim FROM contradictions WHERE row_id = ANY($1)";

/// Stories, and whether the events of each agree.
#[derive(Debug, Clone)]
struct Stories {
    all: Vec<(Vec<Drawn>, bool)>,
}

async fn write(store: &Store, batches: Vec<Vec<Event>>, shard: i16) {
    for events in batches {
        store.apply_batch(&Batch { events, ..Batch::default() }, shard, at(3 * 1440)).await.unwrap();
    }
}

async fn check(database: &TestDatabase, store: &Store, stories: &Stories, seed: u64, case: u64) {
    let stories = &stories.all;
    let agent = fixtures::site(1, 1).agent;
    let connection = |number: usize| Uuid::from_u128((u128::from(case) << 64) + number as u128 + 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut events: Vec<Event> = Vec::new();
    for (number, (story, _)) in stories.iter().enumerate() {
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
    let rows = database.client().await.unwrap().query(CLAIMS, &[&ids]).await.unwrap();
    let mut claims: BTreeMap<Uuid, Vec<(i16, Value)>> = BTreeMap::new();
    for row in &rows {
        claims.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
    }
    for (id, (story, agree)) in ids.iter().zip(stories) {
        let [row] = &found[id][..] else { panic!("seed {seed}: {:?} of {story:?}", found[id]) };
        let claims = claims.remove(id).unwrap_or_default();
        if *agree {
            assert_eq!((row, &claims[..]), (&together(story), &[][..]), "seed {seed}, of {story:?}");
        }
        for drawn in story {
            let is_kept = drawn.is_in(row) || claims.iter().any(|(source, claim)| drawn.is(*source, claim));
            assert!(is_kept, "seed {seed}: {drawn:?} is neither in {row:?} nor in {claims:?}");
        }
    }
}

#[test]
fn two_writers_make_one_row_of_what_agrees_and_keep_what_does_not() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::create()).unwrap();
    let store = runtime.block_on(async { database.store() }).unwrap();
    let cases = if std::env::var_os("CONNLOG_TEST_FULL").is_some() { 1_000 } else { CASES };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let disagreeing = proptest::collection::vec(drawn(), 1..6).prop_map(|story| (story, false));
    let agreeing = agreeing().prop_map(|story| (story, true));
    let stories = proptest::collection::vec(prop_oneof![disagreeing, agreeing], 1..40).prop_map(|all| Stories { all });
    let case = AtomicU64::new(0);
    runner
        .run(&(stories, any::<u64>()), |(stories, seed)| {
            let case = case.fetch_add(1, Ordering::Relaxed);
            runtime.block_on(check(&database, &store, &stories, seed, case));
            Ok(())
        })
        .unwrap();
}
