//! Connections of a batch: keys first, then everything else.

use std::collections::HashMap;

use chrono::DateTime;
use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use uuid::Uuid;

use super::counts::Deltas;
use super::fold::Folded;
use super::{Refusal, history, keys};
use crate::StoreError;
use crate::session::Transaction;

/// Stands for a start that is not known, in memory and in a key that does not outlive its transaction: later than any
/// time that is accepted (the year 9999).
pub(crate) const NEVER: Timestamp = match DateTime::from_timestamp(253_370_764_800, 0) {
    Some(time) => time,
    None => panic!("the year 9999 is in range"),
};

/// Applies the connections of a batch. What turns out to lie below the floor is added to `folded.refused`.
pub(super) async fn apply(
    transaction: &Transaction<'_>,
    folded: &mut Folded<'_>,
    floor: Timestamp,
    now: Timestamp,
    deltas: &mut Deltas,
) -> Result<(), StoreError> {
    if folded.connections.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = folded.connections.keys().copied().collect();
    let held: HashMap<Uuid, Connection> =
        keys::lock(transaction, &ids).await?.into_iter().map(|row| (row.id, row)).collect();
    let fresh: Vec<&Connection> = folded
        .connections
        .values()
        .map(|entry| &entry.connection)
        .filter(|fresh| !held.contains_key(&fresh.id))
        .collect();
    keys::insert(transaction, fresh).await?;
    let mut found = history::look_up(transaction, &folded.connections, &held, now).await?;
    let plan = Plan::new(folded, held, &mut found, deltas);
    keys::remove(transaction, &plan.keys_to_drop).await?;
    complete(transaction, plan.completed, floor, deltas).await?;
    keys::update(transaction, &plan.opened_before).await?;
    history::update(transaction, &plan.merged).await
}

/// What is to be done, in the order of the ids.
#[derive(Default)]
struct Plan {
    /// Moves from the open set to history.
    completed: Vec<Connection>,
    /// Was open, goes on, and is not as it was.
    opened_before: Vec<Connection>,
    /// Was in history, is not as it was, and the `connect_time` under which it is there.
    merged: Vec<(Timestamp, Connection)>,
    /// Keys of what is no longer open, of what history has, or of what may not be made.
    keys_to_drop: Vec<Uuid>,
}

impl Plan {
    fn new(
        folded: &mut Folded<'_>,
        mut held: HashMap<Uuid, Connection>,
        found: &mut HashMap<Uuid, Connection>,
        deltas: &mut Deltas,
    ) -> Self {
        let mut plan = Self::default();
        for (id, entry) in std::mem::take(&mut folded.connections) {
            let connection = entry.connection;
            if let Some(row) = found.remove(&id) {
                plan.keys_to_drop.push(id);
                plan.merge_into_history(&row, connection, deltas);
            } else if let Some(row) = held.remove(&id) {
                plan.merge_into_open(row, connection);
            } else if connection.connect_time == NEVER {
                plan.keys_to_drop.push(id);
                folded.refuse(entry.below_floor, Refusal::BelowFloor);
            } else if connection.end.is_some() {
                plan.keys_to_drop.push(id);
                plan.completed.push(connection);
            }
        }
        plan
    }

    fn merge_into_open(&mut self, row: Connection, connection: Connection) {
        if connection.end.is_some() {
            self.keys_to_drop.push(row.id);
            self.completed.push(row.merge(connection));
            return;
        }
        let merged = row.clone().merge(connection);
        if merged != row {
            self.opened_before.push(merged);
        }
    }

    fn merge_into_history(&mut self, row: &Connection, connection: Connection, deltas: &mut Deltas) {
        let mut merged = row.clone().merge(connection);
        // What history does not keep is no change: a replay would come anew to whoever follows the change feed.
        (merged.boot_id, merged.agent.agent_id) = (None, None);
        if merged != *row {
            deltas.add(row, -1);
            deltas.add(&merged, 1);
            self.merged.push((row.connect_time, merged));
        }
    }
}

async fn complete(
    transaction: &Transaction<'_>,
    mut completed: Vec<Connection>,
    floor: Timestamp,
    deltas: &mut Deltas,
) -> Result<(), StoreError> {
    // An open row that a live agent kept past its retention goes once it is completed.
    completed.retain(|connection| connection.connect_time >= floor);
    for connection in &completed {
        deltas.add(connection, 1);
    }
    history::insert(transaction, &completed).await
}
