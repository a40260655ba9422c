//! `GET /api/v2/connectionlog`: a page of entries, newest first.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use connlog_model::cursor::Cursor;
use connlog_model::search::Search;
use connlog_store::read::{Count, PageRequest};

use crate::audit::Given;
use crate::auth::Auditor;
use crate::dto::{ConnectionLog, ConnectionLogList};
use crate::error::{ApiError, out_of_reach};
use crate::paging::{self, Paging};
use crate::serve::Service;

/// Answers the list.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog",
    params(
        ("q" = Option<String>, Query, description = "Search: `key:value` pairs, times and other values with `:` or spaces in double quotes"),
        ("limit" = Option<u32>, Query, description = "Most entries of the page: 100 by default or for 0, at most 1000 are given", minimum = 0, maximum = 2_147_483_647),
        ("offset" = Option<u32>, Query, description = "Entries to skip; `after` is faster and shifts less", minimum = 0, maximum = 2_147_483_647),
        ("after" = Option<String>, Query, description = "The `next_cursor` of the page before; not with `offset`"),
        ("after_id" = Option<uuid::Uuid>, Query, description = "Has no effect"),
    ),
    responses(
        (status = 200, description = "A page", body = ConnectionLogList),
    )
)]
pub async fn list(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let paging = Paging::parse(&parameters)?;
    let search = parse_search(&service, &auditor, &parameters).await?;
    let cursor = paging::cursor(&parameters, &search)?;
    let request = PageRequest {
        limit: paging.limit,
        offset: paging.offset,
        after: cursor.map(|cursor| (cursor.time, cursor.id)),
        count_cap: service.limits.count_cap,
        count_budget: service.limits.count_budget,
        scan_budget: service.limits.scan_budget,
        now: service.clock.now(),
    };
    let page = service.reads.page(&search, &auditor.reach(), request).await?;
    let page = page.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
    let next_cursor = page.next.map(|(time, id)| Cursor { time, id, began_at: None }.encode(search.fingerprint()));
    let (count, count_cap) = shown(page.count, service.limits.count_cap);
    let body = ConnectionLogList {
        connection_logs: page.entries.into_iter().map(ConnectionLog::from).collect(),
        count,
        count_cap,
        next_cursor,
        incomplete: page.incomplete,
    };
    Ok((Extension(Given(body.connection_logs.len())), Json(body)).into_response())
}

/// The count and its cap. Clients take a count above its cap for "more than the cap", and any other for exact: so a count
/// that was not finished is one more than the number that was found.
fn shown(count: Count, cap: i64) -> (i64, i64) {
    if count.exact {
        return (count.entries, 0);
    }
    let found = count.entries.clamp(1, cap);
    (found + 1, found)
}

/// The search in `q`.
pub(crate) async fn parse_search(
    service: &Service,
    auditor: &Auditor,
    parameters: &[(String, String)],
) -> Result<Search, ApiError> {
    let query = paging::value(parameters, "q").unwrap_or_default();
    let (search, mut invalid) = Search::read(query).map_err(|invalid| ApiError::invalid_search(vec![invalid]))?;
    if invalid.is_empty() {
        return Ok(search);
    }
    // What only the directory knows to be wrong is reported with the rest. The organization is the first of the keys.
    let unreachable = service.reads.unreachable(&search, &auditor.reach()).await?;
    invalid.splice(0..0, unreachable.as_ref().map(out_of_reach));
    Err(ApiError::invalid_search(invalid))
}
