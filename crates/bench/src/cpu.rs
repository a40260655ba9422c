//! Time that processes were on a CPU, of proc(5).

use std::collections::HashMap;
use std::fs;
use std::ops::Sub;

use anyhow::{Context as _, Result};
use tokio_postgres::Client;

/// Clock ticks a second, as every Linux on common machines has it.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of some processes, in ticks of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu(HashMap<u32, u64>);

impl Cpu {
    /// Of one process, its ended threads included.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let (_, ticks) = stat(pid).context("the process has ended")?;
        Ok(Self(HashMap::from([(pid, ticks)])))
    }

    /// Of the children of a process.
    pub(crate) fn of_children(parent: u32) -> Result<Self> {
        let mut ticks = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some((of, spent)) = stat(pid)
                && of == parent
            {
                ticks.insert(pid, spent);
            }
        }
        Ok(Self(ticks))
    }

    /// In microseconds.
    pub(crate) fn micros(&self) -> f64 {
        let ticks = u32::try_from(self.0.values().sum::<u64>()).unwrap_or(u32::MAX);
        f64::from(ticks) / TICKS_PER_SECOND * 1e6
    }
}

/// What was spent since: processes that began meanwhile count as a whole, and those that ended do not count.
impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let since = self.0.into_iter().map(|(pid, ticks)| (pid, ticks - before.0.get(&pid).copied().unwrap_or(0)));
        Self(since.collect())
    }
}

/// The parent of PostgreSQL's backends.
pub(crate) async fn postmaster(client: &Client) -> Result<u32> {
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let (parent, _) = stat(backend.cast_unsigned()).context("PostgreSQL is not on this machine")?;
    Ok(parent)
}

/// The parent of a process, and its ticks in user and kernel mode.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((fields.get(1)?.parse().ok()?, ticks(11)? + ticks(12)?))
}
