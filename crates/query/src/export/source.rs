//! Where the rows of an export come from: pages, or the change feed.

use std::time::Duration;

use connlog_model::clock::Timestamp;
use connlog_model::cursor::{Cursor, Position};
use connlog_model::search::Search;
use connlog_store::read::{Entry, NoChanges, Reach};
use connlog_store::{Store, StoreError};
use uuid::Uuid;

/// Rows of a chunk.
const CHUNK_ROWS: i64 = 5_000;
/// How long looking for the rows of a chunk may take.
const CHUNK_BUDGET: Duration = Duration::from_secs(1);

/// Rows, chunk by chunk.
pub(super) struct Source {
    search: Search,
    fingerprint: u64,
    reach: Reach,
    way: Way,
}

enum Way {
    /// In the order of pages. At the end `after` is gone.
    Pages { after: Option<(Timestamp, Uuid)>, began_at: Position, is_done: bool },
    /// In the order of the change feed, up to `end` at least.
    Changes { position: Position, end: Position },
}

impl Source {
    pub(super) fn pages(search: Search, reach: Reach, after: Option<(Timestamp, Uuid)>, began_at: Position) -> Self {
        Self { fingerprint: search.fingerprint(), search, reach, way: Way::Pages { after, began_at, is_done: false } }
    }

    pub(super) fn changes(search: Search, reach: Reach, since: Position, end: Position) -> Self {
        Self { fingerprint: search.fingerprint(), search, reach, way: Way::Changes { position: since, end } }
    }

    /// The next rows; none at the end.
    pub(super) async fn next(
        &mut self,
        store: &Store,
        now: Timestamp,
    ) -> Result<Result<Option<Vec<Entry>>, NoChanges>, StoreError> {
        match &mut self.way {
            Way::Pages { is_done: true, .. } => Ok(Ok(None)),
            Way::Pages { after, is_done, .. } => {
                let chunk =
                    store.export_chunk(&self.search, &self.reach, *after, CHUNK_ROWS, CHUNK_BUDGET, now).await?;
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(unreachable) => return Ok(Err(NoChanges::Unreachable(unreachable))),
                };
                (*after, *is_done) = (chunk.next, chunk.next.is_none());
                Ok(Ok(Some(chunk.entries)))
            }
            Way::Changes { position, end } => {
                if position >= end {
                    return Ok(Ok(None));
                }
                let limit = usize::try_from(CHUNK_ROWS).unwrap_or(1);
                match store.changes(&self.search, &self.reach, *position, limit, now).await? {
                    Ok(changes) => {
                        *position = changes.position;
                        Ok(Ok(Some(changes.entries)))
                    }
                    Err(none) => Ok(Err(none)),
                }
            }
        }
    }

    /// Makes the cursors of its rows.
    pub(super) fn cursors(&self) -> Cursors {
        match &self.way {
            Way::Pages { began_at, .. } => Cursors::Pages { fingerprint: self.fingerprint, began_at: *began_at },
            Way::Changes { .. } => Cursors::Changes,
        }
    }

    /// Up to where the change feed is in the export, once it is complete.
    pub(super) fn position(&self) -> Position {
        match &self.way {
            Way::Pages { began_at, .. } => *began_at,
            Way::Changes { position, .. } => *position,
        }
    }
}

/// What a client hands back to go on after a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cursors {
    Pages { fingerprint: u64, began_at: Position },
    Changes,
}

impl Cursors {
    pub(super) fn after(&self, entry: &Entry) -> String {
        match self {
            Self::Pages { fingerprint, began_at } => {
                let cursor = Cursor { time: entry.connect_time, id: entry.id, began_at: Some(*began_at) };
                cursor.encode(*fingerprint)
            }
            Self::Changes => entry.position.map(|position| position.encode()).unwrap_or_default(),
        }
    }
}
