//! A batch folded in memory: one entry for each connection, however many events are about it.

use std::collections::BTreeMap;

use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use connlog_model::event::{Action, AgentEvent, Event, WebEvent};
use uuid::Uuid;

use super::{NEVER, Refusal};

/// All that a batch says about one connection.
pub(super) struct Entry {
    /// The merge of its events. Its `connect_time` is [`NEVER`] if they only say when it ended.
    pub(super) connection: Connection,
    /// The earliest start in the words of a reporter.
    pub(super) known_start: Option<Timestamp>,
    /// Disconnects whose start lies below the floor: they may complete a row that exists, but not make one.
    pub(super) below_floor: Vec<usize>,
}

/// A batch, by row.
#[derive(Default)]
pub(super) struct Folded<'a> {
    /// Connections, in the order of their ids: the order in which keys are taken. Boxed: a tree moves its values about.
    pub(super) connections: BTreeMap<Uuid, Box<Entry>>,
    /// Web events, each with its index.
    pub(super) web: Vec<(usize, &'a WebEvent)>,
    /// Indices of events that the log does not take, and why.
    pub(super) refused: Vec<(usize, Refusal)>,
}

pub(super) fn fold(events: &[Event], floor: Timestamp) -> Folded<'_> {
    let mut folded = Folded::default();
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Web(event) if event.time < floor => folded.refuse([index], Refusal::BelowFloor),
            Event::Web(event) => folded.web.push((index, event)),
            Event::Agent(event) => folded.add(index, event, floor),
        }
    }
    folded
}

impl Folded<'_> {
    fn add(&mut self, index: usize, event: &AgentEvent, floor: Timestamp) {
        let starts_below = event.start() < floor;
        if starts_below && event.action == Action::Connect {
            self.refuse([index], Refusal::BelowFloor);
            return;
        }
        let mut entry = Entry {
            connection: Connection::from_event(event),
            known_start: (event.start_is_known() && !starts_below).then(|| event.start()),
            below_floor: Vec::new(),
        };
        if starts_below {
            entry.connection.connect_time = NEVER;
            entry.below_floor.push(index);
        }
        let id = entry.connection.id;
        let entry = match self.connections.remove(&id) {
            Some(earlier) => earlier.merge(entry),
            None => entry,
        };
        self.connections.insert(id, Box::new(entry));
    }

    /// Notes that the events at `indices` are not taken.
    pub(super) fn refuse(&mut self, indices: impl IntoIterator<Item = usize>, why: Refusal) {
        self.refused.extend(indices.into_iter().map(|index| (index, why)));
    }
}

impl Entry {
    fn merge(mut self, other: Self) -> Self {
        self.below_floor.extend(other.below_floor);
        Self {
            connection: self.connection.merge(other.connection),
            known_start: self.known_start.into_iter().chain(other.known_start).min(),
            below_floor: self.below_floor,
        }
    }
}
