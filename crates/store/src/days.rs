//! Days of the log: attached before they are written to, in transactions of their own.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use connlog_model::clock::Timestamp;

use crate::{Store, StoreError};

/// Most days, and so partitions, that one statement may touch. Without a bound, a look-up over years of history fills
/// the lock table of the server.
pub(crate) const MAX_DAYS_PER_STATEMENT: u64 = 60;

/// SQLSTATE of `attach_day` for a day that lies below the retention floor.
const BELOW_FLOOR: &str = "CL001";

/// What is known of the days of the log.
#[derive(Debug, Default, Clone)]
pub(crate) struct KnownDays {
    /// Those that were attached at the last look.
    pub(crate) attached: BTreeSet<NaiveDate>,
    /// Days before are closed; none if there was no look yet.
    pub(crate) closed_before: Option<Timestamp>,
}

impl Store {
    /// Makes the missing ones among `days`. A day below the retention floor is passed over: what belongs there will be
    /// refused by the write itself.
    pub async fn attach_days(&self, days: impl IntoIterator<Item = NaiveDate>) -> Result<(), StoreError> {
        let missing: BTreeSet<NaiveDate> = {
            let known = self.days();
            days.into_iter().filter(|day| !known.attached.contains(day)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let client = self.client().await?;
        let mut refused = Ok(());
        for day in missing {
            match client.query("-- attach_day\nSELECT attach_day($1)", &[&day]).await {
                Ok(_) => {}
                Err(error) if error.code().is_some_and(|code| code.code() == BELOW_FLOOR) => continue,
                Err(error) => {
                    let error = StoreError::from(error);
                    if !error.is_refusal() {
                        return Err(error);
                    }
                    // What stands in the way of one day does not keep the others from being made.
                    refused = refused.and(Err(error));
                    continue;
                }
            }
            self.days().attached.insert(day);
        }
        refused
    }

    /// Forgets which days there are, because one turned out to be gone.
    pub(crate) fn forget_days(&self) {
        *self.days() = KnownDays::default();
    }

    /// What is known of days.
    pub(crate) fn days(&self) -> MutexGuard<'_, KnownDays> {
        self.known_days.lock().expect("no one panics while holding the known days")
    }
}

/// The name of the partition of a UTC day, as `day_table` of the schema gives it.
pub(crate) fn day_table(day: NaiveDate) -> String {
    format!("connection_logs_{}", day.format("%Y%m%d"))
}

/// The first instant of a UTC day.
pub(crate) fn start_of(day: NaiveDate) -> Timestamp {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Spans of at most [`MAX_DAYS_PER_STATEMENT`] days that together cover `[earliest, latest]`, newest first, each as
/// `[from, to)` at day boundaries.
pub(crate) fn windows(earliest: Timestamp, latest: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    let first = earliest.date_naive();
    let mut end = latest.date_naive().succ_opt().unwrap_or(NaiveDate::MAX);
    std::iter::from_fn(move || {
        if end <= first {
            return None;
        }
        let start = end.checked_sub_days(Days::new(MAX_DAYS_PER_STATEMENT)).unwrap_or(first).max(first);
        let window = (start_of(start), start_of(end));
        end = start;
        Some(window)
    })
}

/// The UTC day of a time.
pub(crate) fn day_of(time: DateTime<Utc>) -> NaiveDate {
    time.date_naive()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn windows_cover_a_span_without_overlap() {
        let latest = DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z").unwrap().to_utc();
        let all: Vec<_> = windows(latest - TimeDelta::days(150), latest).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].1, start_of(NaiveDate::from_ymd_opt(2026, 3, 2).unwrap()));
        assert!(all.windows(2).all(|pair| pair[0].0 == pair[1].1));
        assert!(all[2].0 <= latest - TimeDelta::days(150));
        assert_eq!(windows(latest, latest).count(), 1);
        assert_eq!(windows(latest + TimeDelta::days(2), latest).count(), 0);
    }
}
