//! `GET /api/v2/connectionlog/{id}/contradictions`: what events said against what is recorded of an entry.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use connlog_model::clock::rfc3339;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::audit::Given;
use crate::auth::Auditor;
use crate::error::ApiError;
use crate::one::entry_in_reach;
use crate::serve::Service;

/// What was said against an entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContradictionList {
    /// The newest 1000, newest first.
    pub contradictions: Vec<Contradiction>,
}

/// An event that contradicts what is recorded, and left it alone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Contradiction {
    /// When the log got it.
    pub received_at: String,
    /// Who said it: `agent` or `reporter`.
    pub source: &'static str,
    /// The fields that differ.
    pub fields: Vec<String>,
    /// The event as it was said; what it did not say is absent.
    #[schema(value_type = Object)]
    pub claim: Value,
}

/// Answers what was said against an entry. What is out of the token's reach is not found.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/{id}/contradictions",
    params(("id" = Uuid, Path, description = "Id of the entry")),
    responses(
        (status = 200, description = "What was said, newest first; empty if nothing was", body = ContradictionList),
        (status = 404, description = "There is no entry of that id, or it is out of the token's reach", body = crate::error::ErrorBody),
    )
)]
pub async fn contradictions(
    State(service): State<Service>,
    auditor: Auditor,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let entry = entry_in_reach(&service, &auditor, id).await?;
    let found = service.reads.contradictions(entry.id, &auditor.reach()).await?;
    let contradictions: Vec<Contradiction> = found.into_iter().map(Contradiction::from).collect();
    let given = Given(contradictions.len());
    Ok((Extension(given), Json(ContradictionList { contradictions })).into_response())
}

impl From<connlog_store::read::Contradiction> for Contradiction {
    fn from(found: connlog_store::read::Contradiction) -> Self {
        let connlog_store::read::Contradiction { received_at, source, fields, claim } = found;
        Self { received_at: rfc3339(received_at), source: source.as_str(), fields, claim }
    }
}
