//! The services as processes, and a client of `connlog-query`.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use connlog_model::role::Role;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::fixtures;
use connlog_testkit::process::{Process, Signal, free_address};
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
        Self::start_with(database_url, database_url, &[]).await
    }

    /// Starts it with `flags`, on a database that `direct_url` names too.
    pub async fn start_with(database_url: &str, direct_url: &str, flags: &[&str]) -> Result<Self> {
        let store = Store::new(&StoreConfig::new(direct_url, "connlog-bench", 1))?;
        let token = fixtures::api_token(&store, Role::Auditor, None, None, Utc::now()).await?;
        let (address, _, command) = command("connlog-query", database_url, flags)?;
        let process = spawn("connlog-query", &command, address)?;
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

    /// Follows what happens, until the service ends it.
    pub async fn tail(&self) -> Result<()> {
        let mut response = self.get("/tail", &[("q", "")]).await?;
        while response.chunk().await?.is_some() {}
        Ok(())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the first page over a connection of its own.
    pub async fn page_anew(&self) -> Result<()> {
        let client = Client::builder().pool_max_idle_per_host(0).build()?;
        let url = format!("http://{}/api/v2/connectionlog?limit=25", self.address);
        let request = client.get(url).header("Coder-Session-Token", &self.token);
        request.send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }

    /// The memory that it has now, in MiB.
    pub fn memory_mib(&self) -> Result<f64> {
        memory_mib(&self.process, "VmRSS:")
    }

    /// The most memory that the service has had, in MiB.
    pub fn peak_memory_mib(&self) -> Result<f64> {
        memory_mib(&self.process, "VmHWM:")
    }

    /// Lets the most memory be what it has now.
    pub fn forget_peak_memory(&self) -> Result<()> {
        forget_peak_memory(&self.process)
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
    admin: SocketAddr,
    command: Command,
    process: Process,
}

impl Ingest {
    /// Starts the `connlog-ingest` that lies beside this program. One agent may send as much as it can.
    pub fn start(database_url: &str, flags: &[&str]) -> Result<Self> {
        let (address, admin, mut command) = command("connlog-ingest", database_url, flags)?;
        command.args(["--agent-rate", "10000000"]);
        let process = spawn("connlog-ingest", &command, address)?;
        Ok(Self { address, admin, command, process })
    }

    /// Kills it and starts it anew, at the same address. Returns once it listens.
    pub fn restart_after_kill(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(PATIENCE)?;
        self.process = spawn("connlog-ingest", &self.command, self.address)?;
        Ok(())
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw().cast_unsigned()
    }

    /// A counter among its metrics.
    pub async fn metric(&self, name: &str) -> Result<u64> {
        let text = reqwest::get(format!("http://{}/metrics", self.admin)).await?.error_for_status()?.text().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("there is no metric {name}"))?.parse()?)
    }

    /// The memory that it has now, in MiB.
    pub fn memory_mib(&self) -> Result<f64> {
        memory_mib(&self.process, "VmRSS:")
    }

    /// The most memory that it has had, in MiB.
    pub fn peak_memory_mib(&self) -> Result<f64> {
        memory_mib(&self.process, "VmHWM:")
    }

    /// Lets the most memory be what it has now.
    pub fn forget_peak_memory(&self) -> Result<()> {
        forget_peak_memory(&self.process)
    }
}

/// By `/proc/PID/clear_refs`, see proc(5).
fn forget_peak_memory(process: &Process) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{}/clear_refs", process.pid()), "5")?)
}

/// A service that lies beside this program, where it will listen, and where for its operators.
fn command(name: &str, database_url: &str, flags: &[&str]) -> Result<(SocketAddr, SocketAddr, Command)> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.exists(), "{} is missing: build the workspace in the same profile", program.display());
    let (address, admin) = (free_address()?, free_address()?);
    let mut command = Command::new(program);
    command.args(["--database-url", database_url, "--listen", &address.to_string()]).args(flags);
    command.args(["--admin-listen", &admin.to_string()]).env("CONNLOG_LOG", "warn");
    Ok((address, admin, command))
}

fn spawn(name: &str, command: &Command, address: SocketAddr) -> Result<Process> {
    let mut process = Process::spawn(name, command, "KILL")?;
    process.wait_until_listening(address, PATIENCE)?;
    Ok(process)
}

/// A line of `/proc/PID/status`, in MiB.
fn memory_mib(process: &Process, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of the status is missing")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
