//! What an agent lists as open against what the log has open.
//!
//! A sign of life is noted at once, and reopens what the agent lists and the log had taken for ended. Closing waits until
//! everything that the agent had to say before it made the list is committed: the real disconnect may be on its way.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::identity::AgentIdentity;
use connlog_store::infer::{Boot, SignOfLife, Unlisted};
use connlog_store::write::Stamp;
use connlog_store::{Store, StoreError};
use uuid::Uuid;

use crate::conclusions::Conclusions;

/// After so many signs of life, connections that the log did not know are asked for again.
const FORGET_UNKNOWN_AFTER: u32 = 20;

/// A list of open connections, and what has to be committed before it says anything about the others.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    /// The connections, by the agent's ids.
    pub connections: Vec<Uuid>,
    /// The newest event in the spool when the list was made; 0 if the agent does not say.
    pub last_seq: i64,
    /// When the server got it.
    pub received_at: Timestamp,
    /// Whether it came with the Hello.
    pub is_hello: bool,
}

/// The state of one stream's reconciliation.
pub(super) struct Reconciler {
    pub(super) store: Store,
    pub(super) conclusions: Conclusions,
    pub(super) agent: Arc<AgentIdentity>,
    pub(super) spool_id: Uuid,
    pub(super) stream_id: Uuid,
    pub(super) boot_id: Uuid,
    /// Silence after which an agent counts as lost.
    pub(super) lost_after: TimeDelta,
    /// The last sign of life of the boot before.
    pub(super) last_seen_before: Option<Timestamp>,
    /// Listed connections that the log does not have.
    pub(super) unknown: HashSet<Uuid>,
    pub(super) signs: u32,
    /// What the heartbeat before did not list, and when that came.
    pub(super) unlisted_before: Option<(HashSet<Uuid>, Timestamp)>,
}

impl Reconciler {
    /// Notes a sign of life. Returns false if the stream no longer owns its spool.
    pub(super) async fn sign_of_life(&mut self, listing: &Listing) -> Result<bool, StoreError> {
        self.signs += 1;
        if self.signs.is_multiple_of(FORGET_UNKNOWN_AFTER) {
            self.unknown.clear();
        }
        let listed: Vec<Uuid> = listing.connections.iter().copied().filter(|id| !self.unknown.contains(id)).collect();
        let stamp = Stamp {
            agent: Arc::clone(&self.agent),
            spool_id: self.spool_id,
            stream_id: self.stream_id,
            committed_seq: None,
            seen_at: listing.received_at,
        };
        let sign = SignOfLife { agent: &self.agent, stamp, boot_id: self.boot_id, listed: &listed };
        let life = self.store.sign_of_life(&sign).await?;
        self.conclusions.reopened(self.stream_id, &life.reopened).await;
        metrics::counter!("connlog_ingest_contradictions_total").increment(life.contradicting as u64);
        self.unknown.extend(life.unknown);
        Ok(!life.displaced)
    }

    /// Closes what `listing` shows to have ended. To be called once everything up to `listing.last_seq` is committed.
    pub(super) async fn close(&mut self, listing: &Listing) -> Result<(), StoreError> {
        let listed: Vec<Uuid> = listing.connections.iter().map(|id| self.agent.row_id(*id)).collect();
        if listing.is_hello {
            let ended_at = self.last_seen_before.unwrap_or(listing.received_at);
            let boot = Boot {
                agent: &self.agent,
                spool_id: self.spool_id,
                boot_id: self.boot_id,
                listed: &listed,
                ended_at,
                live_since: self.conclusions.clock.now() - self.lost_after,
            };
            let closed = self.store.close_other_boots(&boot).await?;
            self.conclusions.ended(self.stream_id, "restarted", &closed).await;
        } else if listing.last_seq > 0 {
            let unlisted: HashSet<Uuid> = self
                .store
                .unlisted(&self.agent, self.boot_id, &listed, listing.received_at)
                .await?
                .into_iter()
                .collect();
            if let Some((before, since)) = &self.unlisted_before {
                let twice: Vec<Uuid> = unlisted.intersection(before).copied().collect();
                if !twice.is_empty() {
                    let unlisted =
                        Unlisted { agent: &self.agent, boot_id: self.boot_id, ids: &twice, ended_at: *since };
                    let closed = self.store.close_unlisted(&unlisted).await?;
                    self.conclusions.ended(self.stream_id, "disconnect_lost", &closed).await;
                }
            }
            self.unlisted_before = Some((unlisted, listing.received_at));
        }
        Ok(())
    }
}
