//! Streams that are held: the database refuses one of their events, for a cause that may pass.
//!
//! The submissions of a held stream wait here, unacknowledged and in order. Each stream is tried again by itself, so it
//! does not delay the others. Waiting submissions take no room in the writer's queue: this list has a limit of its own. A
//! stream that exceeds it is ended, and its agent sends everything again over a new stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Committed, Queued, Sender};

/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: how long a stream stays held, at most, once the cause is gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a stream that found no room is remembered: longer than it takes to end.
const ENDED_FOR: Duration = Duration::from_mins(10);
/// The answer to a submission whose stream had an earlier one given up.
const GIVEN_UP: &str = "what the stream sent before is not committed, and comes first";
/// Causes that `/readyz` lists; it says how many streams there are in all.
const LISTED: usize = 3;

/// A stream, by agent and spool.
pub(super) type Key = (Uuid, Uuid);

/// The key of a submission's sender; unary callers are not held but told to come again.
pub(super) fn key(sender: &Sender) -> Option<Key> {
    match sender {
        Sender::Stream { agent_id, spool_id } => Some((*agent_id, *spool_id)),
        Sender::Agent { .. } | Sender::Reporter { .. } => None,
    }
}

/// The id of the stream that a submission came by.
fn stream_id(queued: &Queued) -> Option<Uuid> {
    queued.submission.stamp.as_ref().map(|stamp| stamp.stream_id)
}

/// Tells the sender that the submission is not committed, and has to be sent again.
fn turn_back(queued: Queued, cause: &str) {
    let _gone = queued.answer.send(Committed { held: Some(cause.to_owned()), ..Committed::default() });
}

/// What all writers of a process hold, for `/readyz` and metrics.
#[derive(Debug, Clone, Default)]
pub struct HeldStreams(Arc<Mutex<BTreeMap<Key, String>>>);

impl HeldStreams {
    /// How many streams are held and why, one line; nothing if none is.
    pub fn detail(&self) -> Option<String> {
        let held = self.0.lock().expect("no one panics while holding the list");
        if held.is_empty() {
            return None;
        }
        let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
        for cause in held.values() {
            *causes.entry(cause).or_default() += 1;
        }
        let mut causes: Vec<_> = causes.into_iter().collect();
        causes.sort_by_key(|(_, streams)| std::cmp::Reverse(*streams));
        let causes = causes.iter().take(LISTED).map(|(cause, streams)| format!("{streams} by {cause}"));
        Some(format!("{} streams are held: {}", held.len(), causes.collect::<Vec<_>>().join("; ")))
    }

    fn note(&self, key: Key, cause: Option<&str>) {
        let mut held = self.0.lock().expect("no one panics while holding the list");
        match cause {
            Some(cause) => held.insert(key, cause.to_owned()),
            None => held.remove(&key),
        };
        metrics::gauge!("connlog_ingest_held_streams").set(u32::try_from(held.len()).unwrap_or(u32::MAX));
    }
}

struct HeldStream {
    waiting: VecDeque<Queued>,
    cause: String,
    attempts: u32,
    retry_at: Instant,
}

/// What one writer holds.
pub(super) struct Held {
    streams: BTreeMap<Key, HeldStream>,
    events: usize,
    /// Most events that may wait here.
    capacity: usize,
    /// Streams of which something was given up, by their own id: nothing of them is taken any more, or what they sent later would be
    /// committed before what they have to send again.
    ended: BTreeMap<Uuid, Instant>,
    all: HeldStreams,
}

impl Held {
    pub(super) fn new(capacity: usize, all: HeldStreams) -> Self {
        Self { streams: BTreeMap::new(), events: 0, capacity, ended: BTreeMap::new(), all }
    }

    /// Holds the stream of a submission that was refused because of `cause`.
    pub(super) fn hold(&mut self, key: Key, queued: Queued, cause: &str) {
        if self.streams.contains_key(&key) {
            return self.put_back(key, vec![queued], cause);
        }
        tracing::error!(
            agent_id = %key.0, spool_id = %key.1, cause,
            "the database refuses an event; its stream is held until the cause is gone, all others go on"
        );
        self.all.note(key, Some(cause));
        let stream = HeldStream {
            waiting: VecDeque::new(),
            cause: cause.to_owned(),
            attempts: 0,
            retry_at: Instant::now() + FIRST_PAUSE,
        };
        self.streams.insert(key, stream);
        self.wait(key, queued);
    }

    /// Gives up submissions that are not committed and get no answer. Nothing of their streams is taken any more.
    pub(super) fn give_up(&mut self, queued: &[Queued]) {
        self.ended.extend(queued.iter().filter_map(stream_id).map(|id| (id, Instant::now())));
    }

    /// Takes out of `gathered` what belongs to held streams; it waits behind what was refused.
    pub(super) fn keep_back(&mut self, gathered: Vec<Queued>) -> Vec<Queued> {
        self.ended.retain(|_, since| since.elapsed() < ENDED_FOR);
        if self.streams.is_empty() && self.ended.is_empty() {
            return gathered;
        }
        let mut others = Vec::with_capacity(gathered.len());
        for queued in gathered {
            if stream_id(&queued).is_some_and(|id| self.ended.contains_key(&id)) {
                turn_back(queued, GIVEN_UP);
                continue;
            }
            match key(&queued.submission.sender).filter(|key| self.streams.contains_key(key)) {
                Some(key) => self.wait(key, queued),
                None => others.push(queued),
            }
        }
        others
    }

    fn wait(&mut self, key: Key, mut queued: Queued) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let weight = queued.submission.weight();
        if self.events + weight > self.capacity {
            self.ended.extend(stream_id(&queued).map(|id| (id, Instant::now())));
            for waiting in std::mem::take(&mut stream.waiting) {
                self.events -= waiting.submission.weight();
                turn_back(waiting, &stream.cause);
            }
            return turn_back(queued, &stream.cause);
        }
        queued.room = None;
        self.events += weight;
        stream.waiting.push_back(queued);
    }

    /// Waits until a stream is to be tried again; for ever if none is held.
    pub(super) async fn due(&self) {
        match self.streams.values().map(|stream| stream.retry_at).min() {
            Some(time) => tokio::time::sleep_until(time).await,
            None => std::future::pending().await,
        }
    }

    /// The streams whose time has come.
    pub(super) fn due_streams(&self) -> Vec<Key> {
        let now = Instant::now();
        self.streams.iter().filter(|(_, stream)| stream.retry_at <= now).map(|(key, _)| *key).collect()
    }

    /// The next submissions of a held stream, to be tried: one at least, if there is one, and further ones up to so many
    /// events. Those whose stream has ended are given up: they come again.
    pub(super) fn next_of(&mut self, key: Key, most_events: usize) -> Vec<Queued> {
        let (mut next, mut events) = (Vec::new(), 0);
        let Some(stream) = self.streams.get_mut(&key) else { return next };
        while let Some(queued) = stream.waiting.pop_front() {
            let weight = queued.submission.weight();
            if !next.is_empty() && events + weight > most_events {
                stream.waiting.push_front(queued);
                break;
            }
            self.events -= weight;
            if !queued.answer.is_closed() {
                events += weight;
                next.push(queued);
            }
        }
        next
    }

    /// Puts submissions back that were refused again, in their order.
    pub(super) fn put_back(&mut self, key: Key, refused: Vec<Queued>, cause: &str) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.attempts += 1;
        let longest = (FIRST_PAUSE * 2_u32.saturating_pow(stream.attempts.min(8))).min(LONGEST_PAUSE);
        stream.retry_at = Instant::now() + longest.mul_f64(rand::random_range(0.5..=1.0));
        cause.clone_into(&mut stream.cause);
        self.all.note(key, Some(cause));
        self.restore(key, refused);
    }

    /// Puts submissions back to the front, in their order, to be tried again at once.
    pub(super) fn restore(&mut self, key: Key, taken: Vec<Queued>) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        for queued in taken.into_iter().rev() {
            self.events += queued.submission.weight();
            stream.waiting.push_front(queued);
        }
    }

    /// Lets a stream go of which nothing waits any more.
    pub(super) fn release(&mut self, key: Key) {
        if self.streams.remove(&key).is_some() {
            self.all.note(key, None);
            tracing::info!(agent_id = %key.0, spool_id = %key.1, "a stream is no longer held");
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use connlog_model::identity::{AgentIdentity, Workspace};
    use connlog_store::write::Stamp;
    use opentelemetry::Context;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::commit::{Outcome, Submission};

    const KEY: Key = (Uuid::from_u128(1), Uuid::from_u128(2));

    /// A sign of life of a stream.
    fn queued(stream: u128) -> (Queued, Outcome) {
        let (agent_id, spool_id) = KEY;
        let stamp = Stamp {
            agent: Arc::new(agent()),
            spool_id,
            stream_id: Uuid::from_u128(stream),
            committed_seq: None,
            seen_at: DateTime::UNIX_EPOCH,
        };
        let submission = Submission {
            request_id: Uuid::nil(),
            sender: Sender::Stream { agent_id, spool_id },
            items: Vec::new(),
            rejected: Vec::new(),
            lost: Vec::new(),
            stamp: Some(stamp),
            trace: Context::new(),
        };
        let (answer, outcome) = oneshot::channel();
        (Queued { submission, refused: Vec::new(), answer, room: None }, outcome)
    }

    fn agent() -> AgentIdentity {
        let workspace = Workspace {
            organization_id: Uuid::nil(),
            owner_id: Uuid::nil(),
            workspace_id: Uuid::nil(),
            workspace_name: String::new(),
        };
        AgentIdentity { agent_id: Some(KEY.0), agent_name: "main".to_owned(), workspace }
    }

    fn is_turned_back(outcome: &mut Outcome) -> bool {
        outcome.try_recv().is_ok_and(|committed| committed.held.is_some())
    }

    #[test]
    fn of_a_stream_that_finds_no_room_nothing_later_overtakes_what_it_has_to_send_again() {
        let mut held = Held::new(1, HeldStreams::default());
        let ((first, mut of_first), (second, mut of_second)) = (queued(7), queued(7));
        held.hold(KEY, first, "a cause");
        assert_eq!(held.keep_back(vec![second]).len(), 0);
        assert!(is_turned_back(&mut of_first) && is_turned_back(&mut of_second));
        assert!(held.next_of(KEY, 100).is_empty());
        held.release(KEY);
        // What it had sent by then comes out of the queue only now.
        let (third, mut of_third) = queued(7);
        assert_eq!(held.keep_back(vec![third]).len(), 0);
        assert!(is_turned_back(&mut of_third));
        // It comes again, by another stream.
        assert_eq!(held.keep_back(vec![queued(8).0]).len(), 1);
    }

    #[test]
    fn what_waits_is_given_in_order_the_first_alone_and_put_back_in_order() {
        let mut held = Held::new(10, HeldStreams::default());
        let mut outcomes = Vec::new();
        for number in 0..4 {
            let (mut queued, outcome) = queued(7);
            queued.submission.request_id = Uuid::from_u128(number);
            outcomes.push(outcome);
            match number {
                0 => held.hold(KEY, queued, "a cause"),
                _ => assert_eq!(held.keep_back(vec![queued]).len(), 0),
            }
        }
        let numbers =
            |given: &[Queued]| given.iter().map(|one| one.submission.request_id.as_u128()).collect::<Vec<_>>();
        let first = held.next_of(KEY, 1);
        assert_eq!(numbers(&first), [0]);
        held.put_back(KEY, first, "a cause");
        assert_eq!(numbers(&held.next_of(KEY, 1)), [0]);
        // One whose stream is gone comes again by itself.
        drop(outcomes.remove(2));
        let rest = held.next_of(KEY, 100);
        assert_eq!(numbers(&rest), [1, 3]);
        held.restore(KEY, rest);
        assert_eq!(numbers(&held.next_of(KEY, 100)), [1, 3]);
        assert!(outcomes.iter_mut().skip(1).all(|outcome| outcome.try_recv() == Err(TryRecvError::Closed)));
    }
}
