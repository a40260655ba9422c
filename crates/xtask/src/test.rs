//! `cargo xtask test`: builds everything, then runs every test, side by side, with a summary at the end.
//!
//! Each test runs in a process of its own, so that a slow one of one program runs beside those of another, a crash is one
//! failure, and each has a time. What takes no test program (the API fuzz, the demo's check, the dashboard in a browser)
//! runs after them.
//!
//! cargo-nextest would do a part of this. Building it takes 7 min 41 s of CPU, about as long as all tests, and it knows
//! neither the second run through a pooler nor the steps of xtask.

mod catalog;
mod interrupt;
mod job;
mod schedule;
mod summary;

use std::time::Instant;

use anyhow::{Result, bail};
use connlog_testkit::database::SERVER_VARIABLE;
use connlog_testkit::postgres::{Options, PostgresServer};

use self::job::Job;
use self::summary::Summary;
use crate::command::while_telling;
use crate::install;

/// Which tests run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Only those whose name, as the summary prints it, contains this text.
    pub(crate) pattern: Option<String>,
    /// Only what the inner loop needs: no browser, no chaos, nothing a second time through a pooler.
    pub(crate) fast: bool,
}

/// Settings of the tests beyond those of every day.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    /// Environment variables of each test.
    pub(crate) variables: Vec<(String, String)>,
    /// Names a server that runs already, in place of a private one.
    pub(crate) server_url: Option<String>,
    /// How long one test may take; none is the usual limit.
    pub(crate) limit: Option<std::time::Duration>,
    /// Prints what tests print, too: their figures.
    pub(crate) shows_output: bool,
}

/// Runs what is selected, prints the summary, and fails if a test did.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    run_with(selection, &Setting::default())
}

/// Runs what is selected with further settings.
pub(crate) fn run_with(selection: &Selection, setting: &Setting) -> Result<()> {
    let began = Instant::now();
    while_telling("installing", || {
        install::postgresql()?;
        install::debian("faketime", &["faketime"], "gives a service a wrong clock in a test")
    })?;
    let programs = while_telling("building", catalog::build)?;
    let built = began.elapsed();
    let jobs = job::select(catalog::tests(&programs)?, selection)?;
    if jobs.iter().any(Job::is_pooled) {
        while_telling("installing", install::pooler)?;
    }
    // One server for all tests, unless the caller names one.
    let named = setting.server_url.clone().or_else(|| std::env::var(SERVER_VARIABLE).ok());
    let server = match &named {
        Some(_) => None,
        None => Some(PostgresServer::start(Options::for_tests())?),
    };
    let server_url = named.or_else(|| server.as_ref().map(|server| server.url("postgres")));
    let mut variables = setting.variables.clone();
    variables.extend(server_url.map(|url| (SERVER_VARIABLE.to_owned(), url)));
    if let Some(server) = server.as_ref().filter(|_| setting.shows_output) {
        println!("{}", server.version()?);
    }
    println!("== {} tests; built in {:.0} s", jobs.len(), built.as_secs_f64());
    interrupt::watch()?;
    let selected = jobs.len();
    let outcomes = schedule::run(jobs, &variables, setting);
    drop(server);
    let ran = outcomes.len();
    let summary = Summary::of(outcomes, began.elapsed());
    summary.print();
    if interrupt::has_come() {
        println!("interrupted: {} tests did not run to their end", selected - ran);
        std::process::exit(interrupt::EXIT_CODE);
    }
    if summary.has_failed() {
        bail!("tests failed");
    }
    Ok(())
}
