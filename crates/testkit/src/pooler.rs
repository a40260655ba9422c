//! A private `PgBouncer` in transaction mode, before a private PostgreSQL.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{User, geteuid};

use crate::database::{SERVER_VARIABLE, as_role};
use crate::process::{Process, free_address, unpacked_libraries};

/// The account that it runs as if the caller is root, which it refuses.
const UNPRIVILEGED: &str = "postgres";
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running pooler. Dropping it ends it.
pub struct Pooler {
    port: u16,
    _process: Process,
}

impl Pooler {
    /// Starts one before the server at `server_port` of this machine, with `connections` to it at most for each database and user.
    pub fn start(server_port: u16, connections: u16) -> Result<Self> {
        let program = program()?;
        // Under /var/tmp, which every account can enter.
        let folder = tempfile::Builder::new().prefix("connlog-pooler-").tempdir_in("/var/tmp")?;
        let port = free_address()?.port();
        let users = folder.path().join("users.txt");
        let names = ["postgres", "connlog_ingest", "connlog_query", "connlog_purge"];
        fs::write(&users, names.map(|name| format!("\"{name}\" \"\"\n")).concat())?;
        let settings = folder.path().join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {connections}\n\
                 max_client_conn = 500\n",
                users.display()
            ),
        )?;
        let mut command = Command::new("setpriv");
        if geteuid().is_root() {
            let user = User::from_name(UNPRIVILEGED)?.context("there is no user postgres")?;
            for path in [folder.path(), &users, &settings] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            }
            command.args([&format!("--reuid={UNPRIVILEGED}"), &format!("--regid={UNPRIVILEGED}"), "--init-groups"]);
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        command.arg("--pdeathsig=KILL").arg(&program).arg("-q").arg(&settings).current_dir("/");
        if program.starts_with(unpacked()) {
            command.env("LD_LIBRARY_PATH", unpacked_libraries(&unpacked())?);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn_as_is("PgBouncer", command)?;
        process.wait_until_listening(([127, 0, 0, 1], port).into(), PATIENCE)?;
        // It has read them.
        folder.close()?;
        Ok(Self { port, _process: process })
    }

    /// The URL of what `direct_url` names, through the pooler.
    pub fn url(&self, direct_url: &str) -> Result<String> {
        let (before, after) = direct_url.split_once("@127.0.0.1:").context("a URL of this machine")?;
        let rest = after.trim_start_matches(|character: char| character.is_ascii_digit());
        ensure!(rest.len() < after.len(), "the URL has no port");
        Ok(format!("{before}@127.0.0.1:{}{rest}", self.port))
    }
}

/// Where `cargo xtask` unpacks Debian's package: every account can enter it.
pub fn unpacked() -> PathBuf {
    PathBuf::from("/var/tmp").join(format!("connlog-pgbouncer-{}", geteuid()))
}

/// The program: installed, or unpacked.
pub fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), unpacked().join("usr/sbin")]);
    let mut programs = places.map(|place| place.join("pgbouncer"));
    programs.find(|program| program.exists()).context("PgBouncer is missing; `cargo xtask test` brings it")
}

/// The port that a URL of this machine names.
fn port_of(url: &str) -> Option<u16> {
    let (_, rest) = url.split_once("@127.0.0.1:")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// Set when the services under test are to reach the database through a pooler.
pub const POOLED_VARIABLE: &str = "CONNLOG_TEST_POOLED";

/// The arguments that a service under test reaches the database at `url` by: with the rights of `role`, or through a pooler of this
/// process if that is asked for.
pub fn database_arguments(url: &str, role: &str) -> Result<Vec<String>> {
    static POOLER: Mutex<Option<Pooler>> = Mutex::new(None);
    let direct = || Ok(vec!["--database-url".to_owned(), as_role(url, role)]);
    if std::env::var_os(POOLED_VARIABLE).is_none() {
        return direct();
    }
    let shared_server =
        std::env::var(SERVER_VARIABLE).with_context(|| format!("{POOLED_VARIABLE} goes with {SERVER_VARIABLE}"))?;
    // A test that has a server of its own, or reaches it through something that fails, is about that.
    if port_of(url).is_none() || port_of(url) != port_of(&shared_server) {
        return direct();
    }
    let mut shared = POOLER.lock().expect("no one panics while holding the pooler");
    let pooler = match &mut *shared {
        Some(pooler) => pooler,
        none => none.insert(Pooler::start(port_of(url).context("a URL of this machine")?, 4)?),
    };
    Ok(vec!["--database-url".to_owned(), pooler.url(url)?, "--database-pooled".to_owned()])
}
