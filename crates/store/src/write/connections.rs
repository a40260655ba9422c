//! Connections of a batch: keys first, then everything else.

use std::collections::{HashMap, HashSet};

use chrono::DateTime;
use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use uuid::Uuid;

use super::counts::Deltas;
use super::fold::{Entry, Folded};
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
    let fresh = keys::take(transaction, folded.connections.values().map(|entry| &entry.connection)).await?;
    let found = history::look_up(transaction, &folded.connections, &fresh, now).await?;
    let plan = Plan::new(folded, &fresh, &found);
    complete(transaction, folded, &plan.completing, floor, deltas).await?;
    update_open(transaction, folded, &plan.opened_before).await?;
    merge_into_history(transaction, folded, found, deltas).await?;
    keys::drop(transaction, &plan.keys_to_drop).await
}

/// What is to be done with each connection, in the order of the ids.
#[derive(Default)]
struct Plan {
    /// Moves from the open set to history.
    completing: Vec<Uuid>,
    /// Was open, and the batch knows of no end.
    opened_before: Vec<Uuid>,
    /// Fresh keys of what is in history, or of what may not be made.
    keys_to_drop: Vec<Uuid>,
}

impl Plan {
    fn new(folded: &mut Folded<'_>, fresh: &HashSet<Uuid>, found: &HashMap<Uuid, Connection>) -> Self {
        let mut plan = Self::default();
        for (&id, entry) in &mut folded.connections {
            let is_fresh = fresh.contains(&id);
            if found.contains_key(&id) {
                plan.keys_to_drop.push(id);
            } else if is_fresh && entry.connection.connect_time == NEVER {
                plan.keys_to_drop.push(id);
                let below_floor = std::mem::take(&mut entry.below_floor);
                folded.refused.extend(below_floor.into_iter().map(|index| (index, Refusal::BelowFloor)));
            } else if entry.connection.end.is_some() {
                plan.completing.push(id);
            } else if !is_fresh {
                plan.opened_before.push(id);
            }
        }
        plan
    }
}

async fn complete(
    transaction: &Transaction<'_>,
    folded: &Folded<'_>,
    completing: &[Uuid],
    floor: Timestamp,
    deltas: &mut Deltas,
) -> Result<(), StoreError> {
    let taken = keys::remove(transaction, completing).await?;
    let mut completed = Vec::with_capacity(taken.len());
    for row in taken {
        let entry = entry_of(folded, row.id)?;
        let connection = row.merge(entry.connection.clone());
        // An open row that a live agent kept past its retention goes once it is completed.
        if connection.connect_time >= floor {
            deltas.add(&connection, 1);
            completed.push(connection);
        }
    }
    history::insert(transaction, &completed).await
}

async fn update_open(transaction: &Transaction<'_>, folded: &Folded<'_>, ids: &[Uuid]) -> Result<(), StoreError> {
    let mut changed = Vec::new();
    for row in keys::read(transaction, ids).await? {
        let merged = row.clone().merge(entry_of(folded, row.id)?.connection.clone());
        if merged != row {
            changed.push(merged);
        }
    }
    keys::update(transaction, &changed).await
}

async fn merge_into_history(
    transaction: &Transaction<'_>,
    folded: &Folded<'_>,
    found: HashMap<Uuid, Connection>,
    deltas: &mut Deltas,
) -> Result<(), StoreError> {
    let mut changed = Vec::new();
    for (id, row) in found {
        let mut merged = row.clone().merge(entry_of(folded, id)?.connection.clone());
        // What history does not keep is no change: a replay would come anew to whoever follows the change feed.
        (merged.boot_id, merged.agent.agent_id) = (None, None);
        if merged != row {
            deltas.add(&row, -1);
            deltas.add(&merged, 1);
            changed.push((row.connect_time, merged));
        }
    }
    changed.sort_unstable_by_key(|(_, connection)| connection.id);
    history::update(transaction, &changed).await
}

fn entry_of<'a>(folded: &'a Folded<'_>, id: Uuid) -> Result<&'a Entry, StoreError> {
    folded.connections.get(&id).ok_or_else(|| {
        StoreError::Inconsistent(format!("the database answered with connection {id}, which is not of the batch"))
    })
}
