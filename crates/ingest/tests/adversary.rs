//! Who owns one workspace has its token, and may say anything. It rewrites nothing that is recorded, of whoever recorded it,
//! hides nobody and moves nothing to where the next purge would remove it; and all that it says is kept.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::role::Role;
use connlog_proto::v1;
use connlog_store::Store;
use connlog_testkit::fixtures::{self, Site, now};
use connlog_testkit::wait::until_value;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use support::{HelloOf, Service, Stream, authorized, client, database_with, timestamp};
use tokio_postgres::Client;
use uuid::Uuid;

const EVENTS: usize = 10_000;
const BATCH: usize = 200;
/// Connections that were recorded before: of each [`Story`] so many.
const OF_EACH: usize = 20;
/// Connections that the adversary is the first to speak of.
const NEW: usize = 20;
const SEED: u64 = 19;

/// Who recorded a connection before the adversary spoke, and what of it.
#[derive(Debug, Clone, Copy)]
enum Story {
    OpenByAgent,
    EndedByAgent,
    EndedByAgentWithoutStart,
    OpenByReporter,
    EndedByReporter,
    OpenByAgentThenReporter,
}

const STORIES: [Story; 6] = [
    Story::OpenByAgent,
    Story::EndedByAgent,
    Story::EndedByAgentWithoutStart,
    Story::OpenByReporter,
    Story::EndedByReporter,
    Story::OpenByAgentThenReporter,
];

#[tokio::test]
async fn ten_thousand_events_of_an_adversary_rewrite_hide_and_remove_nothing() {
    println!("seed {SEED}");
    let random = &mut SmallRng::seed_from_u64(SEED);
    let (database, store, sites) = database_with(2).await;
    // As many as it likes: what most of them leave is dead letters, which cost their sender.
    let service = Service::start(database.url(), &["--agent-rate", "1000000", "--reporter-rate", "1000000"]).await;
    let reporter = fixtures::api_token(&store, Role::Reporter, None, None, now()).await.unwrap();
    let superuser = database.client().await.unwrap();
    let log = Log { superuser, service, reporter };
    let mut ids: Vec<Uuid> = Vec::new();
    for story in STORIES {
        for _ in 0..OF_EACH {
            let id = Uuid::from_u128(random.random());
            log.record(story, id, &sites[0]).await;
            ids.push(id);
        }
    }
    // The twin has connections of the same ids.
    let twins = ids.iter().map(|id| connect(*id, whole_minute(TimeDelta::hours(3)), "192.0.2.1")).collect();
    log.stream(&sites[1], twins).await;
    let before = log.rows().await;
    assert_eq!(before.len(), STORIES.len() * OF_EACH * 2);

    ids.extend((0..NEW).map(|_| Uuid::from_u128(random.random::<u128>())));
    let mut stream = Stream::open(log.service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let mut said = Vec::new();
    for _ in 0..EVENTS / BATCH {
        let events: Vec<_> = (0..BATCH).map(|_| lie(random, &ids)).collect();
        let first = usize::try_from(stream.next_seq).unwrap();
        let last = stream.send(events.clone()).await;
        let refused = stream.acked(last).await.unwrap();
        let refused: Vec<usize> = refused.iter().map(|one| usize::try_from(one.seq).unwrap() - first).collect();
        let accepted = events.into_iter().enumerate().filter(|(index, _)| !refused.contains(index));
        said.extend(accepted.map(|(_, event)| event));
        // What it lists as open may have ended for all that the log knows.
        let listed: Vec<Uuid> = ids.iter().filter(|_| random.random_ratio(1, 3)).copied().collect();
        stream.heartbeat(&listed).await;
    }
    let dead_letters = support::number(&log.superuser, "SELECT count(*) FROM rejected_events").await;
    assert_eq!(usize::try_from(dead_letters).unwrap(), EVENTS - said.len(), "what was refused is kept");
    assert!(dead_letters > 0 && said.len() > EVENTS / 2);
    let users: Vec<Uuid> = ids.iter().map(|_| sites[1].agent.workspace.owner_id).collect();
    let named = ids.iter().zip(&users).map(|(id, user)| {
        reported(&sites[0], Some(*user), connect(*id, whole_minute(TimeDelta::days(2)), "198.51.100.200"))
    });
    log.report(named.collect()).await;

    let (rows, claims) = (log.rows().await, log.claims().await);
    for event in said {
        let id = sites[0].agent.row_id(Uuid::from_slice(&event.id).unwrap());
        assert_kept(&event, rows.get(&id).into_iter().flatten().chain(claims.get(&id).into_iter().flatten()));
    }
    for id in &ids {
        let rows = &rows[&sites[0].agent.row_id(*id)];
        assert!(rows.iter().any(|row| row.contains_key("user_id")), "{id} has no user: {rows:?}");
    }

    purge(&store).await;
    let rows = log.rows().await;
    for (id, recorded) in &before {
        assert_stands(recorded, rows.get(id).unwrap_or(&Vec::new()));
    }
    assert!(log.service.stop().await);
}

type Fields = Map<String, Value>;

struct Log {
    superuser: Client,
    service: Service,
    reporter: String,
}

impl Log {
    async fn record(&self, story: Story, id: Uuid, site: &Site) {
        let start = whole_minute(TimeDelta::days(4));
        let end = v1::Connection {
            action: v1::Action::Disconnect.into(),
            timestamp: Some(timestamp(start + TimeDelta::hours(1))),
            connected_at: Some(timestamp(start)),
            status_code: Some(7),
            reason: Some("as recorded".to_owned()),
            rx_bytes: 10,
            tx_bytes: 20,
            ..connect(id, start, "192.0.2.1")
        };
        let without_start = v1::Connection { connected_at: None, ..end.clone() };
        let begin = connect(id, start, "192.0.2.1");
        let user = Some(site.agent.workspace.owner_id);
        match story {
            Story::OpenByAgent => self.stream(site, vec![begin]).await,
            Story::EndedByAgent => self.stream(site, vec![begin, end]).await,
            Story::EndedByAgentWithoutStart => self.stream(site, vec![without_start]).await,
            Story::OpenByReporter => self.report(vec![reported(site, user, begin)]).await,
            Story::EndedByReporter => self.report(vec![reported(site, user, begin), reported(site, user, end)]).await,
            Story::OpenByAgentThenReporter => {
                self.stream(site, vec![begin.clone()]).await;
                self.report(vec![reported(site, user, begin)]).await;
            }
        }
    }

    async fn stream(&self, site: &Site, events: Vec<v1::Connection>) {
        let mut stream = Stream::open(self.service.address, &site.token, &HelloOf::new()).await.unwrap();
        let last = stream.send(events).await;
        assert_eq!(stream.acked(last).await.unwrap(), []);
    }

    async fn report(&self, events: Vec<v1::ReportedEvent>) {
        let request = authorized(v1::ReportEventsRequest { events }, &self.reporter);
        let response = client(self.service.address).await.report_events(request).await.unwrap().into_inner();
        assert_eq!(response.rejected, []);
    }

    /// What is recorded, by id: the attributes that are known. An id has several rows if it began on days far apart.
    async fn rows(&self) -> BTreeMap<Uuid, Vec<Fields>> {
        self.by_id("SELECT id, to_jsonb(connection_logs)::text FROM connection_logs").await
    }

    async fn claims(&self) -> BTreeMap<Uuid, Vec<Fields>> {
        self.by_id("SELECT row_id, claim::text FROM contradictions").await
    }

    async fn by_id(&self, sql: &str) -> BTreeMap<Uuid, Vec<Fields>> {
        let mut all = BTreeMap::<Uuid, Vec<Fields>>::new();
        for row in self.superuser.query(sql, &[]).await.unwrap() {
            let mut fields: Fields = serde_json::from_str(row.get(1)).unwrap();
            fields.retain(|_, value| !value.is_null());
            all.entry(row.get(0)).or_default().push(fields);
        }
        all
    }
}

/// What an agent may not change: each of these that is known.
const RECORDED: [&str; 13] = [
    "target",
    "connection_id",
    "ip",
    "client_session_id",
    "user_id",
    "received_at",
    "disconnect_time",
    "disconnect_inferred",
    "disconnect_reason",
    "code",
    "rx_bytes",
    "tx_bytes",
    "ended_received_at",
];

/// Among the rows of its id there is one with all that was recorded.
fn assert_stands(rows_before: &[Fields], rows_after: &[Fields]) {
    for before in rows_before {
        let stands = |after: &Fields| {
            let same = |field: &&str| before.get(*field).is_none_or(|value| after.get(*field) == Some(value));
            RECORDED.iter().all(same)
                && (before["method_known"] == json!(false) || same(&"method") && same(&"app_name"))
                && (!before.contains_key("start_source") || same(&"connect_time") && same(&"start_source"))
        };
        assert!(rows_after.iter().any(stands), "{before:?} is not among {rows_after:?}");
    }
}

/// Each thing that an accepted event says is in a row of its id, or in what contradicts it.
fn assert_kept<'a>(event: &v1::Connection, kept: impl Iterator<Item = &'a Fields> + Clone) {
    let time = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().map(|time| DateTime::from_timestamp(time.seconds, 0).unwrap())
    };
    let ends = event.action == i32::from(v1::Action::Disconnect);
    let at = if ends { "disconnect_time" } else { "connect_time" };
    let mut said = vec![("ip", "ip", json!(event.ip)), (at, "time", json!(time(&event.timestamp)))];
    if ends {
        said.push(("connect_time", "connected_at", json!(time(&event.connected_at))));
        said.push(("disconnect_reason", "reason", json!(event.reason)));
        said.push(("code", "code", json!(event.status_code)));
    }
    let same = |kept: Option<&Value>, said: &Value| {
        let times = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
        kept.is_some_and(|kept| kept == said || times(kept).is_some_and(|time| Some(time) == times(said)))
    };
    for (column, claim, value) in said.iter().filter(|(_, _, value)| !value.is_null()) {
        let is_there = |fields: &Fields| same(fields.get(*column), value) || same(fields.get(*claim), value);
        assert!(
            kept.clone().any(is_there),
            "{column} {value} of {event:?} is nowhere in {:?}",
            kept.collect::<Vec<_>>()
        );
    }
}

/// A random event about one of `ids`, some of them worth a dead letter.
fn lie(random: &mut SmallRng, ids: &[Uuid]) -> v1::Connection {
    let id = ids[random.random_range(0..ids.len())];
    let some_time = |random: &mut SmallRng| {
        let span = [TimeDelta::days(300), TimeDelta::days(8), TimeDelta::hours(2)][random.random_range(0..3)];
        whole_minute(TimeDelta::minutes(random.random_range(0..span.num_minutes())))
    };
    let time = some_time(random);
    let lie = connect(id, time, &format!("203.0.113.{}", random.random_range(0..9)));
    let lie = v1::Connection { app_name: ["ssh", "cursor", "goland"][random.random_range(0..3)].to_owned(), ..lie };
    match random.random_range(0..10) {
        0 => v1::Connection { id: Vec::new(), ..lie },
        1..5 => lie,
        _ => v1::Connection {
            action: v1::Action::Disconnect.into(),
            connected_at: random.random_ratio(1, 2).then(|| timestamp(some_time(random).min(time))),
            status_code: random.random_ratio(1, 2).then(|| random.random_range(0..3)),
            reason: random.random_ratio(1, 2).then(|| "a lie".to_owned()),
            rx_bytes: random.random_range(0..3),
            ..lie
        },
    }
}

fn connect(id: Uuid, time: Timestamp, ip: &str) -> v1::Connection {
    v1::Connection { ip: ip.to_owned(), ..support::connect(id, time) }
}

fn reported(site: &Site, user: Option<Uuid>, event: v1::Connection) -> v1::ReportedEvent {
    v1::ReportedEvent {
        workspace_id: site.agent.workspace.workspace_id.as_bytes().to_vec(),
        agent_name: site.agent.agent_name.clone(),
        user_id: user.map(|user| user.as_bytes().to_vec()).unwrap_or_default(),
        event: Some(v1::reported_event::Event::Connection(event)),
        ..v1::ReportedEvent::default()
    }
}

/// A time so long ago. All times here are whole minutes, further apart than clocks of agents and reporters may be.
fn whole_minute(ago: TimeDelta) -> Timestamp {
    let time = (now() - ago).timestamp();
    DateTime::from_timestamp(time - time % 60, 0).unwrap()
}

/// Purges what began more than 100 days ago: nothing that was recorded before the adversary spoke.
async fn purge(store: &Store) {
    let (retention, patience) = (TimeDelta::days(100), Duration::from_secs(20));
    let floor = store.raise_floor(now() - retention, retention, patience).await.unwrap();
    println!("the floor is {}", rfc3339(floor));
    store.close_days(now()).await.unwrap();
    while store.remove_open(floor, now(), 1_000).await.unwrap() > 0 {}
    for day in store.days_before(floor).await.unwrap() {
        if day < floor.date_naive() {
            let dropped = || store.drop_day(day, patience);
            until_value("the day can be dropped", async || dropped().await, Result::is_ok).await.unwrap();
        } else {
            while store.trim(day, floor, 1_000).await.unwrap() > 0 {}
        }
    }
}
