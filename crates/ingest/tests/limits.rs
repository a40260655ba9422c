//! Each limit at its bound and past it.

mod support;

use connlog_testkit::fixtures::{self, now};
use connlog_testkit::wait::{until, until_value};
use std::time::{Duration, Instant};

use connlog_model::role::Role;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use support::{
    HelloOf, Service, Stream, authorized, client, connect, database_with, disconnect, minutes_ago, number, web,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use uuid::Uuid;

fn one() -> v1::Connection {
    connect(Uuid::new_v4(), minutes_ago(5))
}

#[tokio::test]
async fn an_agent_that_calls_too_often_is_told_when_to_come_back() {
    let (database, _store, sites) = database_with(2).await;
    let flags = ["--agent-rate", "1", "--max-batch-events", "5"];
    let service = Service::start(database.url(), &flags).await;
    let mut calls = client(service.address).await;
    let mut call = async |token: &str| {
        let request = v1::ReportConnectionRequest { connection: Some(one()) };
        calls.report_connection(authorized(request, token)).await
    };
    // Ten seconds' worth at once, and then one a second.
    for _ in 0..10 {
        call(&sites[0].token).await.unwrap();
    }
    let mut refused = None;
    for _ in 0..5 {
        refused = refused.or(call(&sites[0].token).await.err());
    }
    let refused = refused.unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.get_details_retry_info().is_some());
    call(&sites[1].token).await.unwrap();
    until_value("the next second brings the next call", async || call(&sites[0].token).await, Result::is_ok)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_agent_that_streams_too_fast_is_read_slowly_and_loses_nothing() {
    let (database, _store, sites) = database_with(1).await;
    let flags = ["--agent-rate", "10", "--max-batch-events", "50"];
    let service = Service::start(database.url(), &flags).await;
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let began = Instant::now();
    let mut last = 0;
    for _ in 0..6 {
        last = stream.send((0..25).map(|_| one()).collect()).await;
    }
    stream.acked(last).await.unwrap();
    // 150 events: 100 at once, the next 25 are in before it is known that they are too many, and the last wait for their turn.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let client = database.client().await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 150);
    assert_eq!(number(&client, "SELECT count(*) FROM lost_events").await, 0);
}

/// Without this, ends of connections that never were make the database do forty times the work that their agent is allowed.
#[tokio::test]
async fn ends_that_are_looked_for_far_back_count_as_many_events() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &["--agent-rate", "100"]).await;
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let (id, began) = (Uuid::new_v4(), minutes_ago(5));
    let ends = |count: usize| (0..count).map(|_| disconnect(Uuid::new_v4(), began)).collect();
    stream.send(ends(20)).await;
    let last = stream.send(ends(10)).await;
    stream.acked(last).await.unwrap();
    let since = Instant::now();
    let last = stream.send(vec![connect(id, began), disconnect(id, began)]).await;
    stream.acked(last).await.unwrap();
    // 30 events and 30 look-backs of 50, of which 1000 were allowed at once.
    assert!(since.elapsed() >= Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(number(&database.client().await.unwrap(), "SELECT count(*) FROM connection_logs").await, 31);
}

/// Without this, one agent fills the disk with dead letters as fast as it may send events.
#[tokio::test]
async fn dead_letters_count_as_many_events() {
    let (database, _store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &["--agent-rate", "500"]).await;
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let bad = |count: usize| {
        let event = || v1::Connection { id: Vec::new(), ..connect(Uuid::new_v4(), minutes_ago(5)) };
        (0..count).map(|_| event()).collect::<Vec<_>>()
    };
    // Ten of 500 events each are allowed at once, and two more cost two seconds.
    let last = stream.send(bad(12)).await;
    assert_eq!(stream.acked(last).await.unwrap().len(), 12, "they are kept, and told");
    let since = Instant::now();
    let last = stream.send(vec![connect(Uuid::new_v4(), minutes_ago(5))]).await;
    stream.acked(last).await.unwrap();
    assert!(since.elapsed() >= Duration::from_millis(1500), "{:?}", since.elapsed());
    let mut calls = client(service.address).await;
    let mut call = async |event: v1::Connection| {
        calls
            .report_connection(authorized(v1::ReportConnectionRequest { connection: Some(event) }, &sites[1].token))
            .await
    };
    let since = Instant::now();
    let mut kept = 0;
    while kept < 12 {
        match call(bad(1).remove(0)).await.unwrap_err().code() {
            Code::InvalidArgument => kept += 1,
            // It is told to come back.
            Code::ResourceExhausted => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("{other:?}"),
        }
    }
    assert!(since.elapsed() >= Duration::from_millis(1500), "{:?}", since.elapsed());
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM rejected_events").await, 24);
}

/// Without this, an agent fills the disk with dead letters, if more slowly.
#[tokio::test]
async fn dead_letters_beyond_a_budget_are_counted_in_one_record() {
    let (database, _store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &["--letter-kib-per-hour", "1"]).await;
    let bad =
        |count: usize| (0..count).map(|_| v1::Connection { id: vec![1], ..connect(Uuid::new_v4(), minutes_ago(5)) });
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    for _ in 0..2 {
        let last = stream.send(bad(10).collect()).await;
        assert_eq!(stream.acked(last).await.unwrap().len(), 10, "each is told");
    }
    let mut calls = client(service.address).await;
    for event in bad(6) {
        let request = v1::ReportConnectionRequest { connection: Some(event) };
        let refused = calls.report_connection(authorized(request, &sites[1].token)).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM rejected_events WHERE NOT is_merged").await, 8);
    assert_eq!(number(&database, "SELECT count(*) FROM rejected_events WHERE is_merged").await, 2);
    assert_eq!(number(&database, "SELECT sum(events)::bigint FROM rejected_events").await, 26);
}

#[tokio::test]
async fn a_reporter_has_a_rate_of_its_own() {
    let (database, store, sites) = database_with(1).await;
    let reporter = fixtures::api_token(&store, Role::Reporter, None, None, now()).await.unwrap();
    let flags = ["--reporter-rate", "2", "--agent-rate", "1", "--max-batch-events", "20"];
    let service = Service::start(database.url(), &flags).await;
    let mut calls = client(service.address).await;
    let mut call = async |events: usize| {
        let event = || v1::ReportedEvent {
            workspace_id: sites[0].agent.workspace.workspace_id.as_bytes().to_vec(),
            agent_name: "main".to_owned(),
            user_id: Vec::new(),
            event: Some(v1::reported_event::Event::Web(web(Uuid::new_v4(), minutes_ago(5)))),
            ..v1::ReportedEvent::default()
        };
        let request = v1::ReportEventsRequest { events: (0..events).map(|_| event()).collect() };
        calls.report_events(authorized(request, &reporter)).await
    };
    assert_eq!(call(20).await.unwrap().into_inner().accepted, 20);
    let refused = call(20).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let client = database.client().await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 20, "nothing of what was refused is in");
}

#[tokio::test]
async fn an_agent_has_so_many_streams() {
    let (database, _store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &["--max-streams-per-agent", "2"]).await;
    let open = async |site: usize| Stream::open(service.address, &sites[site].token, &HelloOf::new()).await;
    let (first, _second) = (open(0).await.unwrap(), open(0).await.unwrap());
    let refused = open(0).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let _other = open(1).await.unwrap();
    drop(first);
    until("the place of the stream that ended is free", async || open(0).await.is_ok()).await;
}

/// Whether a connection on which nothing was said has ended.
async fn has_ended(connection: &mut TcpStream) -> bool {
    matches!(tokio::time::timeout(Duration::from_millis(10), connection.read_u8()).await, Ok(Err(_)))
}

/// Without this, whoever opens connections and says nothing takes the places of all agents.
#[tokio::test]
async fn strangers_give_way_and_who_is_recognized_does_not() {
    let (database, _store, sites) = database_with(1).await;
    for flags in [["--max-connections", "4"], ["--max-unrecognized", "4"]] {
        let service = Service::start(database.url(), &flags).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(TcpStream::connect(service.address).await.unwrap());
        }
        let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
        until("the oldest stranger gave way", async || has_ended(&mut silent[0]).await).await;
        // More of them push out each other.
        for _ in 0..20 {
            silent.push(TcpStream::connect(service.address).await.unwrap());
        }
        until("others gave way", async || has_ended(&mut silent[10]).await).await;
        let last = stream.send(vec![one()]).await;
        assert_eq!(stream.acked(last).await.unwrap(), []);
        assert!(service.admin("/metrics").await.1.contains("connlog_connections_ended_total{cause=\"stranger\"}"));
    }
}

/// Without this, pings of strangers take all the time that there is.
#[tokio::test]
async fn a_stranger_who_goes_on_and_on_is_left() {
    let (database, _store, _sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let mut stranger = TcpStream::connect(service.address).await.unwrap();
    // The preface, empty settings, and pings whose answers are not read (RFC 9113, sections 3.4 and 6.7).
    stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let pings = b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(1000);
    let mut said = 0;
    while stranger.write_all(&pings).await.is_ok() {
        said += pings.len();
        assert!(said < 64 << 20, "it is listened to for ever");
    }
    until("it is counted", async || {
        service.admin("/metrics").await.1.contains("connlog_connections_ended_total{cause=\"talkative\"} 1")
    })
    .await;
}

#[tokio::test]
async fn whoever_has_a_token_is_let_in_beside_a_neighbour_who_guesses() {
    let (database, _store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &["--token-cache", "1ms"]).await;
    let mut calls = client(service.address).await;
    let mut call = async |token: &str| {
        let request = v1::ReportConnectionRequest { connection: Some(one()) };
        calls.report_connection(authorized(request, token)).await
    };
    call(&sites[0].token).await.unwrap();
    for guess in 0..150 {
        let refused = call(&format!("guess-{guess}")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    // One that was here before, and one that was not.
    for site in &sites {
        call(&site.token).await.unwrap();
    }
}

/// What strangers may call is small, and there are so many calls at once.
#[tokio::test]
async fn health_takes_small_messages_and_so_many_calls_of_an_address() {
    let (database, _store, _sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let channel = support::channel(service.address).await;
    let mut health = HealthClient::new(channel);
    health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    let large = health.check(HealthCheckRequest { service: "x".repeat(5000) }).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange, "{large}");
    let mut watches = Vec::new();
    let refused = loop {
        match health.watch(HealthCheckRequest { service: String::new() }).await {
            Ok(watch) => watches.push(watch),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), watches.len()), (Code::ResourceExhausted, 20), "{refused}");
    drop(watches);
    until_value(
        "a place is free",
        async || health.check(HealthCheckRequest { service: String::new() }).await,
        Result::is_ok,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn beyond_the_most_connections_the_next_one_waits() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &["--max-connections", "2"]).await;
    let call = async |channel: &mut ConnectionLogClient<Channel>| {
        let request = v1::ReportConnectionRequest { connection: Some(one()) };
        channel.report_connection(authorized(request, &sites[0].token)).await.map(|_| ())
    };
    let (mut first, mut second) = (client(service.address).await, client(service.address).await);
    call(&mut first).await.unwrap();
    call(&mut second).await.unwrap();
    let mut third = client(service.address).await;
    let waits = tokio::time::timeout(Duration::from_millis(700), call(&mut third)).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(first);
    tokio::time::timeout(Duration::from_secs(30), call(&mut third)).await.unwrap().unwrap();
}
