//! How long history is kept: the grammar of `CODER_CONNECTION_LOGS_RETENTION`.
//!
//! One optional sign, then one or more `number unit` with the units `ns us µs ms s m h d w`, in any order, fractions
//! allowed: `7d`, `1d12h`, `1.5d`, `0`. A day is 24 h, a week 7 d. The grammar is that of Coder's setting of that name.

use std::str::FromStr;

use chrono::TimeDelta;

/// How long history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// For ever: unset, zero or negative.
    Forever,
    /// This long, always positive.
    For(TimeDelta),
}

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration such as 90d, 2w or 1d12h: {cause}")]
pub struct InvalidDuration {
    text: String,
    cause: &'static str,
}

impl FromStr for Retention {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let duration = parse_duration(text)?;
        Ok(if duration > TimeDelta::zero() { Self::For(duration) } else { Self::Forever })
    }
}

/// Parses a duration of the grammar of this module. The range is that of 64-bit nanoseconds, some 292 years.
pub fn parse_duration(text: &str) -> Result<TimeDelta, InvalidDuration> {
    parse_nanos(text).map(TimeDelta::nanoseconds).map_err(|cause| InvalidDuration { text: text.to_owned(), cause })
}

/// Parses a duration longer than zero, for a setting; the error is a text for its user.
pub fn parse_positive_duration(text: &str) -> Result<TimeDelta, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration > TimeDelta::zero() { Ok(duration) } else { Err("must be longer than 0".to_owned()) }
}

fn parse_nanos(text: &str) -> Result<i64, &'static str> {
    let (negative, mut rest) = match text.as_bytes().first() {
        None => return Err("it is empty"),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err("a number is missing");
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        total = total.checked_add(scaled(number, unit_nanos(unit)?)?).ok_or("it is too long")?;
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| "it is too long")
}

fn unit_nanos(unit: &str) -> Result<i128, &'static str> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 24 * 3_600 * 1_000_000_000,
        "w" => 7 * 24 * 3_600 * 1_000_000_000,
        "" => return Err("a unit is missing"),
        _ => return Err("its units are ns, us, ms, s, m, h, d and w"),
    })
}

/// `number`, which may have a fraction, times `unit`, rounded down to the nanosecond.
fn scaled(number: &str, unit: i128) -> Result<i128, &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err("a number is missing");
    }
    if fraction.contains('.') {
        return Err("a number has two points");
    }
    let parse =
        |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<i128>().map_err(|_| "it is too long") };
    // Digits beyond the fifteenth are below a nanosecond for every unit up to a week.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(15));
    let whole = parse(whole)?.checked_mul(unit).ok_or("it is too long")?;
    whole.checked_add(parse(fraction)? * unit / scale).ok_or("it is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;

    #[test]
    fn durations_of_the_grammar() {
        for (text, seconds) in [
            ("90d", 90 * DAY),
            ("7d", 7 * DAY),
            ("2w", 14 * DAY),
            ("1d12h", 36 * HOUR),
            ("12h1d", 36 * HOUR),
            ("1.5d", 36 * HOUR),
            ("1h30m", 5_400),
            ("+1h", HOUR),
            ("-1h", -HOUR),
            (".5h", 1_800),
            ("1.h", HOUR),
            ("60s", 60),
            ("1h1h", 2 * HOUR),
            ("0", 0),
            ("-0", 0),
            ("0d", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(TimeDelta::seconds(seconds)), "{text}");
        }
        for (text, nanos) in
            [("1ns", 1), ("1us", 1_000), ("1µs", 1_000), ("1μs", 1_000), ("1.5ms", 1_500_000), ("0.1ns", 0)]
        {
            assert_eq!(parse_duration(text), Ok(TimeDelta::nanoseconds(nanos)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "90",
            "d",
            "1 d",
            " 1d",
            "1d ",
            "1mo",
            "1M",
            "1y",
            "1.5.5d",
            ".d",
            "-",
            "+",
            "--1d",
            "1d-1h",
            "1e3s",
            "300y",
            "99999999999999999999999999999999999999999w",
            "200000w",
            "９d",
            "ninety days",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn zero_and_negative_keep_for_ever() {
        assert_eq!("0".parse(), Ok(Retention::Forever));
        assert_eq!("-5d".parse(), Ok(Retention::Forever));
        assert_eq!("1d".parse(), Ok(Retention::For(TimeDelta::days(1))));
        assert!("".parse::<Retention>().is_err());
    }
}
