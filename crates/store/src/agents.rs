//! Who sends an event: agents by their token, and the agents that reporters name.

use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::identity::{AgentIdentity, Workspace};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::directory::TOKEN_GRACE;
use crate::{Store, StoreError};

/// A token that is accepted for an agent of a deleted workspace, too, until it expires: its spool can drain.
const BY_TOKEN: &str = "-- agent_by_token
SELECT a.id, a.name, w.organization_id, w.owner_id, w.id AS workspace_id, w.name AS workspace_name, t.expires_at,
    a.deleted OR w.deleted AS is_deleted
FROM agent_tokens t
JOIN workspace_agents a ON a.id = t.agent_id
JOIN workspaces w ON w.id = a.workspace_id
WHERE t.sha256 = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)";

const BY_NAME: &str = "-- agent_by_name
SELECT a.id, $2::text AS name, w.organization_id, w.owner_id, w.id AS workspace_id, w.name AS workspace_name
FROM workspaces w
LEFT JOIN workspace_agents a ON a.workspace_id = w.id AND a.name = $2
WHERE w.id = $1
ORDER BY a.deleted, a.id LIMIT 1";

/// A token of an agent that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentToken {
    /// Whose it is.
    pub agent: Arc<AgentIdentity>,
    /// When another one took its place: it is accepted so that what happened before can still be sent. None if the agent was deleted:
    /// its connections end after that.
    pub replaced_at: Option<Timestamp>,
}

impl Store {
    /// The token with this SHA-256, unless it has expired or was revoked.
    pub async fn agent_by_token(&self, sha256: &[u8], now: Timestamp) -> Result<Option<AgentToken>, StoreError> {
        let client = self.client().await?;
        let Some(row) = client.query_opt(BY_TOKEN, &[&sha256, &now]).await? else { return Ok(None) };
        let expires_at: Option<Timestamp> = row.try_get("expires_at")?;
        let is_deleted: bool = row.try_get("is_deleted")?;
        let replaced_at = expires_at.filter(|_| !is_deleted).map(|expires_at| expires_at - TOKEN_GRACE);
        Ok(Some(AgentToken { agent: identity(&row)?, replaced_at }))
    }

    /// The agent of that name in a workspace that the directory knows. An agent that the directory does not know is
    /// taken at its word; its id is absent.
    pub async fn agent_by_name(
        &self,
        workspace_id: Uuid,
        name: &str,
    ) -> Result<Option<Arc<AgentIdentity>>, StoreError> {
        let client = self.client().await?;
        client.query(BY_NAME, &[&workspace_id, &name]).await?.first().map(identity).transpose()
    }
}

fn identity(row: &Row) -> Result<Arc<AgentIdentity>, StoreError> {
    Ok(Arc::new(AgentIdentity {
        agent_id: row.try_get("id")?,
        agent_name: row.try_get("name")?,
        workspace: Workspace {
            organization_id: row.try_get("organization_id")?,
            owner_id: row.try_get("owner_id")?,
            workspace_id: row.try_get("workspace_id")?,
            workspace_name: row.try_get("workspace_name")?,
        },
    }))
}
