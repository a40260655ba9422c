//! The beginning of a stream: who owns the spool now, and what is missing.

use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::identity::AgentIdentity;
use uuid::Uuid;

use crate::argument::Argument;
use crate::session::{begin_write, execute, query};
use crate::{Store, StoreError};

/// What the first message of a stream says.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The agent.
    pub agent: Arc<AgentIdentity>,
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

const LOCK_AGENT: &str = "-- lock_agent
SELECT FROM agents WHERE agent = $1 FOR NO KEY UPDATE";

const SPOOLS: &str = "-- spools_of_agent
SELECT spool_id, boot_id, committed_seq, earlier_boot_seq, last_seen_at, unclosed_since FROM agent_spools WHERE agent = $1";

const GREET: &str = "-- greet
INSERT INTO agent_spools (agent, spool_id, agent_id, boot_id, stream_id, committed_seq, last_seen_at, earlier_boot_seq, unclosed_since)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (agent, spool_id) DO UPDATE
SET agent_id = excluded.agent_id, boot_id = excluded.boot_id, stream_id = excluded.stream_id,
    earlier_boot_seq = excluded.earlier_boot_seq, committed_seq = excluded.committed_seq, unclosed_since = excluded.unclosed_since,
    last_seen_at = greatest(agent_spools.last_seen_at, excluded.last_seen_at)";

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
        let agent = self.number(&client, [&hello.agent]).await?.of(&hello.agent).agent;
        let transaction = begin_write(&mut client).await?;
        if query(&transaction, LOCK_AGENT, &[&agent]).await?.is_empty() {
            self.forget_numbers();
            return Err(StoreError::Overtaken("the agent is not there".to_owned()));
        }
        // A spool that is new to the server may have been filled by an earlier boot.
        let mut greeting = Greeting { earlier_boot_seq: hello.last_seq, last_seen_at: None, committed_seq: None };
        let mut unclosed_since = None;
        let mut is_new = true;
        for row in query(&transaction, SPOOLS, &[&agent]).await? {
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
        let Hello { spool_id, boot_id, stream_id, received_at, .. } = hello;
        let parameters: [&dyn Argument; 9] = [
            &agent,
            spool_id,
            &hello.agent.agent_id,
            boot_id,
            stream_id,
            &greeting.committed_seq,
            received_at,
            &greeting.earlier_boot_seq,
            &unclosed_since,
        ];
        execute(&transaction, GREET, &parameters).await?;
        transaction.commit().await?;
        Ok(greeting)
    }
}
