//! The agents that write: of the workspaces of history, each with a token of its own.

use std::sync::Arc;

use anyhow::Result;
use connlog_model::identity::{AgentIdentity, Workspace};
use tokio_postgres::Client;

/// An agent, and what it shows to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) identity: Arc<AgentIdentity>,
    pub(crate) token: String,
}

const ENLIST: &str = "
INSERT INTO workspace_agents (id, workspace_id, name, deleted)
SELECT ('d0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid,
    ('c0000000-0000-0000-0000-' || lpad((n % (SELECT count(*) FROM workspaces))::text, 12, '0'))::uuid, 'agent-' || n, false
FROM generate_series(0, $1::bigint - 1) AS n ON CONFLICT DO NOTHING";

const TOKENS: &str = "
INSERT INTO agent_tokens (sha256, agent_id)
SELECT sha256(convert_to('bench-' || name, 'UTF8')), id FROM workspace_agents ON CONFLICT DO NOTHING";

const READ: &str = "
SELECT a.id, a.name, w.organization_id, w.owner_id, w.id, w.name
FROM workspace_agents a JOIN workspaces w ON w.id = a.workspace_id ORDER BY a.id LIMIT $1";

/// The first `count` agents, made if they are not there.
pub(crate) async fn enlist(client: &Client, count: u32) -> Result<Vec<Agent>> {
    client.execute(ENLIST, &[&i64::from(count)]).await?;
    client.execute(TOKENS, &[]).await?;
    client.batch_execute("ANALYZE workspace_agents, agent_tokens").await?;
    let rows = client.query(READ, &[&i64::from(count)]).await?;
    let agents = rows.iter().map(|row| {
        let agent_name: String = row.get(1);
        let workspace = Workspace {
            organization_id: row.get(2),
            owner_id: row.get(3),
            workspace_id: row.get(4),
            workspace_name: row.get(5),
        };
        let token = format!("bench-{agent_name}");
        let identity = AgentIdentity { agent_id: Some(row.get(0)), agent_name, workspace };
        Agent { identity: Arc::new(identity), token }
    });
    Ok(agents.collect())
}
