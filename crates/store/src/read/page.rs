//! Pages of entries, in the total order (`connect_time`, `id`) descending.

use std::collections::VecDeque;

use chrono::{Days, NaiveDate};
use connlog_model::clock::Timestamp;
use connlog_model::search::Search;
use deadpool_postgres::Transaction;

use super::conditions::Conditions;
use super::count::{self, Count};
use super::entry::{DIRECTORY_COLUMNS, Entry, HISTORY_ONLY, SHARED_COLUMNS, entry};
use super::filter::{Filter, Reach, Unreachable};
use crate::partitions::{MAX_DAYS_PER_STATEMENT, start_of};
use crate::session::{begin_read, query};
use crate::{Store, StoreError};

/// Days of the first, newest window; each further one is four times as long.
const FIRST_WINDOW_DAYS: u64 = 2;

/// Which page, and how far to count.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Most entries.
    pub limit: i64,
    /// Entries to skip.
    pub offset: i64,
    /// Where counting stops, if it has to be done row by row.
    pub count_cap: i64,
}

/// A page and its count, of one snapshot.
#[derive(Debug, Clone)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// How many entries match in all.
    pub count: Count,
}

impl Store {
    /// A page of the entries that match `search` and lie in `reach`.
    pub async fn page(
        &self,
        search: &Search,
        reach: &Reach,
        request: PageRequest,
    ) -> Result<Result<Page, Unreachable>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let filter = match Filter::resolve(&transaction, search, reach).await? {
            Ok(filter) => filter,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        let windows = Windows::over(&transaction, &filter).await?;
        let count = count::count(&transaction, &filter, windows.clone(), request.count_cap).await?;
        // An exact count says when there is nothing to walk for.
        let beyond = count.exact && count.entries <= request.offset;
        let entries = if beyond { Vec::new() } else { read_page(&transaction, &filter, windows, request).await? };
        transaction.commit().await?;
        Ok(Ok(Page { entries, count }))
    }
}

impl Store {
    /// What of `search` is out of `reach`, for a caller who will not run it.
    pub async fn unreachable(&self, search: &Search, reach: &Reach) -> Result<Option<Unreachable>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        Ok(Filter::resolve(&transaction, search, reach).await?.err())
    }
}

async fn read_page(
    transaction: &Transaction<'_>,
    filter: &Filter,
    windows: Windows,
    request: PageRequest,
) -> Result<Vec<Entry>, StoreError> {
    let (mut entries, mut to_skip) = (Vec::new(), request.offset);
    for window in windows {
        let wanted = request.limit - i64::try_from(entries.len()).unwrap_or(i64::MAX);
        if wanted <= 0 {
            break;
        }
        let rows = read_window(transaction, filter, window, wanted, to_skip).await?;
        if rows.is_empty() && to_skip > 0 {
            // Saturating: an offset of 2^31-1 is allowed, and a window has fewer rows than that.
            to_skip = (to_skip - count::in_window(transaction, filter, window, to_skip).await?).max(0);
        } else if !rows.is_empty() {
            to_skip = 0;
        }
        entries.extend(rows);
    }
    Ok(entries)
}

async fn read_window(
    transaction: &Transaction<'_>,
    filter: &Filter,
    window: Window,
    limit: i64,
    offset: i64,
) -> Result<Vec<Entry>, StoreError> {
    let mut conditions = Conditions::of(filter);
    conditions.add("connect_time >= ?", window.from);
    conditions.add("connect_time < ?", window.to);
    let reach = conditions.bind(limit.saturating_add(offset));
    let (limit, offset) = (conditions.bind(limit), conditions.bind(offset));
    let condition = conditions.sql();
    let part = |table: &str, columns: [&str; 8]| {
        format!(
            "(SELECT {SHARED_COLUMNS}, {} FROM {table} WHERE {condition}\n\
             ORDER BY connect_time DESC, id DESC LIMIT {reach})",
            columns.join(", ")
        )
    };
    let mut parts = Vec::new();
    if conditions.open {
        parts.push(part("open_connections", HISTORY_ONLY.map(|(_, absent)| absent)));
    }
    if conditions.history {
        parts.push(part("connection_logs", HISTORY_ONLY.map(|(column, _)| column)));
    }
    let history_only = HISTORY_ONLY.map(|(column, _)| column).join(", ");
    let sql = format!(
        "-- read_page\nWITH page ({SHARED_COLUMNS}, {history_only}) AS (\nSELECT * FROM (\n{}\n) AS parts\n\
         ORDER BY connect_time DESC, id DESC LIMIT {limit} OFFSET {offset})\n\
         SELECT page.*, {DIRECTORY_COLUMNS} FROM page\n\
         LEFT JOIN organizations org ON org.id = page.organization_id\n\
         LEFT JOIN users owner ON owner.id = page.workspace_owner_id\n\
         LEFT JOIN users actor ON actor.id = page.user_id\n\
         ORDER BY page.connect_time DESC, page.id DESC",
        parts.join("\nUNION ALL\n")
    );
    query(transaction, &sql, &conditions.parameters()).await?.iter().map(entry).collect()
}

/// A span of days, `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Windows over all days that can match, newest first, growing.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    windows: VecDeque<Window>,
}

const SPAN: &str = "-- span
SELECT least(min(day), min(oldest)) AS first, greatest(max(day), max(newest)) AS last FROM days() AS day
FULL JOIN (SELECT (min(connect_time) AT TIME ZONE 'UTC')::date AS oldest, (max(connect_time) AT TIME ZONE 'UTC')::date AS newest
           FROM open_connections) AS open ON false";

impl Windows {
    async fn over(transaction: &Transaction<'_>, filter: &Filter) -> Result<Self, StoreError> {
        let rows = query(transaction, SPAN, &[]).await?;
        let mut windows = VecDeque::new();
        if let Some(row) = rows.first()
            && let (Some(first), Some(last)) = (row.try_get("first")?, row.try_get("last")?)
        {
            let first: NaiveDate = filter.connected_after.map_or(first, |after| after.date_naive().max(first));
            let last: NaiveDate = filter.connected_before.map_or(last, |before| before.date_naive().min(last));
            let mut days = FIRST_WINDOW_DAYS;
            let mut end = last.succ_opt().unwrap_or(NaiveDate::MAX);
            while end > first {
                let start = end.checked_sub_days(Days::new(days)).unwrap_or(first).max(first);
                windows.push_back(Window { from: start_of(start), to: start_of(end) });
                end = start;
                days = (days * 4).min(MAX_DAYS_PER_STATEMENT);
            }
        }
        Ok(Self { windows })
    }
}

impl Iterator for Windows {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        self.windows.pop_front()
    }
}
