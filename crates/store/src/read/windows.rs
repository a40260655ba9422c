//! Windows of days: what one statement looks at.
//!
//! A statement over all of the log starts a scan in each partition and plans each of them; one over a few days costs a
//! fraction of a millisecond. So it is walked newest first, a few days at a time, and more as long as little is found.

use std::time::Duration;

use chrono::{Days, NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;

use super::filter::Filter;
use crate::StoreError;
use crate::days::{MAX_DAYS_PER_STATEMENT, start_of};
use crate::session::{Transaction, query};

/// Days of the first, newest window; each further one is four times as long.
const FIRST_WINDOW_DAYS: u64 = 2;
/// A scan looks at so much at first, and never at less.
const FIRST_SCAN: TimeDelta = TimeDelta::hours(6);
const SHORTEST_SCAN: TimeDelta = TimeDelta::minutes(5);
/// A statement of a scan that took less makes the next one twice as long.
const QUICK: Duration = Duration::from_millis(30);
/// One that took more makes the next one half as long.
const SLOW: Duration = Duration::from_millis(120);

/// A span of time, `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// The days that a snapshot has, oldest first.
#[derive(Debug)]
pub(super) struct Calendar(Vec<NaiveDate>);

const CALENDAR: &str = "-- calendar
SELECT ARRAY(SELECT right(child.relname, 8) FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
             WHERE inhparent = 'connection_logs'::regclass AND NOT inhdetachpending) AS days";

impl Calendar {
    pub(super) async fn of(transaction: &Transaction<'_>) -> Result<Self, StoreError> {
        let rows = query(transaction, CALENDAR, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Inconsistent("a list has no row".to_owned()))?;
        let days: Vec<&str> = row.try_get("days")?;
        let mut days: Vec<NaiveDate> =
            days.iter().filter_map(|day| NaiveDate::parse_from_str(day, "%Y%m%d").ok()).collect();
        days.sort_unstable();
        Ok(Self(days))
    }

    /// Leaves the days out that `is_wanted` does not hold for.
    pub(super) fn keep(&mut self, is_wanted: impl Fn(NaiveDate) -> bool) {
        self.0.retain(|day| is_wanted(*day));
    }

    /// All days that can have a match of `filter`; none if there is nothing.
    pub(super) fn window(&self, filter: &Filter) -> Option<Window> {
        let (first, last) = (*self.0.first()?, *self.0.last()?);
        let first = filter.connected_after.map_or(first, |after| after.date_naive().max(first));
        let last = filter.connected_before.map_or(last, |before| before.date_naive().min(last));
        let to = start_of(last.succ_opt().unwrap_or(NaiveDate::MAX));
        Some(Window { from: start_of(first), to }).filter(|window| window.from < window.to)
    }

    /// Those of some days that there are.
    pub(super) fn among(&self, days: impl IntoIterator<Item = NaiveDate>) -> Vec<NaiveDate> {
        days.into_iter().filter(|day| self.0.binary_search(day).is_ok()).collect()
    }

    /// The days that `window` touches.
    pub(super) fn days(&self, window: Window) -> &[NaiveDate] {
        let first = self.0.partition_point(|day| Window::day(*day).to <= window.from);
        let end = self.0.partition_point(|day| start_of(*day) < window.to);
        self.0.get(first..end).unwrap_or_default()
    }
}

impl Window {
    /// How many days it touches.
    pub(super) fn days(self) -> i64 {
        (self.to - self.from + TimeDelta::days(1) - TimeDelta::microseconds(1)).num_days()
    }

    /// The part up to and including `time`.
    pub(super) fn until(self, time: Timestamp) -> Option<Self> {
        let to = self.to.min(time + TimeDelta::microseconds(1));
        (self.from < to).then_some(Self { to, ..self })
    }

    /// A day.
    pub(super) fn day(day: NaiveDate) -> Self {
        Self { from: start_of(day), to: start_of(day.succ_opt().unwrap_or(NaiveDate::MAX)) }
    }

    /// Its parts, newest first, growing.
    pub(super) fn parts(self) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut days = FIRST_WINDOW_DAYS;
        let mut to = self.to;
        while to > self.from {
            // At the boundaries of days, so that no partition is in two windows.
            let last = (to - TimeDelta::microseconds(1)).date_naive();
            let from = start_of(last.checked_sub_days(Days::new(days - 1)).unwrap_or(last)).max(self.from);
            parts.push(Self { from, to });
            to = from;
            days = (days * 4).min(MAX_DAYS_PER_STATEMENT);
        }
        parts
    }
}

/// The windows of a scan, newest first, whose lengths follow from how long the ones before took.
#[derive(Debug)]
pub(super) struct Scan {
    whole: Option<Window>,
    length: TimeDelta,
}

impl Scan {
    pub(super) fn of(whole: Option<Window>) -> Self {
        Self { whole, length: FIRST_SCAN }
    }

    /// The next window; none at the end.
    pub(super) fn window(&mut self) -> Option<Window> {
        let whole = self.whole?;
        Some(Window { from: (whole.to - self.length).max(whole.from), to: whole.to })
    }

    /// Notes that everything from `from` on is dealt with, in a statement that took `elapsed`.
    pub(super) fn done(&mut self, from: Timestamp, elapsed: Duration) {
        let longest = TimeDelta::days(i64::try_from(MAX_DAYS_PER_STATEMENT).unwrap_or(1) - 1);
        if elapsed < QUICK {
            self.length = (self.length * 2).min(longest);
        } else if elapsed > SLOW {
            self.length = (self.length / 2).max(SHORTEST_SCAN);
        }
        self.whole = self.whole.and_then(|whole| (whole.from < from).then_some(Window { to: from, ..whole }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Timestamp {
        start_of(text.parse().expect("a date"))
    }

    #[test]
    fn parts_cover_a_window_without_overlap_and_grow() {
        let whole = Window { from: day("2026-01-01"), to: day("2026-07-01") };
        let parts = whole.parts();
        let days: Vec<i64> = parts.iter().map(|part| (part.to - part.from).num_days()).collect();
        assert_eq!(days, [2, 8, 32, 60, 60, 19]);
        assert_eq!((parts[0].to, parts[5].from), (whole.to, whole.from));
        assert!(parts.windows(2).all(|pair| pair[0].from == pair[1].to));
    }

    #[test]
    fn parts_of_a_window_that_ends_within_a_day_lie_at_boundaries_of_days() {
        let to = day("2026-07-01") + TimeDelta::hours(5);
        let parts = Window { from: day("2026-06-01"), to }.parts();
        assert_eq!((parts[0].from, parts[0].to), (day("2026-06-30"), to));
    }

    #[test]
    fn a_scan_goes_faster_where_there_is_little_and_slower_where_there_is_much() {
        let whole = Window { from: day("2026-01-01"), to: day("2026-07-01") };
        let mut scan = Scan::of(Some(whole));
        let mut lengths = Vec::new();
        for elapsed in [1, 1, 500, 60].map(Duration::from_millis) {
            let window = scan.window().expect("there is more");
            lengths.push((window.to - window.from).num_hours());
            scan.done(window.from, elapsed);
        }
        assert_eq!(lengths, [6, 12, 24, 12]);
        let mut windows = 0;
        while let Some(window) = scan.window() {
            scan.done(window.from, Duration::ZERO);
            windows += 1;
        }
        assert!((8..20).contains(&windows), "{windows}");
    }
}
