//! The live tail: each change once, in order, through reconnects, restarts and slow reading.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::{Stage, write};
use connlog_testkit::wait::until;
use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::postgres::{Options, PostgresServer};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use support::Service;
use uuid::Uuid;

const TAIL: &str = "/api/v2/connectionlog/tail";
const PATIENCE: Duration = Duration::from_secs(30);

async fn stage() -> Stage {
    Stage::new(support::sites([(1, 1)])).await
}

/// The events of a tail, as they come.
struct Tail {
    response: Response,
    text: String,
    last_id: String,
}

#[derive(Debug)]
struct Told {
    kind: String,
    data: Value,
}

impl Tail {
    async fn open(service: &Service, token: &str, parameters: &[(&str, &str)]) -> Self {
        let response = service.open(TAIL, token, parameters).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut tail = Self { response, text: String::new(), last_id: String::new() };
        assert_eq!(tail.next().await.kind, "ready");
        tail
    }

    async fn next(&mut self) -> Told {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    event.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
                };
                let told = Told {
                    kind: field("event").unwrap(),
                    data: serde_json::from_str(&field("data").unwrap_or_else(|| "null".to_owned())).unwrap(),
                };
                self.last_id = field("id").unwrap_or_else(|| self.last_id.clone());
                self.text = String::from(rest);
                return told;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something comes in time");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().expect("the tail goes on")).unwrap());
        }
    }

    async fn change(&mut self) -> (String, Uuid) {
        loop {
            let told = self.next().await;
            if !["position", "lag"].contains(&told.kind.as_str()) {
                return (told.kind, told.data["id"].as_str().unwrap_or_default().parse().unwrap_or_default());
            }
        }
    }
}

#[tokio::test]
async fn connects_ends_and_web_events_come_once_in_order_and_within_a_second() {
    let stage = stage().await;
    let service = Service::start(stage.database.url(), &[]).await;
    let agent = &stage.sites[0].agent;
    write(&stage.store, vec![fixtures::connect(agent, 1, now())]).await;
    // What is older than the oldest transaction of the server, of other databases too, is before the tail.
    let client = stage.database.client().await.unwrap();
    let passed = "SELECT max(xid) < pg_snapshot_xmin(pg_current_snapshot()) FROM changes";
    until("the feed is past what is there", async || client.query_one(passed, &[]).await.unwrap().get(0)).await;
    let mut tail = Tail::open(&service, &stage.auditor, &[]).await;
    let mut only_web = Tail::open(&service, &stage.auditor, &[("q", "method:tunnel")]).await;
    let row = |number| agent.row_id(Uuid::from_u128(number));
    let web = agent.workspace.web_row_id(Uuid::from_u128(50));
    let mut slowest = Duration::ZERO;
    for (event, expected) in [
        (fixtures::connect(agent, 2, now()), ("connect", row(2))),
        (fixtures::disconnect(agent, 1, now()), ("disconnect", row(1))),
        (fixtures::web(agent, 50, now() - TimeDelta::days(100), Method::Tunnel), ("web", web)),
        (fixtures::disconnect(agent, 2, now()), ("disconnect", row(2))),
    ] {
        write(&stage.store, vec![event]).await;
        let began = std::time::Instant::now();
        let (kind, id) = tail.change().await;
        slowest = slowest.max(began.elapsed());
        assert_eq!((kind.as_str(), id), expected);
    }
    println!("the slowest change came after {} ms", slowest.as_millis());
    assert_eq!(only_web.change().await, ("web".to_owned(), web));
}

#[tokio::test]
async fn a_tail_goes_on_where_it_was_on_another_replica_and_after_a_restart() {
    let stage = stage().await;
    let agent = &stage.sites[0].agent;
    let (one, two) = (Service::start(stage.database.url(), &[]).await, Service::start(stage.database.url(), &[]).await);
    let mut tail = Tail::open(&one, &stage.auditor, &[]).await;
    let mut seen = Vec::new();
    for number in 1..=30_u128 {
        write(&stage.store, vec![fixtures::connect(agent, number, now())]).await;
        if number % 10 == 3 {
            seen.push(tail.change().await.1);
        }
        if number % 10 == 5 {
            // Cut, while changes go on; then another replica, from the last id.
            let last_id = tail.last_id.clone();
            drop(tail);
            write(&stage.store, vec![fixtures::connect(agent, number + 100, now())]).await;
            tail = Tail::open(if number == 15 { &one } else { &two }, &stage.auditor, &[("since", &last_id)]).await;
        }
    }
    one.shutdown.begin();
    let expected = 33;
    while seen.len() < expected {
        let (kind, id) = tail.change().await;
        if kind == "end" {
            let last_id = tail.last_id.clone();
            tail = Tail::open(&two, &stage.auditor, &[("since", &last_id)]).await;
            continue;
        }
        seen.push(id);
    }
    let unique: std::collections::BTreeSet<Uuid> = seen.iter().copied().collect();
    assert_eq!((unique.len(), seen.len()), (expected, expected), "nothing twice, nothing missing");
}

#[tokio::test]
async fn a_burst_that_is_read_slowly_is_read_whole() {
    let stage = stage().await;
    let service = Service::start(stage.database.url(), &["--tail-lag", "1s"]).await;
    let mut tail = Tail::open(&service, &stage.auditor, &[]).await;
    let began = std::time::Instant::now();
    for part in 0..40_u128 {
        let events =
            (0..500).map(|number| fixtures::connect(&stage.sites[0].agent, 1 + part * 500 + number, now())).collect();
        write(&stage.store, events).await;
    }
    // Nothing is read for longer than a tail may lag unnoticed.
    until("the tail lags", async || began.elapsed() > Duration::from_millis(2500)).await;
    write(&stage.store, vec![fixtures::connect(&stage.sites[0].agent, 99_999, now())]).await;
    let (mut seen, mut lagged) = (std::collections::BTreeSet::new(), false);
    while seen.len() < 20_001 {
        let told = tail.next().await;
        lagged |= told.kind == "lag" && told.data["behind_seconds"].as_u64().unwrap() >= 1;
        if told.kind == "connect" {
            assert!(seen.insert(told.data["id"].to_string()), "a change came twice");
        }
    }
    assert!(lagged, "who reads slowly is told so");
}

#[tokio::test]
async fn a_revoked_token_ends_its_tail() {
    let stage = stage().await;
    let service = Service::start(stage.database.url(), &["--token-cache", "1s"]).await;
    let mut tail = Tail::open(&service, &stage.auditor, &[]).await;
    let token = stage.store.api_tokens().await.unwrap().remove(0);
    assert!(stage.store.revoke_token(token.id, now()).await.unwrap());
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    loop {
        let told = tail.next().await;
        if told.kind == "end" {
            assert_eq!(told.data["reason"], "the token is no longer valid");
            break;
        }
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_tail_keeps_to_its_tokens_organizations_and_to_the_number_of_tails() {
    let stage = stage().await;
    let theirs = fixtures::site(2, 2);
    fixtures::import(&stage.store, &theirs.directory, now()).await.unwrap();
    let reach = Some(vec![theirs.agent.workspace.organization_id]);
    let narrow = fixtures::api_token(&stage.store, Role::Auditor, None, reach, now()).await.unwrap();
    let service = Service::start(stage.database.url(), &["--max-tails", "1"]).await;
    let mut tail = Tail::open(&service, &narrow, &[]).await;
    assert_eq!(service.open(TAIL, &narrow, &[]).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    write(&stage.store, vec![fixtures::connect(&stage.sites[0].agent, 1, now())]).await;
    write(&stage.store, vec![fixtures::connect(&theirs.agent, 2, now())]).await;
    assert_eq!(tail.change().await.1, theirs.agent.row_id(Uuid::from_u128(2)));
    let refused = service.open(TAIL, &narrow, &[("q", "organization:org-1")]).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let reporter = fixtures::api_token(&stage.store, Role::Reporter, None, None, now()).await.unwrap();
    assert_eq!(service.open(TAIL, &reporter, &[]).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn one_token_does_not_take_all_tails() {
    let stage = stage().await;
    let other = fixtures::api_token(&stage.store, Role::Auditor, None, None, now()).await.unwrap();
    let service = Service::start(stage.database.url(), &["--max-tails-per-token", "2"]).await;
    let first = Tail::open(&service, &stage.auditor, &[]).await;
    let _second = Tail::open(&service, &stage.auditor, &[]).await;
    let refused = service.open(TAIL, &stage.auditor, &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().await.unwrap().contains("Too many tails of this token at once."));
    assert_eq!(service.open("/live", &stage.auditor, &[]).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let _others = Tail::open(&service, &other, &[]).await;
    // One that ends makes room, as soon as the service notices.
    drop(first);
    let is_free = async || service.open(TAIL, &stage.auditor, &[]).await.status() == StatusCode::OK;
    until("there is room again", is_free).await;
}

#[tokio::test]
async fn a_transaction_that_holds_the_feed_up_is_told_and_skips_nothing() {
    // A server of its own: the transactions of one are counted together, and this one would hold up the other tests.
    let server = PostgresServer::start(Options::for_tests()).unwrap();
    let database = TestDatabase::create_on(&server.url("postgres")).await.unwrap();
    let stage = Stage::on(database, support::sites([(1, 1)]), None, now()).await;
    let service = Service::start(stage.database.url(), &[]).await;
    let mut tail = Tail::open(&service, &stage.auditor, &[]).await;
    let mut client = stage.database.client().await.unwrap();
    let held = client.transaction().await.unwrap();
    held.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    write(&stage.store, vec![fixtures::connect(&stage.sites[0].agent, 1, now())]).await;
    loop {
        let told = tail.next().await;
        assert_ne!(told.kind, "connect", "a later change is not told before an earlier one can be");
        if told.kind == "lag" {
            assert_eq!(told.data["reason"], "a transaction on the server is still running");
            break;
        }
    }
    held.commit().await.unwrap();
    assert_eq!(tail.change().await.1, stage.sites[0].agent.row_id(Uuid::from_u128(1)));
}
