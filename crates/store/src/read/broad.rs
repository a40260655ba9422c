//! Searches that the counts by day answer: how many match, and on which days they are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;

use super::conditions::Conditions;
use super::entry::Entry;
use super::filter::Filter;
use super::rows::{self, Order, Place, Slice};
use super::windows::Window;
use crate::StoreError;
use crate::partitions::MAX_DAYS_PER_STATEMENT;
use crate::session::{Transaction, query_composed};

/// So many matches are found and sorted; more are walked.
const FEW: i64 = 2000;

/// How many entries match on each day, exactly.
#[derive(Debug, Default)]
pub(super) struct DayCounts {
    days: BTreeMap<NaiveDate, i64>,
    /// The days on which history has any.
    history: BTreeSet<NaiveDate>,
}

impl DayCounts {
    /// Counts: history from the counts table, the open set as it is, and row by row what of a day lies within the bounds of
    /// the search.
    pub(super) async fn of(transaction: &Transaction<'_>, filter: &Filter) -> Result<Self, StoreError> {
        let (mut days, mut of_history) = (BTreeMap::<NaiveDate, i64>::new(), BTreeSet::new());
        let whole = whole_days(filter);
        // In one go: neither waits for the answer to the other.
        let (closed, ongoing) = tokio::join!(history(transaction, filter), open(transaction, filter));
        for (day, entries) in closed? {
            let entries = if whole.contains(day) {
                entries
            } else if whole.touches(day) {
                within_day(transaction, filter, day, entries).await?
            } else {
                0
            };
            if entries > 0 {
                *days.entry(day).or_default() += entries;
                of_history.insert(day);
            }
        }
        for (day, entries) in ongoing? {
            *days.entry(day).or_default() += entries;
        }
        Ok(Self { days, history: of_history })
    }

    /// How many match in all.
    pub(super) fn total(&self) -> i64 {
        self.days.values().sum()
    }

    /// The slice, read from the days that have matches and from no others.
    pub(super) async fn read(
        &self,
        transaction: &Transaction<'_>,
        filter: &Filter,
        slice: Slice,
    ) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut offset) = (Vec::new(), slice.offset);
        let mut days: VecDeque<(NaiveDate, i64)> =
            self.days.iter().rev().map(|(day, entries)| (*day, *entries)).collect();
        if let Some((time, _)) = slice.after {
            days.retain(|(day, _)| *day <= time.date_naive());
        }
        while let Some((newest, mut matches)) = days.pop_front() {
            let wanted = slice.limit - i64::try_from(entries.len()).unwrap_or(i64::MAX);
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
            {
                (oldest, matches) = (day, matches + more);
                days.pop_front();
            }
            let window = Window { from: Window::day(oldest).from, to: Window::day(newest).to };
            let part = Slice { limit: wanted, offset, after: slice.after };
            entries.extend(if matches <= FEW {
                let days: Vec<NaiveDate> = self.history.range(oldest..=newest).copied().collect();
                rows::read(transaction, filter, Place::Days(window, &days), part, Order::FindThenSort).await?
            } else {
                rows::read(transaction, filter, Place::Span(window), part, Order::Walk).await?
            });
            offset = (offset - matches).max(0);
        }
        Ok(entries)
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

const HISTORY: &str = "SELECT day, sum(entries)::bigint AS entries FROM connection_log_counts";

async fn history(transaction: &Transaction<'_>, filter: &Filter) -> Result<Vec<(NaiveDate, i64)>, StoreError> {
    if !Conditions::of(filter).history {
        return Ok(Vec::new());
    }
    let mut conditions = Conditions::of_counts(filter);
    if let Some(after) = filter.connected_after {
        conditions.add("day >= ?", after.date_naive());
    }
    if let Some(before) = filter.connected_before {
        conditions.add("day <= ?", before.date_naive());
    }
    let sql = format!("-- count_days\n{HISTORY} WHERE {} GROUP BY day", conditions.shared_sql());
    by_day(transaction, &sql, &conditions).await
}

async fn open(transaction: &Transaction<'_>, filter: &Filter) -> Result<Vec<(NaiveDate, i64)>, StoreError> {
    let conditions = Conditions::of_open(filter);
    if !conditions.open {
        return Ok(Vec::new());
    }
    let sql = format!(
        "-- count_open_days\nSELECT (connect_time AT TIME ZONE 'UTC')::date AS day, count(*) AS entries\n\
         FROM open_connections WHERE {} GROUP BY 1",
        conditions.open_sql()
    );
    by_day(transaction, &sql, &conditions).await
}

async fn by_day(
    transaction: &Transaction<'_>,
    sql: &str,
    conditions: &Conditions,
) -> Result<Vec<(NaiveDate, i64)>, StoreError> {
    let rows = query_composed(transaction, sql, &conditions.parameters()).await?;
    rows.iter().map(|row| Ok((row.try_get("day")?, row.try_get("entries")?))).collect()
}

/// History of one day that a bound cuts, counted row by row on the shorter side of the cut.
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
        return history_in(transaction, &unbounded, after, before.max(after)).await;
    }
    let outside = history_in(transaction, &unbounded, whole.from, after).await?
        + history_in(transaction, &unbounded, before, whole.to).await?;
    Ok(of_day - outside)
}

async fn history_in(
    transaction: &Transaction<'_>,
    filter: &Filter,
    from: Timestamp,
    to: Timestamp,
) -> Result<i64, StoreError> {
    if from >= to {
        return Ok(0);
    }
    let mut conditions = Conditions::of_history(filter);
    conditions.add_span(from, to);
    let sql = format!("-- count_history\nSELECT count(*) AS entries {}", conditions.on_history("connection_logs"));
    let rows = query_composed(transaction, &sql, &conditions.parameters()).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}
