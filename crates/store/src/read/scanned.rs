//! Searches for what no index finds: rows are looked at one by one, newest first, within a budget.

use std::time::Instant;

use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Budget;
use super::entry;
use super::filter::Filter;
use super::page::Count;
use super::rows::{self, Order, Place, Slice};
use super::windows::{Scan, Window};
use crate::StoreError;
use crate::session::Transaction;

/// What a scan found.
pub(super) struct Scanned {
    pub(super) rows: Vec<Row>,
    /// Whether it stopped because its budget was used up.
    pub(super) incomplete: bool,
    /// Where it stopped: everything before that place was looked at. None if what was to be skipped was not even found.
    pub(super) stopped_at: Option<(Timestamp, Uuid)>,
}

/// How many match, as far as the budget goes.
pub(super) async fn count(
    transaction: &Transaction<'_>,
    filter: &Filter,
    whole: Option<Window>,
    cap: i64,
    budget: Budget,
) -> Result<Count, StoreError> {
    let mut scan = Scan::of(whole);
    let mut entries = 0;
    while let Some(window) = scan.window() {
        if entries > cap || budget.is_used_up() {
            return Ok(Count { entries, exact: false });
        }
        let began = Instant::now();
        entries += rows::count(transaction, filter, Place::Span(window), cap + 1 - entries).await?;
        scan.done(window.from, began.elapsed());
    }
    Ok(Count { entries, exact: entries <= cap })
}

/// The slice, as far as the budget goes.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    filter: &Filter,
    whole: Option<Window>,
    slice: Slice,
    budget: Budget,
) -> Result<Scanned, StoreError> {
    let whole = match (whole, slice.after) {
        (Some(whole), Some((time, _))) => whole.until(time),
        (whole, _) => whole,
    };
    let mut scan = Scan::of(whole);
    let mut found = Scanned { rows: Vec::new(), incomplete: false, stopped_at: None };
    let (mut offset, mut looked) = (slice.offset, false);
    while let Some(window) = scan.window() {
        let wanted = slice.limit - i64::try_from(found.rows.len()).unwrap_or(i64::MAX);
        if wanted <= 0 {
            break;
        }
        // At least one window, or the next page would begin where this one did.
        if looked && budget.is_used_up() {
            found.incomplete = true;
            found.stopped_at = (offset == 0).then_some((window.to, Uuid::nil()));
            break;
        }
        looked = true;
        let began = Instant::now();
        if offset > 0 {
            let matches = rows::count(transaction, filter, Place::Span(window), offset + 1).await?;
            if matches <= offset {
                offset -= matches;
                scan.done(window.from, began.elapsed());
                continue;
            }
        }
        let part = Slice { limit: wanted, offset, after: slice.after };
        let rows = rows::read(transaction, filter, Place::Span(window), part, Order::Walk).await?;
        offset = 0;
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= wanted;
        // The rest of a window that filled the page is not dealt with.
        let last = rows.last().filter(|_| full).map(entry::time).transpose()?;
        let from = last.unwrap_or(window.from);
        found.rows.extend(rows);
        scan.done(from, began.elapsed());
    }
    Ok(found)
}
