//! What an earlier boot of an agent left open, and what its boot no longer lists.

use std::collections::HashSet;
use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, REASON_AGENT_RESTARTED, REASON_DISCONNECT_LOST};
use connlog_model::identity::{AgentIdentity, BootNumber};
use uuid::Uuid;

use super::SHARD;
use super::open::{self, Noted};
use crate::session::Step;
use crate::write::held::Wait;
use crate::write::save::Changes;
use crate::{Store, StoreError};

/// What a boot of an agent says is open, see [`Store::close_other_boots`].
#[derive(Debug, Clone)]
pub struct Boot<'a> {
    /// The agent.
    pub agent: &'a Arc<AgentIdentity>,
    /// Its spool.
    pub spool_id: Uuid,
    /// The boot.
    pub boot_id: Uuid,
    /// The connections that it lists, by row id.
    pub listed: &'a [Uuid],
    /// The last sign of life of the boot before.
    pub ended_at: Timestamp,
    /// Another boot, on another spool, that gave a sign of life since then is alive.
    pub live_since: Timestamp,
}

/// Connections that a boot of an agent does not list, see [`Store::close_unlisted`].
#[derive(Debug, Clone)]
pub struct Unlisted<'a> {
    /// The agent.
    pub agent: &'a Arc<AgentIdentity>,
    /// The boot.
    pub boot_id: Uuid,
    /// The connections, by row id.
    pub ids: &'a [Uuid],
    /// When they were first missing from its list.
    pub ended_at: Timestamp,
}

const LIVE_BOOTS: &str = "-- live_boots
SELECT boot_id FROM agent_spools WHERE agent = $1 AND spool_id <> $2 AND last_seen_at >= $3";

const CLOSED: &str = "-- note_closed
UPDATE agent_spools SET unclosed_since = NULL WHERE agent = $1 AND spool_id = $2 AND boot_id = $3";

impl Store {
    /// Ends what an agent had open under another boot and does not list, at the last sign of life of that boot. What it
    /// lists is open under its boot from now on. To be called once the spool is committed up to what it held when the boot
    /// began: the real disconnect may be in it.
    pub async fn close_other_boots(&self, boot: &Boot<'_>) -> Result<Vec<Connection>, StoreError> {
        let mut attempts = 0;
        loop {
            match self.close_other_boots_once(boot).await {
                Ok(closed) => return Ok(closed),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn close_other_boots_once(&self, boot: &Boot<'_>) -> Result<Vec<Connection>, StoreError> {
        let Boot { agent, spool_id, boot_id, listed, ended_at, live_since } = boot;
        let mut client = self.client().await?;
        let number = self.number(&client, [*agent]).await?.of(agent).agent;
        let agents: &[i64] = &[number];
        let mut further = open::steps(&agents);
        further.push(Step::Query(LIVE_BOOTS, vec![&number, spool_id, live_since]));
        let (held, mut rows) = self.hold(&mut client, agents, Wait::ForAll, further).await?;
        let live = rows.pop().unwrap_or_default();
        // What lives on another spool is left alone: it has a stream of its own, or the sweep ends it.
        let live = live.iter().map(|row| Ok(BootNumber::of(row.try_get(0)?)));
        let live = live.collect::<Result<HashSet<BootNumber>, StoreError>>()?;
        let (boot, listed) = (BootNumber::of(*boot_id), listed.iter().copied().collect::<HashSet<Uuid>>());
        let (mut changes, mut closed, mut kept) = (Changes::default(), Vec::new(), Vec::new());
        for recorded in open::open(self, &held, &rows).await? {
            let before = recorded.connection.boot;
            if before == Some(boot) {
                kept.push(recorded);
            } else if listed.contains(&recorded.connection.id) {
                let mut adopted = recorded.clone();
                adopted.connection.boot = Some(boot);
                kept.push(adopted.clone());
                changes.add(&held, Some(recorded), adopted);
            } else if before.is_some_and(|before| !live.contains(&before)) {
                closed.push(open::end(&mut changes, &held, recorded, *ended_at, REASON_AGENT_RESTARTED));
            } else {
                kept.push(recorded);
            }
        }
        let noted = Noted::of(&held, &rows, &kept)?;
        let mut further = noted.steps();
        further.push(Step::Query(CLOSED, vec![&number, spool_id, boot_id]));
        changes.save(&held, further, SHARD).await?;
        held.transaction.commit().await?;
        Ok(closed)
    }

    /// The open connections of a boot of an agent that its list of `heard_at` does not have (row ids). What was reported since then says
    /// nothing of it.
    pub async fn unlisted(
        &self,
        agent: &Arc<AgentIdentity>,
        boot_id: Uuid,
        listed: &[Uuid],
        heard_at: Timestamp,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut client = self.client().await?;
        let number = self.number(&client, [agent]).await?.of(agent).agent;
        let agents: &[i64] = &[number];
        let (held, rows) = self.hold(&mut client, agents, Wait::ForAll, open::steps(&agents)).await?;
        let (boot, listed) = (BootNumber::of(boot_id), listed.iter().copied().collect::<HashSet<Uuid>>());
        let open = open::open(self, &held, &rows).await?;
        let noted = Noted::of(&held, &rows, &open)?;
        let steps = noted.steps();
        if steps.is_empty() {
            held.transaction.end();
        } else {
            held.transaction.send(None, &steps).await?;
            held.transaction.commit().await?;
        }
        let unlisted = open.into_iter().map(|recorded| recorded.connection);
        let unlisted = unlisted
            .filter(|open| open.boot == Some(boot) && open.received_at <= heard_at && !listed.contains(&open.id));
        Ok(unlisted.map(|connection| connection.id).collect())
    }

    /// Ends those connections that the boot still has open. To be called for what two heartbeats in a row
    /// did not list, once everything sent before the second is committed: their disconnects are lost.
    pub async fn close_unlisted(&self, unlisted: &Unlisted<'_>) -> Result<Vec<Connection>, StoreError> {
        let mut attempts = 0;
        loop {
            match self.close_unlisted_once(unlisted).await {
                Ok(closed) => return Ok(closed),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn close_unlisted_once(&self, unlisted: &Unlisted<'_>) -> Result<Vec<Connection>, StoreError> {
        let mut client = self.client().await?;
        let number = self.number(&client, [unlisted.agent]).await?.of(unlisted.agent).agent;
        let agents: &[i64] = &[number];
        let (held, rows) = self.hold(&mut client, agents, Wait::ForAll, open::steps(&agents)).await?;
        let (boot, ids) = (BootNumber::of(unlisted.boot_id), unlisted.ids.iter().copied().collect::<HashSet<Uuid>>());
        let (mut changes, mut closed) = (Changes::default(), Vec::new());
        for recorded in open::open(self, &held, &rows).await? {
            if recorded.connection.boot == Some(boot) && ids.contains(&recorded.connection.id) {
                closed.push(open::end(&mut changes, &held, recorded, unlisted.ended_at, REASON_DISCONNECT_LOST));
            }
        }
        changes.save(&held, Vec::new(), SHARD).await?;
        held.transaction.commit().await?;
        Ok(closed)
    }
}
