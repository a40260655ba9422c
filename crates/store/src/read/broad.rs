//! Searches that the counts by day answer: how many match, and on which days they are.

use std::collections::{BTreeMap, VecDeque};

use chrono::{NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::search::Status;
use tokio_postgres::Row;

use super::conditions::{By, Conditions};
use super::filter::Filter;
use super::rows::{self, Order, Place, Slice};
use super::windows::Window;
use crate::StoreError;
use crate::days::MAX_DAYS_PER_STATEMENT;
use crate::session::{Transaction, query_composed};

/// So many matches are found and sorted; more are walked.
const FEW: i64 = 2000;

/// How many entries match on each day, exactly.
#[derive(Debug, Default)]
pub(super) struct DayCounts(BTreeMap<NaiveDate, i64>);

impl DayCounts {
    /// Counts: from the counts table, and row by row what of a day lies within the bounds of the search.
    pub(super) async fn of(transaction: &Transaction<'_>, filter: &Filter) -> Result<Self, StoreError> {
        let mut days = BTreeMap::new();
        let whole = whole_days(filter);
        for (day, entries) in counted(transaction, filter).await? {
            let entries = if whole.contains(day) {
                entries
            } else if whole.touches(day) {
                within_day(transaction, filter, day, entries).await?
            } else {
                0
            };
            if entries > 0 {
                days.insert(day, entries);
            }
        }
        Ok(Self(days))
    }

    /// How many match in all.
    pub(super) fn total(&self) -> i64 {
        self.0.values().sum()
    }

    /// The slice, read from the days that have matches and from no others.
    pub(super) async fn read(
        &self,
        transaction: &Transaction<'_>,
        filter: &Filter,
        slice: Slice,
    ) -> Result<Vec<Row>, StoreError> {
        let (mut rows, mut offset) = (Vec::new(), slice.offset);
        let mut days: VecDeque<(NaiveDate, i64)> = self.0.iter().rev().map(|(day, entries)| (*day, *entries)).collect();
        if let Some((time, _)) = slice.after {
            days.retain(|(day, _)| *day <= time.date_naive());
        }
        // Closed days have a list of what is open, others do not.
        let is_closed = |day: NaiveDate| filter.closed_before.is_some_and(|before| day < before.date_naive());
        while let Some((newest, mut matches)) = days.pop_front() {
            let wanted = slice.limit - i64::try_from(rows.len()).unwrap_or(i64::MAX);
            if wanted <= 0 {
                break;
            }
            if matches <= offset {
                offset -= matches;
                continue;
            }
            let mut oldest = newest;
            // As many days as it takes, and a statement can bear.
            while let Some((day, more)) = days.front().copied()
                && matches < wanted + offset
                && (newest - day).num_days().unsigned_abs() < MAX_DAYS_PER_STATEMENT
                && is_closed(day) == is_closed(newest)
            {
                (oldest, matches) = (day, matches + more);
                days.pop_front();
            }
            let window = Window { from: Window::day(oldest).from, to: Window::day(newest).to };
            // Once all matches are found there is nothing more to walk for.
            let limit = wanted.min(matches - offset);
            let part = Slice { limit, offset, after: slice.after };
            let days: Vec<NaiveDate> = self.0.range(oldest..=newest).map(|(day, _)| *day).collect();
            let place = Place::Days(window, &days);
            let is_ongoing = filter.status == Some(Status::Ongoing) && !is_closed(newest);
            let by_targets =
                if is_ongoing && matches <= FEW { filter.by_open_targets(transaction).await? } else { None };
            rows.extend(match &by_targets {
                Some(filter) => rows::read(transaction, filter, place, part, Order::FindThenSort).await?,
                None if is_ongoing || matches > FEW => {
                    rows::read(transaction, filter, Place::Span(window), part, Order::Walk).await?
                }
                None => rows::read(transaction, filter, place, part, Order::FindThenSort).await?,
            });
            offset = (offset - matches).max(0);
        }
        Ok(rows)
    }
}

/// The days of a search.
struct Days {
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

fn whole_days(filter: &Filter) -> Days {
    Days { after: filter.connected_after, before: filter.connected_before }
}

impl Days {
    fn contains(&self, day: NaiveDate) -> bool {
        let Window { from, to } = Window::day(day);
        // The last microsecond of the day is in: the bounds are inclusive.
        self.after.is_none_or(|after| after <= from)
            && self.before.is_none_or(|before| before >= to - TimeDelta::microseconds(1))
    }

    fn touches(&self, day: NaiveDate) -> bool {
        let Window { from, to } = Window::day(day);
        self.after.is_none_or(|after| after < to) && self.before.is_none_or(|before| before >= from)
    }
}

/// How many entries each day has, as far as the counts tell.
pub(super) async fn counted(
    transaction: &Transaction<'_>,
    filter: &Filter,
) -> Result<Vec<(NaiveDate, i64)>, StoreError> {
    let mut conditions = Conditions::of_counts(filter);
    if let Some(after) = filter.connected_after {
        conditions.add("day >= ?", after.date_naive());
    }
    if let Some(before) = filter.connected_before {
        conditions.add("day <= ?", before.date_naive());
    }
    let counted = match filter.status {
        None => "entries",
        Some(Status::Completed) => "ended",
        Some(Status::Ongoing) => "entries - ended",
    };
    let sql = format!(
        "-- count_days\nSELECT day, sum({counted})::bigint AS entries FROM connection_log_counts WHERE {} GROUP BY day",
        conditions.sql()
    );
    let rows = query_composed(transaction, &sql, &conditions.parameters()).await?;
    rows.iter().map(|row| Ok((row.try_get("day")?, row.try_get("entries")?))).collect()
}

/// One day that a bound cuts, counted row by row on the shorter side of the cut.
async fn within_day(
    transaction: &Transaction<'_>,
    filter: &Filter,
    day: NaiveDate,
    of_day: i64,
) -> Result<i64, StoreError> {
    let whole = Window::day(day);
    let after = filter.connected_after.unwrap_or(whole.from).max(whole.from);
    let before = filter.connected_before.map_or(whole.to, |before| before + TimeDelta::microseconds(1)).min(whole.to);
    let inside = before - after;
    let unbounded = Filter { connected_after: None, connected_before: None, ..filter.clone() };
    if inside * 2 <= whole.to - whole.from {
        return count_in(transaction, &unbounded, after, before.max(after)).await;
    }
    let outside = count_in(transaction, &unbounded, whole.from, after).await?
        + count_in(transaction, &unbounded, before, whole.to).await?;
    Ok(of_day - outside)
}

async fn count_in(
    transaction: &Transaction<'_>,
    filter: &Filter,
    from: Timestamp,
    to: Timestamp,
) -> Result<i64, StoreError> {
    if from >= to {
        return Ok(0);
    }
    let mut conditions = Conditions::of(filter, By::Row);
    conditions.add_span(from, to);
    let sql = format!("-- count_span\nSELECT count(*) AS entries {}", conditions.on("connection_logs"));
    let rows = query_composed(transaction, &sql, &conditions.parameters()).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}
