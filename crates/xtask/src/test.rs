//! `cargo xtask test`: every check, in the order in which they fail fastest.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use connlog_testkit::database::SERVER_VARIABLE;
use connlog_testkit::pooler::POOLED_VARIABLE;
use connlog_testkit::postgres::{Options, PostgresServer};

use crate::{deployment, install};

/// Asks tests for everything that they can do, however long it takes.
const FULL_VARIABLE: &str = "CONNLOG_TEST_FULL";

/// Runs all checks.
pub(crate) fn run(full: bool) -> Result<()> {
    install::rust_components()?;
    install::postgresql()?;
    install::pooler()?;
    install::debian("faketime", &["faketime"], "gives a service a wrong clock in a test")?;
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step("lints", cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    let mut docs = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    // These pages are for those who work on connlog: they show private items, and may link to them.
    docs.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    step("documentation", docs)?;
    within("dependencies", deployment::dependencies)?;
    within("deployment", deployment::manifests)?;
    step("build", cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    // One server for all test programs, unless the caller names one.
    let server = match std::env::var(SERVER_VARIABLE) {
        Ok(_) => None,
        Err(_) => Some(PostgresServer::start(Options::for_tests())?),
    };
    let mut tests = cargo(&["test", "--workspace", "--locked"]);
    if let Some(server) = &server {
        tests.env(SERVER_VARIABLE, server.url("postgres"));
    }
    if full {
        tests.env(FULL_VARIABLE, "1");
    }
    step("tests", tests)?;
    // What the services say to the database, once more through a pooler in transaction mode.
    let suites = ["list", "search", "export", "tail", "gaps", "dashboard", "delivery", "life", "service_log"];
    let mut pooled = cargo(&["test", "--workspace", "--locked"]);
    pooled.args(suites.iter().flat_map(|suite| ["--test", suite])).env(POOLED_VARIABLE, "1");
    if let Some(server) = &server {
        pooled.env(SERVER_VARIABLE, server.url("postgres"));
    }
    step("tests through a pooler", pooled)?;
    drop(server);
    step("API fuzz", cargo(&["xtask", "fuzz-api"]))?;
    step("demo", cargo(&["xtask", "demo", "--check"]))?;
    step("dashboard", cargo(&["xtask", "dashboard"]))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A check of this program's own.
fn within(name: &str, check: impl Fn() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    check().with_context(|| format!("{name} failed"))?;
    println!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, mut command: Command) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{name} failed");
    }
    println!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
