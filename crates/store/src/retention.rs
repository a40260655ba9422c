//! What is known of retention: the proof that it ran, and what is due.

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;

use crate::purge::PurgeRun;
use crate::session::{begin_read, query};
use crate::{Store, StoreError};

/// The state of retention, of one snapshot.
#[derive(Debug, Clone)]
pub struct RetentionState {
    /// What lies strictly before is refused; none before the first purge.
    pub floor: Option<Timestamp>,
    /// How long the log is kept, as the last run had it that purged it; none if there was none.
    pub retention: Option<TimeDelta>,
    /// The last runs, newest first.
    pub runs: Vec<PurgeRun>,
    /// How many runs there were, by their outcome.
    pub runs_by_outcome: Vec<(String, i64)>,
    /// When the last run ended that removed everything due.
    pub last_complete: Option<Timestamp>,
    /// Whole days that are due now by that retention.
    pub backlog_days: i64,
    /// Rows that they have.
    pub backlog_rows: i64,
    /// What all runs removed: entries of the log, dead letters, losses, uses of the API.
    pub removed: [i64; 4],
    /// How many days all runs compacted.
    pub days_compacted: i64,
    /// Closed days that are due to be compacted.
    pub days_uncompacted: i64,
}

const TOTALS: &str = "-- retention_totals
SELECT (SELECT greatest(cutoff, '0001-01-01 00:00:00+00') FROM floor) AS floor,
    max(finished_at) FILTER (WHERE outcome = 'complete') AS last_complete,
    coalesce(sum(rows_dropped + rows_trimmed + open_removed), 0)::bigint AS entries,
    coalesce(sum(rejected_removed), 0)::bigint AS rejected, coalesce(sum(lost_removed), 0)::bigint AS lost,
    coalesce(sum(audit_removed), 0)::bigint AS audit, coalesce(sum(days_compacted), 0)::bigint AS days_compacted,
    (SELECT count(*) FROM uncompacted_days()) AS days_uncompacted
FROM purge_runs";

const RETENTION: &str = "-- retention_in_force
SELECT retention_seconds FROM purge_runs WHERE retention_seconds IS NOT NULL ORDER BY started_at DESC LIMIT 1";

const OUTCOMES: &str = "-- retention_outcomes
SELECT outcome, count(*) FROM purge_runs GROUP BY outcome ORDER BY outcome";

const BACKLOG: &str = "-- retention_backlog
SELECT count(DISTINCT day), coalesce(sum(entries), 0)::bigint FROM connection_log_counts
WHERE day < ($1::timestamptz AT TIME ZONE 'UTC')::date";

impl Store {
    /// The state of retention, with the last `limit` runs.
    pub async fn retention_state(&self, limit: i64, now: Timestamp) -> Result<RetentionState, StoreError> {
        let runs = self.purge_runs(limit).await?;
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let totals = query(&transaction, TOTALS, &[]).await?;
        let totals = totals.first().ok_or_else(|| StoreError::Inconsistent("an aggregate has no row".to_owned()))?;
        let rows = query(&transaction, RETENTION, &[]).await?;
        let retention = rows.first().map(|row| row.try_get::<_, i64>(0)).transpose()?.and_then(TimeDelta::try_seconds);
        let (mut backlog_days, mut backlog_rows) = (0, 0);
        if let Some(cutoff) = retention.and_then(|retention| now.checked_sub_signed(retention)) {
            let rows = query(&transaction, BACKLOG, &[&cutoff]).await?;
            if let Some(row) = rows.first() {
                (backlog_days, backlog_rows) = (row.try_get(0)?, row.try_get(1)?);
            }
        }
        let outcomes = query(&transaction, OUTCOMES, &[]).await?;
        let state = RetentionState {
            floor: totals.try_get::<_, Option<Timestamp>>("floor")?.filter(|floor| *floor > NO_FLOOR),
            retention,
            runs_by_outcome: outcomes
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_, StoreError>>()?,
            runs,
            last_complete: totals.try_get("last_complete")?,
            backlog_days,
            backlog_rows,
            removed: [
                totals.try_get("entries")?,
                totals.try_get("rejected")?,
                totals.try_get("lost")?,
                totals.try_get("audit")?,
            ],
            days_compacted: totals.try_get("days_compacted")?,
            days_uncompacted: totals.try_get("days_uncompacted")?,
        };
        transaction.end();
        Ok(state)
    }
}

/// The floor before the first purge, as it is read.
const NO_FLOOR: Timestamp = match chrono::DateTime::from_timestamp(-62_135_596_800, 0) {
    Some(time) => time,
    None => panic!("the year 1 is in range"),
};

impl RetentionState {
    /// Sets the metrics of retention. What was removed goes by the names that dashboards of Coder know.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn set_metrics(&self) {
        let seconds = |time: Timestamp| time.timestamp_micros() as f64 / 1e6;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        for (kind, removed) in
            ["connection_logs", "rejected_events", "lost_events", "api_audit"].iter().zip(self.removed)
        {
            metrics::counter!("coderd_dbpurge_records_purged_total", "record_type" => *kind).absolute(count(removed));
        }
        for (outcome, runs) in &self.runs_by_outcome {
            metrics::counter!("connlog_purge_runs_total", "outcome" => outcome.clone()).absolute(count(*runs));
        }
        metrics::counter!("connlog_purge_days_compacted_total").absolute(count(self.days_compacted));
        metrics::gauge!("connlog_purge_uncompacted_days").set(self.days_uncompacted as f64);
        metrics::gauge!("connlog_purge_backlog_days").set(self.backlog_days as f64);
        metrics::gauge!("connlog_purge_backlog_rows").set(self.backlog_rows as f64);
        metrics::gauge!("connlog_retention_seconds")
            .set(self.retention.map_or(0.0, |retention| retention.num_seconds() as f64));
        if let Some(floor) = self.floor {
            metrics::gauge!("connlog_retention_floor_timestamp_seconds").set(seconds(floor));
        }
        if let Some(last) = self.runs.first() {
            metrics::gauge!("connlog_purge_last_run_timestamp_seconds").set(seconds(last.finished_at));
            metrics::gauge!("connlog_purge_last_run_duration_seconds")
                .set((last.finished_at - last.started_at).num_milliseconds() as f64 / 1e3);
            metrics::gauge!("connlog_purge_last_run_rows_left").set(last.rows_left as f64);
        }
        if let Some(last) = self.last_complete {
            metrics::gauge!("connlog_purge_last_complete_timestamp_seconds").set(seconds(last));
        }
    }
}
