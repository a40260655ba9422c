//! One stream, from its Hello to its end.

use std::sync::Arc;
use std::time::Duration;

use connlog_proto::v1;
use connlog_proto::v1::stream_events_request::Message as Inbound;
use connlog_proto::v1::stream_events_response::Message as Outbound;
use connlog_store::agents::AgentToken;
use connlog_store::infer::{Greeting, Hello};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::Streams;
use super::active::Active;
use super::reconcile::Listing;
use crate::grpc::{invalid, status, too_much};
use crate::parse::{Invalid, required_id};

/// How long a stream may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between attempts to greet while the database cannot be reached.
const OUTAGE_PAUSE: Duration = Duration::from_millis(250);

/// Largest sequence number: no sum of counts comes near the end of 64 bits.
const MAX_SEQ: i64 = 1 << 53;
/// Most connections that an agent may have open at once.
const MAX_LISTED: usize = 10_000;

/// A stream before its Hello.
pub(super) struct Session {
    streams: Streams,
    token: AgentToken,
    agent_id: Uuid,
    inbound: Streaming<v1::StreamEventsRequest>,
    outbound: mpsc::Sender<Result<v1::StreamEventsResponse, Status>>,
}

/// What a Hello says, validated.
pub(super) struct Greeted {
    pub(super) boot_id: Uuid,
    pub(super) spool_id: Uuid,
    pub(super) first_unacked_seq: i64,
    pub(super) listing: Listing,
}

impl Session {
    /// Prepares to serve the stream of the agent that has `token`.
    pub(super) fn new(
        streams: Streams,
        token: AgentToken,
        inbound: Streaming<v1::StreamEventsRequest>,
        outbound: mpsc::Sender<Result<v1::StreamEventsResponse, Status>>,
    ) -> Result<Self, Status> {
        let agent_id = token.agent.agent_id.ok_or_else(|| Status::internal("internal error"))?;
        Ok(Self { streams, token, agent_id, inbound, outbound })
    }

    /// Serves the stream until either side ends it.
    pub(super) async fn run(self) {
        let outbound = self.outbound.clone();
        if let Err(status) = self.serve().await {
            tracing::debug!(%status, "stream ended");
            let _gone = outbound.send(Err(status)).await;
        }
    }

    async fn serve(mut self) -> Result<(), Status> {
        let greeted = self.hello().await?;
        let stream_id = Uuid::now_v7();
        let Some(ownership) = self.streams.registry.claim(self.agent_id, greeted.spool_id, stream_id) else {
            return Err(too_much("the agent has too many streams"));
        };
        let displaced = ownership.displaced();
        let greeting = tokio::select! {
            // Without this, an older stream that waited out an outage could take the spool back from a newer one.
            () = displaced.cancelled() => return Err(displaced_status()),
            greeting = self.greet(&greeted, stream_id) => greeting?,
        };
        let Some(greeting) = greeting else { return Ok(()) };
        let welcome = v1::Welcome {
            max_batch_events: u32::try_from(self.streams.limits.max_batch_events).unwrap_or(u32::MAX),
            max_in_flight_events: u32::try_from(self.streams.limits.max_in_flight_events).unwrap_or(u32::MAX),
            heartbeat_interval: Some(prost_types::Duration {
                seconds: self.streams.limits.heartbeat_interval.num_seconds(),
                nanos: self.streams.limits.heartbeat_interval.subsec_nanos(),
            }),
        };
        if self.outbound.send(Ok(response(Outbound::Welcome(welcome)))).await.is_err() {
            return Ok(());
        }
        let Self { streams, token, agent_id, inbound, outbound } = self;
        let active = Active::new(streams, token, agent_id, outbound, &greeted, stream_id, &greeting);
        tokio::select! {
            () = displaced.cancelled() => Err(displaced_status()),
            ended = active.run(inbound) => ended,
        }
    }

    async fn hello(&mut self) -> Result<Greeted, Status> {
        let first = tokio::select! {
            first = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.message()) => first,
            () = self.streams.shutdown.begun() => return Err(crate::grpc::unavailable("the service is stopping")),
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello came in time"))??;
        let Some(Inbound::Hello(hello)) = first.and_then(|request| request.message) else {
            return Err(invalid(&Invalid::new("message", "the first message of a stream must be a Hello")));
        };
        let parse = || -> Result<Greeted, Invalid> {
            let last_seq = seq("last_seq", hello.last_seq)?;
            Ok(Greeted {
                first_unacked_seq: seq("first_unacked_seq", hello.first_unacked_seq)?,
                boot_id: required_id("boot_id", &hello.boot_id)?,
                spool_id: required_id("spool_id", &hello.spool_id)?,
                listing: Listing {
                    connections: listed(&hello.open_connection_ids)?,
                    last_seq,
                    received_at: self.streams.clock.now(),
                    is_hello: true,
                },
            })
        };
        parse().map_err(|error| invalid(&error))
    }

    /// Waits an outage out. Nothing is returned if the stream ended meanwhile.
    async fn greet(&self, greeted: &Greeted, stream_id: Uuid) -> Result<Option<Greeting>, Status> {
        let hello = Hello {
            agent: Arc::clone(&self.token.agent),
            spool_id: greeted.spool_id,
            boot_id: greeted.boot_id,
            stream_id,
            first_unacked_seq: greeted.first_unacked_seq,
            last_seq: greeted.listing.last_seq,
            received_at: greeted.listing.received_at,
        };
        loop {
            match self.streams.store.greet(&hello).await {
                Ok(greeting) => return Ok(Some(greeting)),
                Err(error) if error.is_unavailable() || error.is_transient() => {}
                Err(error) => return Err(status(&error)),
            }
            tokio::select! {
                () = tokio::time::sleep(OUTAGE_PAUSE) => {}
                () = self.outbound.closed() => return Ok(None),
                () = self.streams.shutdown.begun() => return Err(crate::grpc::unavailable("the service is stopping")),
            }
        }
    }
}

pub(super) fn displaced_status() -> Status {
    Status::aborted("a newer stream of this agent and spool took over")
}

pub(super) fn response(message: Outbound) -> v1::StreamEventsResponse {
    v1::StreamEventsResponse { message: Some(message) }
}

pub(super) fn seq(field: &'static str, number: u64) -> Result<i64, Invalid> {
    let seq = i64::try_from(number).ok().filter(|seq| *seq <= MAX_SEQ);
    seq.ok_or_else(|| Invalid::new(field, "is larger than 2^53"))
}

pub(in crate::grpc) fn listed(ids: &[Vec<u8>]) -> Result<Vec<Uuid>, Invalid> {
    if ids.len() > MAX_LISTED {
        let reason = format!("has {} entries, at most {MAX_LISTED} are accepted", ids.len());
        return Err(Invalid::new("open_connection_ids", reason));
    }
    ids.iter().map(|id| required_id("open_connection_ids", id)).collect()
}
