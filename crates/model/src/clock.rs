//! Where the time comes from: the system, or a test that moves it.
//!
//! Every time that connlog stores is UTC and truncated to the microsecond, which is what PostgreSQL keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// A point in time, UTC. Stored ones are whole microseconds.
pub type Timestamp = DateTime<Utc>;

/// An event that the log got more than this after it happened is late: a backdated beginning or end is visible as such.
pub const LATE: TimeDelta = TimeDelta::minutes(5);

/// Drops what is finer than a microsecond.
pub fn truncate_to_micros(time: Timestamp) -> Timestamp {
    time.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(time)
}

/// A time as the API and the service log show it: RFC 3339, UTC, with as many fractional digits as it needs.
pub fn rfc3339(time: Timestamp) -> String {
    let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    let nanos = time.timestamp_subsec_nanos();
    if nanos > 0 {
        text.push('.');
        text.push_str(format!("{nanos:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// A source of the current time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_micros: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The current time, to the microsecond.
    pub fn now(&self) -> Timestamp {
        truncate_to_micros(Utc::now() + TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed)))
    }

    /// Moves this clock and all its clones by `by`, which may be negative. Tests use it to let hours pass.
    pub fn advance(&self, by: TimeDelta) {
        self.offset_micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together_and_times_are_whole_microseconds() {
        let clock = Clock::system();
        let twin = clock.clone();
        let before = twin.now();
        clock.advance(TimeDelta::hours(1));
        assert!(twin.now() - before >= TimeDelta::hours(1));
        assert_eq!(twin.now().timestamp_subsec_nanos() % 1000, 0);
    }

    #[test]
    fn fractions_are_shown_without_trailing_zeros() {
        let at = |micros| DateTime::from_timestamp_micros(micros).unwrap();
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(100_000)), "1970-01-01T00:00:00.1Z");
        assert_eq!(rfc3339(at(1)), "1970-01-01T00:00:00.000001Z");
    }

    #[test]
    fn truncation_also_holds_before_the_epoch() {
        let time = DateTime::from_timestamp(-1, 999_999_999).unwrap();
        assert_eq!(truncate_to_micros(time).timestamp_subsec_nanos(), 999_999_000);
    }
}
