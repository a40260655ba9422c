//! `GET /api/v2/connectionlog`: a page of entries, newest first.

use axum::Json;
use axum::extract::{Query, State};
use connlog_model::quote::quote;
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
    let query = value(&parameters, "q").unwrap_or_default();
    let (search, mut invalid) = Search::read(query).map_err(|invalid| ApiError::invalid_search(vec![invalid]))?;
    if !invalid.is_empty() {
        // What only the directory knows to be wrong is reported with the rest. The organization is the first of the keys.
        let unreachable = service.store.unreachable(&search, &auditor.reach()).await?;
        invalid.splice(0..0, unreachable.as_ref().map(out_of_reach));
        return Err(ApiError::invalid_search(invalid));
    }
    let request = PageRequest { limit: paging.limit, offset: paging.offset, count_cap: service.count_cap };
    let page = service.store.page(&search, &auditor.reach(), request).await?;
    let page = page.map_err(|unreachable| ApiError::invalid_search(vec![out_of_reach(&unreachable)]))?;
    Ok(Json(ConnectionLogList {
        connection_logs: page.entries.into_iter().map(ConnectionLog::from).collect(),
        count: page.count.entries,
        count_cap: if page.count.exact { 0 } else { service.count_cap },
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
        // Ignoring it would give a client that pages by cursor the first page for ever.
        if value(parameters, "after").is_some() {
            let detail = "Query param \"after\" is not supported by this version".to_owned();
            invalid.push(Invalid { field: "after".to_owned(), detail });
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
