//! What a run did, for people and for programs.

use std::fmt;

use connlog_model::clock::rfc3339;
use connlog_store::purge::PurgeRun;
use serde::Serialize;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything due is gone.
    Complete,
    /// Something due is left.
    Incomplete,
    /// It was told to stop.
    Interrupted,
    /// Nothing is ever due: history is kept for ever.
    KeptForever,
    /// It only looked.
    DryRun,
}

impl Outcome {
    /// The name in `purge_runs` and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Interrupted => "interrupted",
            Self::KeptForever => "kept_forever",
            Self::DryRun => "dry_run",
        }
    }
}

/// The summary of a run. In a dry run the numbers are what would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// What lies strictly before was due; RFC 3339.
    pub cutoff: Option<String>,
    /// Whole days dropped.
    pub days_dropped: i32,
    /// Rows that they had.
    pub rows_dropped: i64,
    /// Rows deleted one by one.
    pub rows_trimmed: i64,
    /// Open connections removed.
    pub open_removed: i64,
    /// Dead letters removed.
    pub rejected_removed: i64,
    /// Records of losses removed.
    pub lost_removed: i64,
    /// Records of uses of the API removed.
    pub audit_removed: i64,
    /// Days that were over and were rewritten without room for changes.
    pub days_compacted: i32,
    /// Rows that were due and are left.
    pub rows_left: i64,
    /// What went wrong, if anything did.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: i64,
}

impl Summary {
    /// That nothing is ever due.
    pub(crate) fn kept_forever() -> Self {
        Self {
            outcome: Outcome::KeptForever,
            cutoff: None,
            days_dropped: 0,
            rows_dropped: 0,
            rows_trimmed: 0,
            open_removed: 0,
            rejected_removed: 0,
            lost_removed: 0,
            audit_removed: 0,
            days_compacted: 0,
            rows_left: 0,
            error: None,
            duration_ms: 0,
        }
    }

    /// What `run` did.
    pub(crate) fn of(run: &PurgeRun, outcome: Outcome) -> Self {
        Self {
            outcome,
            cutoff: run.cutoff.map(rfc3339),
            days_dropped: run.removed.days_dropped,
            rows_dropped: run.removed.rows_dropped,
            rows_trimmed: run.removed.rows_trimmed,
            open_removed: run.removed.open_removed,
            rejected_removed: run.removed.rejected_removed,
            lost_removed: run.removed.lost_removed,
            audit_removed: run.removed.audit_removed,
            days_compacted: run.removed.days_compacted,
            rows_left: run.rows_left,
            error: run.error.clone(),
            duration_ms: (run.finished_at - run.started_at).num_milliseconds(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outcome == Outcome::KeptForever {
            return write!(f, "no retention is set: connection logs are kept for ever");
        }
        let cutoff = self.cutoff.as_deref().unwrap_or("none");
        let verb = if self.outcome == Outcome::DryRun { "would drop" } else { "dropped" };
        write!(
            f,
            "{}: cutoff {cutoff}: {verb} {} days with {} rows, trimmed {} rows, removed {} open connections, \
             {} dead letters, {} records of losses and {} of uses, compacted {} days, {} left, in {} ms",
            self.outcome.as_str(),
            self.days_dropped,
            self.rows_dropped,
            self.rows_trimmed,
            self.open_removed,
            self.rejected_removed,
            self.lost_removed,
            self.audit_removed,
            self.days_compacted,
            self.rows_left,
            self.duration_ms
        )?;
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}
