//! Who and where: the identity of a connection and of those who report it.

use uuid::Uuid;

/// Namespace of the row ids of agent connections. Fixed for ever: a replay must name the row that it made before.
const CONNECTION_NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_5a0e_94d3_4c7b_a1d2_3e58_0b9c_7f46);

/// The row id of an agent connection: `UUIDv5` of the bytes `connection_id ‖ workspace_id ‖ agent_name`.
pub fn connection_row_id(connection_id: Uuid, workspace_id: Uuid, agent_name: &str) -> Uuid {
    let mut name = Vec::with_capacity(32 + agent_name.len());
    name.extend_from_slice(connection_id.as_bytes());
    name.extend_from_slice(workspace_id.as_bytes());
    name.extend_from_slice(agent_name.as_bytes());
    Uuid::new_v5(&CONNECTION_NAMESPACE, &name)
}

/// A workspace as the directory knows it when an event arrives. Rows keep these facts; a later change of the directory
/// does not rewrite history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Organization that the workspace belongs to.
    pub organization_id: Uuid,
    /// User who owns the workspace.
    pub owner_id: Uuid,
    /// The workspace.
    pub workspace_id: Uuid,
    /// Its name.
    pub workspace_name: String,
}

/// An agent of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The agent, if the directory knows it (a reporter may name one that it does not).
    pub agent_id: Option<Uuid>,
    /// Its name, part of the identity of its connections.
    pub agent_name: String,
    /// Its workspace.
    pub workspace: Workspace,
}

impl AgentIdentity {
    /// The row id of this agent's connection `connection_id`.
    pub fn row_id(&self, connection_id: Uuid) -> Uuid {
        connection_row_id(connection_id, self.workspace.workspace_id, &self.agent_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_id_is_fixed_by_its_three_parts() {
        let (connection, workspace) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = connection_row_id(connection, workspace, "main");
        assert_eq!(id.to_string(), "5dbac93b-059f-5311-8ef1-68b5f6d51f00");
        assert_ne!(id, connection_row_id(workspace, connection, "main"));
        assert_ne!(id, connection_row_id(connection, workspace, "dev"));
    }
}
