//! A loss: events that the spool had to give up, kept until the server knows.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::frame;

/// The loss of a spool that is not acknowledged. There is one at most: what gives way next follows on.
const EXTENSION: &str = "lost";

/// Events that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Number of the first.
    pub first_seq: u64,
    /// Number of the last.
    pub last_seq: u64,
    /// Time of the first, in microseconds since the epoch, if known.
    pub since_micros: Option<i64>,
    /// Time of the last, in microseconds since the epoch, if known.
    pub until_micros: Option<i64>,
    /// Why.
    pub cause: &'static str,
}

/// Cause of a loss to the bound of the spool.
const CAUSE_OVERFLOW: &str = "spool full";
/// Cause of a loss to the disk.
const CAUSE_DAMAGED: &str = "spool damaged";

impl Lost {
    /// How many.
    pub fn count(&self) -> u64 {
        self.last_seq - self.first_seq + 1
    }

    pub(super) fn overflow(first_seq: u64, last_seq: u64, times: impl Iterator<Item = i64>) -> Self {
        let (mut since_micros, mut until_micros) = (None::<i64>, None::<i64>);
        for time in times {
            since_micros = Some(since_micros.map_or(time, |since| since.min(time)));
            until_micros = Some(until_micros.map_or(time, |until| until.max(time)));
        }
        Self { first_seq, last_seq, since_micros, until_micros, cause: CAUSE_OVERFLOW }
    }

    pub(super) fn damaged(first_seq: u64, last_seq: u64) -> Self {
        Self { first_seq, last_seq, since_micros: None, until_micros: None, cause: CAUSE_DAMAGED }
    }

    /// Both as one: `later` follows on, or overlaps.
    #[must_use]
    pub(super) fn merge(self, later: Self) -> Self {
        Self {
            first_seq: self.first_seq.min(later.first_seq),
            last_seq: self.last_seq.max(later.last_seq),
            since_micros: self.since_micros.into_iter().chain(later.since_micros).min(),
            until_micros: self.until_micros.max(later.until_micros),
            cause: later.cause,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut payload = self.first_seq.to_le_bytes().to_vec();
        for time in [self.since_micros, self.until_micros] {
            payload.extend_from_slice(&time.unwrap_or(i64::MIN).to_le_bytes());
        }
        let mut bytes = Vec::new();
        frame::write(&mut bytes, self.last_seq, &payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (last_seq, payload) = frame::first(bytes)?;
        let (chunks, rest) = payload.as_chunks::<8>();
        let [first, since, until] = chunks.try_into().ok().filter(|_| rest.is_empty())?;
        let time = |bytes| Some(i64::from_le_bytes(bytes)).filter(|time| *time != i64::MIN);
        Some(Self {
            first_seq: u64::from_le_bytes(first),
            last_seq,
            since_micros: time(since),
            until_micros: time(until),
            cause: CAUSE_OVERFLOW,
        })
    }
}

fn path(folder: &Path, id: Uuid) -> PathBuf {
    folder.join(format!("{}.{EXTENSION}", id.simple()))
}

/// The loss that is kept in `folder`. A damaged one is none: the numbers themselves still show it to the server.
pub(super) fn read(folder: &Path, id: Uuid) -> io::Result<Option<Lost>> {
    match fs::read(path(folder, id)) {
        Ok(bytes) => Ok(Lost::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps a loss, durably, in place of the one before.
pub(super) fn write(folder: &Path, id: Uuid, lost: &Lost) -> io::Result<()> {
    let path = path(folder, id);
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&lost.encode())?;
    file.sync_data()?;
    fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Forgets the loss.
pub(super) fn remove(folder: &Path, id: Uuid) -> io::Result<()> {
    fs::remove_file(path(folder, id))
}
