//! What agents have to say: connections that begin and end.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::event::{Action, Event, Outcome};
use connlog_model::identity::AgentIdentity;
use connlog_proto::v1;
use connlog_testkit::fixtures;
use uuid::Uuid;

/// A connection that is reported.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

/// What an agent sends at once: connects, and the disconnects of connections that began earlier.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) connects: Vec<Session>,
    pub(crate) disconnects: Vec<Session>,
}

impl Session {
    /// One of this moment.
    pub(crate) fn now() -> Self {
        let since = Utc::now();
        Self { id: Uuid::new_v4(), since, until: since + TimeDelta::seconds(30) }
    }

    /// Its beginning or its end, as the store takes it.
    pub(crate) fn event(&self, agent: &Arc<AgentIdentity>, has_ended: bool) -> Event {
        let connection = self.id.as_u128();
        if !has_ended {
            return fixtures::connect(agent, connection, self.since);
        }
        let action = Action::Disconnect { connected_at: Some(self.since), outcome: Outcome::default() };
        fixtures::agent_event(agent, connection, self.until, action)
    }

    pub(crate) fn connect(&self) -> v1::Connection {
        v1::Connection {
            id: self.id.as_bytes().to_vec(),
            action: v1::Action::Connect.into(),
            timestamp: Some(timestamp(self.since)),
            ip: "10.1.2.3".to_owned(),
            app_name: "vscode".to_owned(),
            ..v1::Connection::default()
        }
    }

    pub(crate) fn disconnect(&self) -> v1::Connection {
        v1::Connection {
            action: v1::Action::Disconnect.into(),
            timestamp: Some(timestamp(self.until)),
            connected_at: Some(timestamp(self.since)),
            reason: Some("client closed the connection".to_owned()),
            rx_bytes: 1_000,
            tx_bytes: 20_000,
            ..self.connect()
        }
    }
}

/// `count` sessions of the last hour, none of which was seen before.
pub(crate) fn sessions(count: u32) -> Vec<Session> {
    // As exact as the log keeps it, as ingest makes of what comes over the wire.
    let now = truncate_to_micros(Utc::now());
    let session = |number| {
        // In the order in which they began, as an agent reports them.
        let since = now - TimeDelta::seconds(60 + i64::from((count - number) % 3_000));
        Session { id: Uuid::new_v4(), since, until: since + TimeDelta::seconds(30) }
    };
    (0..count).map(session).collect()
}

/// Batches of at most `half` connects and as many disconnects: the end of a session comes one batch after its beginning.
pub(crate) fn batches(sessions: &[Session], half: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut before: &[Session] = &[];
    for connects in sessions.chunks(half).chain(std::iter::once(&[][..])) {
        batches.push(Batch { connects: connects.to_vec(), disconnects: before.to_vec() });
        before = connects;
    }
    batches
}

/// Batches as messages of a stream, their events numbered from `first_seq`.
pub(crate) fn messages(batches: &[Batch], first_seq: u64) -> Vec<v1::EventBatch> {
    let mut seq = first_seq;
    let mut sequenced = |connection| {
        let event = v1::SequencedEvent { seq, event: Some(v1::sequenced_event::Event::Connection(connection)) };
        seq += 1;
        event
    };
    let messages = batches.iter().map(|batch| {
        let connects = batch.connects.iter().map(Session::connect);
        let events = connects.chain(batch.disconnects.iter().map(Session::disconnect)).map(&mut sequenced).collect();
        v1::EventBatch { events, ..v1::EventBatch::default() }
    });
    messages.collect()
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
}
