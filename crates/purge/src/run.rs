//! One run of the purge.

use std::time::Duration;

use chrono::{Days, NaiveDate, TimeDelta, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::retention::Retention;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::purge::{PurgeRun, Records, Removed};
use connlog_store::{Store, StoreError};
use uuid::Uuid;

use crate::config::{Retentions, Settings};
use crate::summary::{Outcome, Summary};

/// Pause between two attempts to get a lock that readers hold.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait for the lock of the floor at a time, and so of the batches behind it.
const LONGEST_FLOOR_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds in which rows that others hold are tried again before they are left.
const TRIM_ROUNDS: u32 = 20;
/// Days whose partitions are made ahead.
const DAYS_AHEAD: u64 = 2;

/// How often the right to purge is prolonged: it holds for a minute.
const PROLONG_INTERVAL: Duration = Duration::from_secs(15);

/// Why a run could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another purge is running.
    #[error("another purge is running")]
    Busy,
    /// The cutoff is out of the range of times.
    #[error("the retention reaches back before the beginning of time")]
    OutOfRange,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes what is due, and returns what was done. Everything removed stays removed, whatever happens later.
pub async fn run(settings: &Settings, store: &Store, shutdown: &Shutdown) -> Result<Summary, Failure> {
    let started_at = truncate_to_micros(Utc::now());
    let due = Due::of(&settings.retentions, settings.config.now.unwrap_or(started_at))?;
    if due.is_nothing() && (settings.config.dry_run || !settings.config.compact) {
        return Ok(Summary::kept_forever());
    }
    let live_since = started_at - settings.config.agent_lost_after;
    let mut purge = Purge { settings, store, shutdown, due, live_since, refused: Vec::new() };
    let mut run = PurgeRun {
        id: Uuid::now_v7(),
        started_at,
        finished_at: started_at,
        cutoff: None,
        retention: purge.due.log.map(|log| log.retention),
        removed: Removed::default(),
        rows_left: 0,
        outcome: String::new(),
        error: None,
    };
    if settings.config.dry_run {
        purge.keep_to(store.purge_bound().await?);
        run.removed = purge.due().await?;
        run.cutoff = purge.due.log.map(|log| log.cutoff);
        run.finished_at = truncate_to_micros(Utc::now());
        return Ok(Summary::of(&run, Outcome::DryRun));
    }
    if !store.take_purge_lease(run.id).await? {
        return Err(Failure::Busy);
    }
    purge.keep_to(store.purge_bound().await?);
    let worked = tokio::select! {
        worked = Box::pin(purge.work(run.id, &mut run.removed)) => worked,
        // What it was at is rolled back.
        () = prolong(store, run.id) => Err(StoreError::Invalid("another run took over: this one was held up for too long".to_owned())),
    };
    if let Err(error) = store.give_purge_lease(run.id).await {
        tracing::warn!(error = error.one_line(), "the right to purge is not given back; it ends within a minute");
    }
    run.cutoff = purge.due.log.map(|log| log.cutoff);
    let left = purge.left().await;
    run.rows_left = *left.as_ref().unwrap_or(&0);
    let worked = worked.and(left.map(|_| ()));
    let kept_forever = purge.due.is_nothing() && run.removed.days_compacted == 0;
    let outcome = match &worked {
        Ok(()) if kept_forever && purge.refused.is_empty() => return Ok(Summary::kept_forever()),
        Ok(()) if run.rows_left == 0 && purge.refused.is_empty() => Outcome::Complete,
        Ok(()) if shutdown.has_begun() => Outcome::Interrupted,
        Ok(()) | Err(_) => Outcome::Incomplete,
    };
    outcome.as_str().clone_into(&mut run.outcome);
    let problems: Vec<String> = worked.as_ref().err().map(chain).into_iter().chain(purge.refused).collect();
    run.error = (!problems.is_empty()).then(|| problems.join("; "));
    run.finished_at = truncate_to_micros(Utc::now());
    store.record_purge_run(&run).await?;
    if let Some(error) = &run.error {
        tracing::error!(error, "the purge is not complete");
    }
    Ok(Summary::of(&run, outcome))
}

/// Keeps the right to purge while the run goes on, and ends if another run has it. One that crashed loses it within a minute.
async fn prolong(store: &Store, run: Uuid) {
    loop {
        tokio::time::sleep(PROLONG_INTERVAL).await;
        match store.take_purge_lease(run).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(error = error.one_line(), "the right to purge is not prolonged"),
        }
    }
}

/// What is due: of each kind what lies strictly before its cutoff; nothing of what is kept for ever.
#[derive(Debug, Clone, Copy)]
struct Due {
    log: Option<DueLog>,
    rejected: Option<Timestamp>,
    lost: Option<Timestamp>,
    audit: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct DueLog {
    retention: TimeDelta,
    cutoff: Timestamp,
}

impl Due {
    fn of(retentions: &Retentions, now: Timestamp) -> Result<Self, Failure> {
        let cutoff = |retention| match retention {
            Retention::Forever => Ok(None),
            Retention::For(retention) => now.checked_sub_signed(retention).map(Some).ok_or(Failure::OutOfRange),
        };
        let log = match (retentions.log, cutoff(retentions.log)?) {
            (Retention::For(retention), Some(cutoff)) => Some(DueLog { retention, cutoff }),
            _ => None,
        };
        let due = Self {
            log,
            rejected: cutoff(retentions.rejected)?,
            lost: cutoff(retentions.lost)?,
            audit: cutoff(retentions.audit)?,
        };
        Ok(due)
    }

    /// Whether everything is kept for ever.
    fn is_nothing(&self) -> bool {
        self.log.is_none() && self.rejected.is_none() && self.lost.is_none() && self.audit.is_none()
    }

    /// The records besides the log, each with its cutoff. What is known of agents that fell silent, and what
    /// contradicts connections, goes with the log.
    fn records(&self) -> impl Iterator<Item = (Records, Timestamp)> {
        let presence = self.log.map(|log| log.cutoff);
        [
            (Records::Rejected, self.rejected),
            (Records::Lost, self.lost),
            (Records::Audit, self.audit),
            (Records::Spools, presence),
            (Records::Contradictions, presence),
        ]
        .into_iter()
        .filter_map(|(kind, cutoff)| Some((kind, cutoff?)))
    }
}

/// The counter of a kind; agents that fell silent and contradictions of what is gone are not counted.
fn counter(removed: &mut Removed, kind: Records) -> Option<&mut i64> {
    match kind {
        Records::Rejected => Some(&mut removed.rejected_removed),
        Records::Lost => Some(&mut removed.lost_removed),
        Records::Audit => Some(&mut removed.audit_removed),
        Records::Spools | Records::Contradictions => None,
    }
}

struct Purge<'a> {
    settings: &'a Settings,
    store: &'a Store,
    shutdown: &'a Shutdown,
    due: Due,
    live_since: Timestamp,
    /// What could not be purged, each with what stood in its way.
    refused: Vec<String>,
}

impl Purge<'_> {
    /// What is not before `bound` is not due: the database removes nothing of it, whatever it is asked.
    fn keep_to(&mut self, bound: Timestamp) {
        let Due { log, rejected, lost, audit } = &mut self.due;
        let log = log.as_mut().map(|log| &mut log.cutoff);
        let all = [log, rejected.as_mut(), lost.as_mut(), audit.as_mut()];
        for cutoff in all.into_iter().flatten().filter(|cutoff| **cutoff > bound) {
            tracing::warn!(%cutoff, %bound, "the clock of the database and the minimum retention hold: less is due");
            *cutoff = bound;
        }
    }

    async fn work(&mut self, run: Uuid, removed: &mut Removed) -> Result<(), StoreError> {
        let ahead = self.attach_ahead().await;
        // What goes wrong with a day to come is no reason to keep what is due, nor what goes wrong with the log to keep
        // the records.
        let of_log = match self.due.log {
            Some(log) => self.purge_log(log, removed).await,
            None => Ok(()),
        };
        let compacted = self.compact_all(run, removed).await;
        for (kind, cutoff) in self.due.records() {
            while !self.shutdown.has_begun() {
                let count = self.store.remove_records(kind, cutoff, self.settings.config.batch_rows).await?;
                if let Some(counter) = counter(removed, kind) {
                    *counter += count;
                }
                if count == 0 {
                    break;
                }
            }
        }
        of_log.and(ahead).and(compacted)
    }

    async fn purge_log(&mut self, mut log: DueLog, removed: &mut Removed) -> Result<(), StoreError> {
        let floor = self.raise_floor(log).await?;
        if self.settings.config.now.is_none() {
            // If this machine's clock is ahead, that of the database holds.
            log.cutoff = log.cutoff.min(floor);
            self.due.log = Some(log);
        }
        // Of days that are not closed nothing can be dropped; ingest may not be running.
        self.store.close_days(truncate_to_micros(Utc::now())).await?;
        // Open rows first: a day goes as a whole only once nothing of it is open.
        match self.remove_open(log.cutoff, removed).await {
            Err(error) if is_of_one_day(&error) => self.refused.push(format!("what is open: {}", chain(&error))),
            outcome => outcome?,
        }
        // Somebody's lock or view on one day does not keep the others. It is tried again at the end.
        let mut days = self.store.days_before(log.cutoff).await?;
        for is_last in [false, true] {
            for day in std::mem::take(&mut days) {
                if self.shutdown.has_begun() {
                    return Ok(());
                }
                match self.purge_day(day, log.cutoff, removed).await {
                    Err(error) if !is_of_one_day(&error) => return Err(error),
                    Err(error) if is_last => self.refused.push(format!("day {day}: {}", chain(&error))),
                    Err(_) => days.push(day),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    async fn purge_day(&self, day: NaiveDate, cutoff: Timestamp, removed: &mut Removed) -> Result<(), StoreError> {
        let whole = day.succ_opt().is_some_and(|next| next.and_time(chrono::NaiveTime::MIN).and_utc() <= cutoff);
        if whole && self.drop_day(day, removed).await? {
            return Ok(());
        }
        self.trim(day, cutoff, removed).await
    }

    async fn attach_ahead(&self) -> Result<(), StoreError> {
        let today = Utc::now().date_naive();
        self.store.attach_days((0..=DAYS_AHEAD).filter_map(|ahead| today.checked_add_days(Days::new(ahead)))).await
    }

    /// Batches are only ever waited for one transaction, but under load there is always one: each attempt waits longer
    /// than the one before, so that it comes to its turn.
    async fn raise_floor(&self, log: DueLog) -> Result<Timestamp, StoreError> {
        let mut attempt = 1;
        loop {
            let timeout =
                self.lock_timeout().saturating_mul(attempt).min(LONGEST_FLOOR_TIMEOUT.max(self.lock_timeout()));
            match self.store.raise_floor(log.cutoff, log.retention, timeout).await {
                Err(StoreError::LockTimeout(_))
                    if attempt < self.settings.config.lock_attempts && !self.shutdown.has_begun() =>
                {
                    // Batches waited behind it; for four times as long they do not.
                    tokio::time::sleep(timeout * 4).await;
                }
                outcome => {
                    let floor = outcome?;
                    tracing::info!(cutoff = %log.cutoff, %floor, "retention floor");
                    return Ok(floor);
                }
            }
            attempt += 1;
        }
    }

    async fn remove_open(&self, cutoff: Timestamp, removed: &mut Removed) -> Result<(), StoreError> {
        let batch = self.settings.config.batch_rows;
        for _ in 0..TRIM_ROUNDS {
            while !self.shutdown.has_begun() {
                let count = self.store.remove_open(cutoff, self.live_since, batch).await?;
                removed.open_removed += count;
                if count == 0 {
                    break;
                }
            }
            if self.shutdown.has_begun() || self.store.due_open(cutoff, self.live_since).await? == 0 {
                break;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(())
    }

    /// Returns false if readers held the day for too long, or something of it is open.
    async fn drop_day(&self, day: NaiveDate, removed: &mut Removed) -> Result<bool, StoreError> {
        for _ in 0..self.settings.config.lock_attempts {
            match self.store.drop_day(day, self.lock_timeout()).await {
                Ok(Some(rows)) => {
                    tracing::info!(%day, rows, "day dropped");
                    removed.days_dropped += 1;
                    removed.rows_dropped += rows;
                    return Ok(true);
                }
                Err(StoreError::LockTimeout(_) | StoreError::Conflict(_)) if !self.shutdown.has_begun() => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Ok(None) | Err(StoreError::LockTimeout(_) | StoreError::Conflict(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        tracing::warn!(%day, "the day is in use; its rows are deleted instead, and its empty partition goes in a later run");
        Ok(false)
    }

    /// Rewrites closed days without the room that their pages had for ends. What goes wrong with one keeps no other.
    async fn compact_all(&mut self, run: Uuid, removed: &mut Removed) -> Result<(), StoreError> {
        if !self.settings.config.compact {
            return Ok(());
        }
        for day in self.store.uncompacted_days().await? {
            if self.shutdown.has_begun() {
                break;
            }
            match self.compact(run, day).await {
                Ok(true) => removed.days_compacted += 1,
                Ok(false) => tracing::info!(%day, "the day is not compacted; a later run does it"),
                Err(error) if is_of_one_day(&error) => {
                    self.refused.push(format!("compacting day {day}: {}", chain(&error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn compact(&self, run: Uuid, day: NaiveDate) -> Result<bool, StoreError> {
        let Some(compacted) = self.store.compact(run, day, || !self.shutdown.has_begun()).await? else {
            return Ok(false);
        };
        for _ in 0..self.settings.config.lock_attempts {
            match self.store.swap(&compacted, self.lock_timeout()).await {
                Ok(swapped) => {
                    tracing::info!(%day, swapped, "day compacted");
                    return Ok(swapped);
                }
                Err(StoreError::LockTimeout(_) | StoreError::Conflict(_)) if !self.shutdown.has_begun() => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(StoreError::LockTimeout(_) | StoreError::Conflict(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn trim(&self, day: NaiveDate, cutoff: Timestamp, removed: &mut Removed) -> Result<(), StoreError> {
        for _ in 0..TRIM_ROUNDS {
            while !self.shutdown.has_begun() {
                let count = self.store.trim(day, cutoff, self.settings.config.batch_rows).await?;
                removed.rows_trimmed += count;
                if count == 0 {
                    break;
                }
            }
            if self.shutdown.has_begun() || self.rows_in_day(day, cutoff).await? == 0 {
                break;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(())
    }

    /// Rows of a day that are due: of one that somebody holds, what the counts say of the day.
    async fn rows_in_day(&self, day: NaiveDate, cutoff: Timestamp) -> Result<i64, StoreError> {
        match self.store.rows_in_day(day, cutoff).await {
            Err(StoreError::LockTimeout(_)) => self.store.counted_in_day(day).await,
            counted => counted,
        }
    }

    /// What a run would remove now.
    async fn due(&self) -> Result<Removed, StoreError> {
        let mut due = Removed::default();
        if let Some(DueLog { cutoff, .. }) = self.due.log {
            due.open_removed = self.store.due_open(cutoff, self.live_since).await?;
            for day in self.store.days_before(cutoff).await? {
                let rows = self.rows_in_day(day, cutoff).await?;
                if day.succ_opt().is_some_and(|next| next.and_time(chrono::NaiveTime::MIN).and_utc() <= cutoff) {
                    due.days_dropped += 1;
                    due.rows_dropped += rows;
                } else {
                    due.rows_trimmed += rows;
                }
            }
        }
        for (kind, cutoff) in self.due.records() {
            if let Some(counter) = counter(&mut due, kind) {
                *counter = self.store.due_records(kind, cutoff).await?;
            }
        }
        Ok(due)
    }

    /// Rows that are due and still there.
    async fn left(&self) -> Result<i64, StoreError> {
        let due = self.due().await?;
        let of_log = due.rows_dropped + due.rows_trimmed + due.open_removed;
        Ok(of_log + due.rejected_removed + due.lost_removed + due.audit_removed)
    }

    fn lock_timeout(&self) -> Duration {
        self.settings.config.lock_timeout.to_std().unwrap_or_default()
    }
}

/// Whether something stands in the way of one day, and says nothing of the others.
fn is_of_one_day(error: &StoreError) -> bool {
    error.is_refusal() || matches!(error, StoreError::LockTimeout(_))
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
