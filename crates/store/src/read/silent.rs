//! Who was not heard: agents that are silent, and whether ingest is there to hear them.

use connlog_model::clock::Timestamp;
use uuid::Uuid;

use super::filter::Reach;
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

const SILENT: &str = "-- silent_agents_shown
SELECT o.agent_id, min(o.agent_name) AS agent_name, homes.workspace_id, min(o.workspace_name) AS workspace_name,
    p.last_seen_at, count(*) AS open_connections
FROM (SELECT agent_id, max(last_seen_at) AS last_seen_at FROM agent_presence GROUP BY agent_id) AS p
JOIN open_connections AS o USING (agent_id)
LEFT JOIN homes USING (home)
WHERE p.last_seen_at < $2 AND ($1::uuid[] IS NULL OR o.organization_id = ANY($1))
GROUP BY o.agent_id, homes.workspace_id, p.last_seen_at ORDER BY p.last_seen_at, o.agent_id LIMIT $3";

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
        let rows = query(&transaction, SILENT, &[&reach.organizations, &since, &limit]).await?;
        transaction.end();
        rows.iter()
            .map(|row| {
                Ok(SilentAgent {
                    agent_id: row.try_get("agent_id")?,
                    agent_name: row.try_get("agent_name")?,
                    workspace_id: row.try_get::<_, Option<Uuid>>("workspace_id")?.unwrap_or_default(),
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
