//! `/export`: the export of a search, with its size before it begins.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use connlog_store::read::PageRequest;
use std::time::Duration;

use super::log::Asked;
use super::page::{Frame, PageError, Viewer, html};
use super::text::{counted, link, number, visible};
use crate::error::ApiError;
use crate::serve::Service;

/// How long counting may take: an export is no hurry.
const COUNT_BUDGET: Duration = Duration::from_secs(5);

/// Nobody has so many entries: only time ends the counting.
const COUNT_CAP: i64 = 1_000_000_000_000;

/// A way to export.
struct Choice {
    name: &'static str,
    what: &'static str,
    href: String,
    file: &'static str,
}

#[derive(Template)]
#[template(path = "export.html")]
struct ExportPage {
    frame: Frame,
    /// The search, for people.
    query: String,
    log: String,
    count: String,
    /// What progress is measured by.
    entries: i64,
    exact: bool,
    choices: Vec<Choice>,
}

/// Offers the formats.
pub(super) async fn export(
    State(service): State<Service>,
    viewer: Viewer,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let now = service.clock.now();
    let (asked, invalid) = Asked::read(&parameters, now);
    if !invalid.is_empty() {
        return Ok(back_to_search(&asked));
    }
    let query = asked.fixed();
    let request = PageRequest {
        count_cap: COUNT_CAP,
        count_budget: COUNT_BUDGET,
        scan_budget: Duration::ZERO,
        ..PageRequest::first(1, now)
    };
    let page = service.reads.page(&asked.search, &viewer.reach(), request).await?;
    let count = page.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?.count;
    let choices = [
        (
            "NDJSON",
            "One JSON object a line, as the API gives entries; the last line says whether it is complete.",
            "ndjson",
            "connection-log.ndjson",
        ),
        ("CSV", "For spreadsheets; the last row says whether it is complete.", "csv", "connection-log.csv"),
        (
            "OCSF",
            "Network Activity events of the Open Cybersecurity Schema Framework, for SIEMs.",
            "ocsf",
            "connection-log.ocsf.ndjson",
        ),
    ];
    let choices = choices.map(|(name, what, format, file)| {
        let href = link("/api/v2/connectionlog/export", &[("q", &query), ("format", format)]);
        Choice { name, what, href, file }
    });
    let page = ExportPage {
        frame: viewer.frame,
        log: link("/", &[("q", &query)]),
        count: if count.exact {
            counted(count.entries, "entry", "entries")
        } else {
            format!("more than {} entries", number(count.entries))
        },
        query: visible(&query),
        entries: count.entries,
        exact: count.exact,
        choices: choices.into(),
    };
    Ok(html(&page))
}

/// The page that says what is wrong with a search, under the word.
pub(super) fn back_to_search(asked: &Asked) -> Response {
    Redirect::to(&link("/", &[("q", &asked.query), ("range", &asked.range)])).into_response()
}
