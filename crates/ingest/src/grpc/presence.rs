//! Presence: a sign of life that a reporter gives for an agent which cannot, and what the agent has open.
//!
//! The reporter has a spool of the agent, named by its token: so silence, a new boot and what is no longer listed are told
//! apart by the same rules as for an agent's own stream. It says so after everything that it had to say before, so nothing
//! is waited for.

use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::identity::AgentIdentity;
use connlog_proto::v1;
use connlog_store::infer::{Boot, Hello, SignOfLife, Unlisted};
use connlog_store::write::Stamp;
use connlog_store::{Store, StoreError};
use uuid::Uuid;

use super::stream::listed;
use crate::conclusions::Conclusions;
use crate::parse::{Invalid, required_id};

/// What a reporter says of an agent.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    agent: Arc<AgentIdentity>,
    boot_id: Uuid,
    listed: Vec<Uuid>,
    received_at: Timestamp,
}

impl Presence {
    pub(super) fn parse(
        agent: &Arc<AgentIdentity>,
        message: &v1::Presence,
        received_at: Timestamp,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            agent: Arc::clone(agent),
            boot_id: required_id("boot_id", &message.boot_id)?,
            listed: listed(&message.open_connection_ids)?,
            received_at,
        })
    }

    /// Whether both are of one agent: the later one says more.
    pub(super) fn is_of_same_agent(&self, other: &Self) -> bool {
        let name = |presence: &Self| (presence.agent.workspace.workspace_id, presence.agent.agent_name.clone());
        name(self) == name(other)
    }
}

/// Notes presences.
#[derive(Clone)]
pub struct Presences {
    /// The database.
    pub store: Store,
    /// Silence after which an agent counts as lost.
    pub lost_after: TimeDelta,
    /// Tells what follows from them.
    pub conclusions: Conclusions,
}

impl Presences {
    /// Notes a presence by the reporter whose token is `token_id`. Everything that it said before is committed.
    pub(super) async fn note(&self, token_id: Uuid, presence: &Presence) -> Result<(), StoreError> {
        let Presence { agent, boot_id, listed, received_at } = presence;
        let (boot_id, received_at) = (*boot_id, *received_at);
        let hello = Hello {
            agent: Arc::clone(agent),
            spool_id: token_id,
            boot_id,
            stream_id: token_id,
            first_unacked_seq: 1,
            last_seq: 0,
            received_at,
        };
        let greeting = self.store.greet(&hello).await?;
        let stamp = Stamp {
            agent: Arc::clone(agent),
            spool_id: token_id,
            stream_id: token_id,
            committed_seq: None,
            seen_at: received_at,
        };
        let life = self.store.sign_of_life(&SignOfLife { agent, stamp, boot_id, listed }).await?;
        metrics::counter!("connlog_ingest_contradictions_total").increment(life.contradicting as u64);
        self.conclusions.reopened(token_id, &life.reopened).await;

        let listed: Vec<Uuid> = listed.iter().map(|id| agent.row_id(*id)).collect();
        let ended_at = greeting.last_seen_at.unwrap_or(received_at);
        let live_since = received_at - self.lost_after;
        let boot = Boot { agent, spool_id: token_id, boot_id, listed: &listed, ended_at, live_since };
        self.conclusions.ended(token_id, "restarted", &self.store.close_other_boots(&boot).await?).await;
        let unlisted = self.store.unlisted(agent, boot_id, &listed, received_at).await?;
        if !unlisted.is_empty() {
            let unlisted = Unlisted { agent, boot_id, ids: &unlisted, ended_at: received_at };
            self.conclusions.ended(token_id, "disconnect_lost", &self.store.close_unlisted(&unlisted).await?).await;
        }
        Ok(())
    }
}
