//! A private PostgreSQL server: Debian's binaries, a data directory of its own, loopback only.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::process::{Process, free_address};

/// The account that the server runs as if the caller is root, which PostgreSQL refuses.
const UNPRIVILEGED: &str = "postgres";
/// How long the server may take to start or stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a private server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the data directory goes, if the server's account can enter it; else a folder that it can.
    pub preferred_root: PathBuf,
    /// Whether commits reach the disk. Tests of logic do without.
    pub durable: bool,
    /// The port; 0 picks a free one.
    pub port: u16,
    /// The folder of an unpacked PostgreSQL, with `bin` and `lib`; none is the newest that is installed.
    pub programs: Option<PathBuf>,
    /// Further settings, as `name=value`.
    pub settings: Vec<String>,
}

impl Options {
    /// A server for tests of logic, under `target/`.
    pub fn for_tests() -> Self {
        Self { preferred_root: target_dir(), durable: false, port: 0, programs: None, settings: Vec::new() }
    }

    /// A server whose commits are durable, under `target/`.
    pub fn durable() -> Self {
        Self { durable: true, ..Self::for_tests() }
    }
}

/// The workspace's `target/` directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).join("target"),
        PathBuf::from,
    )
}

/// A running private server. Dropping it stops it and removes its data.
pub struct PostgresServer {
    binaries: PathBuf,
    data: PathBuf,
    options: Options,
    port: u16,
    process: Option<Process>,
}

impl PostgresServer {
    /// Initializes a data directory and starts a server on it. The server ends with this process, however that ends.
    pub fn start(options: Options) -> Result<Self> {
        let binaries = match &options.programs {
            Some(folder) => folder.join("bin"),
            None => find_binaries()?,
        };
        let root = usable_root(&options.preferred_root)?;
        remove_abandoned(&root);
        let data = root.join(format!("pg-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()));
        fs::create_dir(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let port = if options.port == 0 { free_address()?.port() } else { options.port };
        let mut server = Self { binaries, data, options, port, process: None };
        server.initialize()?;
        server.run()?;
        Ok(server)
    }

    /// A hot standby of this server, which follows it by streaming.
    pub fn standby(&self) -> Result<Self> {
        let root = self.data.parent().context("the data has a folder")?;
        let data = root.join(format!("pg-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()));
        fs::create_dir(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let options = Options { port: 0, ..self.options.clone() };
        let standby =
            Self { binaries: self.binaries.clone(), data, options, port: free_address()?.port(), process: None };
        standby.own_data()?;
        let output = self
            .command("pg_basebackup", geteuid().is_root())
            .args(["--host=127.0.0.1", "--username=postgres", "--write-recovery-conf", "--checkpoint=fast", "--pgdata"])
            .arg(&standby.data)
            .arg(format!("--port={}", self.port))
            .output()
            .context("cannot run pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr));
        let mut standby = standby;
        standby.run()?;
        Ok(standby)
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// What its programs say that they are.
    pub fn version(&self) -> Result<String> {
        let output = self.command("postgres", false).arg("--version").output().context("cannot run postgres")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server as a crash would: no checkpoint, sessions cut. Waits until it is gone.
    pub fn stop_immediately(&mut self) -> Result<()> {
        self.stop(Signal::SIGQUIT)
    }

    /// Stops the server in good order. Waits until it is gone.
    pub fn stop_fast(&mut self) -> Result<()> {
        self.stop(Signal::SIGINT)
    }

    /// Starts a stopped server again, on the same port and data.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the server is running");
        self.run()
    }

    /// Gives the data directory to the account that the server runs as.
    fn own_data(&self) -> Result<()> {
        if geteuid().is_root() {
            let user =
                User::from_name(UNPRIVILEGED)?.context("there is no user postgres; install Debian's postgresql")?;
            std::os::unix::fs::chown(&self.data, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(fs::set_permissions(&self.data, fs::Permissions::from_mode(0o700))?)
    }

    fn initialize(&self) -> Result<()> {
        self.own_data()?;
        let output = self
            .command("initdb", geteuid().is_root())
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres", "--no-sync", "-D"])
            .arg(&self.data)
            .output()
            .context("cannot run initdb")?;
        ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let mut command = self.command("postgres", geteuid().is_root());
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.data).arg("-p").arg(self.port.to_string());
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            "max_connections=300".to_owned(),
            "shared_buffers=256MB".to_owned(),
            "max_wal_size=2GB".to_owned(),
            "logging_collector=off".to_owned(),
        ];
        if !self.options.durable {
            settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned));
        }
        settings.extend(self.options.settings.iter().cloned());
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        let log_path = self.data.with_extension("log");
        let log = fs::File::options().create(true).append(true).open(&log_path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(Process::spawn_as_is("PostgreSQL", command)?);
        self.wait_until_ready().with_context(|| fs::read_to_string(log_path).unwrap_or_default())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if answers(self.port).unwrap_or(false) {
                return Ok(());
            }
            if !self.is_running() {
                self.process = None;
                bail!("the private PostgreSQL server ended while starting");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        bail!("the private PostgreSQL server did not become ready")
    }

    fn stop(&mut self, signal: Signal) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(signal)?;
            process.wait(PATIENCE)?;
        }
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.exit_status().is_none())
    }

    fn command(&self, program: &str, drop_privileges: bool) -> Command {
        let program = self.binaries.join(program);
        let mut command = Command::new("setpriv");
        if drop_privileges {
            command.arg(format!("--reuid={UNPRIVILEGED}")).arg(format!("--regid={UNPRIVILEGED}")).arg("--init-groups");
        }
        command.arg("--pdeathsig=QUIT").arg(program).current_dir("/");
        if let Some(folder) = &self.options.programs {
            command.env("LD_LIBRARY_PATH", folder.join("lib"));
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Signal::SIGQUIT) {
            eprintln!("cannot stop the private PostgreSQL server: {error:#}");
        }
        remove(&self.data);
    }
}

fn remove(data: &Path) {
    if let Err(error) = fs::remove_dir_all(data) {
        eprintln!("cannot remove {}: {error}", data.display());
    }
    let _absent_if_it_never_ran = fs::remove_file(data.with_extension("log"));
}

/// Whether a server lets `postgres` in: it listens for a while before it does.
///
/// The startup packet and its answers are those of PostgreSQL's documentation, "Message Formats".
fn answers(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let parameters = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(parameters.len() + 4).expect("a startup packet is short");
    stream.write_all(&[&length.to_be_bytes()[..], parameters].concat())?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    // R: authenticated; E: still starting.
    Ok(kind == *b"R")
}

/// The newest server that Debian has installed, or what `PATH` has.
fn find_binaries() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("postgres").exists())
        .collect();
    versions.sort();
    if let Some((_, path)) = versions.pop() {
        return Ok(path);
    }
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .find(|path| path.join("initdb").exists() && path.join("postgres").exists())
        .context("PostgreSQL is not installed; `cargo xtask test` installs it, or run `apt-get install postgresql`")
}

/// `preferred`, or a folder under `/var/tmp` if the server's account cannot enter it.
fn usable_root(preferred: &Path) -> Result<PathBuf> {
    let preferred = preferred.join("connlog-postgres");
    if fs::create_dir_all(&preferred).is_ok() && (!geteuid().is_root() || can_enter(&preferred)) {
        return Ok(preferred);
    }
    let fallback = PathBuf::from("/var/tmp").join(format!("connlog-postgres-{}", geteuid()));
    fs::create_dir_all(&fallback)?;
    fs::set_permissions(&fallback, fs::Permissions::from_mode(0o711))?;
    Ok(fallback)
}

fn can_enter(path: &Path) -> bool {
    let arguments: [&OsStr; 6] = [
        "--reuid=postgres".as_ref(),
        "--regid=postgres".as_ref(),
        "--init-groups".as_ref(),
        "test".as_ref(),
        "-x".as_ref(),
        path.as_os_str(),
    ];
    Command::new("setpriv").args(arguments).status().is_ok_and(|status| status.success())
}

/// Removes the data of servers whose processes ended without cleaning up.
fn remove_abandoned(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("pg-"))
            .and_then(|rest| rest.split('-').next()?.parse().ok());
        if let Some(owner) = owner
            && entry.path().is_dir()
            && kill(Pid::from_raw(owner), None) == Err(nix::errno::Errno::ESRCH)
        {
            remove(&entry.path());
        }
    }
}
