//! `GET /api/v2/connectionlog`: a page of entries, newest first.

use axum::Json;
use axum::extract::{Query, State};
use connlog_model::search::{Invalid, Search};
use connlog_store::read::{PageRequest, Unreachable};
use uuid::Uuid;

use crate::auth::Auditor;
use crate::dto::{ConnectionLog, ConnectionLogList};
use crate::error::ApiError;
use crate::serve::Service;

/// Entries of a page if the caller does not say.
const DEFAULT_LIMIT: i64 = 100;
/// Most entries of a page.
const MAX_LIMIT: i64 = 1000;

/// Answers the list.
pub async fn list(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<ConnectionLogList>, ApiError> {
    let paging = Paging::parse(&parameters)?;
    let search = Search::parse(value(&parameters, "q").unwrap_or_default()).map_err(ApiError::invalid_search)?;
    let request = PageRequest { limit: paging.limit, offset: paging.offset, count_cap: service.count_cap };
    let page = service.store.page(&search, &auditor.reach(), request).await?.map_err(unreachable)?;
    Ok(Json(ConnectionLogList {
        connection_logs: page.entries.into_iter().map(ConnectionLog::from).collect(),
        count: page.count.entries,
        count_cap: if page.count.exact { 0 } else { service.count_cap },
    }))
}

/// An organization that does not exist, or is out of the token's reach.
fn unreachable(unreachable: Unreachable) -> ApiError {
    let name = unreachable.organization;
    ApiError::invalid_search(vec![Invalid {
        field: "organization".to_owned(),
        detail: format!(
            "Query param \"organization\" has invalid value: organization {name:?} either does not exist, or you are unauthorized to view it"
        ),
    }])
}

#[derive(Debug, PartialEq, Eq)]
struct Paging {
    limit: i64,
    offset: i64,
}

impl Paging {
    fn parse(parameters: &[(String, String)]) -> Result<Self, ApiError> {
        let mut invalid = Vec::new();
        // Older clients send after_id; it has no effect, but it must be one.
        if let Some(after_id) = value(parameters, "after_id")
            && Uuid::try_parse(after_id).is_err()
        {
            invalid.push(Invalid {
                field: "after_id".to_owned(),
                detail: "Query param \"after_id\" must be a valid uuid".to_owned(),
            });
        }
        let limit = number(parameters, "limit", &mut invalid);
        let offset = number(parameters, "offset", &mut invalid);
        if !invalid.is_empty() {
            return Err(ApiError::invalid_parameters(invalid));
        }
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) };
        Ok(Self { limit, offset })
    }
}

/// The first value of a parameter; an empty one is none.
fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn number(parameters: &[(String, String)], name: &str, invalid: &mut Vec<Invalid>) -> i64 {
    let Some(text) = value(parameters, name) else { return 0 };
    match text.parse::<i32>() {
        Ok(number) if number >= 0 => i64::from(number),
        outcome => {
            let cause = match outcome {
                Ok(_) => "it is negative".to_owned(),
                Err(error) => error.to_string(),
            };
            let detail = format!("Query param {name:?} must be a valid 32-bit positive integer: {cause}");
            invalid.push(Invalid { field: name.to_owned(), detail });
            0
        }
    }
}
