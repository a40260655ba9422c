//! Agents and targets by number: what rows of the log refer to, in eight bytes.
//!
//! A number is the beginning of an HMAC-SHA256, under a key that only the database has, of what it stands for. So a row that was
//! written before a restore never belongs to somebody else after it, as with numbers that count up, and nobody can look for
//! two names with one number. If a number stands for something else already, the next one of the same name is taken.
//!
//! What a number stands for is in the database before a row refers to it. What is known to be there is forgotten with each new
//! connection, since it may be to a database that was restored from before; behind a pooler, which may have one at any time,
//! it is not remembered at all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use connlog_model::identity::{AgentIdentity, Workspace};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::session::{Session, Transaction, query};
use crate::{Store, StoreError};

/// So many targets are remembered, in some 300 bytes each.
const MOST_KNOWN: usize = 200_000;
/// So many numbers of one name are tried. A second one is needed once in some billions of fleets.
const MOST_TRIED: u8 = 8;
/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// A target: the number of its agent, and the agent as it was then.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) agent: i64,
    pub(crate) identity: Arc<AgentIdentity>,
}

/// What is known to be in the database.
#[derive(Debug, Default, Clone)]
pub(crate) struct KnownNumbers {
    key: Option<[u8; KEY_BYTES]>,
    /// Workspace and name of each agent.
    agents: HashMap<i64, (Uuid, String)>,
    targets: HashMap<i64, Target>,
}

/// The numbers of an agent, and of the target that it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) agent: i64,
    pub(crate) target: i64,
}

/// The numbers of some agents, by where these are in memory.
#[derive(Debug, Default)]
pub(crate) struct Numbered(HashMap<usize, Numbers>);

impl Numbered {
    /// The numbers of one of the agents that were asked for.
    pub(crate) fn of(&self, agent: &Arc<AgentIdentity>) -> Numbers {
        self.0[&address(agent)]
    }

    /// The numbers of all agents, ascending.
    pub(crate) fn agents(&self) -> Vec<i64> {
        let mut agents: Vec<i64> = self.0.values().map(|numbers| numbers.agent).collect();
        agents.sort_unstable();
        agents.dedup();
        agents
    }
}

fn address(agent: &Arc<AgentIdentity>) -> usize {
    Arc::as_ptr(agent).addr()
}

const KEY: &str = "-- number_key
SELECT key FROM number_key";

/// In the order of the numbers, so that two replicas cannot deadlock.
const ADD_AGENTS: &str = "-- add_agents
INSERT INTO agents (agent, workspace_id, agent_name)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS k (agent, workspace_id, agent_name) ORDER BY agent
ON CONFLICT (agent) DO NOTHING";

const AGENTS: &str = "-- agents_by_number
SELECT agent, workspace_id, agent_name FROM agents WHERE agent = ANY($1::bigint[])";

const ADD_TARGETS: &str = "-- add_targets
INSERT INTO targets (target, agent, organization_id, owner_id, workspace_id, workspace_name, workspace_name_key, agent_name)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[])
    AS k (target, agent, organization_id, owner_id, workspace_id, workspace_name, workspace_name_key, agent_name) ORDER BY target
ON CONFLICT (target) DO NOTHING";

const TARGETS: &str = "-- targets_by_number
SELECT target, agent, organization_id, owner_id, workspace_id, workspace_name, agent_name FROM targets WHERE target = ANY($1::bigint[])";

impl Store {
    /// Makes agents known to the log, as their first event does.
    pub async fn register(&self, agents: &[Arc<AgentIdentity>]) -> Result<(), StoreError> {
        let client = self.client().await?;
        self.number(&client, agents).await?;
        Ok(())
    }

    /// The numbers of agents, which are in the database by then: what is missing is added, in transactions of their own, over
    /// the connection that will write.
    pub(crate) async fn number<'a>(
        &self,
        client: &Session,
        agents: impl IntoIterator<Item = &'a Arc<AgentIdentity>>,
    ) -> Result<Numbered, StoreError> {
        let agents: HashMap<usize, &Arc<AgentIdentity>> =
            agents.into_iter().map(|agent| (address(agent), agent)).collect();
        let mut known = if client.is_pooled() {
            KnownNumbers::default()
        } else {
            KnownNumbers { key: self.known().key, ..KnownNumbers::default() }
        };
        let mut numbered = Numbered::default();
        let mut missing: Vec<(usize, &Arc<AgentIdentity>)> = Vec::new();
        if let (Some(key), false) = (known.key, client.is_pooled()) {
            let remembered = self.known();
            for (address, agent) in agents {
                match remembered.numbers(&key, agent) {
                    Some(numbers) => drop(numbered.0.insert(address, numbers)),
                    None => missing.push((address, agent)),
                }
            }
        } else {
            missing.extend(agents);
        }
        if missing.is_empty() {
            return Ok(numbered);
        }
        let key = match known.key {
            Some(key) => key,
            None => read_key(client).await?,
        };
        known.key = Some(key);
        known.add(client, &key, missing.iter().map(|(_, agent)| *agent)).await?;
        for (address, agent) in missing {
            let numbers = known.numbers(&key, agent);
            numbered.0.insert(address, numbers.ok_or_else(|| none_free(&agent.workspace))?);
        }
        if !client.is_pooled() {
            self.known().extend(known);
        }
        Ok(numbered)
    }

    /// What targets are, by their numbers.
    pub(crate) async fn targets(
        &self,
        transaction: &Transaction<'_>,
        numbers: impl IntoIterator<Item = i64>,
    ) -> Result<HashMap<i64, Target>, StoreError> {
        let mut targets = HashMap::new();
        let mut missing = Vec::new();
        {
            let known = self.known();
            for number in numbers {
                match known.targets.get(&number).filter(|_| !transaction.is_pooled()) {
                    Some(target) => drop(targets.insert(number, target.clone())),
                    None => missing.push(number),
                }
            }
        }
        if missing.is_empty() {
            return Ok(targets);
        }
        missing.sort_unstable();
        missing.dedup();
        let mut found = KnownNumbers::default();
        for row in query(transaction, TARGETS, &[&missing]).await? {
            let (number, target) = target(&row)?;
            found.targets.insert(number, target);
        }
        targets.extend(found.targets.iter().map(|(number, target)| (*number, target.clone())));
        if !transaction.is_pooled() {
            self.known().extend(found);
        }
        Ok(targets)
    }

    /// Forgets what is known, because something of it turned out not to be there.
    pub(crate) fn forget_numbers(&self) {
        *self.known() = KnownNumbers::default();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownNumbers> {
        self.known_numbers.lock().expect("no one panics while holding the known numbers")
    }
}

fn none_free(workspace: &Workspace) -> StoreError {
    StoreError::Inconsistent(format!("workspace {} finds no number that is free", workspace.workspace_id))
}

async fn read_key(client: &Session) -> Result<[u8; KEY_BYTES], StoreError> {
    let key: Vec<u8> = client.query_one(KEY, &[]).await?.try_get(0)?;
    key.try_into().map_err(|_| StoreError::Inconsistent("number_key has no key of 32 bytes".to_owned()))
}

impl KnownNumbers {
    /// The numbers of an agent, if both are known to be there.
    fn numbers(&self, key: &[u8], agent: &AgentIdentity) -> Option<Numbers> {
        let number = (0..MOST_TRIED)
            .map(|counter| agent_number(key, agent, counter))
            .find(|number| self.agents.get(number).is_none_or(|name| is_agent(name, agent)))?;
        let target = (0..MOST_TRIED)
            .map(|counter| target_number(key, agent, counter))
            .find(|number| self.targets.get(number).is_none_or(|target| is_target(&target.identity, agent)))?;
        let is_there = self.agents.contains_key(&number) && self.targets.contains_key(&target);
        is_there.then_some(Numbers { agent: number, target })
    }

    /// Adds agents to the database as far as they are missing there, and notes what their numbers stand for.
    async fn add<'a>(
        &mut self,
        client: &Session,
        key: &[u8],
        agents: impl Iterator<Item = &'a Arc<AgentIdentity>> + Clone,
    ) -> Result<(), StoreError> {
        for counter in 0..MOST_TRIED {
            let mut missing: BTreeMap<i64, &AgentIdentity> = BTreeMap::new();
            for agent in agents.clone() {
                let is_known = (0..counter).any(|before| {
                    self.agents.get(&agent_number(key, agent, before)).is_some_and(|name| is_agent(name, agent))
                });
                if !is_known {
                    missing.insert(agent_number(key, agent, counter), agent);
                }
            }
            if missing.is_empty() {
                break;
            }
            let numbers: Vec<i64> = missing.keys().copied().collect();
            let workspaces: Vec<Uuid> = missing.values().map(|agent| agent.workspace.workspace_id).collect();
            let names: Vec<&str> = missing.values().map(|agent| agent.agent_name.as_str()).collect();
            client.execute(ADD_AGENTS, &[&numbers, &workspaces, &names]).await?;
            for row in client.query(AGENTS, &[&numbers]).await? {
                self.agents.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
            }
        }
        for counter in 0..MOST_TRIED {
            let mut missing: BTreeMap<i64, (i64, &AgentIdentity)> = BTreeMap::new();
            for agent in agents.clone() {
                let is_known = (0..counter).any(|before| {
                    let target = self.targets.get(&target_number(key, agent, before));
                    target.is_some_and(|target| is_target(&target.identity, agent))
                });
                let number = (0..MOST_TRIED)
                    .map(|tried| agent_number(key, agent, tried))
                    .find(|number| self.agents.get(number).is_some_and(|name| is_agent(name, agent)))
                    .ok_or_else(|| none_free(&agent.workspace))?;
                if !is_known {
                    missing.insert(target_number(key, agent, counter), (number, agent));
                }
            }
            if missing.is_empty() {
                break;
            }
            self.add_targets(client, &missing).await?;
        }
        Ok(())
    }

    async fn add_targets(
        &mut self,
        client: &Session,
        missing: &BTreeMap<i64, (i64, &AgentIdentity)>,
    ) -> Result<(), StoreError> {
        let numbers: Vec<i64> = missing.keys().copied().collect();
        let agents: Vec<i64> = missing.values().map(|(agent, _)| *agent).collect();
        let ids =
            |id: fn(&Workspace) -> Uuid| missing.values().map(|(_, agent)| id(&agent.workspace)).collect::<Vec<_>>();
        let names: Vec<&str> = missing.values().map(|(_, agent)| agent.workspace.workspace_name.as_str()).collect();
        let keys: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let agent_names: Vec<&str> = missing.values().map(|(_, agent)| agent.agent_name.as_str()).collect();
        let organizations = ids(|workspace| workspace.organization_id);
        let owners = ids(|workspace| workspace.owner_id);
        let workspaces = ids(|workspace| workspace.workspace_id);
        client
            .execute(
                ADD_TARGETS,
                &[&numbers, &agents, &organizations, &owners, &workspaces, &names, &keys, &agent_names],
            )
            .await?;
        for row in client.query(TARGETS, &[&numbers]).await? {
            let (number, target) = target(&row)?;
            self.targets.insert(number, target);
        }
        Ok(())
    }

    fn extend(&mut self, more: Self) {
        if self.targets.len() + more.targets.len() > MOST_KNOWN {
            *self = Self::default();
        }
        self.key = more.key.or(self.key);
        self.agents.extend(more.agents);
        self.targets.extend(more.targets);
    }
}

fn target(row: &Row) -> Result<(i64, Target), StoreError> {
    let workspace = Workspace {
        organization_id: row.try_get(2)?,
        owner_id: row.try_get(3)?,
        workspace_id: row.try_get(4)?,
        workspace_name: row.try_get(5)?,
    };
    let identity = AgentIdentity { agent_id: None, agent_name: row.try_get(6)?, workspace };
    Ok((row.try_get(0)?, Target { agent: row.try_get(1)?, identity: Arc::new(identity) }))
}

fn is_agent((workspace_id, name): &(Uuid, String), agent: &AgentIdentity) -> bool {
    *workspace_id == agent.workspace.workspace_id && *name == agent.agent_name
}

/// The id of the agent is not part of a target: it is new with each build of a workspace.
fn is_target(target: &AgentIdentity, agent: &AgentIdentity) -> bool {
    target.workspace == agent.workspace && target.agent_name == agent.agent_name
}

fn agent_number(key: &[u8], agent: &AgentIdentity, counter: u8) -> i64 {
    number(key, b"agent", &[agent.workspace.workspace_id.as_bytes(), agent.agent_name.as_bytes()], counter)
}

fn target_number(key: &[u8], agent: &AgentIdentity, counter: u8) -> i64 {
    let Workspace { organization_id, owner_id, workspace_id, workspace_name } = &agent.workspace;
    let ids = [organization_id, owner_id, workspace_id].map(|id| &id.as_bytes()[..]);
    number(key, b"target", &[ids[0], ids[1], ids[2], workspace_name.as_bytes(), agent.agent_name.as_bytes()], counter)
}

/// The first eight bytes, big-endian, of the HMAC of the kind, the counter, and the parts with the length of each.
fn number(key: &[u8], kind: &[u8], parts: &[&[u8]], counter: u8) -> i64 {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(kind);
    mac.update(&[counter]);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let bytes = mac.finalize().into_bytes();
    i64::from_be_bytes(*bytes.first_chunk().expect("an HMAC-SHA256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(workspace: &str, name: &str) -> AgentIdentity {
        let workspace = Workspace {
            organization_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(2),
            workspace_id: Uuid::from_u128(3),
            workspace_name: workspace.to_owned(),
        };
        AgentIdentity { agent_id: None, agent_name: name.to_owned(), workspace }
    }

    #[test]
    fn a_number_is_fixed_by_its_key_its_parts_and_where_one_ends() {
        let key = [7; KEY_BYTES];
        let one = agent("dev", "main");
        assert_eq!(agent_number(&key, &one, 0), agent_number(&key, &agent("prod", "main"), 0), "a name may change");
        assert_ne!(target_number(&key, &one, 0), target_number(&key, &agent("prod", "main"), 0));
        assert_ne!(target_number(&key, &one, 0), target_number(&key, &agent("devm", "ain"), 0));
        assert_ne!(target_number(&key, &one, 0), target_number(&key, &one, 1));
        assert_ne!(target_number(&key, &one, 0), target_number(&[8; KEY_BYTES], &one, 0));
        assert_eq!(target_number(&key, &one, 0), FIXED);
    }

    /// Rows have it: it never changes.
    const FIXED: i64 = -6_957_877_580_252_412_477;
}
