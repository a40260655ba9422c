//! Child processes that end with this one, and ports for them to listen on.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    exit: mpsc::Receiver<ExitStatus>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Runs `command` such that the kernel ends it with `death_signal` when this process ends, however that ends.
    ///
    /// The child is spawned from a thread of its own that lives as long as the child: the kernel sends the signal when
    /// the *thread* that made the child ends.
    pub fn spawn(name: &str, command: &Command, death_signal: &str) -> Result<Self> {
        let mut bound = with_default_signals("setpriv");
        bound.arg(format!("--pdeathsig={death_signal}")).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(key, value),
                None => bound.env_remove(key),
            };
        }
        Self::spawn_as_is(name, bound)
    }

    /// Runs `command`, which has to see to its own end. It is a process group of its own, so that Ctrl-C in a terminal
    /// reaches the parent alone, which then ends its children in order.
    pub fn spawn_as_is(name: &str, mut command: Command) -> Result<Self> {
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let (spawned_sender, spawned) = mpsc::channel();
        let (exit_sender, exit) = mpsc::channel();
        std::thread::spawn(move || {
            let child: std::io::Result<Child> = command.spawn();
            let id = child.as_ref().map(Child::id).map_err(std::string::ToString::to_string);
            let _nobody_waits_if_the_caller_is_gone = spawned_sender.send(id);
            if let Ok(mut child) = child
                && let Ok(status) = child.wait()
            {
                let _nobody_asks = exit_sender.send(status);
            }
        });
        let id = spawned.recv().context("the thread that starts processes ended")?;
        let id = id.map_err(|error| anyhow::anyhow!("cannot start {name}: {error}"))?;
        let pid = Pid::from_raw(i32::try_from(id).context("a process id fits an i32")?);
        Ok(Self { name: name.to_owned(), pid, exit, ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; one that has ended needs none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match kill(self.pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.exit.try_recv().ok();
        }
        self.ended
    }

    /// Waits until it ends, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = self
            .exit
            .recv_timeout(patience)
            .with_context(|| format!("{} did not end within {patience:?}", self.name))?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Waits until something listens on `address`.
    pub fn wait_until_listening(&mut self, address: SocketAddr, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = self.exit_status() {
                anyhow::bail!("{} ended with {status} before it listened on {address}", self.name);
            }
            ensure!(Instant::now() < deadline, "{} does not listen on {address}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A command for `program` whose signals do what they do by default, whatever this process was started to ignore: under
/// `nohup` and in the background of a script it ignores some, a child inherits that, and a shell cannot trap what it was
/// started to ignore.
pub fn with_default_signals(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(program);
    command
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit_status().is_none() {
            // It may have ended since; then there is nobody to kill.
            let _gone = kill(self.pid, Signal::SIGKILL);
            let _reaped = self.exit.recv_timeout(Duration::from_secs(10));
        }
    }
}

/// The `LD_LIBRARY_PATH` of what was unpacked from Debian's packages into `root`.
pub fn unpacked_libraries(root: &Path) -> Result<OsString> {
    let mut libraries = Vec::new();
    for folder in ["usr/lib", "lib"] {
        let folder = root.join(folder);
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            libraries.push(entry?.path());
        }
        libraries.push(folder);
    }
    Ok(std::env::join_paths(libraries)?)
}

/// Ports that the kernel does not hand out by itself: whoever binds port 0 meanwhile gets another one.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A loopback address that nobody listens on now, for a child process to listen on.
pub fn free_address() -> Result<SocketAddr> {
    for _ in 0..1_000 {
        let port = PORTS.start + u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(PORTS.end - PORTS.start))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port between {} and {} is free", PORTS.start, PORTS.end)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn children_of_a_program_under_nohup_still_hang_up() {
        let program = std::env::current_exe().unwrap();
        let script = "trap '' HUP INT; exec \"$0\" --exact --ignored process::tests::a_child_hangs_up";
        let output = Command::new("sh").args(["-c", script]).arg(program).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[ignore = "runs under the other test, which ignores signals"]
    fn a_child_hangs_up() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = Process::spawn("sleep", &command, "KILL").unwrap();
        // Before it is what it is meant to be, it still ignores the signal.
        let name = format!("/proc/{}/comm", child.pid());
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
            assert!(Instant::now() < deadline, "it never runs");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.signal(Signal::SIGHUP).unwrap();
        assert_eq!(child.wait(Duration::from_secs(20)).unwrap().signal(), Some(Signal::SIGHUP as i32));
    }
}
