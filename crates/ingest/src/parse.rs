//! Protobuf becomes model: the one place where messages are validated.
//!
//! What can be mended is (an unreadable address is unknown, a long text is cut); what cannot is an [`Invalid`] that names
//! the field. Limits and answers are listed in `proto/README.md`.

mod connection;
mod shrink;
mod web;

use chrono::{DateTime, Datelike as _, TimeDelta};
use connlog_model::clock::{Timestamp, rfc3339, truncate_to_micros};
use prost_types::Timestamp as ProtoTimestamp;
use uuid::Uuid;

pub use self::connection::{Source, connection, from_coder};
pub use self::shrink::{shrink_connection, shrink_reported, shrink_sequenced};
pub use self::web::web;

/// How far ahead of the server's clock an event may be.
const MAX_AHEAD: TimeDelta = TimeDelta::hours(24);

/// Why an event cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Invalid {
    /// An error about `field`.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// The span of times that are accepted.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Now, which stands for an absent time.
    pub now: Timestamp,
    /// The earliest accepted time.
    pub earliest: Timestamp,
}

/// A time, whenever it is.
pub(crate) fn any_time(field: &'static str, time: &ProtoTimestamp) -> Result<Timestamp, Invalid> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let parsed = nanos.and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos)).map(truncate_to_micros);
    // protobuf has times from the year 1 to 9999; nothing was logged before 1970.
    let parsed = parsed.filter(|time| (1970..=9999).contains(&time.year()));
    parsed.ok_or_else(|| Invalid::new(field, "is not a time from 1970 to 9999"))
}

impl Span {
    /// Times from `max_age` before `now` to 24 h after it.
    pub fn new(now: Timestamp, max_age: TimeDelta) -> Self {
        Self { now, earliest: now - max_age }
    }

    fn time(&self, field: &'static str, time: &ProtoTimestamp) -> Result<Timestamp, Invalid> {
        let time = any_time(field, time)?;
        if time < self.earliest {
            return Err(Invalid::new(
                field,
                format!("lies before {}, the earliest accepted time", rfc3339(self.earliest)),
            ));
        }
        if time > self.now + MAX_AHEAD {
            return Err(Invalid::new(field, "lies more than 24 hours in the future"));
        }
        Ok(time)
    }
}

/// A 16-byte id that is not nil.
pub fn required_id(field: &'static str, bytes: &[u8]) -> Result<Uuid, Invalid> {
    let id =
        Uuid::from_slice(bytes).map_err(|_| Invalid::new(field, format!("has {} bytes instead of 16", bytes.len())))?;
    if id.is_nil() { Err(Invalid::new(field, "is nil")) } else { Ok(id) }
}

/// A 16-byte id; empty or nil is none.
pub fn optional_id(field: &'static str, bytes: &[u8]) -> Result<Option<Uuid>, Invalid> {
    if bytes.is_empty() || bytes == [0; 16] { Ok(None) } else { required_id(field, bytes).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_16_bytes_and_are_not_nil() {
        assert!(required_id("id", &[1; 16]).is_ok());
        assert_eq!(required_id("id", &[0; 16]).unwrap_err().reason, "is nil");
        assert_eq!(required_id("id", &[1; 15]).unwrap_err().reason, "has 15 bytes instead of 16");
        assert_eq!(optional_id("id", &[]), Ok(None));
        assert!(optional_id("id", &[1; 3]).is_err());
    }

    #[test]
    fn times_have_bounds_and_are_cut_to_the_microsecond() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let span = Span::new(now, TimeDelta::days(400));
        let at = |seconds, nanos| span.time("timestamp", &ProtoTimestamp { seconds, nanos });
        assert_eq!(at(1_700_000_000, 1_999).unwrap().timestamp_subsec_nanos(), 1_000);
        assert!(at(1_700_000_000 + 86_400, 0).is_ok());
        assert!(at(1_700_000_000 + 86_400, 1_000).is_err());
        assert!(at(1_700_000_000 - 400 * 86_400, 0).is_ok());
        assert!(at(1_700_000_000 - 400 * 86_400 - 1, 999_999_999).is_err());
        for (seconds, nanos) in [(1_700_000_000, -1), (1_700_000_000, 1_000_000_000), (i64::MAX, 0)] {
            assert!(at(seconds, nanos).is_err());
        }
    }
}
