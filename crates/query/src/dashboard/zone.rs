//! Times in the zone that whoever looks has chosen: UTC, or that of their browser.

use chrono::{DateTime, Datelike as _, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _};
use chrono_tz::Tz;
use connlog_model::clock::{Timestamp, rfc3339};

/// Years that a time can be written in.
const YEARS: std::ops::RangeInclusive<i32> = 2..=9998;

/// A time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone(Tz);

impl Zone {
    pub(crate) const UTC: Self = Self(Tz::UTC);

    /// The zone of that name in the IANA database; UTC if there is none.
    pub(crate) fn named(name: &str) -> Self {
        name.parse().map_or(Self::UTC, Self)
    }

    pub(crate) fn name(self) -> &'static str {
        self.0.name()
    }

    pub(crate) fn is_utc(self) -> bool {
        self == Self::UTC
    }

    pub(crate) fn date(self, time: Timestamp) -> NaiveDate {
        time.with_timezone(&self.0).date_naive()
    }

    /// `14:05:09`.
    pub(crate) fn clock(self, time: Timestamp) -> String {
        time.with_timezone(&self.0).format("%H:%M:%S").to_string()
    }

    /// `2026-11-24 14:05:09.123456 CET`.
    pub(crate) fn full(self, time: Timestamp) -> String {
        let fraction = if time.timestamp_subsec_micros() == 0 { "" } else { "%.6f" };
        time.with_timezone(&self.0).format(&format!("%Y-%m-%d %H:%M:%S{fraction} %Z")).to_string()
    }

    /// `24 Nov 14:05`.
    pub(crate) fn short(self, time: Timestamp) -> String {
        time.with_timezone(&self.0).format("%-d %b %H:%M").to_string()
    }

    /// As a field of type `datetime-local` has it.
    pub(crate) fn field(self, time: Timestamp) -> String {
        time.with_timezone(&self.0).format("%Y-%m-%dT%H:%M").to_string()
    }

    /// What a field of type `datetime-local` says, in this zone. An hour that is there twice is the first; one that a change
    /// of the clock skips is the moment of the change.
    pub(crate) fn parse_field(self, text: &str) -> Option<Timestamp> {
        let formats = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"];
        let naive = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
        YEARS.contains(&naive.date().year()).then(|| self.at(naive).to_utc())
    }

    fn at(self, naive: NaiveDateTime) -> DateTime<Tz> {
        match self.0.from_local_datetime(&naive) {
            LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => time,
            // Clocks skip an hour or two at most.
            LocalResult::None => self.0.from_utc_datetime(&(naive - TimeDelta::hours(2))),
        }
    }
}

/// `Tuesday, 24 November 2026`.
pub(crate) fn day_label(day: NaiveDate) -> String {
    format!("{}, {} {}", day.format("%A"), day.day(), day.format("%B %Y"))
}

/// A time as a page has it: for people, and for programs.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// RFC 3339.
    pub(crate) iso: String,
    pub(crate) text: String,
}

impl Moment {
    pub(crate) fn full(zone: Zone, time: Timestamp) -> Self {
        Self { iso: rfc3339(time), text: zone.full(time) }
    }

    pub(crate) fn clock(zone: Zone, time: Timestamp) -> Self {
        Self { iso: rfc3339(time), text: zone.clock(time) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_its_zone_also_where_clocks_change() {
        let berlin = Zone::named("Europe/Berlin");
        let at = |text| berlin.parse_field(text).map(rfc3339);
        assert_eq!(at("2026-11-24T12:00").as_deref(), Some("2026-11-24T11:00:00Z"));
        assert_eq!(at("2026-07-01T12:00:30").as_deref(), Some("2026-07-01T10:00:30Z"));
        assert_eq!(at("2026-10-25T02:30").as_deref(), Some("2026-10-25T00:30:00Z"), "the first of two");
        assert!(at("2026-03-29T02:30").is_some(), "a time that there is not");
        assert_eq!(at("yesterday"), None);
        assert_eq!(at("-262143-01-01T00:00"), None);
        assert_eq!(Zone::named("Mars/Olympus"), Zone::UTC);
    }

    #[test]
    fn a_moment_is_shown_in_the_zone() {
        let time = "2026-11-24T14:11:49.123456Z".parse().expect("a time");
        assert_eq!(Zone::named("Europe/Berlin").full(time), "2026-11-24 15:11:49.123456 CET");
        assert_eq!(Zone::UTC.full(time), "2026-11-24 14:11:49.123456 UTC");
        assert_eq!(day_label(Zone::UTC.date(time)), "Tuesday, 24 November 2026");
    }
}
