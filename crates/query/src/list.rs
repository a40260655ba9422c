//! `GET /api/v2/connectionlog`: a page of entries, newest first.

use axum::Json;
use axum::extract::{Query, State};
use connlog_model::cursor::Cursor;
use connlog_model::quote::quote;
use connlog_model::search::{Invalid, Search};
use connlog_store::read::{PageRequest, Unreachable};

use crate::auth::Auditor;
use crate::dto::{ConnectionLog, ConnectionLogList};
use crate::error::ApiError;
use crate::paging::{self, Paging};
use crate::serve::Service;

/// Answers the list.
pub async fn list(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<ConnectionLogList>, ApiError> {
    let paging = Paging::parse(&parameters)?;
    let query = paging::value(&parameters, "q").unwrap_or_default();
    let (search, mut invalid) = Search::read(query).map_err(|invalid| ApiError::invalid_search(vec![invalid]))?;
    if !invalid.is_empty() {
        // What only the directory knows to be wrong is reported with the rest. The organization is the first of the keys.
        let unreachable = service.store.unreachable(&search, &auditor.reach()).await?;
        invalid.splice(0..0, unreachable.as_ref().map(out_of_reach));
        return Err(ApiError::invalid_search(invalid));
    }
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
    let page = service.store.page(&search, &auditor.reach(), request).await?;
    let page = page.map_err(|unreachable| ApiError::invalid_search(vec![out_of_reach(&unreachable)]))?;
    let next_cursor = page.next.map(|(time, id)| Cursor { time, id, began_at: None }.encode(search.fingerprint()));
    Ok(Json(ConnectionLogList {
        connection_logs: page.entries.into_iter().map(ConnectionLog::from).collect(),
        count: page.count.entries,
        count_cap: if page.count.exact { 0 } else { service.limits.count_cap },
        next_cursor,
        incomplete: page.incomplete,
    }))
}

/// An organization that does not exist, or is out of the token's reach.
fn out_of_reach(unreachable: &Unreachable) -> Invalid {
    let name = quote(&unreachable.organization);
    Invalid {
        field: "organization".to_owned(),
        detail: format!(
            "Query param \"organization\" has invalid value: organization {name} either does not exist, or you are \
             unauthorized to view it"
        ),
    }
}
