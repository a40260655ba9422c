//! Each accepted event as one log entry, after its commit and before its acknowledgement, in the two formats that log
//! tools already parse. Inferred ends, losses and dead letters have entries too.
//!
//! A replay is not logged twice within a process. A line that cannot be written holds up the acknowledgement: an event
//! that was acknowledged has its line.

mod format;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::time::Duration;

use connlog_model::clock::Timestamp;
use connlog_model::event::{Action, Event};
use connlog_runtime::shutdown::Shutdown;
use moka::sync::Cache;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use uuid::Uuid;

pub use self::format::{Entry, Format, Subject};

/// How many logged events are remembered, so that their replays are recognized.
const REMEMBERED_EVENTS: u64 = 500_000;
/// Pause between attempts while a line cannot be written.
const PAUSE: Duration = Duration::from_millis(250);

/// Where entries are written.
pub struct ServiceLog {
    targets: Vec<Target>,
    logged: Cache<u64, ()>,
}

struct Target {
    format: Format,
    file: Mutex<File>,
}

/// The lines of a batch, and how much of them is written.
struct Lines {
    texts: Vec<(String, usize)>,
    fingerprints: HashSet<u64>,
}

impl ServiceLog {
    /// Appends to the files that are given. None are: nothing is logged.
    pub async fn open(json: Option<&Path>, human: Option<&Path>) -> io::Result<Self> {
        let mut targets = Vec::new();
        for (format, path) in [(Format::Json, json), (Format::Human, human)] {
            let Some(path) = path else { continue };
            let opened = File::options().create(true).append(true).open(path).await;
            let file = opened.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot open the service log {}: {error}", path.display()))
            })?;
            targets.push(Target { format, file: Mutex::new(file) });
        }
        Ok(Self { targets, logged: Cache::new(REMEMBERED_EVENTS) })
    }

    /// Writes the lines of `subjects`, however long it takes. A shutdown ends the waiting for what nobody is told of.
    pub async fn log<'a>(
        &self,
        subjects: impl Iterator<Item = (Uuid, Subject<'a>)>,
        now: Timestamp,
        shutdown: Option<&Shutdown>,
    ) {
        let mut lines = self.lines(subjects, now);
        let mut reported = false;
        while let Err(error) = self.write(&mut lines).await {
            if !std::mem::replace(&mut reported, true) {
                tracing::error!(%error, "the service log cannot be written; events wait");
            }
            if shutdown.is_some_and(Shutdown::has_begun) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The lines of those subjects that were not logged before.
    fn lines<'a>(&self, subjects: impl Iterator<Item = (Uuid, Subject<'a>)>, now: Timestamp) -> Lines {
        let mut lines = Lines { texts: vec![(String::new(), 0); self.targets.len()], fingerprints: HashSet::new() };
        if self.targets.is_empty() {
            return lines;
        }
        for (request_id, subject) in subjects {
            if let Some(fingerprint) = fingerprint(subject)
                && (self.logged.contains_key(&fingerprint) || !lines.fingerprints.insert(fingerprint))
            {
                continue;
            }
            let entry = emit(request_id, subject, now);
            for (target, (text, _)) in self.targets.iter().zip(&mut lines.texts) {
                entry.write(target.format, text);
            }
        }
        lines
    }

    /// Writes what is not written yet. After an error the next call goes on where this one stopped.
    async fn write(&self, lines: &mut Lines) -> io::Result<()> {
        for (target, (text, written)) in self.targets.iter().zip(&mut lines.texts) {
            let mut file = target.file.lock().await;
            while *written < text.len() {
                match file.write(&text.as_bytes()[*written..]).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => *written += count,
                }
            }
            file.flush().await?;
        }
        for fingerprint in lines.fingerprints.drain() {
            self.logged.insert(fingerprint, ());
        }
        Ok(())
    }
}

fn emit(request_id: Uuid, subject: Subject<'_>, now: Timestamp) -> Entry<'_> {
    Entry {
        logged_at: now,
        caller: concat!(file!(), ":", line!()),
        func: concat!(module_path!(), "::emit"),
        request_id,
        subject,
    }
}

/// What makes two deliveries the same event. A time of receipt differs with each delivery, so it does not count.
fn fingerprint(subject: Subject<'_>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    match subject {
        Subject::Event(event) => {
            event.row_id().hash(&mut hasher);
            fingerprint_event(event, &mut hasher);
        }
        // Nobody sends these again: each one happened.
        Subject::Inferred(_) | Subject::Reopened(_) => return None,
        Subject::Lost(record) => ("lost", record.id, record.events).hash(&mut hasher),
        Subject::Rejected(record) => ("rejected", record.id).hash(&mut hasher),
    }
    Some(hasher.finish())
}

fn fingerprint_event(event: &Event, hasher: &mut DefaultHasher) {
    match event {
        Event::Web(event) => (2, event.time).hash(hasher),
        Event::Agent(event) => {
            let time = (!event.time_is_receipt).then_some(event.time);
            let outcome = match &event.action {
                Action::Connect => None,
                Action::Disconnect { outcome, .. } => Some((&outcome.reason, outcome.code)),
            };
            (time, outcome).hash(hasher);
        }
    }
}
