//! `cargo xtask bench`: the measurements of `crates/bench`, on a private PostgreSQL with its default durability.

use std::process::Command;

use anyhow::{Result, ensure};
use connlog_testkit::postgres::{Options, PostgresServer, target_dir};

use crate::install;

/// Builds in release, measures, and leaves the figures in `target/bench/report.json`.
pub(crate) fn run(quick: bool) -> Result<()> {
    install::postgresql()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let packages = ["connlog-bench", "connlog-ingest", "connlog-query", "connlog-purge"];
    let arguments = packages.iter().flat_map(|package| ["-p", package]);
    let built = Command::new(cargo).args(["build", "--release", "--locked"]).args(arguments).status()?;
    ensure!(built.success(), "the services cannot be built");
    let folder = target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let server = PostgresServer::start(Options::durable())?;
    let mut bench = Command::new(target_dir().join("release/connlog-bench"));
    bench.args(["run", "--database-url", &server.url("postgres"), "--report"]).arg(folder.join("report.json"));
    if quick {
        bench.arg("--quick");
    }
    ensure!(bench.status()?.success(), "the measurements failed");
    Ok(())
}
