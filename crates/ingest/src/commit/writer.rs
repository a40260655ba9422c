//! The writers: gather what waits, commit it, write it down, answer.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connlog_model::clock::Clock;
use connlog_store::write::{Applied, Batch, Refusal, Stamp};
use connlog_store::{RejectedRecord, Store, StoreError};
use opentelemetry::context::FutureExt as _;
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;

use super::budget::LetterBudget;
use super::held::{self, Held, HeldStreams};
use super::letters::letter;
use super::trace::CommitSpan;
use super::{Committed, Committer, Item, Queued, Submission};
use crate::service_log::{ServiceLog, Subject};
use connlog_runtime::shutdown::Shutdown;

/// Pause between attempts while the database cannot be reached.
const OUTAGE_PAUSE: Duration = Duration::from_millis(250);
/// How long held streams are tried again before new submissions get their turn.
const RETRY_SLICE: Duration = Duration::from_secs(1);
/// How long the events of a refused call are tried by themselves.
const OTHERS_SLICE: Duration = Duration::from_secs(1);
/// After so many refused events of a call the others are not tried.
const MOST_REFUSED: usize = 8;
/// What the log answers for an event below the retention floor.
const BELOW_FLOOR: &str = "lies below the retention floor: what is that old has been purged";
/// What the log answers for a web event whose id is not its own.
const EVENT_ID_TAKEN: &str =
    "was used before for another event of the workspace on the same day: its time or its content differs";
/// What the log answers for an event that the database refuses.
const REFUSED: &str = "the database refused it";

/// The writers of a service.
pub struct Writers {
    store: Store,
    clock: Clock,
    service_log: Arc<ServiceLog>,
    letters: LetterBudget,
    max_transaction_events: usize,
}

impl Writers {
    /// Writers that put at most `max_transaction_events` into one transaction, and keep `letter_kib_per_hour` of the dead letters of
    /// each sender whole.
    pub fn new(
        store: Store,
        clock: Clock,
        service_log: Arc<ServiceLog>,
        max_transaction_events: usize,
        letter_kib_per_hour: NonZeroU32,
    ) -> Self {
        metrics::counter!("connlog_ingest_merged_letters_total").increment(0);
        Self { store, clock, service_log, letters: LetterBudget::new(letter_kib_per_hour), max_transaction_events }
    }

    /// Starts `count` writers. They end when the last [`Committer`] is gone and their queues are empty.
    pub fn start(self, count: i16, max_queued_events: usize, shutdown: &Shutdown) -> Committer {
        let (down, database_down) = watch::channel(None);
        let (down, held) = (Arc::new(down), HeldStreams::default());
        let shared = Arc::new(self);
        tokio::spawn(shared.letters.forget());
        let mut queues = Vec::new();
        for shard in 1..=count {
            let (sender, receiver) = mpsc::unbounded_channel();
            queues.push(sender);
            let (shared, down) = (Arc::clone(&shared), Arc::clone(&down));
            let held = Held::new(max_queued_events, held.clone());
            let writer = Writer { shared, shard, receiver, down, held, shutdown: shutdown.clone() };
            shutdown.spawn("writer", writer.run());
        }
        Committer {
            queues,
            room: Arc::new(Semaphore::new(max_queued_events)),
            capacity: max_queued_events,
            database_down,
            held,
        }
    }
}

/// What became of a batch.
enum Outcome {
    /// It is committed.
    Done(Done),
    /// Nothing of it is committed: these streams no longer own their spool.
    Displaced(Vec<Uuid>),
}

/// A committed batch.
struct Done {
    /// For each submission.
    committed: Vec<Committed>,
    /// Dead letters of what the log did not take, each with the call that it came by.
    letters: Vec<(Uuid, RejectedRecord)>,
}

struct Writer {
    shared: Arc<Writers>,
    shard: i16,
    receiver: mpsc::UnboundedReceiver<Queued>,
    down: Arc<watch::Sender<Option<String>>>,
    held: Held,
    shutdown: Shutdown,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let first = tokio::select! {
                first = self.receiver.recv() => first,
                () = self.held.due() => {
                    self.retry_held().await;
                    continue;
                }
            };
            // What is held at the end was not acknowledged, and comes again.
            let Some(first) = first else { return };
            let mut events = first.submission.weight();
            let mut gathered = vec![first];
            while events < self.shared.max_transaction_events
                && let Ok(next) = self.receiver.try_recv()
            {
                events += next.submission.weight();
                gathered.push(next);
            }
            self.commit(gathered).await;
        }
    }

    /// Tries again what is held, each stream by itself, for a while: what is left is still due, and new submissions get
    /// their turn in between.
    async fn retry_held(&mut self) {
        let until = Instant::now() + RETRY_SLICE;
        for key in self.held.due_streams() {
            if !self.retry_stream(key, until).await {
                return;
            }
        }
    }

    /// Tries what waits of one stream: the first by itself, and once that is taken, as much at a time as of anybody.
    /// Returns whether to go on with others.
    async fn retry_stream(&mut self, key: held::Key, until: Instant) -> bool {
        let (mut most_events, mut then) = (1, self.shared.max_transaction_events);
        while Instant::now() < until {
            let next = self.held.next_of(key, most_events);
            if next.is_empty() {
                self.held.release(key);
                return true;
            }
            let began = Instant::now();
            match self.apply(&next).await {
                Ok(Outcome::Done(done)) => self.finish(next, done, began).await,
                // What a newer stream of the spool sent stays in its order.
                Ok(Outcome::Displaced(streams)) => self.held.restore(key, turn_away(next, &streams)),
                Err(error) if error.is_refusal() => {
                    self.held.put_back(key, next, &error.one_line());
                    return true;
                }
                // In order, one by one: what comes later must not be committed before what is at fault is taken apart.
                Err(error) if error.is_fault_of_data() && next.len() > 1 => {
                    self.held.restore(key, next);
                    then = 1;
                }
                Err(error) if error.is_fault_of_data() => {
                    Box::pin(self.commit_alone(next, error, began)).await;
                    // It may be held anew, until a time of its own; else it is due at once.
                    return true;
                }
                // The service is stopping. What comes later must not be committed before this.
                Err(_) => {
                    self.held.restore(key, next);
                    return false;
                }
            }
            most_events = then;
        }
        false
    }

    /// Commits, whatever it takes: an outage is waited out, and a batch that the database refuses is halved until what it
    /// refuses is alone, so that it does not hold up the others.
    async fn commit(&mut self, gathered: Vec<Queued>) {
        let mut gathered = self.held.keep_back(gathered);
        if gathered.is_empty() {
            return;
        }
        let began = Instant::now();
        let span = CommitSpan::begin(&gathered, self.shard);
        let outcome = self.apply(&gathered).with_context(span.context()).await;
        span.end(outcome.as_ref().err().map(ToString::to_string).as_deref());
        match outcome {
            Ok(Outcome::Done(done)) => self.finish(gathered, done, began).await,
            Ok(Outcome::Displaced(streams)) => Box::pin(self.commit(turn_away(gathered, &streams))).await,
            Err(error) if !error.is_fault_of_data() && !error.is_refusal() => {
                // Only a shutdown ends the waiting. Nothing was acknowledged; the senders will send it again.
                tracing::warn!(%error, submissions = gathered.len(), "stopping without the database; events stay with their senders");
                self.held.give_up(&gathered);
            }
            Err(_) if gathered.len() > 1 => {
                let second_half = gathered.split_off(gathered.len() / 2);
                Box::pin(self.commit(gathered)).await;
                Box::pin(self.commit(second_half)).await;
            }
            Err(error) => self.commit_alone(gathered, error, began).await,
        }
    }

    /// Commits a submission that was refused, without the events that can never be stored; what only has to wait is held.
    async fn commit_alone(&mut self, mut alone: Vec<Queued>, error: StoreError, began: Instant) {
        if error.is_refusal() {
            return self.hold(alone, &error).await;
        }
        tracing::error!(error = error.one_line(), "a submission was refused; its events are tried one by one");
        for queued in &mut alone {
            self.take_apart(queued).await;
        }
        match self.apply(&alone).await {
            Ok(Outcome::Done(done)) => self.finish(alone, done, began).await,
            Ok(Outcome::Displaced(streams)) => drop(turn_away(alone, &streams)),
            Err(error) if error.is_refusal() => self.hold(alone, &error).await,
            // Without its events a submission is only bookkeeping. Its sender is left without an answer and will send it
            // again.
            Err(error) => {
                tracing::error!(error = error.one_line(), "a submission cannot be recorded");
                self.held.give_up(&alone);
            }
        }
    }

    /// Holds the stream of a submission that the database refuses for now. A unary caller is told why, after what else it
    /// sent is stored.
    async fn hold(&mut self, alone: Vec<Queued>, error: &StoreError) {
        let state = error.sqlstate().unwrap_or("none").to_owned();
        metrics::counter!("connlog_ingest_refusals_total", "sqlstate" => state).increment(1);
        let cause = error.one_line();
        for queued in alone {
            if let Some(key) = held::key(&queued.submission.sender) {
                self.held.hold(key, queued, &cause);
                continue;
            }
            tracing::error!(cause, "the database refuses an event of a unary call; the caller is told to come again");
            let refused = self.store_others(&queued).await;
            let held = match queued.submission.items.len() {
                1 => cause.clone(),
                _ => format!("events {refused:?}: {cause}"),
            };
            let _gone = queued.answer.send(Committed { held: Some(held), ..Committed::default() });
        }
    }

    /// Stores what the database takes of a call's events, within a budget, since others wait meanwhile; returns the
    /// numbers of those that it refuses or that were not tried.
    async fn store_others(&self, queued: &Queued) -> Vec<u64> {
        let until = Instant::now() + OTHERS_SLICE;
        let mut not_stored = Vec::new();
        let mut parts = vec![&queued.submission.items[..]];
        while let Some(items) = parts.pop() {
            let is_spent = not_stored.len() >= MOST_REFUSED || Instant::now() > until || queued.answer.is_closed();
            let batch = Batch { events: items.iter().map(|item| item.event.clone()).collect(), ..Batch::default() };
            let applied =
                if is_spent || items.is_empty() { None } else { self.apply_through_outages(&batch).await.ok() };
            if let Some(applied) = applied {
                let refused = |index| applied.refused.iter().any(|(refused, _)| *refused == index);
                let stored = items.iter().enumerate().filter(|(index, _)| !refused(*index));
                let lines = stored.map(|(_, item)| (queued.submission.request_id, Subject::Event(&item.event)));
                self.shared.service_log.log(lines, self.shared.clock.now(), None).await;
            } else if is_spent || items.len() < 2 {
                not_stored.extend(items.iter().map(|item| item.seq));
            } else {
                let (first, second) = items.split_at(items.len() / 2);
                parts.extend([second, first]);
            }
        }
        not_stored
    }

    /// Finds the events that the database refuses and turns them into dead letters.
    async fn take_apart(&self, queued: &mut Queued) {
        let submission = &mut queued.submission;
        let now = self.shared.clock.now();
        let mut kept = Vec::new();
        for item in std::mem::take(&mut submission.items) {
            // With the stream's sign of life: one that is displaced commits nothing.
            let stamp = submission.stamp.clone().map(|stamp| Stamp { committed_seq: None, ..stamp });
            let stamps = stamp.into_iter().collect();
            let alone = Batch { events: vec![item.event.clone()], stamps, ..Batch::default() };
            let refused = self.apply_through_outages(&alone).await.err();
            if let Some(error) = refused.filter(StoreError::is_fault_of_data) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    seq = item.seq,
                    "an event was refused by the database"
                );
                let agent = Some(&*item.agent);
                queued.refused.push((item.seq, "event", REFUSED.to_owned()));
                submission.rejected.push(letter(
                    &submission.sender,
                    item.seq,
                    agent,
                    &item.message,
                    "event",
                    REFUSED,
                    now,
                ));
            } else {
                kept.push(item);
            }
        }
        submission.items = kept;
    }

    async fn apply(&self, gathered: &[Queued]) -> Result<Outcome, StoreError> {
        let mut batch = Batch::default();
        for queued in gathered {
            let submission = &queued.submission;
            batch.events.extend(submission.items.iter().map(|item| item.event.clone()));
            batch.rejected.extend(submission.rejected.iter().cloned());
            batch.lost.extend(submission.lost.iter().cloned());
            batch.stamps.extend(submission.stamp.clone());
        }
        batch.rejected = self.shared.letters.spend(batch.rejected);
        let applied = self.apply_through_outages(&batch).await?;
        if !applied.displaced.is_empty() {
            return Ok(Outcome::Displaced(applied.displaced));
        }
        metrics::counter!("connlog_ingest_contradictions_total").increment(applied.contradicting as u64);
        let mut refused = applied.refused.into_iter().peekable();
        let mut looked_back = applied.looked_back.into_iter().peekable();
        let (mut committed, mut offset) = (Vec::with_capacity(gathered.len()), 0);
        let mut letters = Vec::new();
        for queued in gathered {
            let submission = &queued.submission;
            let mut answer = Committed { refused: queued.refused.clone(), ..Committed::default() };
            while let Some((index, refusal)) = refused.next_if(|(index, _)| *index < offset + submission.items.len()) {
                let item = &submission.items[index - offset];
                let now = self.shared.clock.now();
                let Item { seq, agent, message, .. } = item;
                let (field, reason) = match refusal {
                    Refusal::BelowFloor => ("timestamp", BELOW_FLOOR),
                    Refusal::EventIdTaken => ("event_id", EVENT_ID_TAKEN),
                };
                let record = letter(&submission.sender, *seq, Some(agent), message, field, reason, now);
                letters.push((submission.request_id, record));
                answer.refused.push((item.seq, field, reason.to_owned()));
            }
            offset += submission.items.len();
            while looked_back.next_if(|index| *index < offset).is_some() {
                answer.looked_back += 1;
            }
            committed.push(answer);
        }
        if !letters.is_empty() {
            // In a transaction of its own, and still before the answer: a sender that gets none sends it all again.
            let records = self.shared.letters.spend(letters.iter().map(|(_, record)| record.clone()).collect());
            while let Err(error) = self.shared.store.record_rejected(&records).await {
                self.wait_out(error).await?;
            }
        }
        Ok(Outcome::Done(Done { committed, letters }))
    }

    async fn apply_through_outages(&self, batch: &Batch) -> Result<Applied, StoreError> {
        loop {
            match self.shared.store.apply_batch(batch, self.shard, self.shared.clock.now()).await {
                Ok(applied) => {
                    if self.down.send_replace(None).is_some() {
                        tracing::info!("the database is back");
                    }
                    return Ok(applied);
                }
                Err(error) => self.wait_out(error).await?,
            }
        }
    }

    /// Pauses if `error` is a matter of the database's condition, and gives it back if it is one of the data, or if the
    /// service is stopping: whoever is not acknowledged asks again.
    async fn wait_out(&self, error: StoreError) -> Result<(), StoreError> {
        if error.is_fault_of_data() || error.is_refusal() || self.shutdown.has_begun() {
            return Err(error);
        }
        let reason = error.one_line();
        if self.down.send_replace(Some(reason.clone())).is_none() {
            tracing::warn!(reason, "the database is unavailable; events wait");
        }
        tokio::time::sleep(OUTAGE_PAUSE).await;
        Ok(())
    }

    async fn finish(&self, gathered: Vec<Queued>, done: Done, began: Instant) {
        // The line comes before the answer, so an event is not acknowledged while its line cannot be written.
        let subjects = accepted(&gathered, &done.committed).chain(not_accepted(&gathered, &done));
        self.shared.service_log.log(subjects, self.shared.clock.now(), None).await;
        count(&gathered, &done.committed, began);
        for (queued, answer) in gathered.into_iter().zip(done.committed) {
            // A sender that is gone will ask again; the replay changes nothing.
            let _gone = queued.answer.send(answer);
        }
    }
}

/// Tells displaced streams that they are, and returns the submissions of the others.
fn turn_away(gathered: Vec<Queued>, streams: &[Uuid]) -> Vec<Queued> {
    let (displaced, rest): (Vec<_>, Vec<_>) = gathered
        .into_iter()
        .partition(|queued| queued.submission.stamp.as_ref().is_some_and(|stamp| streams.contains(&stamp.stream_id)));
    for queued in displaced {
        let _gone = queued.answer.send(Committed { displaced: true, ..Committed::default() });
    }
    rest
}

fn count(gathered: &[Queued], committed: &[Committed], began: Instant) {
    let items: usize = gathered.iter().map(|queued| queued.submission.items.len()).sum();
    // What the database can never store is among `rejected` by now, and no longer among the items.
    let refused: usize = committed.iter().map(|answer| answer.refused.len()).sum();
    let refused = refused - gathered.iter().map(|queued| queued.refused.len()).sum::<usize>();
    let rejected: usize = gathered.iter().map(|queued| queued.submission.rejected.len()).sum();
    let lost: i64 = gathered
        .iter()
        .flat_map(|queued| &queued.submission.lost)
        .map(|record| record.events)
        .fold(0, i64::saturating_add);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    metrics::counter!("connlog_ingest_events_total", "outcome" => "committed").increment(count(items - refused));
    metrics::counter!("connlog_ingest_events_total", "outcome" => "rejected").increment(count(rejected + refused));
    metrics::counter!("connlog_ingest_events_total", "outcome" => "lost").increment(u64::try_from(lost).unwrap_or(0));
    #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 events")]
    metrics::histogram!("connlog_ingest_batch_events").record(items as f64);
    metrics::histogram!("connlog_ingest_commit_seconds").record(began.elapsed().as_secs_f64());
}

/// The events of a committed batch that are in the log, each with the call that it came by.
fn accepted<'a>(gathered: &'a [Queued], committed: &'a [Committed]) -> impl Iterator<Item = (Uuid, Subject<'a>)> {
    gathered.iter().zip(committed).flat_map(|(queued, answer)| {
        let submission = &queued.submission;
        let refused = |seq| answer.refused.iter().any(|(refused, _, _)| *refused == seq);
        let items = submission.items.iter().filter(move |item| !refused(item.seq));
        items.map(|item| (submission.request_id, Subject::Event(&item.event)))
    })
}

/// What a committed batch says of events that are not in the log.
fn not_accepted<'a>(gathered: &'a [Queued], done: &'a Done) -> impl Iterator<Item = (Uuid, Subject<'a>)> {
    let with_submissions = gathered.iter().flat_map(|queued| {
        let Submission { request_id, rejected, lost, .. } = &queued.submission;
        let rejected = rejected.iter().map(|record| (*request_id, Subject::Rejected(record)));
        rejected.chain(lost.iter().map(|record| (*request_id, Subject::Lost(record))))
    });
    with_submissions.chain(done.letters.iter().map(|(request_id, record)| (*request_id, Subject::Rejected(record))))
}
