//! A batch in memory: its events by the row that they are about, in the order in which they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, Heard};
use connlog_model::event::{AgentEvent, Event, WebEvent};
use connlog_model::identity::AgentIdentity;
use uuid::Uuid;

use super::Refusal;
use super::contradictions::Contradiction;
use super::look_up::Wanted;

/// All that a batch says about one connection: events with their indices in the batch.
#[derive(Default)]
pub(super) struct Entry<'a>(Vec<(usize, &'a AgentEvent)>);

/// What became of a connection and of the events about it.
pub(super) struct Told {
    /// The connection; none if all events about it would begin it below the floor.
    pub(super) connection: Option<Connection>,
    pub(super) contradictions: Vec<Contradiction>,
    /// Indices of the events that lie below the floor.
    pub(super) below_floor: Vec<usize>,
}

/// A batch, by row.
#[derive(Default)]
pub(super) struct Folded<'a> {
    /// Connections.
    pub(super) connections: BTreeMap<Uuid, Entry<'a>>,
    /// Web events, each with its index.
    pub(super) web: Vec<(usize, &'a WebEvent)>,
    /// Indices of events that the log does not take, and why.
    pub(super) refused: Vec<(usize, Refusal)>,
}

pub(super) fn fold(events: &[Event]) -> Folded<'_> {
    let mut folded = Folded::default();
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Web(event) => folded.web.push((index, event)),
            Event::Agent(event) => folded.connections.entry(event.row_id()).or_default().0.push((index, event)),
        }
    }
    folded
}

impl Folded<'_> {
    /// The rows that the events are about.
    pub(super) fn wanted(&self, now: Timestamp) -> Wanted {
        let mut wanted = Wanted::default();
        for (id, entry) in &self.connections {
            wanted.add(*id, entry.known_start(), entry.earliest().unwrap_or(now));
        }
        for (_, event) in &self.web {
            wanted.add_web(event.row_id(), event.time);
        }
        wanted
    }

    /// The indices of the first events about connections, ascending.
    pub(super) fn first_indices(&self, ids: &[Uuid]) -> Vec<usize> {
        let entries = ids.iter().filter_map(|id| self.connections.get(id)?.0.first());
        let mut indices: Vec<usize> = entries.map(|(index, _)| *index).collect();
        indices.sort_unstable();
        indices
    }

    /// Notes that the events at `indices` are not taken.
    pub(super) fn refuse(&mut self, indices: impl IntoIterator<Item = usize>, why: Refusal) {
        self.refused.extend(indices.into_iter().map(|index| (index, why)));
    }
}

impl Entry<'_> {
    /// Tells the events, in their order, to the connection as it is recorded, if it is.
    pub(super) fn tell(&self, recorded: Option<Connection>, floor: Timestamp) -> Told {
        let mut told = Told { connection: recorded, contradictions: Vec::new(), below_floor: Vec::new() };
        for (index, event) in &self.0 {
            let heard = match &mut told.connection {
                Some(connection) => connection.hear(event, floor),
                none => match Connection::begin(event, floor) {
                    Some((connection, heard)) => {
                        *none = Some(connection);
                        heard
                    }
                    None => Heard::BelowFloor,
                },
            };
            match (heard, &told.connection) {
                (Heard::BelowFloor, _) => told.below_floor.push(*index),
                (Heard::Contradicted(fields), Some(connection)) => {
                    told.contradictions.push(Contradiction::new(event, &fields, connection));
                }
                (Heard::Contradicted(_), None) | (Heard::Agreed, _) => {}
            }
        }
        told
    }

    /// The earliest beginning that an event gives.
    pub(super) fn known_start(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(|(_, event)| event.start_claim()).min()
    }

    /// The earliest time of an event, or beginning that one gives.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.0.iter().map(|(_, event)| event.start().min(event.time)).min()
    }

    /// The agent of the connection, as its first event has it.
    pub(super) fn agent(&self) -> Option<&Arc<AgentIdentity>> {
        self.0.first().map(|(_, event)| &event.agent)
    }
}
