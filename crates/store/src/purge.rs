//! Retention: raising the floor, dropping whole days, trimming the day of the cutoff, and the proof that it ran.

use std::time::Duration;

use chrono::{NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use uuid::Uuid;

use crate::days::start_of;
use crate::session::{begin_write, query};
use crate::{Store, StoreError};

const TAKE_LEASE: &str = "-- take_purge_lease
SELECT take_purge_lease($1)";

const GIVE_LEASE: &str = "-- give_purge_lease
SELECT give_purge_lease($1)";

const SET_LOCK_TIMEOUT: &str = "-- set_lock_timeout
SELECT set_config('lock_timeout', $1, true)";

const RAISE_FLOOR: &str = "-- raise_floor
SELECT raise_floor($1, $2)";

const DROP_DAY: &str = "-- drop_day
SELECT drop_day($1, $2)";

const TRIM: &str = "-- trim
SELECT trim_day($1, $2, $3)";

const REMOVE_OPEN: &str = "-- remove_open
SELECT remove_open($1, $2, $3)";

const REMOVE_RECORDS: &str = "-- remove_records
SELECT remove_records($1, $2, $3)";

const BOUND: &str = "-- purge_bound
SELECT purge_bound()";

const MINIMUM: &str = "-- minimum_retention
SELECT extract(epoch FROM minimum)::bigint FROM floor";

const SET_MINIMUM: &str = "-- set_minimum_retention
UPDATE floor SET minimum = make_interval(secs => $1)";

/// What is kept besides the log, and has a retention of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Dead letters.
    Rejected,
    /// Losses.
    Lost,
    /// Uses of the API.
    Audit,
    /// What is known of agents: how far their spools are committed.
    Spools,
    /// What contradicts connections.
    Contradictions,
}

impl Records {
    fn table(self) -> &'static str {
        match self {
            Self::Rejected => "rejected_events",
            Self::Lost => "lost_events",
            Self::Audit => "api_audit",
            Self::Spools => "agent_spools",
            Self::Contradictions => "contradictions",
        }
    }

    fn due_sql(self) -> &'static str {
        match self {
            Self::Rejected => "-- due_rejected\nSELECT count(received_at) FROM rejected_events WHERE received_at < $1",
            Self::Lost => "-- due_lost\nSELECT count(recorded_at) FROM lost_events WHERE recorded_at < $1",
            Self::Audit => "-- due_audit\nSELECT count(at) FROM api_audit WHERE at < $1",
            Self::Spools => "-- due_spools\nSELECT count(last_seen_at) FROM agent_spools WHERE last_seen_at < $1",
            Self::Contradictions => {
                "-- due_contradictions\nSELECT count(connect_time) FROM contradictions WHERE connect_time < $1"
            }
        }
    }
}

/// What a run did, as it is kept in `purge_runs`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Whole days that were dropped.
    pub days_dropped: i32,
    /// Rows that these days had.
    pub rows_dropped: i64,
    /// Rows that were deleted one by one.
    pub rows_trimmed: i64,
    /// Open connections that were removed.
    pub open_removed: i64,
    /// Dead letters that were removed.
    pub rejected_removed: i64,
    /// Records of losses that were removed.
    pub lost_removed: i64,
    /// Records of uses of the API that were removed.
    pub audit_removed: i64,
    /// Closed days that were rewritten without room for changes.
    pub days_compacted: i32,
}

/// A row of `purge_runs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeRun {
    /// Names the run.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What of the log lay strictly before was due; none if it is kept for ever.
    pub cutoff: Option<Timestamp>,
    /// How long the log was kept; none if for ever.
    pub retention: Option<TimeDelta>,
    /// What it removed.
    pub removed: Removed,
    /// What was due and is still there.
    pub rows_left: i64,
    /// `complete`, `incomplete` or `interrupted`.
    pub outcome: String,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

impl Store {
    /// Takes the right to purge and compact for a minute, or prolongs it. Returns false if another run has it.
    pub async fn take_purge_lease(&self, run: Uuid) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let row = client.query_one(TAKE_LEASE, &[&run]).await?;
        Ok(row.try_get::<_, Option<bool>>(0)?.unwrap_or(false))
    }

    /// Gives it back.
    pub async fn give_purge_lease(&self, run: Uuid) -> Result<(), StoreError> {
        self.client().await?.query(GIVE_LEASE, &[&run]).await?;
        Ok(())
    }

    /// Raises the retention floor to `cutoff`, but not past the database's clock less `retention`, and returns it. Waits
    /// for batches that run on the old floor, at most `lock_timeout`.
    pub async fn raise_floor(
        &self,
        cutoff: Timestamp,
        retention: TimeDelta,
        lock_timeout: Duration,
    ) -> Result<Timestamp, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        query(&transaction, SET_LOCK_TIMEOUT, &[&millis(lock_timeout)]).await?;
        let seconds = retention.as_seconds_f64();
        let rows = query(&transaction, RAISE_FLOOR, &[&cutoff, &seconds]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Inconsistent("floor has no row".to_owned()))?;
        let floor = row.try_get(0)?;
        transaction.commit().await?;
        Ok(floor)
    }

    /// Before this time something may be removed: the database's clock less the minimum retention.
    pub async fn purge_bound(&self) -> Result<Timestamp, StoreError> {
        Ok(self.client().await?.query_one(BOUND, &[]).await?.try_get(0)?)
    }

    /// Nothing younger than this is removed, whatever a purge asks for.
    pub async fn minimum_retention(&self) -> Result<TimeDelta, StoreError> {
        let seconds: i64 = self.client().await?.query_one(MINIMUM, &[]).await?.try_get(0)?;
        TimeDelta::try_seconds(seconds)
            .ok_or_else(|| StoreError::Inconsistent(format!("the minimum retention is {seconds} seconds")))
    }

    /// Sets it. Only the owner may.
    pub async fn set_minimum_retention(&self, minimum: TimeDelta) -> Result<(), StoreError> {
        self.client().await?.execute(SET_MINIMUM, &[&minimum.as_seconds_f64()]).await?;
        Ok(())
    }

    /// The days that have a partition and begin before `time`, oldest first.
    pub async fn days_before(&self, time: Timestamp) -> Result<Vec<NaiveDate>, StoreError> {
        let client = self.client().await?;
        let sql = "-- days_before\nSELECT day FROM days() AS day WHERE day <= ($1::timestamptz AT TIME ZONE 'UTC')::date ORDER BY day";
        let rows = client.query(sql, &[&time]).await?;
        let days = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<NaiveDate>, _>>()?;
        Ok(days.into_iter().filter(|day| start_of(*day) < time).collect())
    }

    /// Drops a closed day with its counts, and returns how many rows it had; none if it is not closed, or something of it is open.
    /// Waits for its readers and writers at most `lock_timeout`, during which new ones wait behind it.
    pub async fn drop_day(&self, day: NaiveDate, lock_timeout: Duration) -> Result<Option<i64>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let rows = query(&transaction, DROP_DAY, &[&day, &millis(lock_timeout)]).await?;
        let dropped = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        transaction.commit().await?;
        self.forget_days();
        Ok(dropped)
    }

    /// Deletes up to `limit` rows of one day that lie before `cutoff`, and returns how many.
    pub async fn trim(&self, day: NaiveDate, cutoff: Timestamp, limit: i64) -> Result<i64, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(TRIM, &[&day, &cutoff, &limit]).await?.try_get(0)?)
    }

    /// Removes up to `limit` open connections that began before `cutoff`, except those of agents that gave a sign of
    /// life since `live_since`, and returns how many.
    pub async fn remove_open(&self, cutoff: Timestamp, live_since: Timestamp, limit: i64) -> Result<i64, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(REMOVE_OPEN, &[&cutoff, &live_since, &limit]).await?.try_get(0)?)
    }

    /// How many open connections are due.
    pub async fn due_open(&self, cutoff: Timestamp, live_since: Timestamp) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let sql = "-- due_open\nSELECT count(*) FROM due_open($1, $2)";
        Ok(client.query_one(sql, &[&cutoff, &live_since]).await?.try_get(0)?)
    }

    /// Removes up to `limit` records from before `cutoff`, and returns how many.
    pub async fn remove_records(&self, kind: Records, cutoff: Timestamp, limit: i64) -> Result<i64, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(REMOVE_RECORDS, &[&kind.table(), &cutoff, &limit]).await?.try_get(0)?)
    }

    /// How many records are from before `cutoff`.
    pub async fn due_records(&self, kind: Records, cutoff: Timestamp) -> Result<i64, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(kind.due_sql(), &[&cutoff]).await?.try_get(0)?)
    }

    /// How many rows that have ended lie in a day and before `cutoff`, counted: what the counts say is not proof.
    pub async fn rows_in_day(&self, day: NaiveDate, cutoff: Timestamp) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let sql = "-- rows_in_day\nSELECT count(*) FROM connection_logs
WHERE connect_time >= $1 AND connect_time < $2 AND (disconnect_time IS NOT NULL OR method >= 3)";
        let end = cutoff.min(start_of(day) + TimeDelta::days(1));
        Ok(client.query_one(sql, &[&start_of(day), &end]).await?.try_get(0)?)
    }

    /// How many rows a day has, by the counts.
    pub async fn counted_in_day(&self, day: NaiveDate) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let sql =
            "-- counted_in_day\nSELECT coalesce(sum(entries), 0)::bigint FROM connection_log_counts WHERE day = $1";
        Ok(client.query_one(sql, &[&day]).await?.try_get(0)?)
    }

    /// Keeps the proof that a run happened.
    pub async fn record_purge_run(&self, run: &PurgeRun) -> Result<(), StoreError> {
        let client = self.client().await?;
        let sql = "-- record_purge_run
INSERT INTO purge_runs (id, started_at, finished_at, cutoff, days_dropped, rows_dropped, rows_trimmed, open_removed,
    rejected_removed, lost_removed, audit_removed, days_compacted, rows_left, outcome, error, retention_seconds)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
        let removed = &run.removed;
        client
            .execute(
                sql,
                &[
                    &run.id,
                    &run.started_at,
                    &run.finished_at,
                    &run.cutoff,
                    &removed.days_dropped,
                    &removed.rows_dropped,
                    &removed.rows_trimmed,
                    &removed.open_removed,
                    &removed.rejected_removed,
                    &removed.lost_removed,
                    &removed.audit_removed,
                    &removed.days_compacted,
                    &run.rows_left,
                    &run.outcome,
                    &run.error,
                    &run.retention.map(|retention| retention.num_seconds()),
                ],
            )
            .await?;
        Ok(())
    }

    /// The last runs, newest first.
    pub async fn purge_runs(&self, limit: i64) -> Result<Vec<PurgeRun>, StoreError> {
        let client = self.client().await?;
        let sql = "-- purge_runs
SELECT id, started_at, finished_at, cutoff, days_dropped, rows_dropped, rows_trimmed, open_removed, rejected_removed,
    lost_removed, audit_removed, days_compacted, rows_left, outcome, error, retention_seconds
FROM purge_runs ORDER BY started_at DESC LIMIT $1";
        let rows = client.query(sql, &[&limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(PurgeRun {
                    id: row.try_get("id")?,
                    started_at: row.try_get("started_at")?,
                    finished_at: row.try_get("finished_at")?,
                    cutoff: row.try_get("cutoff")?,
                    retention: row.try_get::<_, Option<i64>>("retention_seconds")?.and_then(TimeDelta::try_seconds),
                    removed: Removed {
                        days_dropped: row.try_get("days_dropped")?,
                        rows_dropped: row.try_get("rows_dropped")?,
                        rows_trimmed: row.try_get("rows_trimmed")?,
                        open_removed: row.try_get("open_removed")?,
                        rejected_removed: row.try_get("rejected_removed")?,
                        lost_removed: row.try_get("lost_removed")?,
                        audit_removed: row.try_get("audit_removed")?,
                        days_compacted: row.try_get("days_compacted")?,
                    },
                    rows_left: row.try_get("rows_left")?,
                    outcome: row.try_get("outcome")?,
                    error: row.try_get("error")?,
                })
            })
            .collect()
    }
}

/// A time for PostgreSQL.
fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
