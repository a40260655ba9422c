//! `GET /api/v2/connectionlog/gaps`: what the record lacks, newest first: events that were lost, and dead letters.

use axum::Json;
use axum::extract::{Query, State};
use connlog_model::clock::rfc3339;
use connlog_store::read::{Gap, GapKind};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Auditor;
use crate::error::ApiError;
use crate::paging::Paging;
use crate::serve::Service;

/// A page of gaps.
#[derive(Debug, Serialize, ToSchema)]
pub struct GapList {
    gaps: Vec<GapEntry>,
    /// How many gaps there are; exact.
    count: i64,
    /// How many events the log never got.
    events_lost: i64,
    /// How many events were not accepted and are kept as dead letters.
    events_rejected: i64,
}

/// A gap; what is unknown or of the other kind is omitted.
#[derive(Debug, Serialize, ToSchema)]
struct GapEntry {
    id: Uuid,
    kind: &'static str,
    recorded_at: String,
    events: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spool_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<String>,
}

/// Answers the gaps.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/gaps",
    params(
        ("limit" = Option<u32>, Query, description = "Most gaps of the page: 100 by default or for 0, at most 1000 are given", minimum = 0, maximum = 2_147_483_647),
        ("offset" = Option<u32>, Query, description = "Gaps to skip", minimum = 0, maximum = 2_147_483_647),
    ),
    responses(
        (status = 200, description = "A page of gaps, newest first", body = GapList),
    )
)]
pub async fn gaps(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<GapList>, ApiError> {
    let paging = Paging::parse(&parameters)?;
    let page = service.reads.gaps(&auditor.reach(), paging.limit, paging.offset).await?;
    Ok(Json(GapList {
        gaps: page.gaps.into_iter().map(GapEntry::from).collect(),
        count: page.count,
        events_lost: page.events_lost,
        events_rejected: page.events_rejected,
    }))
}

impl From<Gap> for GapEntry {
    fn from(gap: Gap) -> Self {
        let (first_seq, last_seq) = gap.seqs.unzip();
        let mut entry = Self {
            id: gap.id,
            kind: "lost",
            recorded_at: rfc3339(gap.recorded_at),
            events: gap.events,
            organization_id: gap.organization_id,
            workspace_id: gap.workspace_id,
            agent_id: gap.agent_id,
            spool_id: gap.spool_id,
            first_seq,
            last_seq,
            since: None,
            until: None,
            cause: None,
            field: None,
            reason: None,
            message_type: None,
        };
        match gap.kind {
            GapKind::Lost { since, until, cause } => {
                (entry.since, entry.until, entry.cause) = (since.map(rfc3339), until.map(rfc3339), Some(cause));
            }
            GapKind::Rejected { field, reason, message_type } => {
                entry.kind = "rejected";
                (entry.field, entry.reason, entry.message_type) = (Some(field), Some(reason), Some(message_type));
            }
        }
        entry
    }
}
