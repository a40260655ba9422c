//! What is run: a test of a test program, directly or through a pooler, or a step of xtask.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use connlog_testkit::pooler::POOLED_VARIABLE;
use connlog_testkit::postgres::target_dir;
use connlog_testkit::process::with_default_signals;

use super::Selection;
use super::catalog::Test;
use crate::demo::services::BUILT_VARIABLE;

/// Programs whose tests run a second time, with the services behind a pooler in transaction mode: what the services say
/// to the database.
const POOLED: [&str; 9] = [
    "connlog-ingest/delivery",
    "connlog-ingest/life",
    "connlog-ingest/service_log",
    "connlog-query/dashboard",
    "connlog-query/export",
    "connlog-query/gaps",
    "connlog-query/list",
    "connlog-query/search",
    "connlog-query/tail",
];

/// Steps of xtask that are tests: their names, and their arguments.
const STEPS: [(&str, &[&str]); 3] = [
    ("xtask: API fuzz", &["fuzz-api"]),
    ("xtask: demo --check", &["demo", "--check"]),
    ("xtask: dashboard in a browser", &["dashboard"]),
];

/// What `--fast` leaves out, by the beginning of the name: each would take a third of its minute, or more.
const SLOW: [&str; 3] =
    ["connlog-ingest/chaos", "connlog-store/explorer", "connlog-query/tail a_revoked_token_ends_its_tail"];

/// Something to run.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// As it is printed, and as a pattern finds it.
    pub(super) name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Test { test: Test, pooled: bool },
    Step(&'static [&'static str]),
}

impl Job {
    fn test(test: Test, pooled: bool) -> Self {
        let suffix = if pooled { " (through a pooler)" } else { "" };
        Self { name: format!("{} {}{suffix}", test.program.name, test.path), kind: Kind::Test { test, pooled } }
    }

    /// Whether it reaches the database through a pooler.
    pub(super) fn is_pooled(&self) -> bool {
        matches!(self.kind, Kind::Test { pooled: true, .. })
    }

    /// Whether it runs alone, after all others: it starts whole stages of services, and a browser.
    pub(super) fn is_step(&self) -> bool {
        matches!(self.kind, Kind::Step(_))
    }

    /// The command that runs it.
    ///
    /// It ends with this program: what it has started ends with it.
    pub(super) fn command(&self, shows_output: bool) -> Command {
        let mut command = match &self.kind {
            Kind::Test { test, pooled } => {
                let mut command = bound(&test.program.path);
                command
                    .args(["--exact", &test.path])
                    .args(shows_output.then_some("--nocapture"))
                    .current_dir(&test.program.folder);
                command.env("CARGO_MANIFEST_DIR", &test.program.folder);
                if *pooled {
                    command.env(POOLED_VARIABLE, "1");
                }
                command
            }
            Kind::Step(arguments) => {
                // Not the file that runs: the build of the tests may have put another one in its place.
                let mut command = bound(&target_dir().join("debug/xtask"));
                command.args(*arguments).env(BUILT_VARIABLE, "1");
                command
            }
        };
        command.env("RUST_BACKTRACE", "1");
        command
    }
}

/// A command for a program that is killed when this one ends.
fn bound(program: &Path) -> Command {
    let mut command = with_default_signals("setpriv");
    command.arg("--pdeathsig=KILL").arg(program);
    command
}

/// The jobs of a selection. Refuses a selection that runs nothing, and names in this file that no test has.
pub(super) fn select(tests: Vec<Test>, selection: &Selection) -> Result<Vec<Job>> {
    for name in POOLED {
        ensure!(
            tests.iter().any(|test| test.program.name == name),
            "no program {name} is left to run through a pooler"
        );
    }
    let mut jobs: Vec<Job> = tests.iter().cloned().map(|test| Job::test(test, false)).collect();
    for slow in SLOW {
        ensure!(jobs.iter().any(|job| job.name.starts_with(slow)), "no test {slow} is left for --fast to leave out");
    }
    if selection.fast {
        jobs.retain(|job| !SLOW.iter().any(|slow| job.name.starts_with(slow)));
    } else {
        let pooled = tests.into_iter().filter(|test| POOLED.contains(&test.program.name.as_str()));
        jobs.extend(pooled.map(|test| Job::test(test, true)));
        let steps = STEPS.iter().map(|(name, arguments)| Job { name: (*name).to_owned(), kind: Kind::Step(arguments) });
        jobs.extend(steps);
    }
    if let Some(pattern) = &selection.pattern {
        jobs.retain(|job| job.name.contains(pattern.as_str()));
        let left_out = if selection.fast { " that --fast does not leave out" } else { "" };
        ensure!(!jobs.is_empty(), "no test{left_out} has {pattern:?} in its name");
    }
    Ok(jobs)
}
