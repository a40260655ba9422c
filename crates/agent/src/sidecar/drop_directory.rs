//! The drop directory: events that their programs could not hand over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use connlog_proto::v1;
use prost::Message as _;
use uuid::Uuid;

use crate::spool::frame;

const FOLDER: &str = "drop";
const EXTENSION: &str = "event";

/// Leaves an event. It is durable when this returns.
pub fn leave(spool: &Path, event: &v1::Connection) -> io::Result<()> {
    let folder = spool.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.{EXTENSION}", Uuid::now_v7().simple()));
    let temporary = path.with_extension("new");
    let mut bytes = Vec::new();
    frame::write(&mut bytes, 0, &event.encode_to_vec());
    let mut file = File::create_new(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()
}

/// An event that was left.
#[derive(Debug)]
pub struct Left {
    path: PathBuf,
    /// The event; none if the file is damaged.
    pub event: Option<v1::Connection>,
}

/// What is there, in the order in which it was left.
pub fn list(spool: &Path) -> io::Result<Vec<Left>> {
    let entries = match fs::read_dir(spool.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path)?;
            let payload = frame::first(&bytes).map(|(_, payload)| payload);
            Ok(Left { event: payload.and_then(|payload| v1::Connection::decode(payload).ok()), path })
        })
        .collect()
}

impl Left {
    /// Removes it: its event is in the spool.
    pub fn taken(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Puts it aside: nobody can read it. It is not removed.
    pub fn put_aside(&self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension("damaged"))
    }
}
