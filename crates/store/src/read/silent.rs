//! Who was not heard: agents that are silent, and whether ingest is there to hear them.

use connlog_model::clock::Timestamp;
use uuid::Uuid;

use super::filter::{Reach, closed_before};
use crate::session::{begin_read, query};
use crate::{Store, StoreError};

/// An agent that has something open and is not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SilentAgent {
    pub agent_id: Uuid,
    pub agent_name: String,
    pub workspace_id: Uuid,
    pub workspace_name: String,
    pub last_seen_at: Timestamp,
    pub open_connections: i64,
}

/// What is open of an agent is counted where the sweep looks for it.
const SILENT: &str = "-- silent_agents_shown
SELECT s.agent_id, a.agent_name, a.workspace_id, coalesce(w.name, '') AS workspace_name, s.last_seen_at, o.open_connections
FROM (SELECT agent, (array_agg(agent_id ORDER BY last_seen_at DESC))[1] AS agent_id, max(last_seen_at) AS last_seen_at
      FROM agent_spools GROUP BY agent) AS s
JOIN agents AS a USING (agent)
LEFT JOIN workspaces AS w ON w.id = a.workspace_id
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM ongoing WHERE ongoing.agent = s.agent) + (
        SELECT count(*) FROM connection_logs AS log
        WHERE log.target = ANY(ARRAY(SELECT target FROM targets WHERE targets.agent = s.agent))
            AND log.connect_time >= greatest($4, a.open_since) AND log.disconnect_time IS NULL AND log.method <= 2) AS open_connections) AS o
WHERE a.open_since IS NOT NULL AND s.last_seen_at < $2 AND o.open_connections > 0 AND ($1::uuid[] IS NULL OR EXISTS (
    SELECT FROM targets WHERE targets.agent = s.agent AND targets.organization_id = ANY($1)))
ORDER BY s.last_seen_at, s.agent LIMIT $3";

const ATTENDED: &str = "-- attended_at
SELECT attended_at FROM ingest_attendance";

impl Store {
    /// Agents in `reach` that have something open and were last heard before `since`, the longest silent first.
    pub async fn silent_agents(
        &self,
        reach: &Reach,
        since: Timestamp,
        limit: i64,
    ) -> Result<Vec<SilentAgent>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let closed_before = closed_before(&transaction).await?;
        let rows = query(&transaction, SILENT, &[&reach.organizations, &since, &limit, &closed_before]).await?;
        transaction.end();
        rows.iter()
            .map(|row| {
                Ok(SilentAgent {
                    agent_id: row.try_get::<_, Option<Uuid>>("agent_id")?.unwrap_or_default(),
                    agent_name: row.try_get("agent_name")?,
                    workspace_id: row.try_get("workspace_id")?,
                    workspace_name: row.try_get("workspace_name")?,
                    last_seen_at: row.try_get("last_seen_at")?,
                    open_connections: row.try_get("open_connections")?,
                })
            })
            .collect()
    }

    /// When an ingest was last there and could write; nothing if there never was one.
    pub async fn attended_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let rows = query(&transaction, ATTENDED, &[]).await?;
        transaction.end();
        Ok(rows.first().map(|row| row.try_get("attended_at")).transpose()?)
    }
}
