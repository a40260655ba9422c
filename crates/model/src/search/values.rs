//! Reading the values of a split query, collecting every error on the way.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Invalid, KEYS, UserRef};
use crate::clock::{Timestamp, truncate_to_micros};
use crate::quote::quote;
use crate::retention::parse_positive_duration;

/// Names at most this far from an unknown key are suggested (Jaro-Winkler similarity).
const SUGGESTION_SIMILARITY: f64 = 0.8;

/// To which microsecond a finer time goes, so that an inclusive bound stays exact.
#[derive(Clone, Copy)]
pub(super) enum Rounding {
    Up,
    Down,
}

/// The values of a query, taken key by key.
pub(super) struct Reader {
    values: BTreeMap<String, Vec<String>>,
    invalid: Vec<Invalid>,
}

impl Reader {
    pub(super) fn new(terms: Vec<(String, String)>) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in terms {
            values.entry(key).or_default().push(value);
        }
        Self { values, invalid: Vec::new() }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let mut values = self.values.remove(key)?;
        if values.len() > 1 {
            let detail = format!(
                "Query param {key:?} provided more than once, found {} times. Only provide 1 instance of this query param.",
                values.len()
            );
            self.reject(key, detail);
            return None;
        }
        values.pop().filter(|value| !value.is_empty())
    }

    pub(super) fn user(&mut self, key: &'static str) -> Option<UserRef> {
        self.text(key).map(|name| if name == "me" { UserRef::Me } else { UserRef::Name(name) })
    }

    pub(super) fn one_of<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.text(key)?;
        let found = choices.iter().find(|choice| choice.0 == value).map(|choice| choice.1);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
            let detail = format!(
                "Query param {key:?} has invalid value: {} is not a valid value. One of: {}",
                quote(&value),
                names.join(", ")
            );
            self.reject(key, detail);
        }
        found
    }

    pub(super) fn uuid(&mut self, key: &'static str) -> Option<Uuid> {
        let value = self.text(key)?;
        let parsed = Uuid::try_parse(&value).ok();
        if parsed.is_none() {
            self.reject(key, format!("Query param {key:?} must be a valid uuid"));
        }
        parsed
    }

    pub(super) fn time(&mut self, key: &'static str, rounding: Rounding) -> Option<Timestamp> {
        let value = self.text(key)?;
        match DateTime::parse_from_rfc3339(&value.to_uppercase()) {
            Ok(time) => Some(round(time.with_timezone(&Utc), rounding)),
            Err(error) => {
                let detail = format!(
                    "Query param {key:?} must be a valid date format (2006-01-02T15:04:05.999999999Z07:00): {error}"
                );
                self.reject(key, detail);
                None
            }
        }
    }

    /// A value that parses itself; `what` says what it must be.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &'static str, what: &str) -> Option<T> {
        let value = self.text(key)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.reject(key, format!("Query param {key:?} must be {what}"));
        }
        parsed
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<TimeDelta> {
        let value = self.text(key)?;
        match parse_positive_duration(&value) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.reject(key, format!("Query param {key:?} must be a duration such as 90m or 2h30m: {error}"));
                None
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<Invalid> {
        for key in std::mem::take(&mut self.values).into_keys() {
            let mut detail = format!("{} is not a valid query param", quote(&key));
            if let Some(similar) = most_similar(&key) {
                detail = format!("{detail}. Did you mean {similar:?}?");
            }
            self.invalid.push(Invalid { field: key, detail });
        }
        self.invalid
    }

    fn reject(&mut self, key: &str, detail: String) {
        self.invalid.push(Invalid { field: key.to_owned(), detail });
    }
}

fn round(time: Timestamp, rounding: Rounding) -> Timestamp {
    let floor = truncate_to_micros(time);
    match rounding {
        Rounding::Up if floor < time => floor + TimeDelta::microseconds(1),
        Rounding::Up | Rounding::Down => floor,
    }
}

fn most_similar(key: &str) -> Option<&'static str> {
    KEYS.into_iter()
        .map(|known| (strsim::jaro_winkler(key, known), known))
        .filter(|(similarity, _)| *similarity >= SUGGESTION_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
