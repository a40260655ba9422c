//! Delivery: an acknowledgement means a commit, whatever crashes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::wait::{PATIENCE, until};
use std::collections::BTreeSet;
use std::time::Duration;

use connlog_proto::v1;
use connlog_store::{Store, StoreConfig, roles, schema};
use connlog_testkit::database::{TestDatabase, connect as database_client};
use connlog_testkit::postgres::{Options, PostgresServer};
use nix::sys::signal::Signal;
use support::{
    Binary, HelloOf, Service, Stream, authorized, client, connect, database_with, disconnect, import_sites,
    minutes_ago, number,
};
use tonic::Code;
use uuid::Uuid;

/// A durable server of its own, for a test that stops it.
async fn own_server() -> (PostgresServer, String) {
    let server = PostgresServer::start(Options::durable()).unwrap();
    let url = server.url("postgres");
    let store = Store::new(&StoreConfig::new(&url, "test", 1)).unwrap();
    schema::migrate(&store).await.unwrap();
    roles::set_up(&store).await.unwrap();
    (server, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_while_the_database_is_down_and_everything_once_after() {
    let (mut server, url) = own_server().await;
    let store = Store::new(&StoreConfig::new(&url, "test", 2)).unwrap();
    let site = import_sites(&store, 1).await.remove(0);
    let service = Service::start(&url, &["--token-cache", "10m"]).await;
    let mut stream = Stream::open(service.address, &site.token, &HelloOf::new()).await.unwrap();
    let before = stream.send(vec![connect(Uuid::new_v4(), minutes_ago(9))]).await;
    stream.acked(before).await.unwrap();

    server.stop_immediately().unwrap();
    let ids: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        stream.send(vec![connect(*id, minutes_ago(8)), disconnect(*id, minutes_ago(7))]).await;
    }
    assert!(stream.is_silent_for(Duration::from_secs(2)).await, "nothing is acknowledged, and the stream stays up");
    let mut unary = client(service.address).await;
    let lonely = Uuid::new_v4();
    let request = v1::ReportConnectionRequest { connection: Some(connect(lonely, minutes_ago(6))) };
    let status = unary.report_connection(authorized(request.clone(), &site.token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(!status.details().is_empty(), "it says when to try again");

    server.restart().unwrap();
    let last = stream.next_seq - 1;
    assert_eq!(stream.acked(last).await.unwrap(), vec![]);
    until("the unary call is accepted", async || {
        unary.report_connection(authorized(request.clone(), &site.token)).await.is_ok()
    })
    .await;
    let database = database_client(&url).await.unwrap();
    assert_eq!(number(&database, "SELECT count(DISTINCT id) FROM connection_logs").await, 52);
    assert_eq!(number(&database, "SELECT count(disconnect_time) FROM connection_logs").await, 50);
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 52);
    assert!(service.stop().await);
}

/// The names of the services by a version of reflection. Both have the same types, each its own.
macro_rules! reflected {
    ($version:ident, $address:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(support::channel($address).await);
        let mut answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("it answers with a list") };
        list.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_the_database_and_reflection_names_the_services() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let (mut server, url) = own_server().await;
    let service = Service::start(&url, &[]).await;
    let mut health = HealthClient::new(support::channel(service.address).await);
    let mut status = async || {
        let request = HealthCheckRequest { service: "connlog.v1.ConnectionLog".to_owned() };
        health.check(request).await.unwrap().into_inner().status().as_str_name()
    };
    until("it serves", async || status().await == "SERVING").await;
    server.stop_fast().unwrap();
    until("it does not serve", async || status().await == "NOT_SERVING").await;
    server.restart().unwrap();
    until("it serves again", async || status().await == "SERVING").await;

    for names in [reflected!(v1, service.address), reflected!(v1alpha, service.address)] {
        for name in
            ["connlog.v1.ConnectionLog", "connlog.v1.Directory", "coder.agent.v2.Agent", "grpc.health.v1.Health"]
        {
            assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
        }
    }
}

/// Streams connects and disconnects until told to stop, reconnecting and resending what is not acknowledged.
struct Load {
    hello: HelloOf,
    ids: Vec<Uuid>,
    acknowledged: u64,
}

impl Load {
    fn event(&self, seq: u64) -> v1::SequencedEvent {
        let id = self.ids[usize::try_from((seq - 1) / 2).unwrap()];
        let event = if seq % 2 == 1 { connect(id, minutes_ago(30)) } else { disconnect(id, minutes_ago(5)) };
        v1::SequencedEvent { seq, event: Some(v1::sequenced_event::Event::Connection(event)) }
    }

    fn len(&self) -> u64 {
        self.ids.len() as u64 * 2
    }

    /// Sends and acknowledges until everything is acknowledged or the stream breaks.
    async fn drive(&mut self, address: std::net::SocketAddr, token: &str) {
        self.drive_to(self.len(), address, token).await;
    }

    /// Sends and acknowledges until `enough` events are acknowledged, with more on their way if there are more,
    /// or until the stream breaks. Gives the stream, where it still stands.
    async fn drive_to(&mut self, enough: u64, address: std::net::SocketAddr, token: &str) -> Option<Stream> {
        let mut stream = Stream::open(address, token, &self.hello).await.ok()?;
        let mut next = self.acknowledged + 1;
        while self.acknowledged < enough {
            while next <= self.len() && next - self.acknowledged < 400 {
                let batch: Vec<_> = (next..(next + 20).min(self.len() + 1)).map(|seq| self.event(seq)).collect();
                next += batch.len() as u64;
                stream.send_sequenced(batch).await;
            }
            match stream.ack().await {
                Ok(ack) => {
                    assert_eq!(ack.rejected, vec![]);
                    assert!(ack.committed_seq >= self.acknowledged, "acknowledgements come in order");
                    self.acknowledged = ack.committed_seq;
                }
                Err(_) => return None,
            }
        }
        Some(stream)
    }
}

fn load(connections: usize) -> Load {
    Load { hello: HelloOf::new(), ids: (0..connections).map(|_| Uuid::new_v4()).collect(), acknowledged: 0 }
}

async fn assert_all_there_once(database: &TestDatabase, load: &Load, acknowledged: u64) {
    let client = database.client().await.unwrap();
    let rows =
        client.query("SELECT connection_id, disconnect_time IS NOT NULL FROM connection_logs", &[]).await.unwrap();
    let connections: BTreeSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(connections.len(), rows.len(), "no connection is there twice");
    let ended: BTreeSet<Uuid> = rows.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect();
    for seq in 1..=acknowledged {
        let id = load.ids[usize::try_from((seq - 1) / 2).unwrap()];
        let there = if seq % 2 == 1 { connections.contains(&id) } else { ended.contains(&id) };
        assert!(there, "event {seq} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_ingest_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let (database, _store, sites) = database_with(1).await;
    let mut load = load(1_500);
    let mut address = None;
    for round in 0..4 {
        let mut ingest = Binary::start(database.url(), address, None);
        address = Some(ingest.address);
        // In the middle, however slow the machine is: some of its events are acknowledged, others on their way.
        let before = load.acknowledged;
        let mut stream = None;
        until("some are acknowledged", async || {
            stream = load.drive_to(before + 20 + 60 * round, ingest.address, &sites[0].token).await;
            load.acknowledged > before
        })
        .await;
        ingest.process.signal(Signal::SIGKILL).unwrap();
        ingest.process.wait(PATIENCE).unwrap();
        drop(stream);
        assert_all_there_once(&database, &load, load.acknowledged).await;
        assert!(load.acknowledged < load.len(), "it was killed under load");
    }
    let ingest = Binary::start(database.url(), address, None);
    until("everything is acknowledged", async || {
        load.drive(ingest.address, &sites[0].token).await;
        load.acknowledged == load.len()
    })
    .await;
    assert_all_there_once(&database, &load, load.len()).await;
    let client = database.client().await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM lost_events").await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM connection_logs").await, 1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_acknowledged_and_exits_with_0() {
    let (database, _store, sites) = database_with(1).await;
    let mut load = load(6_000);
    let mut ingest = Binary::start(database.url(), None, None);
    let pid = ingest.process.pid();
    let client = database.client().await.unwrap();
    // In the middle, however fast the machine is: as soon as something is committed.
    let terminate = async {
        let there = "SELECT count(*) FROM connection_logs";
        until("something is committed", async || number(&client, there).await > 0).await;
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    };
    tokio::join!(load.drive(ingest.address, &sites[0].token), terminate);
    let status = tokio::task::block_in_place(|| ingest.process.wait(Duration::from_secs(20))).unwrap();
    assert!(status.success(), "{status}");
    assert!(load.acknowledged > 0 && load.acknowledged < load.len(), "it was stopped under load");
    assert_all_there_once(&database, &load, load.acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ingests_make_the_same_missing_day_at_once() {
    let (database, _store, sites) = database_with(2).await;
    let first = Service::start(database.url(), &[]).await;
    let second = Service::start(database.url(), &[]).await;
    let mut clients = [client(first.address).await, client(second.address).await];
    for days in [40, 200, 399] {
        let calls = clients.iter_mut().zip(&sites).map(|(client, site)| {
            let event = disconnect(Uuid::new_v4(), minutes_ago(days * 1440));
            let request = v1::ReportConnectionRequest { connection: Some(event) };
            client.report_connection(authorized(request, &site.token))
        });
        for outcome in futures::future::join_all(calls).await {
            outcome.unwrap();
        }
    }
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 6);
    assert_eq!(number(&database, "SELECT count(*) FROM days()").await, 3);
}
