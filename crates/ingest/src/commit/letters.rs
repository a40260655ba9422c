//! Dead letters: what was well-formed but could not be accepted, as it was received.

use connlog_model::clock::Timestamp;
use connlog_model::identity::AgentIdentity;
use connlog_store::RejectedRecord;
use prost::Message as _;
use uuid::Uuid;

use super::Message;

/// Namespace of the ids of dead letters. Fixed for ever: a replay must name the letter that it made before.
const LETTER_NAMESPACE: Uuid = Uuid::from_u128(0x2b7d_1e8c_4f60_4a39_9c15_d7a2_603e_b884);

/// Who sent an event.
#[derive(Debug, Clone)]
pub enum Sender {
    /// An agent, over its stream: its spool makes the sequence numbers unique.
    Stream {
        /// The agent.
        agent_id: Uuid,
        /// Its spool.
        spool_id: Uuid,
    },
    /// An agent, by a unary call.
    Agent {
        /// The agent.
        agent_id: Option<Uuid>,
    },
    /// A reporter.
    Reporter {
        /// Its token.
        token_id: Uuid,
    },
}

/// Makes the dead letter of `message`.
pub fn letter(
    sender: &Sender,
    seq: u64,
    agent: Option<&AgentIdentity>,
    message: &Message,
    field: &str,
    reason: &str,
    received_at: Timestamp,
) -> RejectedRecord {
    let (message_type, message) = match message {
        Message::Connection(message) => ("connlog.v1.Connection", message.encode_to_vec()),
        Message::Sequenced(message) => ("connlog.v1.SequencedEvent", message.encode_to_vec()),
        Message::Reported(message) => ("connlog.v1.ReportedEvent", message.encode_to_vec()),
    };
    let (agent_id, token_id, position) = match sender {
        Sender::Stream { agent_id, spool_id } => {
            (Some(*agent_id), None, Some((*spool_id, i64::try_from(seq).unwrap_or(i64::MAX))))
        }
        Sender::Agent { agent_id } => (*agent_id, None, None),
        Sender::Reporter { token_id } => (None, Some(*token_id), None),
    };
    let mut name = Vec::with_capacity(message.len() + 48);
    for id in
        [agent_id, token_id, position.map(|(spool_id, _)| spool_id), agent.map(|agent| agent.workspace.workspace_id)]
    {
        name.extend_from_slice(id.unwrap_or_default().as_bytes());
    }
    name.extend_from_slice(&position.map_or(0, |(_, seq)| seq).to_be_bytes());
    name.extend_from_slice(&message);
    RejectedRecord {
        id: Uuid::new_v5(&LETTER_NAMESPACE, &name),
        received_at,
        organization_id: agent.map(|agent| agent.workspace.organization_id),
        workspace_id: agent.map(|agent| agent.workspace.workspace_id),
        agent_id,
        token_id,
        position,
        message_type,
        message,
        field: field.to_owned(),
        reason: reason.to_owned(),
        events: 1,
        is_merged: false,
    }
}
