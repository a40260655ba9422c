//! The statements that look at one window: its entries in order, and how many match.

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::conditions::Conditions;
use super::entry::{self, Entry, HISTORY_ONLY, SHARED_COLUMNS};
use super::filter::Filter;
use super::whose;
use super::windows::Window;
use crate::StoreError;
use crate::partitions::day_table;
use crate::session::{Transaction, query_composed, query_planned_once};

/// How the matches of a window are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All matches are found, by whatever index, and then sorted. For few: the planner, told of a limit, would walk the
    /// time index in the hope of an early end, which does not come.
    FindThenSort,
    /// The time index is walked until there are enough. For many.
    Walk,
}

/// Where matches are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// In a span of time: the planner finds the partitions.
    Span(Window),
    /// On whole days, whose partitions are named: without a condition on the time, an index alone can count.
    Days(Window, &'a [NaiveDate]),
}

impl Place<'_> {
    fn conditions(self, filter: &Filter, order: Order) -> Conditions {
        match self {
            Self::Span(window) => {
                let mut conditions = match order {
                    Order::FindThenSort => Conditions::of(filter),
                    Order::Walk => Conditions::of_walk(filter),
                };
                conditions.add_span(window.from, window.to);
                conditions
            }
            Self::Days(window, days) => {
                let mut conditions = Conditions::of_open_and(&filter.within(window), !days.is_empty());
                conditions.add_open_span(window.from, window.to);
                conditions
            }
        }
    }

    /// `columns` of history where `conditions` hold. Each day selects for itself: pulling whole tables up out of a
    /// subquery makes planning four times as long.
    fn history(self, columns: &str, conditions: &Conditions) -> String {
        let from = |table: &str| format!("SELECT {columns} {}", conditions.on_history(table));
        match self {
            Self::Span(_) => from("connection_logs"),
            Self::Days(_, days) => {
                let selects: Vec<String> = days.iter().map(|day| from(&day_table(*day))).collect();
                selects.join("\nUNION ALL\n")
            }
        }
    }

    async fn query(
        self,
        transaction: &Transaction<'_>,
        filter: &Filter,
        sql: &str,
        conditions: &Conditions,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            // One index to choose from: a plan holds for all parameters, and planning 90 days was most of the time.
            Self::Days(..) if filter.is_one_look_up() => {
                query_planned_once(transaction, sql, &conditions.parameters()).await
            }
            _ => query_composed(transaction, sql, &conditions.parameters()).await,
        }
    }
}

/// Which of the matches are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) limit: i64,
    pub(super) offset: i64,
    /// Only what comes after this, in the order of pages.
    pub(super) after: Option<(Timestamp, Uuid)>,
}

/// The entries of a place, newest first.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    filter: &Filter,
    place: Place<'_>,
    slice: Slice,
    order: Order,
) -> Result<Vec<Entry>, StoreError> {
    let mut conditions = place.conditions(filter, order);
    if let Some((time, id)) = slice.after {
        conditions.add_after(time, id);
    }
    let reach = conditions.bind(slice.limit.saturating_add(slice.offset));
    let (limit, offset) = (conditions.bind(slice.limit), conditions.bind(slice.offset));
    let sorted = "ORDER BY connect_time DESC, id DESC";
    let columns = entry::columns();
    let mut materialized = Vec::new();
    let mut parts = Vec::new();
    for (table, select) in selects(&conditions, place) {
        match order {
            Order::Walk => parts.push(format!("({select}\n{sorted} LIMIT {reach})")),
            Order::FindThenSort => {
                materialized.push(format!("of_{table} ({columns}) AS MATERIALIZED (\n{select})"));
                parts.push(format!("(SELECT * FROM of_{table} {sorted} LIMIT {reach})"));
            }
        }
    }
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let with = if materialized.is_empty() { String::new() } else { format!("WITH {}\n", materialized.join(",\n")) };
    let sql = format!(
        "-- read_window\n{with}SELECT * FROM (\n{}\n) AS parts\n{sorted} LIMIT {limit} OFFSET {offset}",
        parts.join("\nUNION ALL\n")
    );
    whose::entries(transaction, &place.query(transaction, filter, &sql, &conditions).await?).await
}

/// The tables that can have matches, each with the statement that finds them in `place`, with the columns of a page.
pub(super) fn selects(conditions: &Conditions, place: Place<'_>) -> Vec<(&'static str, String)> {
    let mut selects = Vec::new();
    if conditions.open {
        let absent = HISTORY_ONLY.map(|(_, absent)| absent).join(", ");
        let condition = conditions.open_sql();
        let sql = format!("SELECT {SHARED_COLUMNS}, {absent} FROM open_connections WHERE {condition}");
        selects.push(("open_connections", sql));
    }
    if conditions.history {
        selects.push(("connection_logs", place.history(&entry::columns(), conditions)));
    }
    selects
}

/// How many match in a place, but no more than `limit`.
pub(super) async fn count(
    transaction: &Transaction<'_>,
    filter: &Filter,
    place: Place<'_>,
    limit: i64,
) -> Result<i64, StoreError> {
    let mut conditions = place.conditions(filter, Order::FindThenSort);
    let limit = conditions.bind(limit);
    let mut parts = Vec::new();
    if conditions.open {
        parts.push(format!("(SELECT 1 FROM open_connections WHERE {} LIMIT {limit})", conditions.open_sql()));
    }
    if conditions.history {
        parts.push(format!("({} LIMIT {limit})", place.history("1", &conditions)));
    }
    if parts.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "-- count_window\nSELECT count(*) FROM (SELECT 1 FROM (\n{}\n) AS parts LIMIT {limit}) AS capped",
        parts.join("\nUNION ALL\n")
    );
    let rows = place.query(transaction, filter, &sql, &conditions).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}
