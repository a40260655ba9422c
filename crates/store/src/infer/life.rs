//! A sign of life: the agent is there, and says which connections are open.

use std::sync::LazyLock;

use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use connlog_model::identity::AgentIdentity;
use uuid::Uuid;

use super::{SHARD, close};
use crate::partitions::windows;
use crate::row::{AT_HOME, HISTORY_READ, completed_connection};
use crate::session::{Transaction, begin_write, query};
use crate::write::history::{AMONG, HORIZON, LOOK_BACK};
use crate::write::{NEVER, Stamp, counts, hold_floor, keys, presence};
use crate::{Store, StoreError};

/// A sign of life of an agent over one of its streams.
#[derive(Debug)]
pub struct SignOfLife<'a> {
    /// The agent, known to the directory.
    pub agent: &'a AgentIdentity,
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
}

const OPEN_AMONG: &str = "-- open_among
SELECT id FROM open_connections WHERE id = ANY($1::uuid[])";

const IS_DELETED: &str = "-- agent_is_deleted
SELECT a.deleted OR w.deleted FROM workspace_agents a JOIN workspaces w ON w.id = a.workspace_id WHERE a.id = $1";

static INFERRED_AMONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- inferred_among\nSELECT id FROM connection_logs\n\
         WHERE {AMONG} AND id = ANY($1::uuid[]) AND connect_time >= $2 AND connect_time < $3 AND disconnect_inferred"
    )
});

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
        let mut client = self.client().await?;
        // What is listed may be opened again; a mere sign of life writes nothing that has a home.
        let home_of_listed = (!sign.listed.is_empty()).then_some(&sign.agent.workspace);
        self.note_homes(&client, home_of_listed).await?;
        let transaction = begin_write(&mut client).await?;
        let floor = hold_floor(&transaction).await?;
        if !presence::stamp(&transaction, std::slice::from_ref(&sign.stamp)).await?.is_empty() {
            return Ok(Life { displaced: true, ..Life::default() });
        }
        let mut missing = not_open(&transaction, sign).await?;
        let mut life = Life::default();
        if !missing.is_empty() && !is_deleted(&transaction, sign.stamp.agent_id).await? {
            let earliest = (sign.stamp.seen_at - LOOK_BACK).max(floor);
            life.reopened = reopen(&transaction, &missing, earliest, sign).await?;
            missing.retain(|connection| !life.reopened.iter().any(|reopened| reopened.id == connection.id));
        }
        life.unknown = missing.iter().map(|connection| connection.connection_id).collect();
        transaction.commit().await?;
        Ok(life)
    }
}

/// The listed connections that are not open, as keys to take, in the order of their ids.
async fn not_open(transaction: &Transaction<'_>, sign: &SignOfLife<'_>) -> Result<Vec<Connection>, StoreError> {
    if sign.listed.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys: Vec<Connection> = sign.listed.iter().map(|id| placeholder(sign, *id)).collect();
    keys.sort_unstable_by_key(|key| key.id);
    keys.dedup_by_key(|key| key.id);
    let ids: Vec<Uuid> = keys.iter().map(|key| key.id).collect();
    let open = close::first_column(&query(transaction, OPEN_AMONG, &[&ids]).await?)?;
    keys.retain(|key| !open.contains(&key.id));
    Ok(keys)
}

fn placeholder(sign: &SignOfLife<'_>, connection_id: Uuid) -> Connection {
    Connection {
        id: sign.agent.row_id(connection_id),
        connection_id,
        agent: sign.agent.clone(),
        boot_id: Some(sign.boot_id),
        connect_time: NEVER,
        start_source: None,
        method: None,
        app_name: None,
        ip: None,
        client_session_id: None,
        user_id: None,
        received_at: sign.stamp.seen_at,
        end: None,
    }
}

async fn is_deleted(transaction: &Transaction<'_>, agent_id: Uuid) -> Result<bool, StoreError> {
    let rows = query(transaction, IS_DELETED, &[&agent_id]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(true))
}

/// Looks, takes the keys, and looks again under the keys: going straight from history to the open set would collide
/// with batches on the same connections.
async fn reopen(
    transaction: &Transaction<'_>,
    missing: &[Connection],
    earliest: Timestamp,
    sign: &SignOfLife<'_>,
) -> Result<Vec<Connection>, StoreError> {
    let ids: Vec<Uuid> = missing.iter().map(|key| key.id).collect();
    let mut inferred = Vec::new();
    let latest = sign.stamp.seen_at + HORIZON;
    for (from, to) in windows(earliest, latest) {
        let rows = query(transaction, &INFERRED_AMONG, &[&ids, &from.max(earliest), &to]).await?;
        inferred.extend(close::first_column(&rows)?);
    }
    let keys: Vec<Connection> = missing.iter().filter(|key| inferred.contains(&key.id)).cloned().collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let fresh = keys::take_absent(transaction, &keys).await?;
    let fresh: Vec<Uuid> = keys.iter().map(|key| key.id).filter(|id| fresh.contains(id)).collect();
    let mut reopened = Vec::new();
    let mut deltas = counts::Deltas::default();
    // take_inferred is a DELETE … RETURNING of history, the only one that the role of ingest may run.
    let take = format!("-- take_inferred\nSELECT {} FROM take_inferred($1, $2, $3) {AT_HOME}", *HISTORY_READ);
    for (from, to) in windows(earliest, latest) {
        for row in query(transaction, &take, &[&fresh, &from.max(earliest), &to]).await? {
            let mut connection = completed_connection(&row)?;
            deltas.add(&connection, -1);
            connection.end = None;
            connection.agent.agent_id = sign.agent.agent_id;
            connection.boot_id = Some(sign.boot_id);
            reopened.push(connection);
        }
    }
    reopened.sort_unstable_by_key(|connection| connection.id);
    keys::update(transaction, &reopened).await?;
    let ended: Vec<Uuid> =
        fresh.into_iter().filter(|id| !reopened.iter().any(|connection| connection.id == *id)).collect();
    keys::remove(transaction, &ended).await?;
    counts::add(transaction, &deltas, SHARD).await?;
    Ok(reopened)
}
