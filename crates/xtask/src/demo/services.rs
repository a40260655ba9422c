//! The real binaries on a private PostgreSQL.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connlog_testkit::postgres::{Options, PostgresServer, target_dir};
use connlog_testkit::process::{Process, free_address};
use nix::sys::signal::Signal;

use super::directory::Directory;
use crate::command;

/// How long a service may take to start or stop.
const PATIENCE: Duration = Duration::from_mins(1);
/// The retention that the demo's purge enforces.
const RETENTION: &str = "90d";

/// Everything that runs.
pub(crate) struct Services {
    pub(crate) database_url: String,
    pub(crate) ingest: SocketAddr,
    pub(crate) ingest_admin: SocketAddr,
    pub(crate) query: SocketAddr,
    pub(crate) query_admin: SocketAddr,
    pub(crate) auditor_token: String,
    pub(crate) reporter_token: String,
    pub(crate) service_log: PathBuf,
    processes: Vec<(&'static str, Process)>,
    _postgres: PostgresServer,
}

/// Says that the binaries are built: `cargo xtask test` has done it, with what the tests need of dependencies, and building
/// them anew for the services alone would link everything twice.
pub(crate) const BUILT_VARIABLE: &str = "CONNLOG_SERVICES_BUILT";

/// Builds the binaries.
pub(crate) fn build() -> Result<()> {
    if std::env::var_os(BUILT_VARIABLE).is_some() {
        return Ok(());
    }
    println!("building the services");
    command::build(&["connlog-ingest", "connlog-query", "connlog-purge", "connlogctl"], &["--quiet"])
}

impl Services {
    /// Starts PostgreSQL, migrates, imports the directory, makes tokens, and starts the services.
    pub(crate) fn start(directory: &Directory) -> Result<Self> {
        let folder = target_dir().join("demo");
        fs::create_dir_all(&folder)?;
        println!("starting a private PostgreSQL");
        let postgres = PostgresServer::start(Options::durable())?;
        let database_url = postgres.url("postgres");
        ctl(&database_url, &["migrate", "--roles"])?;
        let file = folder.join("directory.ndjson");
        fs::write(&file, directory.file())?;
        print!("{}", ctl(&database_url, &["directory", "import", &file.to_string_lossy()])?);
        let auditor_token =
            ctl(&database_url, &["token", "create", "--role", "auditor", "--user", directory.auditor()])?;
        let reporter_token = ctl(&database_url, &["token", "create", "--role", "reporter"])?;
        let service_log = folder.join("service.log");
        let _absent_in_the_first_run =
            (fs::remove_file(&service_log), fs::remove_file(service_log.with_extension("json")));
        let mut services = Self {
            ingest: address("gRPC", 7070)?,
            ingest_admin: address("ingest's admin", 7071)?,
            query: address("REST", 8080)?,
            query_admin: address("query's admin", 8081)?,
            auditor_token: auditor_token.trim().to_owned(),
            reporter_token: reporter_token.trim().to_owned(),
            service_log,
            database_url,
            processes: Vec::new(),
            _postgres: postgres,
        };
        services.start_ingest()?;
        services.start_query()?;
        Ok(services)
    }

    /// Each service logs in as itself.
    fn url_of(&self, role: &str) -> String {
        self.database_url.replacen("postgres@", &format!("{role}@"), 1)
    }

    fn start_ingest(&mut self) -> Result<()> {
        let mut command = binary("connlog-ingest");
        command.args(["--database-url", &self.url_of("connlog_ingest")]);
        command.args(["--listen", &self.ingest.to_string(), "--admin-listen", &self.ingest_admin.to_string()]);
        command
            .arg("--log-human")
            .arg(&self.service_log)
            .arg("--log-json")
            .arg(self.service_log.with_extension("json"));
        command.args(["--heartbeat-interval", "5s"]);
        self.start_service("connlog-ingest", command, self.ingest)
    }

    /// Stops `connlog-query` alone.
    pub(crate) fn stop_query(&mut self) -> Result<()> {
        let place = self.processes.iter().position(|(name, _)| *name == "connlog-query").context("it runs")?;
        let (_, mut process) = self.processes.remove(place);
        process.signal(Signal::SIGTERM)?;
        process.wait(PATIENCE).map(drop)
    }

    pub(crate) fn start_query(&mut self) -> Result<()> {
        let mut command = binary("connlog-query");
        command.args(["--database-url", &self.url_of("connlog_query")]);
        command.args(["--listen", &self.query.to_string(), "--admin-listen", &self.query_admin.to_string()]);
        self.start_service("connlog-query", command, self.query)
    }

    fn start_service(&mut self, name: &'static str, mut command: Command, address: SocketAddr) -> Result<()> {
        command.env("CONNLOG_LOG", std::env::var("CONNLOG_LOG").unwrap_or_else(|_| "warn".to_owned()));
        let mut process = Process::spawn(name, &command, "TERM")?;
        process.wait_until_listening(address, PATIENCE)?;
        self.processes.push((name, process));
        Ok(())
    }

    /// Runs the purge as if it were `now`, and returns its summary as JSON.
    pub(crate) fn purge(&self, now: &str) -> Result<serde_json::Value> {
        let mut command = binary("connlog-purge");
        command.args([
            "--database-url",
            &self.url_of("connlog_purge"),
            "--connection-logs-retention",
            RETENTION,
            "--now",
            now,
            "--json",
        ]);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "connlog-purge ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("connlog-purge printed no JSON")
    }

    /// Stops the services in order, and PostgreSQL last.
    pub(crate) fn stop(&mut self) -> Result<()> {
        while let Some((name, mut process)) = self.processes.pop() {
            process.signal(Signal::SIGTERM)?;
            let status = process.wait(PATIENCE)?;
            ensure!(status.success(), "{name} ended with {status}");
        }
        Ok(())
    }
}

/// A program beside this one.
fn binary(name: &str) -> Command {
    Command::new(target_dir().join("debug").join(name))
}

fn ctl(database_url: &str, arguments: &[&str]) -> Result<String> {
    let output: Output = binary("connlogctl").args(["--database-url", database_url]).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "connlogctl {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The usual port, or another one if that is in use.
fn address(what: &str, port: u16) -> Result<SocketAddr> {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    if TcpListener::bind(usual).is_ok() {
        return Ok(usual);
    }
    let other = free_address()?;
    println!("port {port}, the usual one for {what}, is in use; using {} instead", other.port());
    Ok(other)
}
