//! How many entries match: from the counts where they answer, else row by row up to a cap.

use connlog_model::method::Method;
use connlog_model::search::Status;
use deadpool_postgres::Transaction;

use super::conditions::Conditions;
use super::filter::Filter;
use super::page::{Window, Windows};
use crate::StoreError;
use crate::session::query;

/// A number of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many match; if not exact, one more than the cap.
    pub entries: i64,
    /// Whether that is all.
    pub exact: bool,
}

pub(super) async fn count(
    transaction: &Transaction<'_>,
    filter: &Filter,
    windows: Windows,
    cap: i64,
) -> Result<Count, StoreError> {
    if filter.is_broad() {
        let entries = open(transaction, filter).await? + broad(transaction, filter).await?;
        return Ok(Count { entries, exact: true });
    }
    let mut entries = 0;
    for window in windows {
        entries += in_window(transaction, filter, window, cap + 1 - entries).await?;
        if entries > cap {
            return Ok(Count { entries, exact: false });
        }
    }
    Ok(Count { entries, exact: true })
}

/// Entries of one window, but no more than `limit`.
pub(super) async fn in_window(
    transaction: &Transaction<'_>,
    filter: &Filter,
    window: Window,
    limit: i64,
) -> Result<i64, StoreError> {
    let mut conditions = Conditions::of(filter);
    conditions.add("connect_time >= ?", window.from);
    conditions.add("connect_time < ?", window.to);
    let limit = conditions.bind(limit);
    let condition = conditions.sql();
    let mut parts = Vec::new();
    if conditions.open {
        parts.push(format!("(SELECT 1 FROM open_connections WHERE {condition} LIMIT {limit})"));
    }
    if conditions.history {
        parts.push(format!("(SELECT 1 FROM connection_logs WHERE {condition} LIMIT {limit})"));
    }
    let sql = format!(
        "-- count_window\nSELECT count(*) FROM (SELECT 1 FROM (\n{}\n) AS parts LIMIT {limit}) AS capped",
        parts.join("\nUNION ALL\n")
    );
    one(transaction, &sql, &conditions).await
}

async fn open(transaction: &Transaction<'_>, filter: &Filter) -> Result<i64, StoreError> {
    let conditions = Conditions::of(filter);
    if !conditions.open {
        return Ok(0);
    }
    let sql = format!("-- count_open\nSELECT count(*) FROM open_connections WHERE {}", conditions.sql());
    one(transaction, &sql, &conditions).await
}

async fn broad(transaction: &Transaction<'_>, filter: &Filter) -> Result<i64, StoreError> {
    if filter.status == Some(Status::Ongoing) {
        return Ok(0);
    }
    let mut conditions = Conditions::default();
    if let Some(ids) = &filter.organizations {
        conditions.add("organization_id = ANY(?)", ids.clone());
    }
    conditions.add_kinds(filter);
    if filter.status == Some(Status::Completed) {
        let sessions: Vec<i16> = Method::ALL.into_iter().filter(|method| !method.is_web()).map(Method::code).collect();
        conditions.add("method = ANY(?)", sessions);
    }
    let sql = format!(
        "-- count_broad\nSELECT coalesce(sum(entries), 0)::bigint FROM connection_log_counts WHERE {}",
        conditions.sql()
    );
    one(transaction, &sql, &conditions).await
}

async fn one(transaction: &Transaction<'_>, sql: &str, conditions: &Conditions) -> Result<i64, StoreError> {
    let rows = query(transaction, sql, &conditions.parameters()).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}
