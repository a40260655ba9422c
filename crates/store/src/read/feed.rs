//! The change feed: each row in the order of the transactions that last changed it.
//!
//! A reader stays below the oldest transaction that still runs. What commits later has a higher number, so nothing is ever
//! skipped, which neither times nor sequences could promise. A row that changed twice appears once, as it is now.

use connlog_model::clock::Timestamp;
use connlog_model::cursor::Position;
use connlog_model::search::Search;

use super::conditions::Conditions;
use super::entry::Entry;
use super::filter::{Filter, Reach, Unreachable};
use super::rows::{self, Place};
use super::whose;
use super::windows::{Calendar, Window};
use crate::partitions::windows;
use crate::session::{Transaction, begin_read, query, query_composed};
use crate::xid::Xid8;
use crate::{Store, StoreError};

/// Why there are no changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChanges {
    /// The search names what is out of reach.
    Unreachable(Unreachable),
    /// The position counts the transactions of another database.
    OtherCluster,
}

/// Changes after a position, in the order of the feed.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The rows that changed.
    pub entries: Vec<Entry>,
    /// Up to where the feed was read: the place of the last entry, or, if there are no more, the end of the feed.
    pub position: Position,
    /// Whether the end of the feed was reached.
    pub at_end: bool,
}

const END: &str = "-- feed_end
SELECT (SELECT system_identifier FROM pg_control_system()) AS cluster,
       pg_snapshot_xmin(pg_current_snapshot())::text::xid8 AS oldest_running,
       pg_snapshot_xmax(pg_current_snapshot())::text::xid8 AS next";

const CHANGED_OPEN: &str = "-- changed_open
SELECT FROM open_connections WHERE changed_xid >= $1 AND changed_xid < $2 LIMIT 1";

const CHANGED_HISTORY: &str = "-- changed_history
SELECT FROM connection_logs
WHERE changed_xid >= $1 AND changed_xid < $2 AND connect_time >= $3 AND connect_time < $4 LIMIT 1";

impl Store {
    /// The end of the change feed, and whether it is held up: later transactions have begun.
    pub async fn feed_state(&self) -> Result<(Position, bool), StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        state(&transaction).await
    }

    /// Whether any row changed between two positions.
    pub async fn changed_between(&self, position: Position, end: Position) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let (from, to) = (Xid8(position.transaction), Xid8(end.transaction));
        if !query(&transaction, CHANGED_OPEN, &[&from, &to]).await?.is_empty() {
            return Ok(true);
        }
        let Some(whole) = Calendar::of(&transaction).await?.window(&Filter::default()) else { return Ok(false) };
        for (first, last) in windows(whole.from, whole.to) {
            if !query(&transaction, CHANGED_HISTORY, &[&from, &to, &first, &last]).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The end of the change feed: everything acknowledged before this call lies before it.
    pub async fn feed_end(&self) -> Result<Position, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        end(&transaction).await
    }

    /// Up to `limit` rows that match `search`, lie in `reach` and changed after `position`.
    pub async fn changes(
        &self,
        search: &Search,
        reach: &Reach,
        position: Position,
        limit: usize,
        now: Timestamp,
    ) -> Result<Result<Changes, NoChanges>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let end = end(&transaction).await?;
        if position.cluster != end.cluster {
            return Ok(Err(NoChanges::OtherCluster));
        }
        let filter = match Filter::resolve(&transaction, search, reach, now).await? {
            Ok(filter) => filter,
            Err(unreachable) => return Ok(Err(NoChanges::Unreachable(unreachable))),
        };
        let nothing = Changes { entries: Vec::new(), position: end.max(position), at_end: true };
        if position >= end || filter.matches_nothing() {
            return Ok(Ok(nothing));
        }
        // The first of all are among the first of each window.
        let mut entries = Vec::new();
        if let Some(whole) = Calendar::of(&transaction).await?.window(&filter) {
            for (from, to) in windows(whole.from, whole.to) {
                entries.extend(read(&transaction, &filter, Window { from, to }, position, end, limit).await?);
            }
        }
        transaction.end();
        entries.sort_by_key(|entry| (entry.changed, entry.id));
        let at_end = entries.len() < limit;
        entries.truncate(limit);
        let last = entries.last().filter(|_| !at_end);
        let position = last.map_or(nothing.position, |last| place(end.cluster, last));
        Ok(Ok(Changes { entries, position, at_end }))
    }
}

/// The place of an entry in the feed.
pub fn place(cluster: u64, entry: &Entry) -> Position {
    Position { cluster, transaction: entry.changed, row: entry.id }
}

async fn end(transaction: &Transaction<'_>) -> Result<Position, StoreError> {
    Ok(state(transaction).await?.0)
}

async fn state(transaction: &Transaction<'_>) -> Result<(Position, bool), StoreError> {
    let rows = query(transaction, END, &[]).await?;
    let row = rows.first().ok_or_else(|| StoreError::Inconsistent("no transaction is the oldest".to_owned()))?;
    let cluster: i64 = row.try_get("cluster")?;
    let Xid8(oldest_running) = row.try_get("oldest_running")?;
    let Xid8(next) = row.try_get("next")?;
    Ok((Position::before(cluster.cast_unsigned(), oldest_running), next > oldest_running))
}

async fn read(
    transaction: &Transaction<'_>,
    filter: &Filter,
    window: Window,
    position: Position,
    end: Position,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    let mut conditions = Conditions::of_walk(filter);
    conditions.add_span(window.from, window.to);
    // The first condition is what the index can do; the second takes away what was given of that transaction.
    conditions.add("changed_xid >= ?", Xid8(position.transaction));
    conditions.add("changed_xid < ?", Xid8(end.transaction));
    let (xid, id) = (conditions.bind(Xid8(position.transaction)), conditions.bind(position.row));
    conditions.add_sql(format!("(changed_xid, id) > ({xid}, {id})"));
    let limit = conditions.bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let sorted = "ORDER BY changed_xid, id";
    let parts: Vec<String> = rows::selects(&conditions, Place::Span(window))
        .into_iter()
        .map(|(_, select)| format!("({select}\n{sorted} LIMIT {limit})"))
        .collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "-- read_changes\nSELECT * FROM (\n{}\n) AS parts\n{sorted} LIMIT {limit}",
        parts.join("\nUNION ALL\n")
    );
    whose::entries(transaction, &query_composed(transaction, &sql, &conditions.parameters()).await?).await
}
