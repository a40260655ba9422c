//! What the tests of connlog-ingest share: the service, in process or as a binary, and clients that speak to it.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chrono::TimeDelta;
use clap::Parser;
use connlog_ingest::Config;
use connlog_model::clock::{Clock, Timestamp};
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_proto::v1::stream_events_request::Message as Outbound;
use connlog_proto::v1::stream_events_response::Message as Inbound;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use connlog_store::roles::INGEST;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, Site, now};
use connlog_testkit::pooler::database_arguments;
use connlog_testkit::process::{Process, free_address};
use connlog_testkit::wait::{PATIENCE, until_value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use uuid::Uuid;

/// The service in this process.
pub struct Service {
    pub address: SocketAddr,
    pub clock: Clock,
    pub shutdown: Shutdown,
    admin_address: SocketAddr,
    running: JoinHandle<anyhow::Result<bool>>,
}

impl Service {
    /// Starts it on `database_url` with further flags.
    pub async fn start(database_url: &str, flags: &[&str]) -> Self {
        let mut arguments = vec!["connlog-ingest".to_owned()];
        arguments.extend(database_arguments(database_url, INGEST).unwrap());
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let config = Config::try_parse_from(arguments).unwrap();
        let clock = config.clock.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let running = tokio::spawn(connlog_ingest::run(config, listener, admin, shutdown.clone()));
        Self { address, clock, shutdown, admin_address, running }
    }

    /// Status and text of an endpoint of the admin listener.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.admin_address)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Stops it, and returns whether it ended well.
    pub async fn stop(self) -> bool {
        self.shutdown.begin();
        self.running.await.unwrap().unwrap()
    }
}

/// The binary.
pub struct Binary {
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    pub process: Process,
}

impl Binary {
    pub fn start(database_url: &str, address: Option<SocketAddr>, log_json: Option<&Path>) -> Self {
        Self::start_with(database_url, address, log_json, &[])
    }

    pub fn start_with(
        database_url: &str,
        address: Option<SocketAddr>,
        log_json: Option<&Path>,
        flags: &[&str],
    ) -> Self {
        Self::start_command(Command::new(env!("CARGO_BIN_EXE_connlog-ingest")), database_url, address, log_json, flags)
    }

    /// Starts it with a clock that is wrong by `offset`, as faketime(1) writes it.
    pub fn start_at(offset: &str, database_url: &str) -> Self {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "{library} is missing: it is in Debian's package libfaketime");
        let mut command = Command::new(env!("CARGO_BIN_EXE_connlog-ingest"));
        // Not the program of that name: it is a parent that would outlive the test.
        command.env("LD_PRELOAD", library).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self::start_command(command, database_url, None, None, &[])
    }

    fn start_command(
        mut command: Command,
        database_url: &str,
        address: Option<SocketAddr>,
        log_json: Option<&Path>,
        flags: &[&str],
    ) -> Self {
        let address = address.unwrap_or_else(|| free_address().unwrap());
        command.args(database_arguments(database_url, INGEST).unwrap()).args(["--listen", &address.to_string()]);
        let admin_address = free_address().unwrap();
        command.args(["--admin-listen", &admin_address.to_string()]).env("CONNLOG_LOG", "warn");
        if let Some(path) = log_json {
            command.arg("--log-json").arg(path);
        }
        command.args(flags);
        let mut process = Process::spawn("connlog-ingest", &command, "KILL").unwrap();
        process.wait_until_listening(address, PATIENCE).unwrap();
        Self { address, admin_address, process }
    }
}

/// A database that knows `sites` agents.
pub async fn database_with(sites: u128) -> (TestDatabase, Store, Vec<Site>) {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let sites = import_sites(&store, sites).await;
    (database, store, sites)
}

pub async fn import_sites(store: &Store, sites: u128) -> Vec<Site> {
    let sites: Vec<Site> = (1..=sites).map(|number| fixtures::site(number, number % 2 + 1)).collect();
    let directory: Vec<_> = sites.iter().flat_map(|site| site.directory.clone()).collect();
    fixtures::import(store, &directory, now()).await.unwrap();
    sites
}

pub async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let what = format!("something listens on {address}");
    until_value(&what, async || endpoint.connect().await, Result::is_ok).await.unwrap()
}

pub async fn client(address: SocketAddr) -> ConnectionLogClient<Channel> {
    ConnectionLogClient::new(channel(address).await)
}

pub fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.timestamp(), nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap() }
}

pub fn connect(id: Uuid, time: Timestamp) -> v1::Connection {
    v1::Connection {
        id: id.as_bytes().to_vec(),
        action: v1::Action::Connect.into(),
        timestamp: Some(timestamp(time)),
        ip: "10.1.2.3".to_owned(),
        app_name: "ssh".to_owned(),
        ..v1::Connection::default()
    }
}

pub fn disconnect(id: Uuid, time: Timestamp) -> v1::Connection {
    v1::Connection {
        action: v1::Action::Disconnect.into(),
        status_code: Some(1),
        reason: Some("bye".to_owned()),
        ..connect(id, time)
    }
}

pub fn web(event_id: Uuid, time: Timestamp) -> v1::WebConnection {
    v1::WebConnection {
        event_id: event_id.as_bytes().to_vec(),
        r#type: v1::WebType::WorkspaceApp.into(),
        timestamp: Some(timestamp(time)),
        ip: "127.0.0.1".to_owned(),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64)".to_owned(),
        slug_or_port: "code-server".to_owned(),
        status_code: 200,
        ..v1::WebConnection::default()
    }
}

/// An agent's stream.
pub struct Stream {
    sender: mpsc::Sender<v1::StreamEventsRequest>,
    answers: Streaming<v1::StreamEventsResponse>,
    pub next_seq: u64,
}

#[derive(Debug, Clone)]
pub struct HelloOf {
    pub boot: Uuid,
    pub spool: Uuid,
    pub listed: Vec<Uuid>,
    pub last_seq: u64,
}

impl HelloOf {
    pub fn new() -> Self {
        Self { boot: Uuid::new_v4(), spool: Uuid::new_v4(), listed: Vec::new(), last_seq: 0 }
    }
}

impl Stream {
    /// Says Hello, and waits for the Welcome.
    pub async fn open(address: SocketAddr, token: &str, hello: &HelloOf) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(1024);
        let message = v1::Hello {
            boot_id: hello.boot.as_bytes().to_vec(),
            spool_id: hello.spool.as_bytes().to_vec(),
            first_unacked_seq: 1,
            last_seq: hello.last_seq,
            open_connection_ids: bytes(&hello.listed),
            agent_version: "test".to_owned(),
        };
        sender.send(request(Outbound::Hello(message))).await.unwrap();
        let mut client = client(address).await;
        let mut answers = client.stream_events(authorized(ReceiverStream::new(receiver), token)).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(Inbound::Welcome(_)) => Ok(Self { sender, answers, next_seq: 1 }),
            other => panic!("expected a Welcome, got {other:?}"),
        }
    }

    /// Sends events under the next sequence numbers, and returns the last of them.
    pub async fn send(&mut self, events: Vec<v1::Connection>) -> u64 {
        let mut sequenced = Vec::new();
        for event in events {
            let event = Some(v1::sequenced_event::Event::Connection(event));
            sequenced.push(v1::SequencedEvent { seq: self.next_seq, event });
            self.next_seq += 1;
        }
        self.send_sequenced(sequenced).await;
        self.next_seq - 1
    }

    pub async fn send_sequenced(&mut self, events: Vec<v1::SequencedEvent>) {
        let _gone =
            self.sender.send(request(Outbound::Batch(v1::EventBatch { events, ..v1::EventBatch::default() }))).await;
    }

    pub async fn heartbeat(&mut self, listed: &[Uuid]) {
        let heartbeat = v1::Heartbeat {
            at: Some(timestamp(now())),
            open_connection_ids: bytes(listed),
            last_seq: self.next_seq - 1,
        };
        let _gone = self.sender.send(request(Outbound::Heartbeat(heartbeat))).await;
    }

    /// The next acknowledgement.
    pub async fn ack(&mut self) -> Result<v1::Ack, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer comes in time")?;
        match answer.and_then(|answer| answer.message) {
            Some(Inbound::Ack(ack)) => Ok(ack),
            None => Err(Status::cancelled("the stream has ended")),
            other => panic!("expected an Ack, got {other:?}"),
        }
    }

    /// Waits until everything up to `seq` is acknowledged, and returns what was rejected.
    pub async fn acked(&mut self, seq: u64) -> Result<Vec<v1::Rejection>, Status> {
        let mut rejected = Vec::new();
        loop {
            let ack = self.ack().await?;
            rejected.extend(ack.rejected);
            if ack.committed_seq >= seq {
                return Ok(rejected);
            }
        }
    }

    /// Whether no answer comes for a while.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.answers.message()).await.is_err()
    }
}

fn bytes(ids: &[Uuid]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.as_bytes().to_vec()).collect()
}

fn request(message: Outbound) -> v1::StreamEventsRequest {
    v1::StreamEventsRequest { message: Some(message) }
}

/// The number that a query on the database gives.
pub async fn number(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A time some minutes ago.
pub fn minutes_ago(minutes: i64) -> Timestamp {
    now() - TimeDelta::minutes(minutes)
}
