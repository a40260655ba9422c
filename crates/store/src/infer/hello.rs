//! The beginning of a stream: who owns the spool now, what is missing, and what an earlier boot left open.

use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, REASON_AGENT_RESTARTED, REASON_DISCONNECT_LOST};
use uuid::Uuid;

use super::{SHARD, close};
use crate::argument::Argument;
use crate::session::{begin_write, execute, query};
use crate::write::{counts, hold_floor};
use crate::{Store, StoreError};

/// What the first message of a stream says.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The agent.
    pub agent_id: Uuid,
    /// Its spool, to which sequence numbers belong.
    pub spool_id: Uuid,
    /// Its boot.
    pub boot_id: Uuid,
    /// The stream, as the server names it.
    pub stream_id: Uuid,
    /// The first sequence number that the agent takes for not acknowledged.
    pub first_unacked_seq: i64,
    /// The newest sequence number in the spool.
    pub last_seq: i64,
    /// When the server got it.
    pub received_at: Timestamp,
}

/// What a boot of an agent says is open, see [`Store::close_other_boots`].
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The agent.
    pub agent_id: Uuid,
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

/// What the server knew before a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Events up to this number were in the spool when the boot began, and may be of an earlier one.
    pub earlier_boot_seq: i64,
    /// The last sign of life of the boot before.
    pub last_seen_at: Option<Timestamp>,
    /// How far the spool is committed; none if nothing of it is.
    pub committed_seq: Option<i64>,
}

const LOCK_PRESENCE: &str = "-- lock_presence
SELECT spool_id, boot_id, committed_seq, earlier_boot_seq, last_seen_at, unclosed_since FROM agent_presence
WHERE agent_id = $1 ORDER BY spool_id FOR UPDATE";

const GREET: &str = "-- greet
INSERT INTO agent_presence (agent_id, spool_id, boot_id, stream_id, committed_seq, last_seen_at, earlier_boot_seq, unclosed_since)
VALUES ($1, $2, $3, $4, $7, $5, $6, $8)
ON CONFLICT (agent_id, spool_id) DO UPDATE
SET boot_id = excluded.boot_id, stream_id = excluded.stream_id, earlier_boot_seq = excluded.earlier_boot_seq,
    committed_seq = excluded.committed_seq, unclosed_since = excluded.unclosed_since,
    last_seen_at = greatest(agent_presence.last_seen_at, excluded.last_seen_at)";

/// Listed or not, in one pass in the order of the ids: two passes would deadlock with batches. What lives on another
/// spool is left alone: it has a stream of its own, or the sweep ends it.
const OTHER_BOOTS: &str = "-- open_under_other_boots
SELECT id, id = ANY($3::uuid[]) AS listed FROM open_connections
WHERE agent_id = $1 AND boot_id IS NOT NULL AND boot_id <> $2 AND (id = ANY($3::uuid[]) OR boot_id NOT IN (
    SELECT boot_id FROM agent_presence WHERE agent_id = $1 AND spool_id <> $4 AND last_seen_at >= $5))
ORDER BY id FOR UPDATE";

const CLOSED: &str = "-- note_closed
UPDATE agent_presence SET unclosed_since = NULL WHERE agent_id = $1 AND spool_id = $2 AND boot_id = $3";

const ADOPT: &str = "-- adopt
UPDATE open_connections SET boot_id = $2 WHERE id = ANY($1::uuid[])";

const UNLISTED: &str = "-- unlisted
SELECT id FROM open_connections WHERE agent_id = $1 AND boot_id = $3 AND id <> ALL($2::uuid[])";

const LOCK_UNLISTED: &str = "-- lock_unlisted
SELECT id FROM open_connections WHERE agent_id = $1 AND boot_id = $3 AND id = ANY($2::uuid[])
ORDER BY id FOR UPDATE";

impl Store {
    /// Makes the stream the owner of its spool.
    pub async fn greet(&self, hello: &Hello) -> Result<Greeting, StoreError> {
        let mut attempts = 0;
        loop {
            match self.greet_once(hello).await {
                Ok(greeting) => return Ok(greeting),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn greet_once(&self, hello: &Hello) -> Result<Greeting, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        // A spool that is new to the server may have been filled by an earlier boot.
        let mut greeting = Greeting { earlier_boot_seq: hello.last_seq, last_seen_at: None, committed_seq: None };
        let mut unclosed_since = None;
        let mut is_new = true;
        for row in query(&transaction, LOCK_PRESENCE, &[&hello.agent_id]).await? {
            let seen: Timestamp = row.try_get("last_seen_at")?;
            greeting.last_seen_at = greeting.last_seen_at.max(Some(seen));
            if row.try_get::<_, Uuid>("spool_id")? == hello.spool_id {
                is_new = false;
                greeting.committed_seq = row.try_get("committed_seq")?;
                unclosed_since = row.try_get("unclosed_since")?;
                if row.try_get::<_, Uuid>("boot_id")? == hello.boot_id {
                    greeting.earlier_boot_seq = row.try_get("earlier_boot_seq")?;
                } else {
                    // A boot that came and went before anything was closed does not move the end.
                    unclosed_since = unclosed_since.or(Some(seen));
                }
            }
        }
        if is_new {
            unclosed_since = greeting.last_seen_at;
        }
        greeting.last_seen_at = unclosed_since.or(greeting.last_seen_at);
        // A spool that went back in time, from a snapshot, gives its numbers out again: what was committed under them says
        // nothing of what comes.
        if hello.last_seq > 0 && greeting.committed_seq.is_some_and(|committed| hello.last_seq < committed) {
            greeting.committed_seq = Some(hello.first_unacked_seq.max(1) - 1);
        }
        let Hello { agent_id, spool_id, boot_id, stream_id, received_at, .. } = hello;
        let parameters: [&dyn Argument; 8] = [
            agent_id,
            spool_id,
            boot_id,
            stream_id,
            received_at,
            &greeting.earlier_boot_seq,
            &greeting.committed_seq,
            &unclosed_since,
        ];
        execute(&transaction, GREET, &parameters).await?;
        transaction.commit().await?;
        Ok(greeting)
    }

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
        let Boot { agent_id, spool_id, boot_id, listed, ended_at, live_since } = boot;
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let floor = hold_floor(&transaction).await?;
        query(&transaction, LOCK_PRESENCE, &[agent_id]).await?;
        let (mut adopted, mut ids) = (Vec::<Uuid>::new(), Vec::new());
        for row in query(&transaction, OTHER_BOOTS, &[agent_id, boot_id, listed, spool_id, live_since]).await? {
            let id = row.try_get("id")?;
            if row.try_get("listed")? { adopted.push(id) } else { ids.push(id) }
        }
        execute(&transaction, ADOPT, &[&adopted, boot_id]).await?;
        let mut deltas = counts::Deltas::default();
        let closed =
            close::close(&transaction, &ids, floor, REASON_AGENT_RESTARTED, |_| *ended_at, &mut deltas).await?;
        execute(&transaction, CLOSED, &[agent_id, spool_id, boot_id]).await?;
        counts::add(&transaction, &deltas, SHARD).await?;
        transaction.commit().await?;
        Ok(closed)
    }

    /// The open connections of a boot of `agent_id` that it does not list (row ids).
    pub async fn unlisted(&self, agent_id: Uuid, boot_id: Uuid, listed: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let client = self.client().await?;
        close::first_column(&client.query(UNLISTED, &[&agent_id, &listed, &boot_id]).await?)
    }

    /// Ends those of `ids` that the boot still has open, at `ended_at`. To be called for what two heartbeats in a row
    /// did not list, once everything sent before the second is committed: their disconnects are lost.
    pub async fn close_unlisted(
        &self,
        agent_id: Uuid,
        boot_id: Uuid,
        ids: &[Uuid],
        ended_at: Timestamp,
    ) -> Result<Vec<Connection>, StoreError> {
        let mut attempts = 0;
        loop {
            match self.close_unlisted_once(agent_id, boot_id, ids, ended_at).await {
                Ok(closed) => return Ok(closed),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn close_unlisted_once(
        &self,
        agent_id: Uuid,
        boot_id: Uuid,
        ids: &[Uuid],
        ended_at: Timestamp,
    ) -> Result<Vec<Connection>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let floor = hold_floor(&transaction).await?;
        query(&transaction, LOCK_PRESENCE, &[&agent_id]).await?;
        let ids = close::first_column(&query(&transaction, LOCK_UNLISTED, &[&agent_id, &ids, &boot_id]).await?)?;
        let mut deltas = counts::Deltas::default();
        let closed = close::close(&transaction, &ids, floor, REASON_DISCONNECT_LOST, |_| ended_at, &mut deltas).await?;
        counts::add(&transaction, &deltas, SHARD).await?;
        transaction.commit().await?;
        Ok(closed)
    }
}
