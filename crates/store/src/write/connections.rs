//! Connections of a batch: keys first, then everything else.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use connlog_model::event::AgentEvent;
use uuid::Uuid;

use super::contradictions::Contradiction;
use super::counts::Deltas;
use super::fold::{Folded, Told};
use super::{Refusal, history, keys};
use crate::StoreError;
use crate::session::Transaction;

/// Stands for a start that is not known, in memory and in a key that does not outlive its transaction: later than any
/// time that is accepted (the year 9999).
pub(crate) const NEVER: Timestamp = match DateTime::from_timestamp(253_370_764_800, 0) {
    Some(time) => time,
    None => panic!("the year 9999 is in range"),
};

/// Applies the connections of a batch, and returns what contradicts what is recorded. What turns out to lie below the floor
/// is added to `folded.refused`.
pub(super) async fn apply(
    transaction: &Transaction<'_>,
    folded: &mut Folded<'_>,
    floor: Timestamp,
    now: Timestamp,
    deltas: &mut Deltas,
) -> Result<Vec<Contradiction>, StoreError> {
    if folded.connections.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = folded.connections.keys().copied().collect();
    let held: HashMap<Uuid, Connection> =
        keys::lock(transaction, &ids).await?.into_iter().map(|row| (row.id, row)).collect();
    let fresh: Vec<Connection> = folded
        .connections
        .iter()
        .filter(|(id, _)| !held.contains_key(id))
        .filter_map(|(_, entry)| entry.tell(None, floor).connection.or_else(|| entry.first().map(key_alone)))
        .collect();
    keys::insert(transaction, &fresh).await?;
    let mut found = history::look_up(transaction, &folded.connections, &held, now).await?;
    let plan = Plan::new(folded, held, &mut found, floor, deltas);
    keys::remove(transaction, &plan.keys_to_drop).await?;
    complete(transaction, plan.completed, floor, deltas).await?;
    keys::update(transaction, &plan.opened_before).await?;
    history::update(transaction, &plan.changed).await?;
    Ok(plan.contradictions)
}

/// A key that does not outlive its transaction: nothing of what is said may begin the connection.
fn key_alone(event: &AgentEvent) -> Connection {
    let floorless = Connection::begin(event, DateTime::<Utc>::MIN_UTC).map(|(connection, _)| connection);
    let connection = floorless.expect("nothing lies below the earliest time");
    Connection { connect_time: NEVER, end: None, ..connection }
}

/// What is to be done, in the order of the ids.
#[derive(Default)]
struct Plan {
    /// Moves from the open set to history.
    completed: Vec<Connection>,
    /// Was open, goes on, and is not as it was.
    opened_before: Vec<Connection>,
    /// Was in history, is not as it was, and the `connect_time` under which it is there.
    changed: Vec<(Timestamp, Connection)>,
    /// Keys of what is no longer open, of what history has, or of what may not be made.
    keys_to_drop: Vec<Uuid>,
    contradictions: Vec<Contradiction>,
}

impl Plan {
    fn new(
        folded: &mut Folded<'_>,
        mut held: HashMap<Uuid, Connection>,
        found: &mut HashMap<Uuid, Connection>,
        floor: Timestamp,
        deltas: &mut Deltas,
    ) -> Self {
        let mut plan = Self::default();
        for (id, entry) in std::mem::take(&mut folded.connections) {
            let (of_history, of_open) = (found.remove(&id), held.remove(&id));
            let recorded = of_history.clone().or_else(|| of_open.clone());
            let Told { connection, contradictions, below_floor } = entry.tell(recorded, floor);
            plan.contradictions.extend(contradictions);
            folded.refuse(below_floor, Refusal::BelowFloor);
            match (connection, of_history, of_open) {
                (Some(connection), Some(row), _) => {
                    plan.keys_to_drop.push(id);
                    plan.change_history(&row, connection, deltas);
                }
                (Some(connection), None, _) if connection.end.is_some() => {
                    plan.keys_to_drop.push(id);
                    plan.completed.push(connection);
                }
                (Some(connection), None, Some(row)) if connection != row => plan.opened_before.push(connection),
                (Some(_), None, _) => {}
                (None, _, _) => plan.keys_to_drop.push(id),
            }
        }
        plan
    }

    fn change_history(&mut self, row: &Connection, mut connection: Connection, deltas: &mut Deltas) {
        // What history does not keep is no change: a replay would come anew to whoever follows the change feed.
        (connection.boot_id, connection.agent.agent_id) = (None, None);
        if connection != *row {
            deltas.add(row, -1);
            deltas.add(&connection, 1);
            self.changed.push((row.connect_time, connection));
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
