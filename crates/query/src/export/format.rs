//! The formats of an export. Their columns and fields are listed in `crates/query/README.md`.

use bytes::Bytes;
use connlog_model::quote::quote;
use connlog_model::search::Invalid;
use connlog_store::read::Entry;
use serde::Serialize;
use utoipa::ToSchema;

use super::source::Cursors;
use super::{csv, ndjson, ocsf};
use crate::error::ApiError;

/// About how long a row is.
const TYPICAL_ROW_BYTES: usize = 1000;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line, as in the list.
    Ndjson,
    /// RFC 4180.
    Csv,
    /// One event of the Open Cybersecurity Schema Framework a line.
    Ocsf,
}

impl Format {
    pub(super) fn parse(name: Option<&str>) -> Result<Self, ApiError> {
        match name {
            None | Some("ndjson") => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some("ocsf") => Ok(Self::Ocsf),
            Some(other) => {
                let detail = format!(
                    "Query param \"format\" has invalid value: {} is not a valid value. One of: ndjson, csv, ocsf",
                    quote(other)
                );
                Err(ApiError::invalid_parameters(vec![Invalid { field: "format".to_owned(), detail }]))
            }
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf.ndjson",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson | Self::Ocsf => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// What comes before the first row, if anything does.
    pub fn head(self) -> Option<Bytes> {
        (self == Self::Csv).then(|| {
            let mut bytes = Vec::new();
            csv::head(&mut bytes);
            bytes.into()
        })
    }

    /// The bytes of some entries.
    pub(super) fn write(self, entries: Vec<Entry>, cursors: Cursors) -> Bytes {
        let mut bytes = Vec::with_capacity(entries.len() * TYPICAL_ROW_BYTES);
        for entry in entries {
            let cursor = cursors.after(&entry);
            self.write_entry(entry, &cursor, &mut bytes);
        }
        bytes.into()
    }

    /// Writes the row of an entry, whose cursor is given.
    pub fn write_entry(self, entry: Entry, cursor: &str, bytes: &mut Vec<u8>) {
        match self {
            Self::Ndjson => ndjson::write(entry, cursor, bytes),
            Self::Csv => csv::write(&entry, cursor, bytes),
            Self::Ocsf => ocsf::write(&entry, cursor, bytes),
        }
    }

    /// The bytes of the record at the end.
    pub(super) fn end(self, summary: &Summary) -> Bytes {
        let mut bytes = Vec::new();
        match self {
            Self::Ndjson => ndjson::finish(summary, &mut bytes),
            Self::Csv => csv::finish(summary, &mut bytes),
            Self::Ocsf => ocsf::finish(summary, &mut bytes),
        }
        bytes.into()
    }
}

/// The record at the end.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// How many rows there were.
    pub(super) rows: u64,
    /// Whether that is all.
    pub(super) complete: bool,
    /// Up to where the change feed is in it.
    pub(super) position: String,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}
