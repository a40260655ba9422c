//! What the demo sent: the truth that the log is checked against.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::method::Method;
use uuid::Uuid;

/// An entry that the log must have.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) workspace: usize,
    pub(crate) method: Method,
    pub(crate) app: Option<&'static str>,
    /// Index of the acting user, if one was named.
    pub(crate) user: Option<usize>,
    /// The connection of an agent, or the id of a web event.
    pub(crate) id: Uuid,
    pub(crate) connect_time: Timestamp,
    pub(crate) ended: bool,
    /// Sent over a stream whose agent lists it while it is open.
    pub(crate) streamed: bool,
}

impl Expected {
    /// Its type in the API.
    pub(crate) fn connection_type(&self) -> ConnectionType {
        ConnectionType::of(self.method, self.app)
    }
}

/// All entries, shared by everything that sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    entries: Arc<Mutex<Vec<Expected>>>,
    sent: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
}

impl Ledger {
    /// Adds an entry.
    pub(crate) fn add(&self, entry: Expected) {
        self.entries.lock().expect("no one panics while holding the ledger").push(entry);
    }

    /// Notes that a connection has ended.
    pub(crate) fn end(&self, id: Uuid) {
        let mut entries = self.entries.lock().expect("no one panics while holding the ledger");
        if let Some(entry) = entries.iter_mut().find(|entry| entry.id == id) {
            entry.ended = true;
        }
    }

    /// All entries.
    pub(crate) fn entries(&self) -> Vec<Expected> {
        self.entries.lock().expect("no one panics while holding the ledger").clone()
    }

    /// Notes that events are on their way.
    pub(crate) fn note_sent(&self, events: u64) {
        self.sent.fetch_add(events, Ordering::Relaxed);
    }

    /// Notes that events are acknowledged.
    pub(crate) fn note_acknowledged(&self, events: u64) {
        self.acknowledged.fetch_add(events, Ordering::Relaxed);
    }

    /// Events on their way or acknowledged.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Events acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}
