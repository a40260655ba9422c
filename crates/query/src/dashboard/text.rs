//! Text for people: what users chose, made harmless; numbers, durations, sizes.

use chrono::TimeDelta;
pub(crate) use connlog_model::quote::visible;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A number with its thousands apart.
pub(crate) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("−{text}") } else { text }
}

/// `1 entry`, `2 entries`.
pub(crate) fn counted(count: i64, one: &str, more: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { more })
}

/// A duration in its two largest units: `2 h 14 m`.
pub(crate) fn duration(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds().max(0);
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(units.len() - 1);
    let (mut rest, mut parts) = (seconds, Vec::new());
    for (place, (name, length)) in units[first..].iter().take(2).enumerate() {
        let count = rest / length;
        rest %= length;
        if count > 0 || place == 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(" ")
}

/// A size in the largest unit of 1024 that it fills.
pub(crate) fn bytes(bytes: i64) -> String {
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let (mut size, mut unit) = (bytes.max(0), None);
    let mut tenths = 0;
    while size >= 1024
        && let Some(next) = units.next()
    {
        (tenths, size, unit) = (size % 1024 * 10 / 1024, size / 1024, Some(*next));
    }
    match unit {
        None => format!("{size} B"),
        Some(unit) if size >= 10 => format!("{size} {unit}"),
        Some(unit) => format!("{size}.{tenths} {unit}"),
    }
}

/// A value as part of a URL's query.
pub(crate) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// A path with parameters; empty ones are left out.
pub(crate) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let pairs = parameters.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// The page of a search.
pub(crate) fn search_link(query: &str) -> String {
    link("/", &[("q", query)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_durations_and_sizes_read_well() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (-12_345, "−12,345")]
        {
            assert_eq!(number(value), text);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 m"),
            (8_040, "2 h 14 m"),
            (86_400, "1 d"),
            (90_061, "1 d 1 h"),
            (3_605, "1 h"),
        ] {
            assert_eq!(duration(TimeDelta::seconds(seconds)), text);
        }
        for (size, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (52_428_800, "50 MiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn a_link_carries_any_search() {
        assert_eq!(link("/", &[("q", ""), ("range", "")]), "/");
        assert_eq!(search_link(r#"workspace:"a&b""#), "/?q=workspace%3A%22a%26b%22");
    }
}
