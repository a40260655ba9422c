//! Streams that are held: the database refuses one of their events, for a cause that may pass.
//!
//! What a held stream sent waits here, unacknowledged and in order, and is tried again by itself, so that it costs the
//! others nothing. What waits here has given its room in the queue back; it has room of its own, and a stream that finds
//! none is ended and comes again.

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
    all: HeldStreams,
}

impl Held {
    pub(super) fn new(capacity: usize, all: HeldStreams) -> Self {
        Self { streams: BTreeMap::new(), events: 0, capacity, all }
    }

    /// Holds the stream of a submission that was refused because of `cause`.
    pub(super) fn hold(&mut self, key: Key, queued: Queued, cause: &str) {
        if self.streams.contains_key(&key) {
            return self.put_back(key, queued, cause);
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

    /// Takes out of `gathered` what belongs to held streams; it waits behind what was refused.
    pub(super) fn keep_back(&mut self, gathered: Vec<Queued>) -> Vec<Queued> {
        if self.streams.is_empty() {
            return gathered;
        }
        let mut others = Vec::with_capacity(gathered.len());
        for queued in gathered {
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
            let answer = Committed { held: Some(stream.cause.clone()), ..Committed::default() };
            let _gone = queued.answer.send(answer);
            return;
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

    /// The next submission of a held stream, to be tried. Those whose stream has ended are given up: they come again.
    pub(super) fn next_of(&mut self, key: Key) -> Option<Queued> {
        let stream = self.streams.get_mut(&key)?;
        while let Some(queued) = stream.waiting.pop_front() {
            self.events -= queued.submission.weight();
            if !queued.answer.is_closed() {
                return Some(queued);
            }
        }
        None
    }

    /// Puts a submission back that was refused again.
    pub(super) fn put_back(&mut self, key: Key, queued: Queued, cause: &str) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.attempts += 1;
        let longest = (FIRST_PAUSE * 2_u32.saturating_pow(stream.attempts.min(8))).min(LONGEST_PAUSE);
        stream.retry_at = Instant::now() + longest.mul_f64(rand::random_range(0.5..=1.0));
        cause.clone_into(&mut stream.cause);
        self.all.note(key, Some(cause));
        self.events += queued.submission.weight();
        stream.waiting.push_front(queued);
    }

    /// Lets a stream go of which nothing waits any more.
    pub(super) fn release(&mut self, key: Key) {
        if self.streams.remove(&key).is_some() {
            self.all.note(key, None);
            tracing::info!(agent_id = %key.0, spool_id = %key.1, "a stream is no longer held");
        }
    }
}
