//! The drop directory: events that their programs could not hand over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connlog_proto::v1;
use prost::Message as _;
use uuid::Uuid;

use crate::spool::frame;

const FOLDER: &str = "drop";
const EXTENSION: &str = "event";

/// What the sidecar has taken but not yet put into its spool.
const TAKEN: &str = "taken";
/// What cannot be read as an event.
const DAMAGED: &str = "damaged";
/// A file that was begun so long ago, in seconds, was given up.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// Leaves an event. It is durable when this returns.
pub fn leave(spool: &Path, event: &v1::Connection) -> io::Result<()> {
    let folder = spool.join(FOLDER);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{} is not there: no sidecar has its spool in it", spool.display());
            return Err(io::Error::new(error.kind(), text));
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    give_to_owner_of(spool, &folder);
    let path = folder.join(format!("{}.{EXTENSION}", Uuid::now_v7().simple()));
    let temporary = path.with_extension("new");
    let mut bytes = Vec::new();
    frame::write(&mut bytes, 0, &event.encode_to_vec());
    let mut file = File::create_new(&temporary)?;
    give_to_owner_of(spool, &temporary);
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Root may leave events for a sidecar of another user, who must be able to take them.
fn give_to_owner_of(spool: &Path, path: &Path) {
    if let Ok(owner) = fs::metadata(spool) {
        // Whoever is not root owns it already, or cannot give it away; the sidecar says so when it cannot take it.
        let _not_root = std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

/// An event that was left and is taken: nobody else sees it any more.
#[derive(Debug)]
pub struct Taken {
    path: PathBuf,
    /// The event; none if the file is damaged.
    pub event: Option<v1::Connection>,
}

/// How the drop directory is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Events that wait to be taken.
    pub events: usize,
    /// Files that are no events, and were put aside.
    pub damaged: usize,
}

/// Makes the directory, and removes what was begun and given up.
pub fn prepare(spool: &Path) -> io::Result<()> {
    let folder = spool.join(FOLDER);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let age = fs::metadata(&path).and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
        if has_extension(&path, "new") && age.is_some_and(|age| age > ABANDONED_AFTER) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What is there.
pub fn waiting(spool: &Path) -> io::Result<Waiting> {
    let mut waiting = Waiting::default();
    for path in paths(spool)? {
        waiting.events += usize::from(has_extension(&path, EXTENSION) || has_extension(&path, TAKEN));
        waiting.damaged += usize::from(has_extension(&path, DAMAGED));
    }
    Ok(waiting)
}

/// Takes up to `limit` events, in the order in which they were left. One that cannot be taken is passed over, with the
/// reason: were it sent all the same, it would be sent again and again.
pub fn take(spool: &Path, limit: usize) -> io::Result<(Vec<Taken>, Option<io::Error>)> {
    let mut paths = paths(spool)?;
    paths.retain(|path| has_extension(path, EXTENSION) || has_extension(path, TAKEN));
    paths.sort();
    let (mut all, mut trouble) = (Vec::new(), None);
    for path in paths {
        if all.len() >= limit {
            break;
        }
        match take_one(&path) {
            Ok(taken) => all.push(taken),
            Err(error) => trouble = Some(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
    Ok((all, trouble))
}

fn take_one(path: &Path) -> io::Result<Taken> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let bytes = fs::read(path)?;
    let taken = path.with_extension(TAKEN);
    fs::rename(path, &taken)?;
    let event = frame::first(&bytes).and_then(|(_, payload)| v1::Connection::decode(payload).ok());
    Ok(Taken { event, path: taken })
}

fn paths(spool: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(spool.join(FOLDER))?.map(|entry| Ok(entry?.path())).collect()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

impl Taken {
    /// Removes it: its event is in the spool.
    pub fn done(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Puts it aside: it is no event. It is not removed.
    pub fn put_aside(&self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension(DAMAGED))
    }
}
