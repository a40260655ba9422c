//! A durable, bounded spool of events, numbered from 1 without holes.
//!
//! An event that [`Spool::append`] accepted is on the disk. The spool is a folder of append-only segments; each record is
//! framed with its length, its number and a CRC32C (see [`frame`]), so that damage costs the damaged record alone, and
//! its number is known. When the spool is full, the oldest segment gives way and a loss takes its place, which says how many
//! events, from when to when. One process owns a spool.

pub mod frame;
mod lost;
mod segment;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

pub use self::lost::Lost;
use self::segment::Segment;

/// Largest payload of one event, in bytes. An event of the API is far smaller.
pub const MAX_PAYLOAD_BYTES: usize = 8 << 10;
/// Smallest bound of a spool, in bytes.
pub const MIN_SPOOL_BYTES: u64 = 64 << 10;
/// A spool is made of about so many segments: what gives way at a time when it is full.
const SEGMENTS: u64 = 16;
/// The file that a process locks to own the spool.
const LOCK_FILE: &str = "lock";
/// The file that remembers how far the spool is acknowledged. Losing it only means sending more again.
const ACKED_FILE: &str = "acked";

/// What can go wrong with a spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process owns it.
    #[error("another process owns the spool {0}")]
    Owned(PathBuf),
    /// The bound is too small to hold anything.
    #[error("a spool needs at least {MIN_SPOOL_BYTES} bytes")]
    TooSmall,
    /// The event is larger than [`MAX_PAYLOAD_BYTES`].
    #[error("the event has {0} bytes, at most {MAX_PAYLOAD_BYTES} are accepted")]
    TooLarge(usize),
    /// The disk refused. Nothing of the event is kept, and a later one may be accepted again.
    #[error("cannot write the spool: {0}")]
    Write(#[source] io::Error),
    /// The folder cannot be read.
    #[error("cannot read the spool: {0}")]
    Read(#[source] io::Error),
}

/// What [`Spool::open`] found damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Numbers of records that are gone, as inclusive ranges.
    pub lost: Vec<(u64, u64)>,
    /// Bytes at the end of the newest segment that were no record: a write that did not finish, or damage.
    pub tail_bytes: u64,
}

/// A record that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An event, as it was appended.
    Event {
        /// Its number.
        seq: u64,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Events that are gone.
    Lost(Lost),
}

impl Record {
    /// Its number; that of a loss is the number of the last event that it stands for.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Event { seq, .. } => *seq,
            Self::Lost(lost) => lost.last_seq,
        }
    }
}

/// Gives the time of an event, in microseconds since the epoch, so that a loss can say from when to when.
pub type TimeOf = fn(&[u8]) -> Option<i64>;

/// A spool that this process owns.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    id: Uuid,
    max_bytes: u64,
    time_of: TimeOf,
    segments: VecDeque<Segment>,
    /// What gave way and is not acknowledged yet: everything before the first segment.
    lost: Option<Lost>,
    acked_seq: u64,
    next_seq: u64,
    _lock: File,
}

impl Spool {
    /// Opens the spool in `folder`, or makes one, bounded by `max_bytes`. Intact records survive any damage.
    pub fn open(folder: &Path, max_bytes: u64, time_of: TimeOf) -> Result<(Self, Damage), SpoolError> {
        if max_bytes < MIN_SPOOL_BYTES {
            return Err(SpoolError::TooSmall);
        }
        // What it holds is nobody else's business: addresses, and who connects.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(SpoolError::Write)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE));
        let lock = lock.map_err(SpoolError::Write)?;
        lock.try_lock().map_err(|_| SpoolError::Owned(folder.to_owned()))?;
        let (id, mut segments) = segment::find(folder).map_err(SpoolError::Read)?;
        let id = id.unwrap_or_else(Uuid::new_v4);
        let mut damage = Damage::default();
        for segment in &mut segments {
            segment.scan().map_err(SpoolError::Read)?;
        }
        let lost = lost::read(folder, id).map_err(SpoolError::Read)?;
        let mut spool = Self {
            folder: folder.to_owned(),
            id,
            max_bytes,
            time_of,
            next_seq: segments.last().map_or(1, Segment::next_seq),
            segments: segments.into(),
            lost,
            acked_seq: read_acked(folder, id),
            _lock: lock,
        };
        if let Some(newest) = spool.segments.back_mut() {
            damage.tail_bytes = newest.cut_tail().map_err(SpoolError::Write)?;
        }
        damage.lost = spool.holes();
        if let Some(lost) = &spool.lost {
            spool.next_seq = spool.next_seq.max(lost.last_seq + 1);
        }
        spool.next_seq = spool.next_seq.max(spool.acked_seq + 1);
        // The newest segment may be damaged where events were that are known to be acknowledged or lost: their numbers are
        // taken, and a segment goes on where it ended.
        if spool.segments.back().is_none_or(|newest| newest.next_seq() != spool.next_seq) {
            spool.roll()?;
        }
        Ok((spool, damage))
    }

    /// Names the spool: sequence numbers belong to it.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The newest number, 0 if there is none.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Everything up to this number is acknowledged.
    pub fn acked_seq(&self) -> u64 {
        self.acked_seq
    }

    /// Events that gave way and that the server does not know of yet.
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Appends events and makes them durable, all or none. Returns the number of the last one.
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<u64, SpoolError> {
        if let Some(large) = payloads.iter().find(|payload| payload.len() > MAX_PAYLOAD_BYTES) {
            return Err(SpoolError::TooLarge(large.len()));
        }
        let mut bytes = Vec::new();
        for (seq, payload) in (self.next_seq..).zip(payloads) {
            frame::write(&mut bytes, seq, payload);
        }
        self.make_room(bytes.len() as u64)?;
        let count = payloads.len() as u64;
        let newest = self.segments.back_mut().expect("a spool has a segment");
        if let Err(error) = newest.append(&bytes, count) {
            // Whatever the disk kept of it, the numbers are free again, and the next append starts a file of its own.
            self.roll()?;
            return Err(SpoolError::Write(error));
        }
        self.next_seq += count;
        Ok(self.last_seq())
    }

    /// Up to `limit` records after `seq`, in order, and no more than `max_bytes` of payload, but at least one. What is
    /// missing in between is a loss.
    pub fn read_after(&self, seq: u64, limit: usize, max_bytes: usize) -> Result<Vec<Record>, SpoolError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut expected = seq + 1;
        if let Some(lost) = &self.lost
            && lost.last_seq >= expected
        {
            records.push(Record::Lost(*lost));
            expected = lost.last_seq + 1;
        }
        for segment in &self.segments {
            if segment.next_seq() <= expected {
                continue;
            }
            for (seq, payload) in segment.read_from(expected, limit).map_err(SpoolError::Read)? {
                bytes += payload.len();
                if records.len() >= limit || (bytes > max_bytes && !records.is_empty()) {
                    return Ok(records);
                }
                if seq > expected {
                    records.push(Record::Lost(Lost::damaged(expected, seq - 1)));
                }
                // A loss may have taken the last place of the batch.
                if records.len() >= limit {
                    return Ok(records);
                }
                expected = seq + 1;
                records.push(Record::Event { seq, payload });
            }
        }
        Ok(records)
    }

    /// How long a segment is made.
    pub fn segment_bytes(&self) -> usize {
        usize::try_from(self.max_bytes / SEGMENTS).unwrap_or(usize::MAX)
    }

    /// Notes that everything up to `seq` is acknowledged, and gives its space back.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), SpoolError> {
        if seq <= self.acked_seq {
            return Ok(());
        }
        self.acked_seq = seq.min(self.last_seq());
        if self.lost.as_ref().is_some_and(|lost| lost.last_seq <= self.acked_seq) {
            match lost::remove(&self.folder, self.id) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SpoolError::Write(error)),
                _ => self.lost = None,
            }
        }
        while self.segments.len() > 1 && self.segments[0].next_seq() <= self.acked_seq + 1 {
            self.segments[0].remove().map_err(SpoolError::Write)?;
            self.segments.pop_front();
        }
        write_acked(&self.folder, self.id, self.acked_seq).map_err(SpoolError::Write)
    }

    /// Makes room for `bytes`: a new segment when the newest is long enough, and a loss of the oldest when there is no
    /// room for another.
    fn make_room(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let newest = self.segments.back().expect("a spool has a segment");
        if newest.bytes() > 0 && newest.bytes() + bytes > self.max_bytes / SEGMENTS {
            self.roll()?;
        }
        while self.segments.len() > 1 && self.bytes() + bytes > self.max_bytes {
            self.give_way()?;
        }
        Ok(())
    }

    /// Drops the oldest segment. The loss is on the disk before the segment is gone.
    fn give_way(&mut self) -> Result<(), SpoolError> {
        let oldest = &self.segments[0];
        let (first, last) = (oldest.first_seq().max(self.acked_seq + 1), oldest.next_seq() - 1);
        if last >= first {
            let events = oldest.read_from(first, usize::MAX).map_err(SpoolError::Read)?;
            let times = events.iter().filter_map(|(_, payload)| (self.time_of)(payload));
            let gone = Lost::overflow(first, last, times);
            let merged = match self.lost.take() {
                Some(earlier) => earlier.merge(gone),
                None => gone,
            };
            lost::write(&self.folder, self.id, &merged).map_err(SpoolError::Write)?;
            self.lost = Some(merged);
        }
        oldest.remove().map_err(SpoolError::Write)?;
        self.segments.pop_front();
        Ok(())
    }

    fn roll(&mut self) -> Result<(), SpoolError> {
        let segment = Segment::create(&self.folder, self.id, self.next_seq).map_err(SpoolError::Write)?;
        // An append that failed at the beginning of a segment leaves one of the same name.
        if self.segments.back().is_some_and(|newest| newest.first_seq() == self.next_seq) {
            self.segments.pop_back();
        }
        self.segments.push_back(segment);
        Ok(())
    }

    /// Numbers that no record has, between the oldest record and the newest.
    fn holes(&self) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut expected = self.segments.front().map_or(1, Segment::first_seq);
        for segment in &self.segments {
            for seq in segment.seqs() {
                if seq > expected {
                    holes.push((expected, seq - 1));
                }
                expected = seq + 1;
            }
            if segment.next_seq() > expected {
                holes.push((expected, segment.next_seq() - 1));
                expected = segment.next_seq();
            }
        }
        holes
    }
}

fn read_acked(folder: &Path, id: Uuid) -> u64 {
    let Ok(bytes) = fs::read(folder.join(ACKED_FILE)) else { return 0 };
    // Of another spool, or damaged: nothing is known to be acknowledged.
    frame::first(&bytes).filter(|(_, payload)| *payload == id.as_bytes()).map_or(0, |(seq, _)| seq)
}

fn write_acked(folder: &Path, id: Uuid, seq: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, seq, id.as_bytes());
    fs::write(folder.join(ACKED_FILE), bytes)
}
