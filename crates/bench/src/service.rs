//! `connlog-query` as a process, and a client of it.

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
        let program = std::env::current_exe()?.with_file_name("connlog-query");
        ensure!(program.exists(), "{} is missing: build the workspace in the same profile", program.display());
        let (address, admin) = (free_address()?, free_address()?);
        let mut command = Command::new(program);
        command.args(["--database-url", database_url, "--listen", &address.to_string()]);
        command.args(["--admin-listen", &admin.to_string()]).env("CONNLOG_LOG", "warn");
        let mut process = Process::spawn("connlog-query", &command, "KILL")?;
        process.wait_until_listening(address, PATIENCE)?;
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
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<reqwest::Response> {
        let url = format!("http://{}/api/v2/connectionlog{path}", self.address);
        let request = self.client.get(url).query(parameters).header("Coder-Session-Token", &self.token);
        Ok(request.send().await?.error_for_status()?)
    }
}
