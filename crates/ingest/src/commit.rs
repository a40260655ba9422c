//! From accepted events to committed ones: batches that form by themselves.
//!
//! Each writer has a queue and a database connection. While one commit is in flight the next batch gathers, so an idle
//! system has low latency and a busy one large batches. What a stream submits stays in order: it always goes to the same
//! writer.

mod budget;
mod held;
mod letters;
mod trace;
mod writer;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use connlog_model::event::Event;
use connlog_model::identity::AgentIdentity;
use connlog_proto::v1;
use connlog_store::write::Stamp;
use connlog_store::{LostRecord, RejectedRecord};
use opentelemetry::Context;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

pub use self::held::HeldStreams;
pub use self::letters::{Sender, letter};
pub use self::writer::Writers;

/// What submissions are distributed by: those of one agent go to one writer, which need not wait for another one's locks.
pub fn agent_key(agent: &AgentIdentity) -> Uuid {
    let mut hasher = DefaultHasher::new();
    (agent.workspace.workspace_id, &agent.agent_name).hash(&mut hasher);
    Uuid::from_u64_pair(hasher.finish(), 0)
}

/// An accepted event, and the message that it came in, which becomes a dead letter if the database refuses it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The event.
    pub event: Event,
    /// Its sequence number, or its index in the request.
    pub seq: u64,
    /// As it was received.
    pub message: Message,
    /// The agent that it is about.
    pub agent: Arc<AgentIdentity>,
}

/// A message that carries one event, as it came, but for strings that are cut anyway.
#[derive(Debug, Clone)]
pub enum Message {
    /// Of a unary call.
    Connection(v1::Connection),
    /// Of a stream.
    Sequenced(v1::SequencedEvent),
    /// Of a reporter.
    Reported(v1::ReportedEvent),
}

/// What is committed, or not, as a whole, and then answered.
#[derive(Debug)]
pub struct Submission {
    /// Names the stream or call in the service log.
    pub request_id: Uuid,
    /// Who sent it.
    pub sender: Sender,
    /// What is accepted.
    pub items: Vec<Item>,
    /// What is not, to be kept.
    pub rejected: Vec<RejectedRecord>,
    /// What never came, to be recorded.
    pub lost: Vec<LostRecord>,
    /// How far this commits the sender's spool.
    pub stamp: Option<Stamp>,
    /// The trace that it is part of.
    pub trace: Context,
}

impl Submission {
    fn weight(&self) -> usize {
        (self.items.len() + self.rejected.len() + self.lost.len()).max(1)
    }
}

/// What became of a submission that is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Accepted events that the log refused after all: sequence number, field, reason.
    pub refused: Vec<(u64, &'static str, String)>,
    /// How many events were about connections that were looked for on each of 45 days.
    pub looked_back: usize,
    /// The sender's stream no longer owns its spool, and nothing was committed.
    pub displaced: bool,
    /// Why the database refuses an event for now. If this is set, the submission is not committed as a whole, and has to be
    /// sent again.
    pub held: Option<String>,
}

/// The outcome of a submission: absent if the service stopped before it was committed.
pub type Outcome = oneshot::Receiver<Committed>;

struct Queued {
    submission: Submission,
    /// Events that the database can never store: sequence number, field, reason.
    refused: Vec<(u64, &'static str, String)>,
    answer: oneshot::Sender<Committed>,
    /// Its room in the queue; none once it waits elsewhere.
    room: Option<OwnedSemaphorePermit>,
}

/// Where submissions go.
#[derive(Clone)]
pub struct Committer {
    queues: Vec<mpsc::UnboundedSender<Queued>>,
    room: Arc<Semaphore>,
    capacity: usize,
    database_down: watch::Receiver<Option<String>>,
    held: HeldStreams,
}

impl Committer {
    /// Queues a submission, waiting for room: a stream that waits here is not read. Nothing is returned if the service
    /// is stopping.
    pub async fn submit(&self, key: Uuid, submission: Submission) -> Option<Outcome> {
        let weight = self.weight(&submission);
        let room = Arc::clone(&self.room).acquire_many_owned(weight).await.ok()?;
        self.enqueue(key, submission, room)
    }

    /// Queues a submission if there is room now.
    pub fn try_submit(&self, key: Uuid, submission: Submission) -> Result<Outcome, Overloaded> {
        let weight = self.weight(&submission);
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight).map_err(|_| Overloaded)?;
        self.enqueue(key, submission, room).ok_or(Overloaded)
    }

    /// Why the last attempt to commit found no database that takes events; nothing if it found one.
    pub fn database_down(&self) -> watch::Receiver<Option<String>> {
        self.database_down.clone()
    }

    /// The streams that are held.
    pub fn held(&self) -> &HeldStreams {
        &self.held
    }

    /// Events that wait for a writer, or are with one.
    pub fn queued_events(&self) -> usize {
        self.capacity - self.room.available_permits()
    }

    /// Whether nine tenths of the room is taken: there is no place for a batch.
    pub fn is_full(&self) -> bool {
        self.queued_events() >= self.capacity - self.capacity / 10
    }

    fn weight(&self, submission: &Submission) -> u32 {
        u32::try_from(submission.weight().min(self.capacity)).unwrap_or(u32::MAX)
    }

    fn enqueue(&self, key: Uuid, submission: Submission, room: OwnedSemaphorePermit) -> Option<Outcome> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % self.queues.len() as u64).unwrap_or(0);
        let (answer, outcome) = oneshot::channel();
        self.queues[index].send(Queued { submission, refused: Vec::new(), answer, room: Some(room) }).ok()?;
        Some(outcome)
    }
}

/// There is no room for more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;
