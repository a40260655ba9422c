//! The API asked for what its description allows, by schemathesis: no answer may be a server error, or outside of the
//! description.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connlog_testkit::postgres::{Options, PostgresServer, target_dir};
use connlog_testkit::process::{Process, free_address};

use crate::demo::services::BUILT_VARIABLE;
use crate::{command, install};

/// How long the service may take to start.
const PATIENCE: Duration = Duration::from_mins(1);
/// Requests of each operation in `cargo xtask test`, at most.
pub(crate) const EXAMPLES: u32 = 150;
/// What is checked of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance";

/// Runs it against the real service, on a little history, with `examples` requests of each operation at most.
pub(crate) fn run(examples: u32) -> Result<()> {
    install::postgresql()?;
    if std::env::var_os(BUILT_VARIABLE).is_none() {
        command::build(&["connlog-bench", "connlogctl", "connlog-query"], &[])?;
    }
    let schemathesis =
        install::python_tool(&target_dir(), "schemathesis", "4.32.5", "fuzzes the API by its description")?;
    let postgres = PostgresServer::start(Options::for_tests())?;
    println!("{}", postgres.version()?);
    let url = postgres.url("postgres");
    let binaries = target_dir().join("debug");
    let run = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(binaries.join(program)).args(arguments).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    run("connlog-bench", &["generate", "--database-url", &url, "--rows", "300", "--days", "3"])?;
    let token = run("connlogctl", &["--database-url", &url, "token", "create", "--role", "auditor"])?;
    let (listen, admin) = (free_address()?, free_address()?);
    let mut query = Command::new(binaries.join("connlog-query"));
    query.args(["--database-url", &url, "--listen", &listen.to_string(), "--admin-listen", &admin.to_string()]);
    query.env("CONNLOG_LOG", "warn");
    let mut query = Process::spawn("connlog-query", &query, "KILL")?;
    query.wait_until_listening(listen, PATIENCE)?;
    let status = Command::new(schemathesis)
        .current_dir(target_dir())
        .args(["run", &format!("http://{listen}/api/v2/connectionlog/openapi.json"), "--no-color"])
        .args([
            "-H",
            &format!("Authorization: Bearer {token}"),
            "--max-examples",
            &examples.to_string(),
            "--checks",
            CHECKS,
        ])
        // A tail has no end.
        .args(["--exclude-path", "/api/v2/connectionlog/tail"])
        .status()?;
    ensure!(status.success(), "the API answers outside of its description");
    Ok(())
}
