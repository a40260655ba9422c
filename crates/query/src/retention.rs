//! `GET /api/v2/connectionlog/retention`: how long the log is kept, and the proof that older entries went.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use connlog_model::clock::{Clock, rfc3339};
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use connlog_store::purge::PurgeRun;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Auditor;
use crate::error::ApiError;
use crate::paging::Paging;
use crate::serve::Service;

/// How often the metrics of retention are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);

/// The state of retention.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetentionStatus {
    /// How long entries are kept, as the last run had it, in seconds; 0 if for ever, or if there was no run.
    retention_seconds: i64,
    /// What lies strictly before is refused when it arrives late; RFC 3339, omitted before the first purge.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<String>,
    /// When the last run ended that removed everything due; RFC 3339, omitted if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_complete: Option<String>,
    /// What is due now and still there; omitted for a token that is limited to organizations.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<Backlog>,
    /// The last runs, newest first.
    runs: Vec<RetentionRun>,
}

/// What is due and still there.
#[derive(Debug, Serialize, ToSchema)]
struct Backlog {
    /// Whole days.
    days: i64,
    /// Entries that they have.
    entries: i64,
}

/// A run of `connlog-purge`.
#[derive(Debug, Serialize, ToSchema)]
struct RetentionRun {
    id: Uuid,
    started_at: String,
    finished_at: String,
    /// Entries strictly before were due; omitted if entries are kept for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    cutoff: Option<String>,
    /// What it removed; omitted for a token that is limited to organizations: the numbers are those of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<RunRemoved>,
    /// `complete`, `incomplete` or `interrupted`.
    outcome: String,
    /// What went wrong, if anything did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a run removed, and what it left.
#[derive(Debug, Serialize, ToSchema)]
struct RunRemoved {
    /// Whole days.
    days: i32,
    /// Entries of these days.
    entries_of_days: i64,
    /// Entries one by one.
    entries: i64,
    /// Open connections.
    open: i64,
    /// Dead letters.
    rejected: i64,
    /// Records of losses.
    lost: i64,
    /// Records of uses of the API.
    audit: i64,
    /// What was due and still there when the run ended.
    left: i64,
}

/// Answers the state of retention.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/retention",
    params(
        ("limit" = Option<u32>, Query, description = "Most runs: 100 by default or for 0, at most 1000 are given", minimum = 0, maximum = 2_147_483_647),
    ),
    responses(
        (status = 200, description = "How long entries are kept, and the last runs of the purge", body = RetentionStatus),
    )
)]
pub async fn retention(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<RetentionStatus>, ApiError> {
    let paging = Paging::parse(&parameters)?;
    let sees_all = auditor.reach().organizations.is_none();
    let state = service.reads.retention_state(paging.limit, service.clock.now()).await?;
    Ok(Json(RetentionStatus {
        retention_seconds: state.retention.map_or(0, |retention| retention.num_seconds()),
        floor: state.floor.map(rfc3339),
        last_complete: state.last_complete.map(rfc3339),
        backlog: sees_all.then_some(Backlog { days: state.backlog_days, entries: state.backlog_rows }),
        runs: state.runs.into_iter().map(|run| RetentionRun::of(run, sees_all)).collect(),
    }))
}

impl RetentionRun {
    fn of(run: PurgeRun, with_numbers: bool) -> Self {
        let removed = RunRemoved {
            days: run.removed.days_dropped,
            entries_of_days: run.removed.rows_dropped,
            entries: run.removed.rows_trimmed,
            open: run.removed.open_removed,
            rejected: run.removed.rejected_removed,
            lost: run.removed.lost_removed,
            audit: run.removed.audit_removed,
            left: run.rows_left,
        };
        Self {
            id: run.id,
            started_at: rfc3339(run.started_at),
            finished_at: rfc3339(run.finished_at),
            cutoff: run.cutoff.map(rfc3339),
            removed: with_numbers.then_some(removed),
            outcome: run.outcome,
            error: run.error,
        }
    }
}

/// Keeps the metrics of retention: the purge itself need not be there to be asked.
pub(crate) fn keep_metrics(store: Store, clock: Clock, shutdown: &Shutdown) {
    let until = shutdown.clone();
    shutdown.spawn("metrics of retention", async move {
        while !until.has_begun() {
            match store.retention_state(1, clock.now()).await {
                Ok(state) => state.set_metrics(),
                Err(error) => tracing::debug!(%error, "the state of retention is unknown"),
            }
            tokio::select! {
                () = tokio::time::sleep(METRICS_INTERVAL) => {}
                () = until.begun() => {}
            }
        }
    });
}
