//! Gaps of the record: events that were lost, and dead letters.

use connlog_model::clock::Timestamp;
use connlog_model::search::Search;
use tokio_postgres::Row;
use uuid::Uuid;

use super::filter::{Filter, Reach};
use crate::argument::Argument;
use crate::session::{begin_read, query};
use crate::{Store, StoreError};

/// A gap of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the tables, commented in migrations/")]
pub struct Gap {
    pub id: Uuid,
    pub recorded_at: Timestamp,
    pub organization_id: Option<Uuid>,
    pub workspace_id: Option<Uuid>,
    pub agent_id: Option<Uuid>,
    pub spool_id: Option<Uuid>,
    /// First and last sequence number, if it was streamed.
    pub seqs: Option<(i64, i64)>,
    /// How many events.
    pub events: i64,
    pub kind: GapKind,
}

/// What kind of gap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the tables, commented in migrations/")]
pub enum GapKind {
    /// Events that the log never got.
    Lost { since: Option<Timestamp>, until: Option<Timestamp>, cause: String },
    /// An event that was not accepted.
    Rejected { field: String, reason: String, message_type: String },
}

/// A page of gaps, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gaps {
    /// The page.
    pub gaps: Vec<Gap>,
    /// How many gaps there are.
    pub count: i64,
    /// How many events were lost in all.
    pub events_lost: i64,
    /// How many were rejected in all.
    pub events_rejected: i64,
}

/// A gap that no organization can claim is shown to those who see all.
const PAGE: &str = "-- read_gaps
SELECT * FROM (
    (SELECT id, recorded_at, organization_id, workspace_id, agent_id, spool_id, first_seq, last_seq, events,
        since, until, cause, NULL::text AS field, NULL::text AS reason, NULL::text AS message_type
     FROM lost_events WHERE $1::uuid[] IS NULL OR organization_id = ANY($1)
     ORDER BY recorded_at DESC, id DESC LIMIT $2::bigint + $3::bigint)
    UNION ALL
    (SELECT id, received_at, organization_id, workspace_id, agent_id, spool_id, seq, seq, events,
        NULL, NULL, NULL, field, reason, message_type
     FROM rejected_events WHERE $1::uuid[] IS NULL OR organization_id = ANY($1)
     ORDER BY received_at DESC, id DESC LIMIT $2::bigint + $3::bigint)
) AS gaps ORDER BY recorded_at DESC, id DESC LIMIT $2 OFFSET $3";

const TOTALS: &str = "-- count_gaps
SELECT lost.n + rejected.n AS count, lost.events AS lost, rejected.events AS rejected
FROM (SELECT count(*) AS n, least(coalesce(sum(events), 0), 9223372036854775807)::bigint AS events FROM lost_events
      WHERE $1::uuid[] IS NULL OR organization_id = ANY($1)) AS lost,
     (SELECT count(*) AS n, least(coalesce(sum(events), 0), 9223372036854775807)::bigint AS events FROM rejected_events
      WHERE $1::uuid[] IS NULL OR organization_id = ANY($1)) AS rejected";

/// The gaps of a span of time, at the time that they are about as far as that is known.
const BETWEEN: &str = "-- gaps_between
SELECT * FROM (
    (SELECT id, recorded_at, organization_id, workspace_id, agent_id, spool_id, first_seq, last_seq, events,
        since, until, cause, NULL::text AS field, NULL::text AS reason, NULL::text AS message_type,
        coalesce(until, recorded_at) AS at
     FROM lost_events
     WHERE ($1::uuid[] IS NULL OR organization_id = ANY($1)) AND ($2::uuid[] IS NULL OR workspace_id = ANY($2))
        AND coalesce(until, recorded_at) >= $3 AND coalesce(until, recorded_at) < $4
     ORDER BY at DESC, id DESC LIMIT $5)
    UNION ALL
    (SELECT id, received_at, organization_id, workspace_id, agent_id, spool_id, seq, seq, events,
        NULL, NULL, NULL, field, reason, message_type, received_at
     FROM rejected_events
     WHERE ($1::uuid[] IS NULL OR organization_id = ANY($1)) AND ($2::uuid[] IS NULL OR workspace_id = ANY($2))
        AND received_at >= $3 AND received_at < $4
     ORDER BY received_at DESC, id DESC LIMIT $5)
) AS gaps ORDER BY at DESC, id DESC LIMIT $5";

/// Gaps of a span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GapsBetween {
    /// The newest of them.
    pub gaps: Vec<Gap>,
    /// Whether the search that they were looked up for tells gaps apart: by organization, workspace and time. If it asks for
    /// anything else, the gaps are those of the same organizations and workspaces.
    pub apply: bool,
}

impl Store {
    /// The newest gaps that belong to `search`, whatever times it asks for, and lie in `reach`, at or after `from` and before `to`.
    pub async fn gaps_between(
        &self,
        search: &Search,
        reach: &Reach,
        (from, to): (Timestamp, Timestamp),
        limit: i64,
    ) -> Result<GapsBetween, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let place = Search {
            organization: search.organization.clone(),
            workspace_id: search.workspace_id,
            workspace: search.workspace.clone(),
            ..Search::default()
        };
        let Ok(filter) = Filter::resolve(&transaction, &place, reach, to).await? else {
            return Ok(GapsBetween::default());
        };
        let parameters: &[&dyn Argument] = &[&filter.organizations, &filter.workspaces, &from, &to, &limit];
        let rows = query(&transaction, BETWEEN, parameters).await?;
        transaction.end();
        let timeless = Search { connected_after: None, connected_before: None, ..search.clone() };
        Ok(GapsBetween { gaps: rows.iter().map(gap).collect::<Result<_, _>>()?, apply: place == timeless })
    }

    /// A page of the gaps in `reach`, and how many there are, of one snapshot.
    pub async fn gaps(&self, reach: &Reach, limit: i64, offset: i64) -> Result<Gaps, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let rows = query(&transaction, PAGE, &[&reach.organizations, &limit, &offset]).await?;
        let totals = query(&transaction, TOTALS, &[&reach.organizations]).await?;
        let totals = totals.first().ok_or_else(|| StoreError::Inconsistent("a count gave no row".to_owned()))?;
        let gaps = Gaps {
            gaps: rows.iter().map(gap).collect::<Result<_, _>>()?,
            count: totals.try_get("count")?,
            events_lost: totals.try_get("lost")?,
            events_rejected: totals.try_get("rejected")?,
        };
        transaction.end();
        Ok(gaps)
    }
}

impl Gap {
    /// When it was, as far as that is known.
    pub fn time(&self) -> Timestamp {
        match &self.kind {
            GapKind::Lost { until: Some(until), .. } => *until,
            _ => self.recorded_at,
        }
    }
}

fn gap(row: &Row) -> Result<Gap, StoreError> {
    let kind = match row.try_get::<_, Option<String>>("cause")? {
        Some(cause) => GapKind::Lost { since: row.try_get("since")?, until: row.try_get("until")?, cause },
        None => GapKind::Rejected {
            field: row.try_get("field")?,
            reason: row.try_get("reason")?,
            message_type: row.try_get("message_type")?,
        },
    };
    let (first, last): (Option<i64>, Option<i64>) = (row.try_get("first_seq")?, row.try_get("last_seq")?);
    Ok(Gap {
        id: row.try_get("id")?,
        recorded_at: row.try_get("recorded_at")?,
        organization_id: row.try_get("organization_id")?,
        workspace_id: row.try_get("workspace_id")?,
        agent_id: row.try_get("agent_id")?,
        spool_id: row.try_get("spool_id")?,
        seqs: first.zip(last),
        events: row.try_get("events")?,
        kind,
    })
}
