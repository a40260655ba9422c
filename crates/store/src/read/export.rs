//! Everything that matches, chunk by chunk, in the order of pages. No chunk holds a snapshot after it was read, so an
//! export may take hours without holding up vacuum.

use std::time::Duration;

use connlog_model::clock::Timestamp;
use connlog_model::search::Search;
use uuid::Uuid;

use super::Budget;
use super::entry::Entry;
use super::filter::{Filter, Reach, Unreachable};
use super::rows::Slice;
use super::windows::Calendar;
use super::{scanned, whose};
use crate::session::begin_read;
use crate::{Store, StoreError};

/// A part of an export.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// After what the next chunk begins; none at the end.
    pub next: Option<(Timestamp, Uuid)>,
}

impl Store {
    /// The next entries after `after` that match `search` and lie in `reach`: at most `limit`, and no more than are found
    /// within `budget`.
    pub async fn export_chunk(
        &self,
        search: &Search,
        reach: &Reach,
        after: Option<(Timestamp, Uuid)>,
        limit: i64,
        budget: Duration,
        now: Timestamp,
    ) -> Result<Result<Chunk, Unreachable>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let filter = match Filter::resolve(&transaction, search, reach, now).await? {
            Ok(filter) => filter,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        if filter.matches_nothing() {
            return Ok(Ok(Chunk { entries: Vec::new(), next: None }));
        }
        let slice = Slice { limit, offset: 0, after };
        let whole = Calendar::of(&transaction).await?.window(&filter);
        let found = scanned::read(&transaction, &filter, whole, slice, Budget::new(budget)).await?;
        let entries = whose::entries(&transaction, &found.rows).await?;
        transaction.end();
        let full = i64::try_from(entries.len()).is_ok_and(|count| count >= limit);
        let last = entries.last().filter(|_| full).map(|last| (last.connect_time, last.id));
        Ok(Ok(Chunk { entries, next: found.stopped_at.or(last) }))
    }
}
