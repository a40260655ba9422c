//! A stream after its Hello: batches and heartbeats in, acknowledgements out.
//!
//! Reading stops while too much is unacknowledged; HTTP/2 flow control then holds the agent back. An outage of the
//! database leaves the stream open and unacknowledged.
//!
//! Whatever waits is polled with everything else, and nothing is awaited on the side: reconciliation may be in the middle of
//! a transaction, whose locks the writers need before there is room in the queue again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use connlog_model::clock::Timestamp;
use connlog_model::event::{Event, Source as Reported};
use connlog_model::identity::{AgentIdentity, BootNumber};
use connlog_proto::v1;
use connlog_proto::v1::sequenced_event::Event as Sequenced;
use connlog_proto::v1::stream_events_request::Message as Inbound;
use connlog_proto::v1::stream_events_response::Message as Outbound;
use connlog_store::LostRecord;
use connlog_store::agents::AgentToken;
use connlog_store::infer::Greeting;
use connlog_store::write::Stamp;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use opentelemetry::Context;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::reconcile::{Listing, Reconciler};
use super::sequence::Sequence;
use super::session::{Greeted, displaced_status, listed, response, seq};
use super::{Streams, trace};
use crate::commit::{Committed, Item, Message, Outcome, Sender, Submission, agent_key, letter};
use crate::grpc::{invalid, replaced_status};
use crate::pace::LONGEST_PAYMENT;
use crate::parse::{Invalid, Source, Span, connection, shrink_sequenced};

/// How long a client may take to read what is acknowledged.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// A stream after its Hello.
pub(super) struct Active {
    streams: Streams,
    agent: Arc<AgentIdentity>,
    agent_id: Uuid,
    /// When the agent's token was replaced, if it was.
    replaced_at: Option<Timestamp>,
    /// Whether an event came that happened after that.
    came_too_late: bool,
    spool_id: Uuid,
    stream_id: Uuid,
    boot_id: Uuid,
    /// Events up to this number may be of an earlier boot.
    earlier_boot_until: i64,
    sequence: Sequence,
    outbound: mpsc::Sender<Result<v1::StreamEventsResponse, Status>>,
    in_flight: FuturesOrdered<BoxFuture<'static, Option<(InFlight, Committed)>>>,
    in_flight_events: usize,
    /// A batch that waits for room in the queue.
    submitting: Option<BoxFuture<'static, Option<(InFlight, Outcome)>>>,
    /// An acknowledgement that waits for the client to read the ones before.
    answering: Option<BoxFuture<'static, Result<(), SendTimeoutError<Answer>>>>,
    committed_seq: i64,
    /// What this stream brought and is committed.
    acked_seq: i64,
    /// Reading goes on once this is over: the agent was faster than it may.
    pause: Option<BoxFuture<'static, ()>>,
    /// Away while it is at work.
    reconciler: Option<Reconciler>,
    /// The newest list that was not yet taken as a sign of life.
    heard: Option<Listing>,
    /// The newest list that waits for its events to be committed.
    to_close: Option<Listing>,
    /// The list of the Hello while it closes, and if that failed.
    closing: Option<Listing>,
}

struct InFlight {
    last_seq: i64,
    events: usize,
    rejected: Vec<v1::Rejection>,
    /// From the batch's arrival to its acknowledgement.
    trace: Context,
}

/// What is sent to the client.
type Answer = Result<v1::StreamEventsResponse, Status>;

type Reconciled = (Reconciler, Result<Piece, connlog_store::StoreError>);

/// A piece of reconciliation that is done.
enum Piece {
    SignOfLife,
    Displaced,
    Closed,
}

impl Active {
    pub(super) fn new(
        streams: Streams,
        token: AgentToken,
        agent_id: Uuid,
        outbound: mpsc::Sender<Result<v1::StreamEventsResponse, Status>>,
        greeted: &Greeted,
        stream_id: Uuid,
        greeting: &Greeting,
    ) -> Self {
        let AgentToken { agent, replaced_at } = token;
        let reconciler = Reconciler {
            store: streams.store.clone(),
            conclusions: streams.conclusions.clone(),
            agent: Arc::clone(&agent),
            spool_id: greeted.spool_id,
            stream_id,
            boot_id: greeted.boot_id,
            lost_after: streams.limits.lost_after,
            last_seen_before: greeting.last_seen_at,
            unknown: HashSet::new(),
            signs: 0,
            unlisted_before: None,
        };
        Self {
            sequence: Sequence::new(
                agent_id,
                &agent,
                greeted.spool_id,
                greeting.committed_seq,
                greeted.first_unacked_seq,
            ),
            streams,
            agent,
            agent_id,
            replaced_at,
            came_too_late: false,
            spool_id: greeted.spool_id,
            stream_id,
            boot_id: greeted.boot_id,
            earlier_boot_until: greeting.earlier_boot_seq,
            outbound,
            in_flight: FuturesOrdered::new(),
            in_flight_events: 0,
            submitting: None,
            answering: None,
            committed_seq: greeting.committed_seq.unwrap_or(0),
            acked_seq: 0,
            pause: None,
            reconciler: Some(reconciler),
            heard: Some(greeted.listing.clone()),
            // What is open now is for the token that took its place to say.
            to_close: replaced_at.is_none().then(|| greeted.listing.clone()),
            closing: None,
        }
    }

    pub(super) async fn run(mut self, mut inbound: Streaming<v1::StreamEventsRequest>) -> Result<(), Status> {
        let ends_at = Instant::now() + self.streams.limits.max_age;
        let shutdown = self.streams.shutdown.clone();
        let (mut reading, mut reconciling) = (true, None::<BoxFuture<'static, Reconciled>>);
        loop {
            if reconciling.is_none() {
                reconciling = self.next_reconciliation();
            }
            // What came before it is committed and acknowledged: the rest comes again with another token.
            reading &= !self.came_too_late;
            if !reading && self.in_flight.is_empty() && self.submitting.is_none() && self.answering.is_none() {
                return if self.came_too_late { Err(replaced_status()) } else { Ok(()) };
            }
            let has_room = self.in_flight_events < self.streams.limits.max_in_flight_events;
            let may_read = reading && has_room && self.pause.is_none() && self.submitting.is_none();
            tokio::select! {
                biased;
                sent = maybe(&mut self.answering) => {
                    self.answering = None;
                    // A client that is gone will say Hello again; reading from it notices.
                    if let Err(SendTimeoutError::Timeout(_)) = sent {
                        return Err(Status::deadline_exceeded("the acknowledgements are not read"));
                    }
                }
                () = shutdown.begun(), if reading || self.submitting.is_some() || self.answering.is_some() => {
                    if self.answering.is_some() {
                        return Err(crate::grpc::unavailable("the service is stopping"));
                    }
                    // What is not in the queue is not acknowledged, and comes again.
                    (reading, self.submitting) = (false, None);
                }
                () = tokio::time::sleep_until(ends_at), if reading => reading = false,
                Some(done) = self.in_flight.next(), if self.answering.is_none() => self.acknowledge(done)?,
                queued = maybe(&mut self.submitting) => {
                    self.submitting = None;
                    let Some((in_flight, outcome)) = queued else {
                        return Err(crate::grpc::unavailable("the service is stopping"));
                    };
                    self.in_flight.push_back(outcome.map(|done| done.ok().map(|committed| (in_flight, committed))).boxed());
                }
                (reconciler, outcome) = maybe(&mut reconciling) => {
                    reconciling = None;
                    self.reconciler = Some(reconciler);
                    match outcome {
                        Ok(Piece::SignOfLife) => {}
                        Ok(Piece::Closed) => self.closing = None,
                        Ok(Piece::Displaced) => return Err(displaced_status()),
                        Err(error) if error.is_unavailable() => tracing::debug!(%error, "a sign of life could not be noted"),
                        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, agent_id = %self.agent_id, "reconciliation failed"),
                    }
                }
                () = maybe(&mut self.pause), if reading => self.pause = None,
                message = inbound.message(), if may_read => match message? {
                    Some(request) => self.receive(request)?,
                    None => reading = false,
                },
            }
        }
    }

    fn receive(&mut self, request: v1::StreamEventsRequest) -> Result<(), Status> {
        match request.message {
            Some(Inbound::Batch(batch)) => self.submit(batch),
            Some(Inbound::Heartbeat(heartbeat)) => {
                let parse = || -> Result<Listing, Invalid> {
                    Ok(Listing {
                        connections: listed(&heartbeat.open_connection_ids)?,
                        last_seq: seq("last_seq", heartbeat.last_seq)?,
                        received_at: self.streams.clock.now(),
                        is_hello: false,
                    })
                };
                let listing = parse().map_err(|error| invalid(&error))?;
                // A Hello that still waits for its events is not replaced: only it closes what other boots left.
                if self.replaced_at.is_none() && self.to_close.as_ref().is_none_or(|waiting| !waiting.is_hello) {
                    // One whose closing failed has its turn again.
                    self.to_close = Some(self.closing.take().unwrap_or_else(|| listing.clone()));
                }
                self.heard = Some(listing);
                Ok(())
            }
            Some(Inbound::Hello(_)) => Err(invalid(&Invalid::new("message", "a stream has only one Hello"))),
            None => Err(invalid(&Invalid::new("message", "is missing, or of a kind that this server does not know"))),
        }
    }

    fn submit(&mut self, batch: v1::EventBatch) -> Result<(), Status> {
        let limit = self.streams.limits.max_batch_events;
        if batch.events.len() > limit {
            let reason = format!("has {} entries, at most {limit} are accepted", batch.events.len());
            return Err(invalid(&Invalid::new("events", reason)));
        }
        let (submission, in_flight) = self.parse(batch)?;
        if self.came_too_late && in_flight.last_seq == 0 {
            return Ok(());
        }
        self.in_flight_events += in_flight.events;
        let key = agent_key(&self.agent);
        let (pace, agent_id, events) = (self.streams.pace.clone(), self.agent_id, in_flight.events);
        if !pace.allows(agent_id, events) {
            self.pause = Some(Box::pin(async move { pace.wait(agent_id, events).await }));
        }
        let committer = self.streams.committer.clone();
        self.submitting =
            Some(Box::pin(async move { committer.submit(key, submission).await.map(|outcome| (in_flight, outcome)) }));
        Ok(())
    }

    fn parse(&mut self, batch: v1::EventBatch) -> Result<(Submission, InFlight), Status> {
        let now = self.streams.clock.now();
        let span = Span::new(now, self.streams.limits.max_event_age);
        let sender = Sender::Stream { agent_id: self.agent_id, spool_id: self.spool_id };
        let trace = trace::of_batch(&batch);
        let mut in_flight =
            InFlight { last_seq: 0, events: batch.events.len(), rejected: Vec::new(), trace: trace.clone() };
        let mut submission = Submission {
            request_id: self.stream_id,
            sender,
            items: Vec::with_capacity(batch.events.len()),
            rejected: Vec::new(),
            lost: Vec::new(),
            stamp: None,
            trace,
        };
        for mut event in batch.events {
            let number = seq("seq", event.seq).map_err(|error| invalid(&error))?;
            if number <= in_flight.last_seq {
                return Err(invalid(&Invalid::new("seq", "the numbers of a batch must ascend from 1")));
            }
            shrink_sequenced(&mut event);
            let parsed = self.parse_event(number, &event, &span, &mut submission.lost);
            let replaced_at = self.replaced_at.unwrap_or(Timestamp::MAX_UTC);
            if matches!(&parsed, Ok(Some(Event::Agent(event))) if event.time > replaced_at) {
                self.came_too_late = true;
                break;
            }
            in_flight.last_seq = number;
            let (seq, message) = (event.seq, Message::Sequenced(event));
            match parsed {
                Ok(None) => {}
                Ok(Some(event)) => submission.items.push(Item { event, seq, message, agent: Arc::clone(&self.agent) }),
                Err(error) => {
                    let agent = Some(&*self.agent);
                    let record = letter(&submission.sender, seq, agent, &message, error.field, &error.reason, now);
                    submission.rejected.push(record);
                    in_flight.rejected.push(rejection(seq, error.field, error.reason));
                }
            }
        }
        submission.stamp = (in_flight.last_seq > 0).then_some(Stamp {
            agent: Arc::clone(&self.agent),
            spool_id: self.spool_id,
            stream_id: self.stream_id,
            committed_seq: Some(in_flight.last_seq),
            seen_at: now,
        });
        Ok((submission, in_flight))
    }

    /// The event, if it is one; what is missing before it, or what it says is lost, goes to `lost`.
    fn parse_event(
        &mut self,
        number: i64,
        event: &v1::SequencedEvent,
        span: &Span,
        lost: &mut Vec<LostRecord>,
    ) -> Result<Option<Event>, Invalid> {
        match &event.event {
            Some(Sequenced::Connection(message)) => {
                lost.extend(self.sequence.event(number, span.now));
                let is_earlier = number <= self.earlier_boot_until;
                let boot = if is_earlier { BootNumber::EARLIER } else { BootNumber::of(self.boot_id) };
                let (agent, boot) = (Arc::clone(&self.agent), Some(boot));
                let source = Source { agent, boot, reported: Reported::Agent, user_id: None };
                connection(message, &source, span).map(|event| Some(Event::Agent(event)))
            }
            Some(Sequenced::Lost(message)) => {
                lost.extend(self.sequence.lost_events(number, message, span.now)?);
                Ok(None)
            }
            None => {
                lost.extend(self.sequence.event(number, span.now));
                Err(Invalid::new("event", "is missing, or of a kind that this server does not know"))
            }
        }
    }

    fn acknowledge(&mut self, done: Option<(InFlight, Committed)>) -> Result<(), Status> {
        let Some((in_flight, committed)) = done else {
            return Err(crate::grpc::unavailable("the service is stopping; the rest is not acknowledged"));
        };
        if committed.displaced {
            return Err(displaced_status());
        }
        if let Some(cause) = committed.held {
            return Err(crate::grpc::unavailable(&format!("the database refuses an event for now: {cause}")));
        }
        self.in_flight_events -= in_flight.events;
        let letters = in_flight.rejected.len() + committed.refused.len();
        if committed.looked_back + letters > 0 {
            let (pace, agent_id, paused) = (self.streams.pace.clone(), self.agent_id, self.pause.take());
            let payment = async move {
                if let Some(paused) = paused {
                    paused.await;
                }
                pace.pay(agent_id, committed.looked_back, letters).await;
            };
            // For all batches that are in flight: what one has to pay does not come on top of what the others have.
            self.pause = Some(tokio::time::timeout(LONGEST_PAYMENT, payment).map(drop).boxed());
        }
        self.committed_seq = self.committed_seq.max(in_flight.last_seq);
        // Only what this stream brought: numbers that an earlier life of the spool had may stand for other events now.
        self.acked_seq = self.acked_seq.max(in_flight.last_seq);
        let mut rejected = in_flight.rejected;
        rejected.extend(committed.refused.into_iter().map(|(seq, field, reason)| rejection(seq, field, reason)));
        rejected.sort_by_key(|rejection| rejection.seq);
        trace::end(&in_flight.trace, rejected.len());
        let ack = v1::Ack { committed_seq: event_seq(self.acked_seq), rejected };
        let outbound = self.outbound.clone();
        self.answering =
            Some(Box::pin(
                async move { outbound.send_timeout(Ok(response(Outbound::Ack(ack))), ANSWER_TIMEOUT).await },
            ));
        Ok(())
    }

    /// The next piece of reconciliation, if there is one and the reconciler is here.
    fn next_reconciliation(&mut self) -> Option<BoxFuture<'static, Reconciled>> {
        let can_close = self.to_close.as_ref().is_some_and(|listing| listing.last_seq <= self.committed_seq);
        if self.heard.is_none() && !can_close {
            return None;
        }
        let mut reconciler = self.reconciler.take()?;
        if let Some(listing) = self.heard.take() {
            return Some(Box::pin(async move {
                let outcome = reconciler.sign_of_life(&listing).await;
                let outcome = outcome.map(|owns| if owns { Piece::SignOfLife } else { Piece::Displaced });
                (reconciler, outcome)
            }));
        }
        let listing = self.to_close.take()?;
        self.closing = listing.is_hello.then(|| listing.clone());
        Some(Box::pin(async move {
            let outcome = reconciler.close(&listing).await.map(|()| Piece::Closed);
            (reconciler, outcome)
        }))
    }
}

/// The value of a future that may not be there.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn rejection(seq: u64, field: &str, reason: String) -> v1::Rejection {
    v1::Rejection { seq, field: field.to_owned(), reason }
}

/// A number that was checked before.
fn event_seq(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
