//! Writing at size: events over gRPC until they are acknowledged, against one prepared upsert into one table, called directly.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use chrono::{TimeDelta, Utc};
use connlog_model::clock::Timestamp;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_proto::v1::stream_events_request::Message as Outbound;
use connlog_proto::v1::stream_events_response::Message as Inbound;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::connect;
use connlog_testkit::fixtures::{self, Site};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use uuid::Uuid;

use crate::cpu::{self, Cpu};
use crate::plain::{Session, Upsert};
use crate::report::Report;
use crate::service::Ingest;

/// Connections that begin, and that end, in one message of an agent.
const HALF_BATCH: usize = 500;
/// Writers of both sides, each with a connection to the database.
pub(crate) const WRITERS: usize = 2;
/// The organization of the agents that write; history has others.
const ORGANIZATION: u128 = 900;

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events of a round, half of them connects.
    pub events: u32,
    /// Agents, each with a stream.
    pub agents: u32,
    /// Rounds of each side, in turn.
    pub rounds: u32,
}

/// What one round took.
struct Round {
    elapsed: Duration,
    service: Cpu,
    database: Cpu,
}

/// The agents that write.
pub(crate) async fn sites(database_url: &str, agents: u32) -> Result<Vec<Site>> {
    let sites: Vec<Site> = (1..=agents).map(|number| fixtures::site(number.into(), ORGANIZATION)).collect();
    let store = Store::new(&StoreConfig::new(database_url, "connlog-bench", 1))?;
    let directory: Vec<_> = sites.iter().flat_map(|site| site.directory.clone()).collect();
    fixtures::import(&store, &directory, Utc::now()).await?;
    Ok(sites)
}

/// Measures on a database that [`generate`](crate::history::generate) filled.
pub(crate) async fn measure(
    database_url: &str,
    ingest: &Ingest,
    sites: &[Site],
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let client = connect(database_url).await?;
    let postmaster = cpu::postmaster(&client).await?;
    let (mut rates, mut floors, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    // The first round of each warms up.
    for round in 0..=size.rounds {
        let our = stream_round(ingest, sites, size, postmaster).await?;
        let ours = rate(size.events, our.elapsed);
        let theirs = rate(size.events, upsert_round(database_url, sites, size).await?);
        let copied = rate(size.events, copy_round(&client, size).await?);
        let events = f64::from(size.events);
        let (service, database) = (our.service.micros() / events, our.database.micros() / events);
        let warming = if round == 0 { " (warming up)" } else { "" };
        println!("{ours:.0} events/s over gRPC, {theirs:.0} by upserts, {copied:.0} by COPY{warming}");
        if round > 0 {
            rates.push((ours, theirs));
            floors.push((ours, copied));
            cpu.push((service, database));
        }
    }
    report.add_rounds("ingest.end_to_end", &rates, "events/s");
    report.add_rounds("ingest.floor", &floors, "events/s");
    report.add_rounds("ingest.cpu_per_event", &cpu, "us");
    println!("connlog-ingest had {:.0} MiB at most", ingest.peak_memory_mib()?);
    Ok(())
}

/// The final rows of a round, copied into an empty table like a day of history, with all its indexes: two events for each.
async fn copy_round(client: &Client, size: Size) -> Result<Duration> {
    client.batch_execute(COPY_SETUP).await?;
    let rows = i64::from(size.events / 2);
    client.execute(COPY_SOURCE, &[&rows]).await?;
    let mut bytes = Vec::new();
    let out = client.copy_out("COPY copy_source TO STDOUT (FORMAT binary)").await?;
    futures::pin_mut!(out);
    while let Some(part) = out.next().await {
        bytes.push(part?);
    }
    let began = Instant::now();
    let sink = client.copy_in("COPY copy_target FROM STDIN (FORMAT binary)").await?;
    futures::pin_mut!(sink);
    for part in bytes {
        sink.send(part).await?;
    }
    sink.finish().await?;
    let elapsed = began.elapsed();
    client.batch_execute("DROP TABLE copy_source; DROP TABLE copy_target").await?;
    Ok(elapsed)
}

/// A table like a day of history, with the indexes that a day has.
const COPY_SETUP: &str = "
CREATE TABLE copy_source (LIKE connection_logs);
DO $$
DECLARE day text := (SELECT max(day_table(day)) FROM days() AS day);
BEGIN
    EXECUTE format('CREATE TABLE copy_target (LIKE %I INCLUDING ALL)', day);
END
$$";

/// Rows with ids of their own.
const COPY_SOURCE: &str = "
INSERT INTO copy_source SELECT (jsonb_populate_record(l, jsonb_build_object('id', gen_random_uuid(), 'connection_id', gen_random_uuid()))).*
FROM (SELECT l FROM connection_logs AS l WHERE method <= 2 ORDER BY connect_time DESC LIMIT $1) AS rows";

fn rate(events: u32, elapsed: Duration) -> f64 {
    f64::from(events) / elapsed.as_secs_f64()
}

async fn stream_round(ingest: &Ingest, sites: &[Site], size: Size, postmaster: u32) -> Result<Round> {
    let address = ingest.address();
    let sessions = sessions_each(size);
    let mut streams = Vec::new();
    for site in sites {
        let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
        streams.push(Stream::open(channel, &site.token).await?);
    }
    let batches: Vec<_> = sites.iter().map(|_| messages(&sessions_of(sessions))).collect();
    let before = (Cpu::of(ingest.pid())?, Cpu::of_children(postmaster)?);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (stream, batches) in streams.into_iter().zip(batches) {
        running.spawn(stream.send_all(batches));
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    let elapsed = began.elapsed();
    let after = (Cpu::of(ingest.pid())?, Cpu::of_children(postmaster)?);
    Ok(Round { elapsed, service: after.0 - before.0, database: after.1 - before.1 })
}

async fn upsert_round(database_url: &str, sites: &[Site], size: Size) -> Result<Duration> {
    let mut queues: Vec<Vec<_>> = vec![Vec::new(); WRITERS];
    for (number, site) in sites.iter().enumerate() {
        let sessions = sessions_of(sessions_each(size));
        queues[number % WRITERS].extend(batches(&sessions).into_iter().map(|batch| (site.agent.clone(), batch)));
    }
    let mut clients: Vec<(Client, Upsert)> = Vec::new();
    for _ in 0..WRITERS {
        let client = connect(database_url).await?;
        let upsert = Upsert::prepare(&client).await?;
        clients.push((client, upsert));
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for ((client, upsert), queue) in clients.into_iter().zip(queues) {
        running.spawn(async move {
            for (agent, batch) in queue {
                upsert.run(&client, &agent, &batch.connects, &batch.disconnects).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

fn sessions_each(size: Size) -> u32 {
    size.events / 2 / size.agents
}

/// Sessions of the last hours, none of which was seen before.
fn sessions_of(count: u32) -> Vec<Session> {
    let now = Utc::now();
    (0..count)
        .map(|number| {
            let since = now - TimeDelta::seconds(60 + i64::from(number % 3_000));
            Session { id: Uuid::new_v4(), since, until: since + TimeDelta::seconds(30) }
        })
        .collect()
}

/// Connects, and the disconnects of other ones.
#[derive(Debug, Clone)]
struct Batch {
    connects: Vec<Session>,
    disconnects: Vec<Session>,
}

/// The end of a session comes one batch after its beginning.
fn batches(sessions: &[Session]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut before: &[Session] = &[];
    for connects in sessions.chunks(HALF_BATCH).chain(std::iter::once(&[][..])) {
        batches.push(Batch { connects: connects.to_vec(), disconnects: before.to_vec() });
        before = connects;
    }
    batches
}

fn messages(sessions: &[Session]) -> Vec<v1::EventBatch> {
    let mut seq = 0;
    let mut sequenced = |connection| {
        seq += 1;
        v1::SequencedEvent { seq, event: Some(v1::sequenced_event::Event::Connection(connection)) }
    };
    let batches = batches(sessions).into_iter().map(|batch| {
        let connects = batch.connects.iter().map(connect_event);
        let events = connects.chain(batch.disconnects.iter().map(disconnect_event)).map(&mut sequenced).collect();
        v1::EventBatch { events, ..v1::EventBatch::default() }
    });
    batches.collect()
}

pub(crate) fn connect_event(session: &Session) -> v1::Connection {
    v1::Connection {
        id: session.id.as_bytes().to_vec(),
        action: v1::Action::Connect.into(),
        timestamp: Some(timestamp(session.since)),
        ip: "10.1.2.3".to_owned(),
        app_name: "vscode".to_owned(),
        ..v1::Connection::default()
    }
}

fn disconnect_event(session: &Session) -> v1::Connection {
    v1::Connection {
        action: v1::Action::Disconnect.into(),
        timestamp: Some(timestamp(session.until)),
        connected_at: Some(timestamp(session.since)),
        reason: Some("client closed the connection".to_owned()),
        rx_bytes: 1_000,
        tx_bytes: 20_000,
        ..connect_event(session)
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
}

/// The stream of an agent.
struct Stream {
    sender: mpsc::Sender<v1::StreamEventsRequest>,
    answers: Streaming<v1::StreamEventsResponse>,
    in_flight_limit: u64,
}

impl Stream {
    async fn open(channel: Channel, token: &str) -> Result<Self> {
        let (sender, messages) = mpsc::channel(4);
        let hello = v1::Hello {
            boot_id: Uuid::new_v4().as_bytes().to_vec(),
            spool_id: Uuid::new_v4().as_bytes().to_vec(),
            first_unacked_seq: 1,
            ..v1::Hello::default()
        };
        sender.send(v1::StreamEventsRequest { message: Some(Outbound::Hello(hello)) }).await?;
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let mut answers = ConnectionLogClient::new(channel).stream_events(request).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(Inbound::Welcome(welcome)) => {
                Ok(Self { sender, answers, in_flight_limit: welcome.max_in_flight_events.into() })
            }
            other => bail!("expected a Welcome, got {other:?}"),
        }
    }

    /// Sends as fast as the server takes it, and returns when everything is acknowledged.
    async fn send_all(mut self, batches: Vec<v1::EventBatch>) -> Result<()> {
        let (mut sent, mut acked) = (0, 0);
        for batch in batches {
            let Some(last) = batch.events.last().map(|event| event.seq) else { continue };
            while last - acked > self.in_flight_limit {
                acked = self.acknowledged().await?;
            }
            self.sender.send(v1::StreamEventsRequest { message: Some(Outbound::Batch(batch)) }).await?;
            sent = last;
        }
        while acked < sent {
            acked = self.acknowledged().await?;
        }
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<u64> {
        match self.answers.message().await?.context("the stream ended")?.message {
            Some(Inbound::Ack(ack)) if ack.rejected.is_empty() => Ok(ack.committed_seq),
            other => bail!("expected an Ack without rejections, got {other:?}"),
        }
    }
}
