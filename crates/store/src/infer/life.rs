//! A sign of life: the agent is there, and says which connections are open.

use std::collections::BTreeMap;
use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, End, START_TOLERANCE};
use connlog_model::identity::{AgentIdentity, BootNumber};
use uuid::Uuid;

use super::SHARD;
use crate::row::Recorded;
use crate::session::{Step, Transaction, query};
use crate::write::held::{Held, Wait};
use crate::write::look_up::{First, LOOK_BACK, ONGOING, Wanted};
use crate::write::save::Changes;
use crate::write::spools::Stamps;
use crate::write::{Contradiction, Stamp};
use crate::{Store, StoreError};

/// A sign of life of an agent over one of its streams.
#[derive(Debug)]
pub struct SignOfLife<'a> {
    /// The agent.
    pub agent: &'a Arc<AgentIdentity>,
    /// The stream, and what it last committed.
    pub stamp: Stamp,
    /// The boot under which listed connections are open.
    pub boot_id: Uuid,
    /// The connections that it says are open, by the agent's ids, without those already known not to be in the log.
    pub listed: &'a [Uuid],
}

/// What a sign of life led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// The stream no longer owns its spool; nothing was done.
    pub displaced: bool,
    /// Connections that were taken for ended and are open again.
    pub reopened: Vec<Connection>,
    /// Listed connections, by the agent's ids, that are neither open nor were taken for ended.
    pub unknown: Vec<Uuid>,
    /// How many of those really ended, which contradicts the list.
    pub contradicting: usize,
}

const IS_DELETED: &str = "-- agent_is_deleted
SELECT coalesce((SELECT deleted FROM workspace_agents WHERE id = $1), false) OR coalesce((SELECT deleted FROM workspaces WHERE id = $2), true)";

impl Store {
    /// Notes that the agent lives, and reopens what it lists and the server had taken for ended. A real end stays.
    pub async fn sign_of_life(&self, sign: &SignOfLife<'_>) -> Result<Life, StoreError> {
        let mut attempts = 0;
        loop {
            match self.sign_of_life_once(sign).await {
                Ok(life) => return Ok(life),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn sign_of_life_once(&self, sign: &SignOfLife<'_>) -> Result<Life, StoreError> {
        let now = sign.stamp.seen_at;
        let mut client = self.client().await?;
        let numbered = self.number(&client, [sign.agent, &sign.stamp.agent]).await?;
        let stamps = Stamps::of(std::slice::from_ref(&sign.stamp), &numbered);
        let listed: BTreeMap<Uuid, Uuid> =
            sign.listed.iter().map(|connection| (sign.agent.row_id(*connection), *connection)).collect();
        // When they began is not said: what is open is on a day that is being written, or listed.
        let mut wanted = Wanted::default();
        for id in listed.keys() {
            wanted.add(*id, None, now);
        }
        let ids = wanted.ids();
        let mut further = stamps.steps();
        further.push(Step::Query(ONGOING, vec![&ids]));
        let (held, mut rows) = self.hold(&mut client, &numbered.agents(), Wait::ForAll, further).await?;
        let ongoing = rows.pop().unwrap_or_default();
        if !stamps.displaced(&rows)?.is_empty() {
            return Ok(Life { displaced: true, ..Life::default() });
        }
        let mut life = Life::default();
        if listed.is_empty() || is_deleted(&held.transaction, sign.agent).await? {
            life.unknown = listed.into_values().collect();
            held.transaction.commit().await?;
            return Ok(life);
        }
        let first = First { days: Vec::new(), rows: Vec::new(), ongoing };
        let mut found = self.look_up(&held, &wanted, first, now).await?;
        let mut changes = Changes::default();
        for (id, connection_id) in listed {
            let recorded = found.connections.remove(&id);
            if !hear(&mut life, &mut changes, &held, recorded, sign) {
                life.unknown.push(connection_id);
            }
        }
        life.contradicting = changes.contradictions.len();
        changes.save(&held, Vec::new(), SHARD).await?;
        held.transaction.commit().await?;
        Ok(life)
    }
}

/// What a list says of one connection. Returns whether it is open.
fn hear(
    life: &mut Life,
    changes: &mut Changes<'_>,
    held: &Held<'_>,
    recorded: Option<Recorded>,
    sign: &SignOfLife<'_>,
) -> bool {
    let seen_at: Timestamp = sign.stamp.seen_at;
    let Some(recorded) = recorded else { return false };
    let is_within_reach = recorded.connection.connect_time >= (seen_at - LOOK_BACK).max(held.floor);
    match &recorded.connection.end {
        None => true,
        Some(End::Inferred { .. }) if is_within_reach => {
            let mut after = recorded.clone();
            after.connection.end = None;
            after.connection.boot = Some(BootNumber::of(sign.boot_id));
            life.reopened.push(after.connection.clone());
            changes.add(held, Some(recorded), after);
            true
        }
        Some(End::Inferred { .. }) => false,
        // A list may have been made before the end that it does not know of.
        Some(End::Real { received_at, .. }) => {
            if *received_at + START_TOLERANCE > seen_at {
                return false;
            }
            changes.contradictions.push(Contradiction::listed(&recorded.connection, seen_at));
            false
        }
    }
}

async fn is_deleted(transaction: &Transaction<'_>, agent: &AgentIdentity) -> Result<bool, StoreError> {
    let rows = query(transaction, IS_DELETED, &[&agent.agent_id, &agent.workspace.workspace_id]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(true))
}
