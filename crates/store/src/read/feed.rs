//! The change feed: rows in the order of the transactions that changed them.
//!
//! Each transaction that changes the log says which rows, in `changes`. A reader stays below the oldest transaction that still runs:
//! what commits later has a higher number, so nothing is ever skipped, which neither times nor sequences could promise. A
//! position names the change up to which was read by a random id: one that is not here is of another database, from before a
//! restore, or older than what is kept, and is refused rather than continued somewhere. A row that changed several times is
//! given once, as it is now, if the changes are read together.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use connlog_model::cursor::Position;
use connlog_model::search::Search;
use tokio_postgres::Row;
use uuid::Uuid;

use super::conditions::{By, Conditions};
use super::entry::{COLUMNS, Entry};
use super::filter::{Filter, Reach, Unreachable};
use super::whose;
use super::windows::Calendar;
use crate::days::day_table;
use crate::session::{Transaction, begin_read, query, query_composed};
use crate::xid::Xid8;
use crate::{Store, StoreError};

/// Changes that are looked at together, and how often in one call: a search that matches nothing does not read the whole feed at once.
const TOGETHER: i64 = 16;
const ROUNDS: u32 = 16;
/// Days that one statement looks at.
const DAYS: usize = 30;

/// Why there are no changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChanges {
    /// The search names what is out of reach.
    Unreachable(Unreachable),
    /// The position is not one of this database as it is: it is of another one, from before a restore, or older than what is kept.
    UnknownPosition,
}

/// Changes after a position, in the order of the feed.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The rows that changed, each with its place in the feed.
    pub entries: Vec<Entry>,
    /// Up to where the feed was read.
    pub position: Position,
    /// Whether the end of the feed was reached.
    pub at_end: bool,
}

/// A reader of the feed for whom changes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it last said how far it has read.
    pub seen_at: Timestamp,
    /// When changes were trimmed that it had not read; none if none were.
    pub gap_at: Option<Timestamp>,
    /// How many changes it has not read.
    pub behind: i64,
}

const END: &str = "-- feed_end
SELECT anchor, xid, EXISTS (SELECT FROM changes AS later WHERE later.xid > c.xid) AS has_later
FROM changes AS c WHERE xid < pg_snapshot_xmin(pg_current_snapshot())::text::xid8
ORDER BY xid DESC, anchor DESC LIMIT 1";

/// A log that was restored into a younger server has changes of transactions that are yet to come: nothing can be said of
/// their order.
const IS_VOID: &str = "-- feed_is_void
SELECT FROM changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())::text::xid8 LIMIT 1";

const KNOWN: &str = "-- feed_position
SELECT FROM changes WHERE anchor = $1 AND xid = $2";

const START: &str = "-- feed_start
SELECT anchor, xid FROM changes ORDER BY xid, anchor LIMIT 1";

/// The change of the position itself first: some of its rows may not have been given.
const READ: &str = "-- read_changes
SELECT anchor, xid, ids, days FROM changes
WHERE xid >= $1 AND (xid, anchor) >= ($1, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::xid8
ORDER BY xid, anchor LIMIT $3";

const HAS_CHANGES: &str = "-- has_changes
SELECT FROM changes WHERE xid > $1 AND xid <= $2 LIMIT 1";

const REGISTER: &str = "-- register_consumer
INSERT INTO feed_consumers (name, anchor, xid)
SELECT $1, anchor, xid FROM changes WHERE xid < pg_snapshot_xmin(pg_current_snapshot())::text::xid8 ORDER BY xid DESC, anchor DESC LIMIT 1
ON CONFLICT (name) DO UPDATE SET anchor = excluded.anchor, xid = excluded.xid, gap_at = NULL, token_id = NULL, seen_at = clock_timestamp()
RETURNING anchor, xid";

const CONSUMERS: &str = "-- consumers
SELECT name, registered_at, seen_at, gap_at, (SELECT count(*) FROM changes WHERE changes.xid > f.xid) AS behind
FROM feed_consumers AS f ORDER BY name";

impl Store {
    /// The end of the change feed, and whether it is held up: there are later changes that cannot be read yet.
    pub async fn feed_state(&self) -> Result<(Position, bool), StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        state(&transaction).await
    }

    /// Whether any row changed between two positions.
    pub async fn changed_between(&self, position: Position, end: Position) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let (from, to) = (Xid8(position.transaction), Xid8(end.transaction));
        Ok(!client.query(HAS_CHANGES, &[&from, &to]).await?.is_empty())
    }

    /// The end of the change feed: everything acknowledged before this call lies before it, or will be read after it.
    pub async fn feed_end(&self) -> Result<Position, StoreError> {
        Ok(self.feed_state().await?.0)
    }

    /// The place before the oldest change that is kept.
    pub async fn feed_start(&self) -> Result<Position, StoreError> {
        let client = self.client().await?;
        let row = client.query_one(START, &[]).await?;
        Ok(Position { row: Uuid::nil(), ..position(&row)? })
    }

    /// Whether a position is one of this database as it is.
    pub async fn knows_position(&self, position: Position) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        is_known(&transaction, position).await
    }

    /// Whether this is a standby, which may lack what the primary has.
    pub async fn is_standby(&self) -> Result<bool, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one("-- is_standby\nSELECT pg_is_in_recovery()", &[]).await?.try_get(0)?)
    }

    /// Begins the feed anew if it was restored into a younger server, and returns whether it did.
    pub async fn restart_void_feed(&self) -> Result<bool, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one("-- restart_feed\nSELECT restart_feed()", &[]).await?.try_get(0)?)
    }

    /// Removes changes from before `kept_since`. What consumers have not read stays, up to `max_bytes`.
    pub async fn trim_changes(&self, kept_since: Timestamp, max_bytes: i64) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let sql = "-- trim_changes\nSELECT trim_changes($1, $2)";
        Ok(client.query_one(sql, &[&kept_since, &max_bytes]).await?.try_get(0)?)
    }

    /// Registers a consumer at the end of the feed, or anew if there is one of that name, and returns where it begins.
    pub async fn register_consumer(&self, name: &str) -> Result<Position, StoreError> {
        let client = self.client().await?;
        let row = client.query_one(REGISTER, &[&name]).await?;
        position(&row)
    }

    /// Forgets a consumer. Returns false if there is none of that name.
    pub async fn remove_consumer(&self, name: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let sql = "-- remove_consumer\nDELETE FROM feed_consumers WHERE name = $1";
        Ok(client.execute(sql, &[&name]).await? == 1)
    }

    /// All consumers, by name.
    pub async fn consumers(&self) -> Result<Vec<Consumer>, StoreError> {
        let client = self.client().await?;
        let consumer = |row: &Row| {
            Ok(Consumer {
                name: row.try_get("name")?,
                registered_at: row.try_get("registered_at")?,
                seen_at: row.try_get("seen_at")?,
                gap_at: row.try_get("gap_at")?,
                behind: row.try_get("behind")?,
            })
        };
        client.query(CONSUMERS, &[]).await?.iter().map(consumer).collect()
    }

    /// Notes that a consumer, which is the `reader`'s from now on, has everything up to a position. Returns false if there is no such
    /// consumer, or it is another reader's.
    pub async fn note_read(&self, name: &str, position: Position, reader: Uuid) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let sql = "-- note_read\nSELECT note_read($1, $2, $3)";
        let row = client.query_one(sql, &[&name, &position.anchor, &reader]).await?;
        Ok(row.try_get::<_, Option<bool>>(0)?.unwrap_or(false))
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
        if !is_known(&transaction, position).await? {
            return Ok(Err(NoChanges::UnknownPosition));
        }
        let filter = match Filter::resolve(&transaction, search, reach, now).await? {
            // What was open at a change may have ended since: it is looked for on any day.
            Ok(filter) => Filter { closed_before: None, ..filter },
            Err(unreachable) => return Ok(Err(NoChanges::Unreachable(unreachable))),
        };
        let calendar = Calendar::of(&transaction).await?;
        let mut changes = Changes { entries: Vec::new(), position, at_end: false };
        for _ in 0..ROUNDS {
            let batch = batch(&transaction, changes.position).await?;
            let found = find(&transaction, &filter, &calendar, &batch).await?;
            changes.at_end = i64::try_from(batch.changes).unwrap_or(0) < TOGETHER;
            let room = limit - changes.entries.len();
            let is_full = found.len() > room;
            changes.entries.extend(found.into_iter().take(room));
            let last = changes.entries.last().and_then(|last| last.position).filter(|_| is_full);
            changes.position = last.unwrap_or(batch.end);
            changes.at_end &= !is_full;
            if is_full || changes.at_end {
                break;
            }
        }
        transaction.end();
        Ok(Ok(changes))
    }
}

fn position(row: &Row) -> Result<Position, StoreError> {
    let Xid8(transaction) = row.try_get("xid")?;
    Ok(Position::after(transaction, row.try_get("anchor")?))
}

async fn state(transaction: &Transaction<'_>) -> Result<(Position, bool), StoreError> {
    let rows = query(transaction, END, &[]).await?;
    let row = rows.first().ok_or_else(|| {
        // Until connlog-ingest has begun it anew.
        StoreError::Unavailable("the change feed was restored into a younger server".into())
    })?;
    Ok((position(row)?, row.try_get("has_later")?))
}

async fn is_known(transaction: &Transaction<'_>, position: Position) -> Result<bool, StoreError> {
    let is_there = query(transaction, KNOWN, &[&position.anchor, &Xid8(position.transaction)]).await?;
    Ok(!is_there.is_empty() && query(transaction, IS_VOID, &[]).await?.is_empty())
}

/// Some changes in the order of the feed.
struct Batch {
    changes: usize,
    /// Each row, with the place of its last change among these.
    places: HashMap<Uuid, Position>,
    days: BTreeSet<NaiveDate>,
    /// The place after all of them.
    end: Position,
}

async fn batch(transaction: &Transaction<'_>, after: Position) -> Result<Batch, StoreError> {
    let rows = query(transaction, READ, &[&Xid8(after.transaction), &after.anchor, &TOGETHER]).await?;
    let mut batch = Batch { changes: rows.len(), places: HashMap::new(), days: BTreeSet::new(), end: after };
    for row in &rows {
        let end = position(row)?;
        let is_first = end.anchor == after.anchor;
        for id in row.try_get::<_, Vec<Uuid>>("ids")? {
            if !is_first || id > after.row {
                batch.places.insert(id, Position { row: id, ..end });
            }
        }
        batch.days.extend(row.try_get::<_, Vec<NaiveDate>>("days")?);
        batch.end = end;
    }
    Ok(batch)
}

/// The entries that match among what changed, in the order of the feed.
async fn find(
    transaction: &Transaction<'_>,
    filter: &Filter,
    calendar: &Calendar,
    batch: &Batch,
) -> Result<Vec<Entry>, StoreError> {
    if batch.places.is_empty() || filter.matches_nothing() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = batch.places.keys().copied().collect();
    let days = calendar.among(batch.days.iter().copied());
    let mut rows = Vec::new();
    for days in days.chunks(DAYS) {
        let mut conditions = Conditions::of(filter, By::Row);
        conditions.add("id = ANY(?)", ids.clone());
        let selects: Vec<String> =
            days.iter().map(|day| format!("SELECT {COLUMNS} {}", conditions.on(&day_table(*day)))).collect();
        let sql = format!("-- read_changed\n{}", selects.join("\nUNION ALL\n"));
        rows.extend(query_composed(transaction, &sql, &conditions.parameters()).await?);
    }
    let mut entries = whose::entries(transaction, &rows).await?;
    for entry in &mut entries {
        entry.position = batch.places.get(&entry.id).copied();
    }
    entries.sort_by_key(|entry| entry.position);
    Ok(entries)
}
