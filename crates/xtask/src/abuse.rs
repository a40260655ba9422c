//! `cargo xtask abuse`: the attacks of `crates/bench`, on a private PostgreSQL.

use std::process::Command;

use anyhow::{Result, bail};
use connlog_testkit::postgres::{Options, PostgresServer, target_dir};

use crate::{command, install};

/// How long each attack goes on, in seconds.
const SHORT: &str = "5";
const WHOLE: &str = "60";

/// Attacks the services, for a short time each unless the `whole` is wanted, and prints what that costs them and others.
pub(crate) fn run(whole: bool) -> Result<()> {
    install::postgresql()?;
    command::build(&["connlog-bench", "connlog-ingest", "connlog-query"], &[])?;
    let server = PostgresServer::start(Options::for_tests())?;
    let mut bench = Command::new(target_dir().join("debug/connlog-bench"));
    bench.args(["abuse", "--database-url", &server.url("postgres")]);
    bench.args(["--seconds", if whole { WHOLE } else { SHORT }]);
    if bench.status()?.success() { Ok(()) } else { bail!("attacks cost more than they may: the table has them") }
}
