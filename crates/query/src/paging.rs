//! The parameters of paging, which all lists share.

use connlog_model::cursor::{Cursor, Position};
use connlog_model::search::{Invalid, Search};
use uuid::Uuid;

use crate::error::ApiError;
use crate::serve::Service;

/// Entries of a page if the caller does not say.
const DEFAULT_LIMIT: i64 = 100;
/// Most entries of a page.
const MAX_LIMIT: i64 = 1000;

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Paging {
    pub(crate) limit: i64,
    pub(crate) offset: i64,
}

impl Paging {
    pub(crate) fn parse(parameters: &[(String, String)]) -> Result<Self, ApiError> {
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
        if value(parameters, "after").is_some() && value(parameters, "offset").is_some() {
            let detail = "Query param \"after\" cannot be combined with \"offset\"".to_owned();
            invalid.push(Invalid { field: "after".to_owned(), detail });
        }
        if !invalid.is_empty() {
            return Err(ApiError::invalid_parameters(invalid));
        }
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) };
        Ok(Self { limit, offset })
    }
}

/// The cursor in `after`, if there is one: it must belong to `search`.
pub(crate) fn cursor(parameters: &[(String, String)], search: &Search) -> Result<Option<Cursor>, ApiError> {
    let Some(text) = value(parameters, "after") else { return Ok(None) };
    Cursor::decode(text, search.fingerprint()).map(Some).map_err(|error| {
        let detail = format!("Query param \"after\" is not a cursor: {error}");
        ApiError::invalid_parameters(vec![Invalid { field: "after".to_owned(), detail }])
    })
}

/// The position in a parameter, if there is one.
pub(crate) fn position(parameters: &[(String, String)], name: &str) -> Result<Option<Position>, ApiError> {
    let Some(text) = value(parameters, name) else { return Ok(None) };
    Position::decode(text).map(Some).map_err(|error| {
        let detail = format!("Query param {name:?} is not a position: {error}");
        ApiError::invalid_parameters(vec![Invalid { field: name.to_owned(), detail }])
    })
}

/// Refuses a position that is not one of the log as it is: 410 if it is gone for good, 503 if only a standby lacks it.
pub(crate) async fn check_position(service: &Service, position: Position) -> Result<(), ApiError> {
    if service.follows.knows_position(position).await? {
        return Ok(());
    }
    if service.follows.is_standby().await? && service.primary.knows_position(position).await? {
        return Err(ApiError::behind());
    }
    Err(ApiError::gone())
}

/// The first value of a parameter; an empty one is none.
pub(crate) fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
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
