//! Simulated agents: most stream, some call for each event, some speak Coder's agent API.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_proto::coder;
use connlog_proto::coder::agent_client::AgentClient;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_proto::v1::stream_events_request::Message as Outbound;
use connlog_proto::v1::stream_events_response::Message as Inbound;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use uuid::Uuid;

use super::ledger::{Expected, Ledger};
use super::sessions;

/// How often an agent does something.
const TICK: Duration = Duration::from_millis(400);

/// How an agent reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `StreamEvents`.
    Stream,
    /// `ReportConnection` for each event.
    Unary,
    /// `coder.agent.v2.Agent/ReportConnection` for each event.
    Coder,
}

/// What an agent works with.
pub(crate) struct Agent {
    pub(crate) number: usize,
    pub(crate) workspace: usize,
    pub(crate) token: String,
    pub(crate) style: Style,
    pub(crate) ledger: Ledger,
    /// No new events once it is set; open connections stay open.
    pub(crate) quiet: Arc<AtomicBool>,
}

struct Open {
    id: Uuid,
    since: Timestamp,
    until: Timestamp,
    message: v1::Connection,
}

enum Line {
    Stream {
        sender: mpsc::Sender<v1::StreamEventsRequest>,
        answers: Streaming<v1::StreamEventsResponse>,
        next_seq: u64,
        acked: u64,
    },
    Unary(ConnectionLogClient<Channel>),
    Coder(AgentClient<Channel>),
}

impl Agent {
    /// Reports a day of history, then lives until it is dropped.
    pub(crate) async fn run(self, server: SocketAddr) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(self.number as u64);
        let channel = Channel::from_shared(format!("http://{server}"))?.connect().await?;
        let mut line = self.connect(channel).await?;
        let mut open: VecDeque<Open> = VecDeque::new();
        let history = self.history(&mut random, &mut open);
        for chunk in history.chunks(200) {
            self.report(&mut line, chunk.to_vec()).await?;
        }
        let mut last_heartbeat = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            if !self.quiet.load(Ordering::Relaxed) {
                let events = self.live(&mut random, &mut open);
                self.report(&mut line, events).await?;
            }
            if last_heartbeat.elapsed() > Duration::from_secs(3) {
                last_heartbeat = tokio::time::Instant::now();
                heartbeat(&mut line, &open).await?;
            }
        }
    }

    async fn connect(&self, channel: Channel) -> Result<Line> {
        Ok(match self.style {
            Style::Unary => Line::Unary(ConnectionLogClient::new(channel)),
            Style::Coder => Line::Coder(AgentClient::new(channel)),
            Style::Stream => {
                let (sender, receiver) = mpsc::channel(16);
                let hello = v1::Hello {
                    boot_id: Uuid::new_v4().as_bytes().to_vec(),
                    spool_id: Uuid::new_v4().as_bytes().to_vec(),
                    first_unacked_seq: 1,
                    agent_version: "demo".to_owned(),
                    ..v1::Hello::default()
                };
                sender.send(request(Outbound::Hello(hello))).await?;
                let request = self.authorized(ReceiverStream::new(receiver));
                let mut answers = ConnectionLogClient::new(channel).stream_events(request).await?.into_inner();
                match answers.message().await?.and_then(|answer| answer.message) {
                    Some(Inbound::Welcome(_)) => {}
                    other => bail!("expected a Welcome, got {other:?}"),
                }
                Line::Stream { sender, answers, next_seq: 1, acked: 0 }
            }
        })
    }

    /// The last 24 hours: sessions one after another, the last few still open.
    fn history(&self, random: &mut SmallRng, open: &mut VecDeque<Open>) -> Vec<v1::Connection> {
        let now = Utc::now();
        let mut events = Vec::new();
        for _ in 0..random.random_range(10..30) {
            let since = now - TimeDelta::seconds(random.random_range(120..86_400));
            let session = self.begin(random, since);
            events.push(session.message.clone());
            if session.until < now { events.push(self.end(random, &session)) } else { open.push_back(session) }
        }
        events
    }

    fn live(&self, random: &mut SmallRng, open: &mut VecDeque<Open>) -> Vec<v1::Connection> {
        let now = Utc::now();
        let mut events = Vec::new();
        while let Some(position) = open.iter().position(|session| session.until < now) {
            if let Some(session) = open.remove(position) {
                events.push(self.end(random, &session));
            }
        }
        if random.random_ratio(1, 4) {
            let mut session = self.begin(random, now);
            if random.random_bool(0.6) {
                session.until = now + TimeDelta::milliseconds(random.random_range(500..6_000));
            }
            events.push(session.message.clone());
            open.push_back(session);
        }
        events
    }

    fn begin(&self, random: &mut SmallRng, since: Timestamp) -> Open {
        let since = truncate_to_micros(since);
        let (method, app) = sessions::client(random);
        let id = Uuid::new_v4();
        let message = v1::Connection {
            id: id.as_bytes().to_vec(),
            action: v1::Action::Connect.into(),
            timestamp: Some(timestamp(since)),
            ip: sessions::ip(random),
            app_name: app.unwrap_or("reconnecting_pty").to_owned(),
            ..v1::Connection::default()
        };
        self.ledger.add(Expected {
            workspace: self.workspace,
            method,
            app,
            user: None,
            id,
            connect_time: since,
            ended: false,
            streamed: self.style == Style::Stream,
        });
        Open { id, since, until: since + sessions::length(random), message }
    }

    fn end(&self, random: &mut SmallRng, session: &Open) -> v1::Connection {
        let end = sessions::end(random);
        self.ledger.end(session.id);
        v1::Connection {
            action: v1::Action::Disconnect.into(),
            timestamp: Some(timestamp(session.until)),
            status_code: Some(end.code),
            reason: (!end.reason.is_empty()).then(|| end.reason.to_owned()),
            connected_at: Some(timestamp(session.since)),
            rx_bytes: random.random_range(0..5_000_000),
            tx_bytes: random.random_range(0..50_000_000),
            ..session.message.clone()
        }
    }

    async fn report(&self, line: &mut Line, events: Vec<v1::Connection>) -> Result<()> {
        let count = events.len() as u64;
        if count == 0 {
            return Ok(());
        }
        self.ledger.note_sent(count);
        match line {
            Line::Stream { sender, answers, next_seq, acked } => {
                let sequenced = events.into_iter().zip(*next_seq..).map(|(event, seq)| v1::SequencedEvent {
                    seq,
                    event: Some(v1::sequenced_event::Event::Connection(event)),
                });
                let batch = v1::EventBatch { events: sequenced.collect(), ..v1::EventBatch::default() };
                *next_seq += count;
                sender.send(request(Outbound::Batch(batch))).await?;
                while *acked + 1 < *next_seq {
                    match answers.message().await?.and_then(|answer| answer.message) {
                        Some(Inbound::Ack(ack)) if ack.rejected.is_empty() => *acked = ack.committed_seq,
                        other => bail!("expected an Ack without rejections, got {other:?}"),
                    }
                }
            }
            Line::Unary(client) => {
                for connection in events {
                    let request = v1::ReportConnectionRequest { connection: Some(connection) };
                    client.report_connection(self.authorized(request)).await?;
                }
            }
            Line::Coder(client) => {
                for event in events {
                    let request = coder::ReportConnectionRequest { connection: Some(to_coder(event)) };
                    client.report_connection(self.authorized(request)).await?;
                }
            }
        }
        self.ledger.note_acknowledged(count);
        Ok(())
    }

    fn authorized<T>(&self, message: T) -> Request<T> {
        authorized(message, &self.token)
    }
}

async fn heartbeat(line: &mut Line, open: &VecDeque<Open>) -> Result<()> {
    let Line::Stream { sender, next_seq, .. } = line else { return Ok(()) };
    let heartbeat = v1::Heartbeat {
        at: Some(timestamp(Utc::now())),
        open_connection_ids: open.iter().map(|session| session.id.as_bytes().to_vec()).collect(),
        last_seq: *next_seq - 1,
    };
    sender.send(request(Outbound::Heartbeat(heartbeat))).await.context("the stream has ended")
}

/// A request that bears a token.
pub(crate) fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token is plain text");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A time as protobuf has it.
pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0);
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

fn request(message: Outbound) -> v1::StreamEventsRequest {
    v1::StreamEventsRequest { message: Some(message) }
}

/// The message of Coder's API, which knows neither `connected_at` nor byte counts.
fn to_coder(event: v1::Connection) -> coder::Connection {
    coder::Connection {
        id: event.id,
        action: event.action,
        timestamp: event.timestamp,
        ip: event.ip,
        status_code: event.status_code.unwrap_or_default(),
        reason: event.reason,
        app_name: event.app_name,
        ..coder::Connection::default()
    }
}
