//! One run of the purge.

use std::time::Duration;

use chrono::{Days, NaiveDate, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::retention::Retention;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::purge::{PurgeRun, Removed};
use connlog_store::{Store, StoreError};
use uuid::Uuid;

use crate::config::Settings;
use crate::summary::{Outcome, Summary};

/// Pause between two attempts to get a lock that readers hold.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait for the lock of the floor, and so of the batches behind it, once a run.
const LONGEST_FLOOR_TIMEOUT: Duration = Duration::from_secs(2);
/// Rounds in which rows that others hold are tried again before they are left.
const TRIM_ROUNDS: u32 = 20;
/// Days whose partitions are made ahead.
const DAYS_AHEAD: u64 = 2;

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
    let Retention::For(retention) = settings.retention else { return Ok(Summary::kept_forever()) };
    let started_at = truncate_to_micros(Utc::now());
    let now = settings.config.now.unwrap_or(started_at);
    let cutoff = now.checked_sub_signed(retention).ok_or(Failure::OutOfRange)?;
    let purge = Purge { settings, store, shutdown, cutoff, live_since: started_at - settings.config.agent_lost_after };
    let mut run = PurgeRun {
        id: Uuid::now_v7(),
        started_at,
        finished_at: started_at,
        cutoff,
        removed: Removed::default(),
        rows_left: 0,
        outcome: String::new(),
        error: None,
    };
    if settings.config.dry_run {
        run.removed = purge.due().await?;
        run.finished_at = truncate_to_micros(Utc::now());
        return Ok(Summary::of(&run, Outcome::DryRun));
    }
    let Some(_lock) = store.try_lock_purge().await? else { return Err(Failure::Busy) };
    let worked = purge.work(retention, &mut run.removed).await;
    run.rows_left = match purge.left().await {
        Ok(left) => left,
        Err(error) if worked.is_ok() => return Err(error.into()),
        Err(_) => 0,
    };
    let outcome = match &worked {
        Ok(()) if run.rows_left == 0 => Outcome::Complete,
        Ok(()) if shutdown.has_begun() => Outcome::Interrupted,
        Ok(()) | Err(_) => Outcome::Incomplete,
    };
    outcome.as_str().clone_into(&mut run.outcome);
    run.error = worked.as_ref().err().map(chain);
    run.finished_at = truncate_to_micros(Utc::now());
    store.record_purge_run(&run).await?;
    worked?;
    Ok(Summary::of(&run, outcome))
}

struct Purge<'a> {
    settings: &'a Settings,
    store: &'a Store,
    shutdown: &'a Shutdown,
    cutoff: Timestamp,
    live_since: Timestamp,
}

impl Purge<'_> {
    async fn work(&self, retention: chrono::TimeDelta, removed: &mut Removed) -> Result<(), StoreError> {
        self.attach_ahead().await?;
        self.raise_floor(retention).await?;
        // Open rows before history: what is completed meanwhile lands in history and is found there.
        self.remove_open(removed).await?;
        for day in self.store.days_before(self.cutoff).await? {
            if self.shutdown.has_begun() {
                break;
            }
            let whole =
                day.succ_opt().is_some_and(|next| next.and_time(chrono::NaiveTime::MIN).and_utc() <= self.cutoff);
            if !(whole && self.drop_day(day, removed).await?) {
                self.trim(day, removed).await?;
            }
        }
        Ok(())
    }

    async fn attach_ahead(&self) -> Result<(), StoreError> {
        let today = Utc::now().date_naive();
        self.store.attach_days((0..=DAYS_AHEAD).filter_map(|ahead| today.checked_add_days(Days::new(ahead)))).await
    }

    /// Batches are only ever waited for one transaction, but under load there is always one: each attempt waits longer
    /// than the one before, so that it comes to its turn.
    async fn raise_floor(&self, retention: chrono::TimeDelta) -> Result<(), StoreError> {
        for attempt in 1.. {
            let timeout =
                self.lock_timeout().saturating_mul(attempt).min(LONGEST_FLOOR_TIMEOUT.max(self.lock_timeout()));
            match self.store.raise_floor(self.cutoff, retention, timeout).await {
                Err(StoreError::LockTimeout(_)) if attempt < self.settings.config.lock_attempts => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                outcome => {
                    let floor = outcome?;
                    tracing::info!(cutoff = %self.cutoff, %floor, "retention floor");
                    break;
                }
            }
        }
        Ok(())
    }

    async fn remove_open(&self, removed: &mut Removed) -> Result<(), StoreError> {
        let batch = self.settings.config.batch_rows;
        for _ in 0..TRIM_ROUNDS {
            while !self.shutdown.has_begun() {
                let count = self.store.remove_open(self.cutoff, self.live_since, batch).await?;
                removed.open_removed += count;
                if count == 0 {
                    break;
                }
            }
            if self.shutdown.has_begun() || self.store.due_open(self.cutoff, self.live_since).await? == 0 {
                break;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(())
    }

    /// Returns false if readers held the day for too long.
    async fn drop_day(&self, day: NaiveDate, removed: &mut Removed) -> Result<bool, StoreError> {
        for _ in 0..self.settings.config.lock_attempts {
            match self.store.drop_day(day, self.lock_timeout()).await {
                Ok(rows) => {
                    tracing::info!(%day, rows, "day dropped");
                    removed.days_dropped += 1;
                    removed.rows_dropped += rows;
                    return Ok(true);
                }
                Err(StoreError::LockTimeout(_) | StoreError::Conflict(_)) if !self.shutdown.has_begun() => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(StoreError::LockTimeout(_) | StoreError::Conflict(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        tracing::warn!(%day, "the day is in use; its rows are deleted instead, and its empty partition goes in a later run");
        Ok(false)
    }

    async fn trim(&self, day: NaiveDate, removed: &mut Removed) -> Result<(), StoreError> {
        for _ in 0..TRIM_ROUNDS {
            while !self.shutdown.has_begun() {
                let count = self.store.trim(day, self.cutoff, self.settings.config.batch_rows).await?;
                removed.rows_trimmed += count;
                if count == 0 {
                    break;
                }
            }
            if self.shutdown.has_begun() || self.store.rows_in_day(day, self.cutoff).await? == 0 {
                break;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(())
    }

    /// What a run would remove now.
    async fn due(&self) -> Result<Removed, StoreError> {
        let mut due =
            Removed { open_removed: self.store.due_open(self.cutoff, self.live_since).await?, ..Removed::default() };
        for day in self.store.days_before(self.cutoff).await? {
            let rows = self.store.rows_in_day(day, self.cutoff).await?;
            if day.succ_opt().is_some_and(|next| next.and_time(chrono::NaiveTime::MIN).and_utc() <= self.cutoff) {
                due.days_dropped += 1;
                due.rows_dropped += rows;
            } else {
                due.rows_trimmed += rows;
            }
        }
        Ok(due)
    }

    /// Rows that are due and still there.
    async fn left(&self) -> Result<i64, StoreError> {
        let due = self.due().await?;
        Ok(due.rows_dropped + due.rows_trimmed + due.open_removed)
    }

    fn lock_timeout(&self) -> Duration {
        self.settings.config.lock_timeout.to_std().unwrap_or_default()
    }
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
