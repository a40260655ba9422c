//! Commands that xtask runs: cargo itself, and steps that print how long they took.

use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often progress is printed.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The cargo that runs this program.
///
/// It is not told what `cargo run` tells this program of itself: build scripts that look at those variables would run
/// again whenever a build of this program follows one by hand, and all that depends on them would be compiled again.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let about_this_package =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if about_this_package {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Builds packages of the workspace, with further options.
pub(crate) fn build(packages: &[&str], options: &[&str]) -> Result<()> {
    let mut build = cargo(&["build", "--locked"]);
    build.args(options).args(packages.iter().flat_map(|package| ["-p", package]));
    succeed(build).context("the services cannot be built")
}

/// Runs a check of this program, between a line that names it and one with its time.
pub(crate) fn timed(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    while_telling(name, check).with_context(|| format!("{name} failed"))?;
    println!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Does some work, and says each few seconds that it is still at it.
pub(crate) fn while_telling<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let (at_work, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(PROGRESS_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("{:>4} s: {what}", began.elapsed().as_secs());
            }
        });
        let outcome = work();
        drop(at_work);
        outcome
    })
}

/// Runs a command to its end, which has to be a success.
pub(crate) fn succeed(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { bail!("{} ended with {status}", command.get_program().display()) }
}
