//! Reads from a replica: answers say how fresh they are, writes go to the primary, and a tail goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use chrono::{DateTime, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::cursor::Position;
use connlog_model::role::Role;
use connlog_store::{Store, StoreConfig, roles, schema};
use connlog_testkit::database::{as_role, connect};
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::postgres::{Options, PostgresServer};
use connlog_testkit::stage::write;
use connlog_testkit::wait::{PATIENCE, until, until_value};
use reqwest::StatusCode;
use support::Service;
use uuid::Uuid;

async fn fresh_as_of(service: &Service, token: &str) -> Option<Timestamp> {
    let response = service.open("/api/v2/connectionlog", token, &[]).await;
    let header = response.headers().get("connlog-fresh-as-of")?;
    Some(DateTime::parse_from_rfc3339(header.to_str().unwrap()).unwrap().to_utc())
}

#[tokio::test]
async fn a_replica_that_is_behind_says_so_and_catches_up() {
    let primary = PostgresServer::start(Options::for_tests()).unwrap();
    let (url, store) = (primary.url("postgres"), |url: &str| Store::new(&StoreConfig::new(url, "test", 2)).unwrap());
    let writes = store(&url);
    schema::migrate(&writes).await.unwrap();
    roles::set_up(&writes).await.unwrap();
    let site = fixtures::site(1, 1);
    fixtures::import(&writes, &site.directory, now()).await.unwrap();
    let auditor = fixtures::api_token(&writes, Role::Auditor, None, None, now()).await.unwrap();
    let standby = primary.standby().unwrap();
    let service =
        Service::start(&url, &["--database-read-url", &as_role(&standby.url("postgres"), roles::QUERY)]).await;
    let count = async || service.search(&auditor, "").await["count"].as_u64().unwrap();
    let look = async || (count().await, fresh_as_of(&service, &auditor).await);
    write(&writes, vec![fixtures::connect(&site.agent, 1, now())]).await;
    until_value("the entry arrives", look, |(count, fresh)| *count == 1 && fresh.is_some()).await;
    let mut tail = service.open("/api/v2/connectionlog/tail", &auditor, &[]).await;

    // The replica stands still while the primary goes on.
    let replica = connect(&standby.url("postgres")).await.unwrap();
    replica.execute("SELECT pg_wal_replay_pause()", &[]).await.unwrap();
    let stood_at = now();
    write(&writes, vec![fixtures::connect(&site.agent, 2, now())]).await;
    until_value("it is said to be old", look, |(count, fresh)| {
        *count == 1 && fresh.is_some_and(|fresh| fresh < stood_at) && now() - stood_at > TimeDelta::seconds(2)
    })
    .await;
    // It does not have a position of the primary yet; one that nobody has is gone.
    let ahead = writes.feed_end().await.unwrap();
    let elsewhere = Position { anchor: Uuid::new_v4(), ..ahead };
    for (position, expected) in [(ahead, StatusCode::SERVICE_UNAVAILABLE), (elsewhere, StatusCode::GONE)] {
        let export = "/api/v2/connectionlog/export";
        let status = service.open(export, &auditor, &[("since", &position.encode())]).await.status();
        assert_eq!(status, expected);
    }
    replica.execute("SELECT pg_wal_replay_resume()", &[]).await.unwrap();
    until_value("it is fresh again", look, |(count, fresh)| *count == 2 && fresh.is_some_and(|fresh| fresh > stood_at))
        .await;
    let mut told = String::new();
    while !told.contains("event: connect") {
        let chunk = tokio::time::timeout(PATIENCE, tail.chunk()).await.unwrap().unwrap().unwrap();
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    // Uses are recorded where it can be written.
    let client = connect(&url).await.unwrap();
    let recorded = async || client.query_one("SELECT count(*) FROM api_audit", &[]).await.unwrap().get::<_, i64>(0);
    until("uses are recorded", async || recorded().await > 0).await;
}
