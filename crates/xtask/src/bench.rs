//! `cargo xtask bench`: the measurements of `crates/bench`, on a private PostgreSQL with its default durability.

use std::process::Command;

use anyhow::{Result, bail};
use connlog_testkit::pooler::Pooler;
use connlog_testkit::postgres::{Options, PostgresServer, target_dir};

use crate::{command, install};

/// Exit code of connlog-bench if a figure misses its bound.
const MISSED: i32 = 3;
/// Connections of the pooler to the server.
const POOLED_CONNECTIONS: u16 = 10;

/// Builds in release, measures, and leaves the figures in `target/bench/report.json`.
pub(crate) fn run(quick: bool, large: bool) -> Result<()> {
    install::postgresql()?;
    install::pooler()?;
    command::build(&["connlog-bench", "connlog-ingest", "connlog-query", "connlog-purge"], &["--release"])?;
    let folder = target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let server = PostgresServer::start(Options::durable())?;
    println!("{}", server.version()?);
    let pooler = Pooler::start(server.port(), POOLED_CONNECTIONS)?;
    let mut bench = Command::new(target_dir().join("release/connlog-bench"));
    bench.args(["run", "--database-url", &server.url("postgres"), "--report"]).arg(folder.join("report.json"));
    bench.args(["--pooler-url", &pooler.url(&server.url("postgres"))?]);
    bench.args(quick.then_some("--quick")).args(large.then_some("--large"));
    match bench.status()?.code() {
        Some(0) => Ok(()),
        Some(MISSED) => bail!("figures miss what is wanted: the table has them"),
        _ => bail!("the measurements failed"),
    }
}
