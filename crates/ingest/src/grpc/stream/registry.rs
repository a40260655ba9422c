//! Which stream owns a spool: the newest. An older one, of a half-open connection or of a clone of the workspace, gives
//! way. Across replicas the row of the spool decides; this is the same within a process, at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The owners of spools, by agent and spool.
#[derive(Debug, Clone)]
pub struct Registry {
    owners: Arc<Mutex<HashMap<Uuid, HashMap<Uuid, Owner>>>>,
    max_per_agent: usize,
}

/// A stream, and what tells it that it is displaced.
type Owner = (Uuid, CancellationToken);

/// The ownership of a spool, until dropped.
#[derive(Debug)]
pub struct Ownership {
    registry: Registry,
    agent_id: Uuid,
    spool_id: Uuid,
    stream_id: Uuid,
    displaced: CancellationToken,
}

impl Registry {
    /// Nobody owns anything; an agent may own `max_per_agent` spools.
    pub fn new(max_per_agent: usize) -> Self {
        Self { owners: Arc::default(), max_per_agent }
    }

    /// Makes `stream_id` the owner of an agent's spool, and displaces the one before; nothing if the agent has too many
    /// others.
    pub fn claim(&self, agent_id: Uuid, spool_id: Uuid, stream_id: Uuid) -> Option<Ownership> {
        let displaced = CancellationToken::new();
        let mut owners = self.owners.lock().expect("no one panics while holding the registry");
        let of_agent = owners.entry(agent_id).or_default();
        if of_agent.len() >= self.max_per_agent && !of_agent.contains_key(&spool_id) {
            return None;
        }
        if let Some((_, older)) = of_agent.insert(spool_id, (stream_id, displaced.clone())) {
            older.cancel();
        } else {
            metrics::gauge!("connlog_ingest_streams").increment(1.0);
        }
        drop(owners);
        Some(Ownership { registry: self.clone(), agent_id, spool_id, stream_id, displaced })
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
        let Some(of_agent) = owners.get_mut(&self.agent_id) else { return };
        if of_agent.get(&self.spool_id).is_some_and(|(owner, _)| *owner == self.stream_id) {
            of_agent.remove(&self.spool_id);
            metrics::gauge!("connlog_ingest_streams").decrement(1.0);
        }
        if of_agent.is_empty() {
            owners.remove(&self.agent_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_stream_displaces_the_older_and_keeps_its_claim() {
        let registry = Registry::new(2);
        let (agent, spool) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let claim = |spool, stream| registry.claim(agent, spool, Uuid::from_u128(stream));
        let older = claim(spool, 3).expect("there is room");
        let other = claim(Uuid::from_u128(9), 4).expect("there is room");
        let newer = claim(spool, 5).expect("it replaces the older");
        assert!(older.displaced().is_cancelled());
        assert!(!other.displaced().is_cancelled());
        drop(older);
        let newest = claim(spool, 6).expect("it replaces the newer");
        assert!(newer.displaced().is_cancelled());
        assert!(!newest.displaced().is_cancelled());
    }

    #[test]
    fn an_agent_has_so_many_spools_and_another_once_it_gives_one_up() {
        let registry = Registry::new(2);
        let claim = |agent, spool| registry.claim(Uuid::from_u128(agent), Uuid::from_u128(spool), Uuid::new_v4());
        let (first, _second) = (claim(1, 1).expect("there is room"), claim(1, 2).expect("there is room"));
        assert!(claim(1, 3).is_none());
        assert!(claim(2, 3).is_some(), "others have their own");
        drop(first);
        assert!(claim(1, 3).is_some());
    }
}
