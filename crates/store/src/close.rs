//! Closing days that are over: what is open of them is listed in `ongoing`, so that nothing has to look for it there.
//!
//! The open rows are collected before the lock, and only what changed since is looked at under it, so that batches wait for
//! milliseconds.

use std::time::Duration;

use chrono::{Days, NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use uuid::Uuid;

use crate::days::{day_of, day_table, start_of};
use crate::session::{begin_write, query};
use crate::{Store, StoreError};

/// A day is closed so long after its end.
const CLOSED_AFTER: TimeDelta = TimeDelta::hours(24);
/// Most days that are closed in one transaction.
const MOST_DAYS: Days = Days::new(30);
/// How long the lock is waited for, and others wait behind it: longer than a batch usually takes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often days are collected anew because the feed was trimmed meanwhile.
const ATTEMPTS: u32 = 3;

const STATE: &str = "-- state_of_days
SELECT closed_before, ARRAY(SELECT days()) AS days, pg_current_snapshot()::text AS snapshot FROM floor";

const CLOSE: &str = "-- close_days
SELECT close_days($1, $2::text::pg_snapshot, $3)";

impl Store {
    /// Closes the days that ended 24 hours before `now`.
    pub async fn close_days(&self, now: Timestamp) -> Result<(), StoreError> {
        let wanted = start_of(day_of(now - CLOSED_AFTER));
        let mut attempts = 0;
        let mut closed_before = None;
        while attempts < ATTEMPTS {
            let before = closed_before;
            let Some(closed) = self.close_some(wanted).await? else {
                attempts += 1;
                continue;
            };
            self.days().closed_before = None;
            // Without progress, the clock of the database or a day that is not attached holds it up.
            if closed >= wanted || before == Some(closed) {
                break;
            }
            closed_before = Some(closed);
        }
        Ok(())
    }

    /// Days that somebody detached and did not attach again. From the oldest of them on nothing is closed.
    pub async fn unattached_days(&self) -> Result<Vec<NaiveDate>, StoreError> {
        let client = self.client().await?;
        let rows = client.query("-- unattached_days\nSELECT unattached_days()", &[]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Closes some of the days before `wanted`, and returns up to where days are closed by now; none if it has to begin anew.
    async fn close_some(&self, wanted: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let client = self.client().await?;
        // The snapshot comes first: what changes while the rows are collected is looked at again.
        let state = client.query_one(STATE, &[]).await?;
        let closed_before: Timestamp = state.try_get("closed_before")?;
        if closed_before >= wanted {
            return Ok(Some(closed_before));
        }
        let upto = closed_before.checked_add_days(MOST_DAYS).unwrap_or(wanted).min(wanted);
        let snapshot: String = state.try_get("snapshot")?;
        let mut open: Vec<Uuid> = Vec::new();
        for day in state.try_get::<_, Vec<NaiveDate>>("days")? {
            if start_of(day) >= closed_before && start_of(day) < upto {
                let sql = format!(
                    "-- open_of_day\nSELECT id FROM {} WHERE disconnect_time IS NULL AND method <= 2",
                    day_table(day)
                );
                for row in client.query(&sql, &[]).await? {
                    open.push(row.try_get(0)?);
                }
            }
        }
        drop(client);
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let timeout = format!("{}ms", LOCK_TIMEOUT.as_millis());
        query(&transaction, "-- set_lock_timeout\nSELECT set_config('lock_timeout', $1, true)", &[&timeout]).await?;
        let rows = query(&transaction, CLOSE, &[&upto, &snapshot, &open]).await?;
        let closed_before = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        transaction.commit().await?;
        Ok(closed_before)
    }
}
