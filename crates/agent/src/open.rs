//! The connections that are open now, which heartbeats list.
//!
//! A sidecar may be restarted while connections go on, so its list can be kept in a file. It is only good for the life of
//! the machine, or of the container: with a new one all connections are gone, and the file is ignored.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use uuid::Uuid;

/// The list, shared by the reporter and its client.
#[derive(Debug, Default)]
pub struct OpenConnections {
    ids: Mutex<HashSet<Uuid>>,
    file: Option<PathBuf>,
}

impl OpenConnections {
    /// A list that ends with this process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// A list that is kept in `file`. What an earlier process of the same machine or container left there is taken over.
    pub fn kept_in(file: PathBuf) -> Self {
        let ids = fs::read_to_string(&file).ok().and_then(|text| parse(&text)).unwrap_or_default();
        Self { ids: Mutex::new(ids), file: Some(file) }
    }

    /// Adds a connection.
    pub fn insert(&self, id: Uuid) {
        let mut ids = self.ids.lock().expect("no one panics while holding the list");
        if ids.insert(id) {
            self.keep(&ids);
        }
    }

    /// Removes a connection.
    pub fn remove(&self, id: Uuid) {
        let mut ids = self.ids.lock().expect("no one panics while holding the list");
        if ids.remove(&id) {
            self.keep(&ids);
        }
    }

    /// All of them.
    pub fn list(&self) -> Vec<Uuid> {
        self.ids.lock().expect("no one panics while holding the list").iter().copied().collect()
    }

    /// A list that cannot be kept costs no event: connections would be taken for ended after the next restart, and the
    /// real end still comes.
    fn keep(&self, ids: &HashSet<Uuid>) {
        let Some(file) = &self.file else { return };
        if let Err(error) = replace(file, ids) {
            tracing::warn!(%error, file = %file.display(), "the list of open connections cannot be kept");
        }
    }
}

fn replace(file: &PathBuf, ids: &HashSet<Uuid>) -> io::Result<()> {
    let mut text = life()?;
    for id in ids {
        text.push('\n');
        text.push_str(&id.to_string());
    }
    let temporary = file.with_extension("new");
    fs::write(&temporary, text)?;
    fs::rename(temporary, file)
}

fn parse(text: &str) -> Option<HashSet<Uuid>> {
    let mut lines = text.lines();
    (lines.next()? == life().ok()?).then(|| lines.filter_map(|line| Uuid::try_parse(line).ok()).collect())
}

/// Names the life of this machine or container: the boot of the kernel, and when the first process began.
fn life() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let first = fs::read_to_string("/proc/1/stat")?;
    // The name of the process is in parentheses and may have spaces; the start is the twentieth field after it.
    let start = first.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or_default();
    Ok(format!("{}/{start}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_list_outlives_its_process_but_not_its_machine() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("open");
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let list = OpenConnections::kept_in(file.clone());
        list.insert(first);
        list.insert(second);
        list.remove(first);
        assert_eq!(OpenConnections::kept_in(file.clone()).list(), [second]);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen('/', "x/", 1)).unwrap();
        assert!(OpenConnections::kept_in(file).list().is_empty());
    }
}
