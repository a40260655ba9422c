//! The services as processes, and a client of `connlog-query`.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use connlog_model::role::Role;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::fixtures;
use connlog_testkit::process::{Process, free_address};
use reqwest::Client;
use serde_json::Value;

/// How long the service may take to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// The service.
pub struct Service {
    address: SocketAddr,
    token: String,
    client: Client,
    process: Process,
}

impl Service {
    /// Starts the `connlog-query` that lies beside this program.
    pub async fn start(database_url: &str) -> Result<Self> {
        let store = Store::new(&StoreConfig::new(database_url, "connlog-bench", 1))?;
        let token = fixtures::api_token(&store, Role::Auditor, None, None, Utc::now()).await?;
        let (address, process) = start("connlog-query", database_url, &[])?;
        Ok(Self { address, token, client: Client::new(), process })
    }

    /// A page, and how long it took.
    pub async fn page(&self, query: &str, after: Option<&str>) -> Result<(Duration, Value)> {
        let mut parameters = vec![("q", query), ("limit", "25")];
        parameters.extend(after.map(|after| ("after", after)));
        let began = Instant::now();
        let body = self.get("", &parameters).await?.bytes().await?;
        let elapsed = began.elapsed();
        Ok((elapsed, serde_json::from_slice(&body)?))
    }

    /// How many bytes and rows an export has, and how long it took.
    pub async fn export(&self, query: &str) -> Result<(Duration, u64, usize)> {
        let began = Instant::now();
        let mut response = self.get("/export", &[("q", query)]).await?;
        let (mut rows, mut bytes, mut last) = (0, 0, Vec::new());
        while let Some(chunk) = response.chunk().await? {
            rows += bytecount::count(&chunk, b'\n') as u64;
            bytes += chunk.len();
            last = chunk.to_vec();
        }
        ensure!(String::from_utf8_lossy(&last).contains("\"complete\":true"), "the export is not complete");
        Ok((began.elapsed(), rows - 1, bytes))
    }

    /// The most memory that the service has had, in MiB.
    pub fn peak_memory_mib(&self) -> Result<f64> {
        peak_memory_mib(&self.process)
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<reqwest::Response> {
        let url = format!("http://{}/api/v2/connectionlog{path}", self.address);
        let request = self.client.get(url).query(parameters).header("Coder-Session-Token", &self.token);
        Ok(request.send().await?.error_for_status()?)
    }
}

/// `connlog-ingest`.
pub struct Ingest {
    address: SocketAddr,
    process: Process,
}

impl Ingest {
    /// Starts the `connlog-ingest` that lies beside this program. One agent may send as much as it can.
    pub fn start(database_url: &str, writers: usize) -> Result<Self> {
        let writers = writers.to_string();
        let flags = ["--writers", &writers, "--agent-rate", "10000000"];
        let (address, process) = start("connlog-ingest", database_url, &flags)?;
        Ok(Self { address, process })
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw().cast_unsigned()
    }

    /// The most memory that the service has had, in MiB.
    pub fn peak_memory_mib(&self) -> Result<f64> {
        peak_memory_mib(&self.process)
    }
}

/// Starts a service that lies beside this program.
fn start(name: &str, database_url: &str, flags: &[&str]) -> Result<(SocketAddr, Process)> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.exists(), "{} is missing: build the workspace in the same profile", program.display());
    let (address, admin) = (free_address()?, free_address()?);
    let mut command = Command::new(program);
    command.args(["--database-url", database_url, "--listen", &address.to_string()]).args(flags);
    command.args(["--admin-listen", &admin.to_string()]).env("CONNLOG_LOG", "warn");
    let mut process = Process::spawn(name, &command, "KILL")?;
    process.wait_until_listening(address, PATIENCE)?;
    Ok((address, process))
}

fn peak_memory_mib(process: &Process) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
