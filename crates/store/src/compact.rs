//! Compaction: a closed day is rewritten full, without the room that its pages had for ends, and put in its place.
//!
//! The copy is made beside the day, in parts, each in a transaction of its own, so that neither batches nor the change feed
//! wait for it. What changes meanwhile is in the feed: most of it is brought to the copy before the lock, the rest under it.

use std::time::Duration;

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use uuid::Uuid;

use crate::session::{begin_write, query};
use crate::{Store, StoreError};

/// Rows that are copied in one transaction.
const PART_ROWS: i64 = 20_000;

const SNAPSHOT: &str = "-- snapshot
SELECT pg_current_snapshot()::text";

const COPY: &str = "-- copy_compacted
SELECT copied, last_time, last_id FROM copy_compacted($1::date, coalesce($2::timestamptz, '-infinity'), $3::uuid, $4::bigint)";

/// A copy of a day that is ready to take its place.
#[derive(Debug, Clone)]
pub struct Compacted {
    day: NaiveDate,
    /// What changed since is not in it.
    snapshot: String,
    /// How many rows it has, about.
    pub rows: i64,
}

impl Store {
    /// The closed days that are not compacted, oldest first.
    pub async fn uncompacted_days(&self) -> Result<Vec<NaiveDate>, StoreError> {
        let client = self.client().await?;
        let rows = client.query("-- uncompacted_days\nSELECT uncompacted_days()", &[]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Makes a compact copy of a closed day, as long as `goes_on` says so. None if there is no such day, if it is to be made anew since the
    /// change feed was trimmed meanwhile, or if it did not go on.
    pub async fn compact(&self, day: NaiveDate, goes_on: impl Fn() -> bool) -> Result<Option<Compacted>, StoreError> {
        let client = self.client().await?;
        // Before anything is read of the day: what changes from here on is looked at again.
        let snapshot: String = client.query_one(SNAPSHOT, &[]).await?.try_get(0)?;
        let begun: bool =
            client.query_one("-- begin_compaction\nSELECT begin_compaction($1)", &[&day]).await?.try_get(0)?;
        if !begun {
            return Ok(None);
        }
        let (mut after, mut rows) = ((None::<Timestamp>, Uuid::nil()), 0);
        loop {
            if !goes_on() {
                return Ok(None);
            }
            let row = client.query_one(COPY, &[&day, &after.0, &after.1, &PART_ROWS]).await?;
            let copied: i64 = row.try_get("copied")?;
            rows += copied;
            if copied < PART_ROWS {
                break;
            }
            after = (row.try_get("last_time")?, row.try_get("last_id")?);
        }
        client.query("-- index_compacted\nSELECT index_compacted($1)", &[&day]).await?;
        // The second snapshot comes before what it covers is read.
        let later: String = client.query_one(SNAPSHOT, &[]).await?.try_get(0)?;
        let sql = "-- apply_to_compacted\nSELECT apply_to_compacted($1, $2::text::pg_snapshot)";
        let applied: Option<i64> = client.query_one(sql, &[&day, &snapshot]).await?.try_get(0)?;
        Ok(applied.map(|_| Compacted { day, snapshot: later, rows }))
    }

    /// Puts a compact copy in the place of its day, and folds the counts of the day. Waits for its readers and writers at most
    /// `lock_timeout`. False if it has to be made anew, or the day is gone.
    pub async fn swap(&self, compacted: &Compacted, lock_timeout: Duration) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let Compacted { day, snapshot, .. } = compacted;
        let patience = format!("{}ms", lock_timeout.as_millis());
        let sql = "-- swap_compacted\nSELECT swap_compacted($1, $2::text::pg_snapshot, $3)";
        let rows = query(&transaction, sql, &[day, snapshot, &patience]).await?;
        let swapped: bool = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false);
        transaction.commit().await?;
        if swapped {
            client.query("-- fold_counts\nSELECT fold_counts($1)", &[day]).await?;
        }
        Ok(swapped)
    }
}
