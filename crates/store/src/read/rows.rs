//! The statements that look at one window: its entries in order, and how many match.

use connlog_model::clock::Timestamp;
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::conditions::Conditions;
use super::entry::{DIRECTORY_COLUMNS, Entry, HISTORY_ONLY, SHARED_COLUMNS, entry};
use super::filter::Filter;
use super::windows::Window;
use crate::StoreError;
use crate::session::query_composed;

/// How the matches of a window are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All matches are found, by whatever index, and then sorted. For few: the planner, told of a limit, would walk the
    /// time index in the hope of an early end, which does not come.
    FindThenSort,
    /// The time index is walked until there are enough. For many.
    Walk,
}

/// Which of the matches are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) limit: i64,
    pub(super) offset: i64,
    /// Only what comes after this, in the order of pages.
    pub(super) after: Option<(Timestamp, Uuid)>,
}

/// The entries of a window, newest first.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    filter: &Filter,
    window: Window,
    slice: Slice,
    order: Order,
) -> Result<Vec<Entry>, StoreError> {
    let mut conditions = Conditions::of(filter);
    conditions.add_span(window.from, window.to);
    if let Some((time, id)) = slice.after {
        conditions.add_after(time, id);
    }
    let reach = conditions.bind(slice.limit.saturating_add(slice.offset));
    let (limit, offset) = (conditions.bind(slice.limit), conditions.bind(slice.offset));
    let sorted = "ORDER BY connect_time DESC, id DESC";
    let mut materialized = Vec::new();
    let mut parts = Vec::new();
    for (table, select) in selects(&conditions) {
        match order {
            Order::Walk => parts.push(format!("({select}\n{sorted} LIMIT {reach})")),
            Order::FindThenSort => {
                let history_only = HISTORY_ONLY.map(|(column, _)| column).join(", ");
                materialized
                    .push(format!("of_{table} ({SHARED_COLUMNS}, {history_only}) AS MATERIALIZED (\n{select})"));
                parts.push(format!("(SELECT * FROM of_{table} {sorted} LIMIT {reach})"));
            }
        }
    }
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let history_only = HISTORY_ONLY.map(|(column, _)| column).join(", ");
    let mut ctes = materialized;
    ctes.push(format!(
        "page ({SHARED_COLUMNS}, {history_only}) AS (\nSELECT * FROM (\n{}\n) AS parts\n{sorted} LIMIT {limit} OFFSET {offset})",
        parts.join("\nUNION ALL\n")
    ));
    let sql = format!(
        "-- read_window\nWITH {}\nSELECT page.*, {DIRECTORY_COLUMNS} FROM page\n{DIRECTORY_JOINS}\n\
         ORDER BY page.connect_time DESC, page.id DESC",
        ctes.join(",\n")
    );
    query_composed(transaction, &sql, &conditions.parameters()).await?.iter().map(entry).collect()
}

/// The tables that can have matches, each with the statement that finds them, with the columns of a page.
pub(super) fn selects(conditions: &Conditions) -> Vec<(&'static str, String)> {
    let tables = [
        (conditions.open, "open_connections", HISTORY_ONLY.map(|(_, absent)| absent), conditions.open_sql()),
        (conditions.history, "connection_logs", HISTORY_ONLY.map(|(column, _)| column), conditions.history_sql()),
    ];
    let wanted = tables.into_iter().filter(|(wanted, ..)| *wanted);
    wanted
        .map(|(_, table, columns, condition)| {
            (table, format!("SELECT {SHARED_COLUMNS}, {} FROM {table} WHERE {condition}", columns.join(", ")))
        })
        .collect()
}

/// What the directory knows of the rows of `page`.
pub(super) const DIRECTORY_JOINS: &str = "LEFT JOIN organizations org ON org.id = page.organization_id
LEFT JOIN users owner ON owner.id = page.workspace_owner_id
LEFT JOIN users actor ON actor.id = page.user_id";

/// How many match in a window, but no more than `limit`.
pub(super) async fn count(
    transaction: &Transaction<'_>,
    filter: &Filter,
    window: Window,
    limit: i64,
) -> Result<i64, StoreError> {
    let mut conditions = Conditions::of(filter);
    conditions.add_span(window.from, window.to);
    let limit = conditions.bind(limit);
    let mut parts = Vec::new();
    if conditions.open {
        parts.push(format!("(SELECT 1 FROM open_connections WHERE {} LIMIT {limit})", conditions.open_sql()));
    }
    if conditions.history {
        parts.push(format!("(SELECT 1 FROM connection_logs WHERE {} LIMIT {limit})", conditions.history_sql()));
    }
    if parts.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "-- count_window\nSELECT count(*) FROM (SELECT 1 FROM (\n{}\n) AS parts LIMIT {limit}) AS capped",
        parts.join("\nUNION ALL\n")
    );
    let rows = query_composed(transaction, &sql, &conditions.parameters()).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}
