//! `GET /api/v2/connectionlog/{id}`: one entry.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use connlog_model::search::Invalid;
use connlog_store::read::Entry;
use uuid::Uuid;

use crate::audit::Given;
use crate::auth::Auditor;
use crate::dto::ConnectionLog;
use crate::error::ApiError;
use crate::serve::Service;

/// Answers one entry. What is out of the token's reach is not found.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/{id}",
    params(("id" = Uuid, Path, description = "Id of the entry")),
    responses(
        (status = 200, description = "The entry", body = ConnectionLog),
        (status = 404, description = "There is none of that id, or it is out of the token's reach", body = crate::error::ErrorBody),
    )
)]
pub async fn one(
    State(service): State<Service>,
    auditor: Auditor,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let entry = entry_in_reach(&service, &auditor, id).await?;
    Ok((Extension(Given(1)), Json(ConnectionLog::from(entry))).into_response())
}

/// The entry of the id in a path, if the token reaches it.
pub(crate) async fn entry_in_reach(
    service: &Service,
    auditor: &Auditor,
    id: Result<Path<String>, PathRejection>,
) -> Result<Entry, ApiError> {
    let id = id.ok().and_then(|Path(id)| Uuid::try_parse(&id).ok()).ok_or_else(|| {
        let detail = "Path param \"id\" must be a valid uuid".to_owned();
        ApiError::invalid_parameters(vec![Invalid { field: "id".to_owned(), detail }])
    })?;
    service.reads.entry(id, &auditor.reach()).await?.ok_or_else(ApiError::not_found)
}
