//! `/live`: the tail, as rows that a page can put in.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use connlog_model::clock::Timestamp;
use connlog_store::read::Entry;

use super::row::Row;
use super::zone::{Zone, day_label};
use crate::audit::UseOf;
use crate::auth::Auditor;
use crate::error::ApiError;
use crate::serve::Service;
use crate::tail::{As, follow};

#[derive(Template)]
#[template(path = "row.html")]
struct LiveRow {
    row: Row,
}

/// Streams rows as they are committed.
pub(super) async fn live(
    State(service): State<Service>,
    auditor: Auditor,
    Extension(request_use): Extension<UseOf>,
    headers: HeaderMap,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let form = As::Rows(super::page::zone(&headers));
    follow(service, auditor, request_use, headers, parameters, form).await
}

/// An entry as a page shows it: its day, and its row.
pub(crate) fn render(entry: &Entry, zone: Zone, now: Timestamp) -> serde_json::Value {
    let day = zone.date(entry.connect_time);
    let row = LiveRow { row: Row::of(entry, zone, now) }.render();
    let row = row.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a row cannot be rendered");
        String::new()
    });
    serde_json::json!({ "id": entry.id, "date": day.to_string(), "label": day_label(day), "html": row })
}
