//! Which stream owns a spool: the newest. An older one, of a half-open connection or of a clone of the workspace, gives
//! way. Across replicas the presence row decides; this is the same within a process, at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The owners of spools, by agent and spool.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    owners: Arc<Mutex<HashMap<Spool, Owner>>>,
}

/// An agent and its spool.
type Spool = (Uuid, Uuid);
/// A stream, and what tells it that it is displaced.
type Owner = (Uuid, CancellationToken);

/// The ownership of a spool, until dropped.
#[derive(Debug)]
pub struct Ownership {
    registry: Registry,
    spool: Spool,
    stream_id: Uuid,
    displaced: CancellationToken,
}

impl Registry {
    /// Makes `stream_id` the owner of an agent's spool, and displaces the one before.
    pub fn claim(&self, agent_id: Uuid, spool_id: Uuid, stream_id: Uuid) -> Ownership {
        let spool = (agent_id, spool_id);
        let displaced = CancellationToken::new();
        let mut owners = self.owners.lock().expect("no one panics while holding the registry");
        if let Some((_, older)) = owners.insert(spool, (stream_id, displaced.clone())) {
            older.cancel();
        }
        metrics::gauge!("connlog_ingest_streams").set(u32::try_from(owners.len()).unwrap_or(u32::MAX));
        drop(owners);
        Ownership { registry: self.clone(), spool, stream_id, displaced }
    }
}

impl Ownership {
    /// Ends when a newer stream takes over.
    pub fn displaced(&self) -> CancellationToken {
        self.displaced.clone()
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        let mut owners = self.registry.owners.lock().expect("no one panics while holding the registry");
        if owners.get(&self.spool).is_some_and(|(owner, _)| *owner == self.stream_id) {
            owners.remove(&self.spool);
        }
        metrics::gauge!("connlog_ingest_streams").set(u32::try_from(owners.len()).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_stream_displaces_the_older_and_keeps_its_claim() {
        let registry = Registry::default();
        let (agent, spool) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let older = registry.claim(agent, spool, Uuid::from_u128(3));
        let other = registry.claim(agent, Uuid::from_u128(9), Uuid::from_u128(4));
        let newer = registry.claim(agent, spool, Uuid::from_u128(5));
        assert!(older.displaced().is_cancelled());
        assert!(!other.displaced().is_cancelled());
        drop(older);
        let newest = registry.claim(agent, spool, Uuid::from_u128(6));
        assert!(newer.displaced().is_cancelled());
        assert!(!newest.displaced().is_cancelled());
    }
}
