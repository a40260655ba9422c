//! Compaction: a closed day is rewritten full, without the room that its pages had for ends, and put in its place.
//!
//! The copy is made beside the day, in parts, each in a transaction of its own, so that neither batches nor the change feed
//! wait for it. What changes meanwhile is in the feed: most of it is brought to the copy before the lock, the rest under it. How far
//! it is, the database knows by itself (`compactions`): a run that was overtaken by another cannot put half a copy in place.

use std::time::Duration;

use chrono::NaiveDate;
use uuid::Uuid;

use crate::argument::Argument;
use crate::session::{begin_write, query};
use crate::{Store, StoreError};

/// Rows that are copied in one transaction.
const PART_ROWS: i64 = 20_000;

/// A copy of a day that is ready to take its place.
#[derive(Debug, Clone)]
pub struct Compacted {
    day: NaiveDate,
    run: Uuid,
}

impl Store {
    /// The closed days that are due to be compacted, oldest first.
    pub async fn uncompacted_days(&self) -> Result<Vec<NaiveDate>, StoreError> {
        let client = self.client().await?;
        let rows = client.query("-- uncompacted_days\nSELECT uncompacted_days()", &[]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Makes a compact copy of a closed day, as long as `goes_on` says so, for the run that holds the lease. None if there is no such
    /// day, if it is to be made anew since the change feed was trimmed meanwhile, or if it did not go on.
    pub async fn compact(
        &self,
        run: Uuid,
        day: NaiveDate,
        goes_on: impl Fn() -> bool,
    ) -> Result<Option<Compacted>, StoreError> {
        let client = self.client().await?;
        let is_so = async |sql: &str, parameters: &[&dyn Argument]| -> Result<bool, StoreError> {
            Ok(client.query_one(sql, parameters).await?.try_get(0)?)
        };
        if !is_so("-- begin_compaction\nSELECT begin_compaction($1, $2)", &[&run, &day]).await? {
            return Ok(None);
        }
        let parts: [(&str, &[&dyn Argument]); 2] = [
            ("-- copy_compacted\nSELECT copy_compacted($1, $2, $3)", &[&run, &day, &PART_ROWS]),
            ("-- index_compacted\nSELECT index_compacted($1, $2)", &[&run, &day]),
        ];
        for (sql, parameters) in parts {
            while is_so(sql, parameters).await? {
                if !goes_on() {
                    return Ok(None);
                }
            }
        }
        let sql = "-- apply_to_compacted\nSELECT apply_to_compacted($1, $2)";
        let applied: Option<i64> = client.query_one(sql, &[&run, &day]).await?.try_get(0)?;
        Ok(applied.map(|_| Compacted { day, run }))
    }

    /// Puts a compact copy in the place of its day, and folds the counts of the day. Waits for its readers and writers at most
    /// `lock_timeout`. False if it has to be made anew, or the day is gone.
    pub async fn swap(&self, compacted: &Compacted, lock_timeout: Duration) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let Compacted { day, run } = compacted;
        let patience = format!("{}ms", lock_timeout.as_millis());
        let sql = "-- swap_compacted\nSELECT swap_compacted($1, $2, $3)";
        let rows = query(&transaction, sql, &[run, day, &patience]).await?;
        let swapped: bool = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false);
        transaction.commit().await?;
        Ok(swapped)
    }
}
