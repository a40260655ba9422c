//! The statements that look at one window: its rows in order, and how many match.

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::conditions::{By, Conditions};
use super::entry::COLUMNS;
use super::filter::Filter;
use super::windows::Window;
use crate::StoreError;
use crate::days::day_table;
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

impl Order {
    fn by(self) -> By {
        match self {
            Self::FindThenSort => By::Target,
            Self::Walk => By::Row,
        }
    }
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
    fn conditions(self, filter: &Filter, by: By) -> Conditions {
        match self {
            Self::Span(window) => {
                let mut conditions = Conditions::of(filter, by);
                conditions.add_span(window.from, window.to);
                conditions
            }
            Self::Days(window, _) => {
                let mut conditions = Conditions::of(&filter.within(window), by);
                conditions.add_listed(window.from, window.to);
                conditions
            }
        }
    }

    /// `columns` of the log where `conditions` hold; none in no days. Each day selects for itself: pulling whole tables up out of a
    /// subquery makes planning four times as long.
    fn select(self, columns: &str, conditions: &Conditions) -> Option<String> {
        let from = |table: &str| format!("SELECT {columns} {}", conditions.on(table));
        match self {
            Self::Span(_) => Some(from("connection_logs")),
            Self::Days(_, []) => None,
            Self::Days(_, days) => {
                let selects: Vec<String> = days.iter().map(|day| from(&day_table(*day))).collect();
                Some(selects.join("\nUNION ALL\n"))
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

const SORTED: &str = "ORDER BY connect_time DESC, id DESC";

/// The rows of a place, newest first.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    filter: &Filter,
    place: Place<'_>,
    slice: Slice,
    order: Order,
) -> Result<Vec<Row>, StoreError> {
    let mut conditions = place.conditions(filter, order.by());
    if let Some((time, id)) = slice.after {
        conditions.add_after(time, id);
    }
    let (limit, offset) = (conditions.bind(slice.limit), conditions.bind(slice.offset));
    let Some(select) = place.select(COLUMNS, &conditions) else { return Ok(Vec::new()) };
    let sql = match order {
        Order::Walk => format!("-- walk_window\n{select}\n{SORTED} LIMIT {limit} OFFSET {offset}"),
        Order::FindThenSort => format!(
            "-- read_window\nWITH found ({COLUMNS}) AS MATERIALIZED (\n{select}\n)\n\
             SELECT * FROM found {SORTED} LIMIT {limit} OFFSET {offset}"
        ),
    };
    place.query(transaction, filter, &sql, &conditions).await
}

/// How many match in a place, but no more than `most`, and the slice of them, newest first: in one statement, since planning it is
/// most of what it costs. The slice is of all matches only if there are fewer than `most`.
pub(super) async fn count_and_read(
    transaction: &Transaction<'_>,
    filter: &Filter,
    place: Place<'_>,
    most: i64,
    slice: Slice,
) -> Result<(i64, Vec<Row>), StoreError> {
    let mut conditions = place.conditions(filter, By::Target);
    let after = slice.after.map(|(time, id)| (conditions.bind(time), conditions.bind(id)));
    let after = after.map_or_else(String::new, |(time, id)| format!("WHERE (connect_time, id) < ({time}, {id})"));
    let most = conditions.bind(most);
    let (limit, offset) = (conditions.bind(slice.limit), conditions.bind(slice.offset));
    let Some(select) = place.select(COLUMNS, &conditions) else { return Ok((0, Vec::new())) };
    let sql = format!(
        "-- count_and_read_window\nWITH found ({COLUMNS}) AS MATERIALIZED (\nSELECT * FROM (\n{select}\n) AS parts LIMIT {most})\n\
         SELECT page.*, counted.matches FROM (SELECT count(*) AS matches FROM found) AS counted LEFT JOIN LATERAL (\n\
         SELECT * FROM found {after} {SORTED} LIMIT {limit} OFFSET {offset}) AS page ON true {SORTED}"
    );
    let mut rows = place.query(transaction, filter, &sql, &conditions).await?;
    let matches = rows.first().map(|row| row.try_get("matches")).transpose()?.unwrap_or(0);
    // Nothing of the slice: only the count.
    rows.retain(|row| row.try_get::<_, Option<Uuid>>(0).is_ok_and(|id| id.is_some()));
    Ok((matches, rows))
}

/// How many match in a place, but no more than `limit`.
pub(super) async fn count(
    transaction: &Transaction<'_>,
    filter: &Filter,
    place: Place<'_>,
    limit: i64,
) -> Result<i64, StoreError> {
    let mut conditions = place.conditions(filter, By::Target);
    let limit = conditions.bind(limit);
    let Some(select) = place.select("1", &conditions) else { return Ok(0) };
    let sql = format!(
        "-- count_window\nSELECT count(*) FROM (SELECT 1 FROM (\n{select}\n) AS parts LIMIT {limit}) AS capped"
    );
    let rows = place.query(transaction, filter, &sql, &conditions).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}
