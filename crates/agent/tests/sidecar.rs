//! The sidecar and its hooks, as the programs that they are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use chrono::Utc;
use clap::Parser;
use connlog_model::clock::Timestamp;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::roles::INGEST;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::process::{Process, with_default_signals};
use connlog_testkit::wait::{PATIENCE, until, until_value};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;

const HEARTBEAT: Duration = Duration::from_millis(300);
const PROGRAM: &str = env!("CARGO_BIN_EXE_connlog-agent");

struct Workspace {
    folder: tempfile::TempDir,
    database: TestDatabase,
    server: SocketAddr,
    _shutdown: Shutdown,
}

impl Workspace {
    async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let site = fixtures::site(1, 1);
        fixtures::import(&database.store().unwrap(), &site.directory, Utc::now()).await.unwrap();
        let heartbeat = format!("{}ms", HEARTBEAT.as_millis());
        let arguments =
            ["connlog-ingest", "--database-url", &database.url_as(INGEST), "--heartbeat-interval", &heartbeat];
        let config = connlog_ingest::Config::try_parse_from(arguments).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (server, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        tokio::spawn(connlog_ingest::run(config, listener, admin, shutdown.clone()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), &site.token).unwrap();
        fs::create_dir(folder.path().join("spool")).unwrap();
        Self { folder, database, server, _shutdown: shutdown }
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    async fn sidecar(&self) -> Process {
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("--spool").arg(self.spool()).arg("--token-file").arg(self.folder.path().join("token"));
        command.args(["--server", &format!("http://{}", self.server)]).env("CONNLOG_LOG", "warn");
        let process = Process::spawn("connlog-agent", &command, "KILL").unwrap();
        until("the sidecar answers", async || self.agent(&["status"]).status.success()).await;
        process
    }

    fn agent(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM).args(arguments).arg("--spool").arg(self.spool()).output().unwrap()
    }

    fn connect(&self, app: &str) -> String {
        let output = self.agent(&["report", "connect", "--app", app, "--ip", "10.9.8.7"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn disconnect(&self, id: &str, app: &str) {
        let output = self.agent(&["report", "disconnect", "--id", id, "--app", app, "--code", "3"]);
        assert!(output.status.success(), "{output:?}");
    }

    async fn until(&self, sql: &str, expected: i64) {
        let client = self.database.client().await.unwrap();
        let look = async || client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        until_value(sql, look, |found| *found == expected).await;
    }

    /// The last sign of life that the log has of the agent.
    async fn last_seen(&self) -> Timestamp {
        let sql = "SELECT max(last_seen_at) FROM agent_spools";
        self.database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// A workload that ends once the sidecar has answered it.
const WORKLOAD: &str = "connlog-agent report connect --app ssh && for _ in $(seq 600); do connlog-agent status && exit 0; sleep 0.1; done; exit 1";
const ENDED: &str = "SELECT count(*) FROM connection_logs WHERE code = 3 AND NOT disconnect_inferred";
const OPEN: &str = "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_report_while_the_sidecar_is_there_gone_and_killed() {
    let workspace = Workspace::new().await;
    // Before the first sidecar, into the drop directory.
    let early = workspace.connect("ssh");
    let mut sidecar = workspace.sidecar().await;
    let socket = fs::metadata(workspace.spool().join("connlog.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    workspace.until(OPEN, 1).await;
    let during = workspace.connect("cursor");
    workspace.until(OPEN, 2).await;

    sidecar.signal(Signal::SIGKILL).unwrap();
    tokio::task::block_in_place(|| sidecar.wait(PATIENCE)).unwrap();
    workspace.disconnect(&early, "ssh");
    let late = workspace.connect("zed");
    let mut sidecar = workspace.sidecar().await;
    workspace.until(ENDED, 1).await;
    // The new sidecar still lists what the killed one had open: after some heartbeats both are open.
    workspace.until(OPEN, 2).await;
    let since = workspace.last_seen().await;
    until("two heartbeats come", async || workspace.last_seen().await > since + HEARTBEAT * 2).await;
    workspace.until(OPEN, 2).await;
    workspace.disconnect(&during, "cursor");
    workspace.disconnect(&late, "zed");
    workspace.until(ENDED, 3).await;
    workspace.until("SELECT count(*) FROM connection_logs WHERE host(ip) = '10.9.8.7'", 3).await;
    let status = String::from_utf8(workspace.agent(&["status"]).stdout).unwrap();
    assert!(status.contains("connected: true\n") && status.contains("\nlost_and_not_yet_reported: 0\n"), "{status}");
    sidecar.signal(Signal::SIGTERM).unwrap();
    assert!(tokio::task::block_in_place(|| sidecar.wait(PATIENCE)).unwrap().success());
    assert_eq!(fs::read_dir(workspace.spool().join("drop")).unwrap().count(), 0);
}

#[test]
fn exit_codes_are_those_that_hooks_rely_on() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let report = |arguments: &[&str], spool: &Path| {
        let output = Command::new(PROGRAM).arg("report").args(arguments).arg("--spool").arg(spool).output().unwrap();
        output.status.code()
    };
    let id = uuid::Uuid::new_v4().to_string();
    assert_eq!(report(&["connect", "--app", "ssh"], &spool), Some(74), "no sidecar has its spool there");
    fs::create_dir(&spool).unwrap();
    assert_eq!(report(&["connect", "--app", "ssh"], &spool), Some(0), "into the drop directory");
    assert_eq!(report(&["connect", "--app", ""], &spool), Some(65), "refused without a sidecar, too");
    let nil = uuid::Uuid::nil().to_string();
    assert_eq!(report(&["connect", "--app", "ssh", "--id", &nil], &spool), Some(65));
    let run = ["run", "--token-file", "token", "--spool", "spool", "--server", "localhost:7070"];
    assert_eq!(Command::new(PROGRAM).args(run).status().unwrap().code(), Some(64), "an address without a scheme");
    assert_eq!(report(&["disconnect", "--app", "ssh", "--id", &id, "--code", "-1"], &spool), Some(0));
    assert_eq!(report(&["disconnect", "--app", "ssh"], &spool), Some(64));
    assert_eq!(
        report(&["connect", "--app", "ssh", "--ip", "nowhere"], &spool),
        Some(0),
        "unknown, and no reason to lose it"
    );
    assert_eq!(report(&["connect", "--app", "ssh"], Path::new("/proc/nothing")), Some(74));
    let status = Command::new(PROGRAM).arg("status").arg("--spool").arg(&spool).status().unwrap();
    assert_eq!(status.code(), Some(1), "nobody answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_the_drop_directory_holds_up_nothing_else() {
    let workspace = Workspace::new().await;
    let early = workspace.connect("ssh");
    fs::create_dir(workspace.spool().join("drop/0.event")).unwrap();
    fs::write(workspace.spool().join("drop/1.event"), "garbage").unwrap();
    let reason = "x".repeat(100_000);
    let output =
        workspace.agent(&["report", "disconnect", "--id", &early, "--app", "ssh", "--code", "3", "--reason", &reason]);
    assert!(output.status.success(), "{output:?}");
    let _sidecar = workspace.sidecar().await;
    workspace.until(ENDED, 1).await;
    let late = workspace.connect("ssh");
    let output =
        workspace.agent(&["report", "disconnect", "--id", &late, "--app", "ssh", "--code", "3", "--reason", &reason]);
    assert!(output.status.success(), "{output:?}");
    workspace.until(ENDED, 2).await;
    let status = String::from_utf8(workspace.agent(&["status"]).stdout).unwrap();
    assert!(status.contains("\ndropped_and_waiting: 1\nput_aside: 1\n"), "{status}");
}

/// The examples of `deploy/agent`, run as sshd and PAM would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hooks_of_the_examples_report_sessions() {
    let workspace = Workspace::new().await;
    let _sidecar = workspace.sidecar().await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/agent");
    let path = format!("{}:/usr/bin:/bin", Path::new(PROGRAM).parent().unwrap().display());
    let hook = |script: &str| {
        let mut command = with_default_signals(examples.join(script));
        command.env_clear().env("PATH", &path).env("CONNLOG_AGENT_SPOOL", workspace.spool()).env("SHELL", "/bin/sh");
        command
    };
    let output = hook("ssh-session.sh")
        .env("SSH_CONNECTION", "203.0.113.5 50000 10.0.0.1 22")
        .env("SSH_ORIGINAL_COMMAND", "echo .vscode-server; exit 3")
        .output()
        .unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b".vscode-server\n"[..]), "{output:?}");
    workspace
        .until(
            "SELECT count(*) FROM connection_logs WHERE app_name = 'vscode' AND code = 3 AND host(ip) = '203.0.113.5'",
            1,
        )
        .await;

    // The terminal is closed in the middle of the session.
    let mut session = hook("ssh-session.sh");
    session.env("SSH_CONNECTION", "203.0.113.7 50000 10.0.0.1 22").env("SSH_ORIGINAL_COMMAND", "sleep 60");
    std::os::unix::process::CommandExt::process_group(&mut session, 0);
    let mut session = session.spawn().unwrap();
    workspace
        .until("SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL AND host(ip) = '203.0.113.7'", 1)
        .await;
    let group = nix::unistd::Pid::from_raw(i32::try_from(session.id()).unwrap());
    nix::sys::signal::killpg(group, Signal::SIGHUP).unwrap();
    assert_eq!(tokio::task::block_in_place(|| session.wait()).unwrap().code(), Some(129));
    workspace.until("SELECT count(*) FROM connection_logs WHERE disconnect_reason = 'hung up' AND code = 129", 1).await;

    let state = workspace.folder.path().join("pam");
    let pam = |kind: &str| {
        let mut command = hook("pam-session.sh");
        command.env("PAM_TYPE", kind).env("PAM_RHOST", "203.0.113.6").env("CONNLOG_PAM_STATE", &state);
        assert!(command.status().unwrap().success());
    };
    pam("open_session");
    workspace
        .until("SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL AND host(ip) = '203.0.113.6'", 1)
        .await;
    pam("close_session");
    workspace.until("SELECT count(*) FROM connection_logs WHERE disconnect_reason = 'session closed'", 1).await;
    // A container of its own: a process group, which ends with it.
    let second = workspace.folder.path().join("second");
    fs::create_dir(&second).unwrap();
    let mut container = hook("entrypoint.sh");
    container.args(["sh", "-c", WORKLOAD]);
    container.env("CONNLOG_AGENT_SPOOL", &second).env("CONNLOG_AGENT_SERVERS", format!("http://{}", workspace.server));
    container.env("CONNLOG_AGENT_TOKEN_FILE", workspace.folder.path().join("token"));
    // An empty value, as templates leave it, counts as unset.
    container.env("CONNLOG_AGENT_CA_FILE", "").env("CONNLOG_AGENT_MAX_SPOOL_BYTES", " ");
    std::os::unix::process::CommandExt::process_group(&mut container, 0);
    let mut container = container.spawn().unwrap();
    let group = nix::unistd::Pid::from_raw(i32::try_from(container.id()).unwrap());
    let ended = container.wait().unwrap();
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    assert!(ended.success(), "the workload's end is the container's, and the sidecar answered it");
}
