//! The stream of an agent.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_proto::v1::stream_events_request::Message as Outbound;
use connlog_proto::v1::stream_events_response::Message as Inbound;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use uuid::Uuid;

/// What an agent is across its streams: its boot and its spool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spool {
    pub(crate) boot: Uuid,
    pub(crate) id: Uuid,
    /// Everything up to this one is acknowledged.
    pub(crate) acked: u64,
    /// The newest one.
    pub(crate) last: u64,
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self { boot: Uuid::new_v4(), id: Uuid::new_v4(), acked: 0, last: 0 }
    }
}

/// An open stream.
pub(crate) struct Stream {
    sender: mpsc::Sender<v1::StreamEventsRequest>,
    answers: Streaming<v1::StreamEventsResponse>,
    in_flight_limit: u64,
    spool: Spool,
}

impl Stream {
    /// Says Hello and waits for the Welcome.
    pub(crate) async fn open(channel: Channel, token: &str, spool: Spool) -> Result<Self> {
        let (sender, messages) = mpsc::channel(4);
        let hello = v1::Hello {
            boot_id: spool.boot.as_bytes().to_vec(),
            spool_id: spool.id.as_bytes().to_vec(),
            first_unacked_seq: spool.acked + 1,
            last_seq: spool.last,
            ..v1::Hello::default()
        };
        sender.send(v1::StreamEventsRequest { message: Some(Outbound::Hello(hello)) }).await?;
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let mut answers = ConnectionLogClient::new(channel).stream_events(request).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(Inbound::Welcome(welcome)) => {
                Ok(Self { sender, answers, in_flight_limit: welcome.max_in_flight_events.into(), spool })
            }
            other => bail!("expected a Welcome, got {other:?}"),
        }
    }

    /// Sends as fast as the server takes it, and returns when everything is acknowledged.
    pub(crate) async fn send_all(&mut self, batches: Vec<v1::EventBatch>) -> Result<()> {
        let mut sent = self.spool.acked;
        for batch in batches {
            let Some(last) = batch.events.last().map(|event| event.seq) else { continue };
            while last - self.spool.acked > self.in_flight_limit {
                self.acknowledged().await?;
            }
            self.send(batch).await?;
            sent = last;
        }
        while self.spool.acked < sent {
            self.acknowledged().await?;
        }
        Ok(())
    }

    /// Sends a message each `pause` from `first` on, as many in flight as the server allows, and returns when all are
    /// acknowledged: of each message the ms from when it was due to its acknowledgement.
    pub(crate) async fn send_paced(
        &mut self,
        batches: Vec<v1::EventBatch>,
        first: Instant,
        pause: Duration,
    ) -> Result<Vec<f64>> {
        let (mut waiting, mut times) = (VecDeque::new(), Vec::with_capacity(batches.len()));
        let mut due = first;
        for batch in batches {
            let Some(last) = batch.events.last().map(|event| event.seq) else { continue };
            // Until this message is due, read the acknowledgements of those in flight.
            while !waiting.is_empty() {
                match tokio::time::timeout_at(due, self.acknowledged()).await {
                    Ok(answered) => answered?,
                    Err(_) => break,
                }
                self.note(&mut waiting, &mut times);
            }
            tokio::time::sleep_until(due).await;
            while last - self.spool.acked > self.in_flight_limit {
                self.acknowledged().await?;
                self.note(&mut waiting, &mut times);
            }
            self.send(batch).await?;
            waiting.push_back((last, due));
            due += pause;
        }
        while !waiting.is_empty() {
            self.acknowledged().await?;
            self.note(&mut waiting, &mut times);
        }
        Ok(times)
    }

    /// Takes the times of the messages that are acknowledged by now.
    fn note(&self, waiting: &mut VecDeque<(u64, Instant)>, times: &mut Vec<f64>) {
        while let Some((_, due)) = waiting.pop_front_if(|(last, _)| *last <= self.spool.acked) {
            times.push(due.elapsed().as_secs_f64() * 1000.0);
        }
    }

    /// Gives a sign of life.
    pub(crate) async fn beat(&self) -> Result<()> {
        let heartbeat = v1::Heartbeat { last_seq: self.spool.acked, ..v1::Heartbeat::default() };
        Ok(self.sender.send(v1::StreamEventsRequest { message: Some(Outbound::Heartbeat(heartbeat)) }).await?)
    }

    /// How far it is.
    pub(crate) fn spool(&self) -> Spool {
        self.spool
    }

    async fn send(&mut self, batch: v1::EventBatch) -> Result<()> {
        let message = v1::StreamEventsRequest { message: Some(Outbound::Batch(batch)) };
        if self.sender.send(message).await.is_err() {
            // The server has ended the stream, and says why.
            while self.answers.message().await?.is_some() {}
            bail!("the server ended the stream");
        }
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<()> {
        match self.answers.message().await?.context("the stream ended")?.message {
            Some(Inbound::Ack(ack)) if ack.rejected.is_empty() => {
                ensure!(ack.committed_seq >= self.spool.acked, "the acknowledgements are out of order");
                self.spool.acked = ack.committed_seq;
                Ok(())
            }
            other => bail!("expected an Ack without rejections, got {other:?}"),
        }
    }
}
