//! A segment: an append-only file of frames. Its name says which spool it belongs to and which number it begins with, so
//! that no damage inside can hide either.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::frame;

const EXTENSION: &str = "segment";

/// A segment of a spool.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    first_seq: u64,
    next_seq: u64,
    bytes: u64,
    /// Numbers of the records that were found when it was opened, if some are missing.
    found: Option<Vec<u64>>,
    /// Open for appending, if it is the newest.
    file: Option<File>,
    end: u64,
}

/// The spool of `folder` and its segments, oldest first. Of several spools, the one with the newest file.
pub(super) fn find(folder: &Path) -> io::Result<(Option<Uuid>, Vec<Segment>)> {
    let mut found: Vec<(Uuid, Segment)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((id, first_seq)) = name.to_str().and_then(parse_name) else { continue };
        found.push((id, Segment::new(entry.path(), first_seq)));
    }
    found.sort_by_key(|(_, segment)| segment.first_seq);
    let id = found.last().map(|(id, _)| *id);
    let segments = found.into_iter().filter(|(of, _)| Some(*of) == id).map(|(_, segment)| segment).collect();
    Ok((id, segments))
}

fn parse_name(name: &str) -> Option<(Uuid, u64)> {
    let (id, first_seq) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    Some((Uuid::try_parse(id).ok()?, first_seq.parse().ok().filter(|seq| *seq > 0)?))
}

impl Segment {
    fn new(path: PathBuf, first_seq: u64) -> Self {
        Self { path, first_seq, next_seq: first_seq, bytes: 0, found: None, file: None, end: 0 }
    }

    /// Makes an empty one, whose name is durable.
    pub(super) fn create(folder: &Path, id: Uuid, first_seq: u64) -> io::Result<Self> {
        let path = folder.join(format!("{}-{first_seq:020}.{EXTENSION}", id.simple()));
        let file = File::options().create(true).write(true).truncate(true).open(&path)?;
        File::open(folder)?.sync_all()?;
        Ok(Self { file: Some(file), ..Self::new(path, first_seq) })
    }

    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The number after its last record.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The numbers of its records.
    pub(super) fn seqs(&self) -> Vec<u64> {
        self.found.clone().unwrap_or_else(|| (self.first_seq..self.next_seq).collect())
    }

    /// Finds its intact records.
    pub(super) fn scan(&mut self) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let (found, end) = self.intact(&bytes);
        self.bytes = bytes.len() as u64;
        self.end = end as u64;
        self.next_seq = found.last().map_or(self.first_seq, |last| last.seq + 1);
        let complete = found.len() as u64 == self.next_seq - self.first_seq;
        self.found = (!complete).then(|| found.iter().map(|record| record.seq).collect());
        Ok(())
    }

    fn intact(&self, bytes: &[u8]) -> (Vec<frame::Found>, usize) {
        let (mut found, end) = frame::scan(bytes);
        found.retain(|record| record.seq >= self.first_seq);
        (found, end)
    }

    /// Cuts what follows its last record, and opens it for appending. Returns how many bytes were cut.
    pub(super) fn cut_tail(&mut self) -> io::Result<u64> {
        let file = File::options().write(true).open(&self.path)?;
        let tail = self.bytes - self.end;
        if tail > 0 {
            file.set_len(self.end)?;
            file.sync_data()?;
            self.bytes = self.end;
        }
        self.file = Some(file);
        Ok(tail)
    }

    /// Appends `count` records and makes them durable. After an error none of them is there.
    pub(super) fn append(&mut self, bytes: &[u8], count: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("the segment is closed"))?;
        if let Err(error) =
            file.write_all_at(bytes, self.bytes).and_then(|()| file.flush()).and_then(|()| file.sync_data())
        {
            // What the disk took of it must not be found again under numbers that are used for something else.
            file.set_len(self.bytes)?;
            return Err(error);
        }
        if let Some(found) = &mut self.found {
            found.extend(self.next_seq..self.next_seq + count);
        }
        self.bytes += bytes.len() as u64;
        self.next_seq += count;
        Ok(())
    }

    /// Up to `limit` intact records from `seq` on.
    pub(super) fn read_from(&self, seq: u64, limit: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let bytes = fs::read(&self.path)?;
        let (found, _) = self.intact(&bytes);
        let wanted = found.into_iter().filter(|record| record.seq >= seq && record.seq < self.next_seq).take(limit);
        Ok(wanted
            .map(|record| {
                let begin = record.offset + frame::HEADER_BYTES;
                (record.seq, bytes[begin..begin + record.len].to_vec())
            })
            .collect())
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
