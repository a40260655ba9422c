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

/// Namespace of the row ids of web events. Fixed for ever, as the other one.
const WEB_NAMESPACE: Uuid = Uuid::from_u128(0x21b7_c6d4_0f3e_4d59_9a68_d7c1_5e24_80ab);

/// The row id of a web event: `UUIDv5` of the bytes `workspace_id ‖ event_id`, so that nobody can take the id of an event
/// of another workspace.
pub fn web_row_id(event_id: Uuid, workspace_id: Uuid) -> Uuid {
    let mut name = [0; 32];
    name[..16].copy_from_slice(workspace_id.as_bytes());
    name[16..].copy_from_slice(event_id.as_bytes());
    Uuid::new_v5(&WEB_NAMESPACE, &name)
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

impl Workspace {
    /// The row id of the web event `event_id` to this workspace.
    pub fn web_row_id(&self, event_id: Uuid) -> Uuid {
        web_row_id(event_id, self.workspace_id)
    }
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

/// The number of a boot among the boots of one agent, made of the boot's id. Rows have it in place of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootNumber(i32);

impl BootNumber {
    /// Some boot before the one that is known.
    pub const EARLIER: Self = Self(0);

    /// The number of the boot `boot_id`; nil is [`EARLIER`](Self::EARLIER).
    pub fn of(boot_id: Uuid) -> Self {
        if boot_id.is_nil() {
            return Self::EARLIER;
        }
        let words = boot_id.as_u128();
        let [a, b, c, d] = [words, words >> 32, words >> 64, words >> 96].map(|part| (part & 0xffff_ffff) as u32);
        Self((a ^ b ^ c ^ d).max(1).cast_signed())
    }

    /// As the database has it.
    pub fn code(self) -> i32 {
        self.0
    }

    /// The number that the database has.
    pub fn from_code(code: i32) -> Self {
        Self(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_a_number_and_only_the_earlier_one_has_none() {
        assert_eq!(BootNumber::of(Uuid::nil()), BootNumber::EARLIER);
        assert_eq!(BootNumber::of(Uuid::from_u128(7)).code(), 7);
        // Halves that cancel each other out are a boot all the same.
        assert_ne!(BootNumber::of(Uuid::from_u128(7 << 32 | 7)), BootNumber::EARLIER);
        assert_eq!(BootNumber::from_code(7), BootNumber::of(Uuid::from_u128(7)));
    }

    #[test]
    fn the_row_id_is_fixed_by_its_three_parts() {
        let (connection, workspace) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = connection_row_id(connection, workspace, "main");
        assert_eq!(id.to_string(), "5dbac93b-059f-5311-8ef1-68b5f6d51f00");
        assert_ne!(id, connection_row_id(workspace, connection, "main"));
        assert_ne!(id, connection_row_id(connection, workspace, "dev"));
    }

    #[test]
    fn the_row_id_of_a_web_event_is_fixed_by_its_workspace_and_its_id() {
        let (event, workspace) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = web_row_id(event, workspace);
        assert_eq!(id.to_string(), "064715aa-97b1-57f6-83aa-09b160449032");
        assert_ne!(id, web_row_id(event, Uuid::from_u128(3)));
        assert_ne!(id, web_row_id(workspace, event));
    }
}
