//! The watch: notes that this ingest is listening, closes what silent and deleted agents left open and the days that are over, and
//! trims the change feed.

use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::clock::Clock;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::{Store, StoreError};
use uuid::Uuid;

use crate::conclusions::Conclusions;

/// How often the watch looks.
const ROUND: Duration = Duration::from_secs(10);
/// The feed is trimmed every so many rounds.
const TRIM_EVERY: u32 = 6;
/// A longer pause of all ingests was an outage, and silence during it says nothing.
const LONGEST_PAUSE: TimeDelta = TimeDelta::seconds(60);

/// An ingest whose clock is further from the database's judges nobody's silence: to one that is an hour ahead of the other
/// replicas, every agent of theirs looks lost.
const LARGEST_CLOCK_ERROR: TimeDelta = TimeDelta::seconds(30);

/// Notes that this ingest is listening, and sweeps.
pub(crate) struct Watch {
    pub store: Store,
    pub clock: Clock,
    pub conclusions: Conclusions,
    pub lost_after: TimeDelta,
    /// How long what is open without a boot may be so; none for ever.
    pub unary_lost_after: Option<TimeDelta>,
    /// How long changes are kept.
    pub feed_retention: TimeDelta,
    /// Most bytes that are kept longer for consumers.
    pub feed_max_bytes: i64,
    pub shutdown: Shutdown,
}

impl Watch {
    /// Watches until the service stops.
    pub async fn run(self) {
        for round in 0_u32.. {
            self.round(round.is_multiple_of(TRIM_EVERY)).await;
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = self.shutdown.begun() => return,
            }
        }
    }

    /// A round. What fails of it keeps nothing else from being done.
    async fn round(&self, keeps_house: bool) {
        let lead = match self.store.clock_lead().await {
            Ok(lead) => lead,
            Err(error) => return failed("asking for the time", &error),
        };
        let seconds = lead.as_seconds_f64();
        metrics::gauge!("connlog_ingest_clock_lead_seconds").set(seconds);
        if lead.abs() > LARGEST_CLOCK_ERROR {
            tracing::error!(
                lead_seconds = seconds,
                "the clock is not the database's: this ingest takes no agent for lost until it is set right"
            );
            return;
        }
        let parts = [
            ("the sweep", self.sweep().await),
            ("closing days", self.close_days(keeps_house).await),
            ("keeping the feed", self.keep_feed(keeps_house).await),
        ];
        for (part, outcome) in parts {
            if let Err(error) = outcome {
                failed(part, &error);
            }
        }
    }

    async fn close_days(&self, warns: bool) -> Result<(), StoreError> {
        self.store.close_days(self.clock.now()).await?;
        if warns {
            for day in self.store.unattached_days().await? {
                tracing::warn!(%day, "a day is not attached to the log: from it on no day is closed, until it is attached again, renamed or dropped");
            }
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let heard_since = self.store.attend(now, LONGEST_PAUSE).await?;
        let silent = self.store.sweep_silent(now, heard_since, self.lost_after).await?;
        self.conclusions.ended(Uuid::new_v4(), "lost", &silent).await;
        let deleted = self.store.sweep_deleted().await?;
        self.conclusions.ended(Uuid::new_v4(), "deleted", &deleted).await;
        if let Some(lost_after) = self.unary_lost_after {
            let without_end = self.store.sweep_without_boot(now - lost_after).await?;
            self.conclusions.ended(Uuid::new_v4(), "no_end", &without_end).await;
        }
        Ok(())
    }

    /// Trims the change feed, or begins it anew if it was restored into a younger server.
    async fn keep_feed(&self, trims: bool) -> Result<(), StoreError> {
        if self.store.restart_void_feed().await? {
            tracing::warn!(
                "the change feed was restored into a younger server and begins anew: every position is void"
            );
        }
        if trims {
            let trimmed = self.store.trim_changes(self.clock.now() - self.feed_retention, self.feed_max_bytes).await?;
            metrics::counter!("connlog_feed_trimmed_total").increment(trimmed.cast_unsigned());
            let consumers = self.store.consumers().await?;
            let gaps = consumers.iter().filter(|consumer| consumer.gap_at.is_some()).count();
            metrics::gauge!("connlog_feed_consumers_with_gap").set(u32::try_from(gaps).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

fn failed(part: &str, error: &StoreError) {
    if error.is_unavailable() || error.is_transient() {
        tracing::debug!(%error, part, "a part of the watch was skipped");
    } else {
        tracing::error!(error = error as &dyn std::error::Error, part, "a part of the watch failed");
    }
}
