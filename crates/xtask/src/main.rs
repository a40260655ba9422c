//! `cargo xtask`: the commands that a developer needs, and that CI runs.

mod abuse;
mod bench;
mod command;
mod dashboard;
mod demo;
mod deployment;
mod fuzz;
mod fuzz_api;
mod install;
mod lint;
mod nightly;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// connlog's development commands.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything on a private PostgreSQL, with simulated agents and a proxy, until Ctrl-C.
    Demo {
        /// Drives traffic for a while, checks what the log says of it, purges, and exits with 0 or 1.
        #[arg(long)]
        check: bool,
        /// How long --check drives live traffic.
        #[arg(long, default_value_t = 20, value_name = "N")]
        seconds: u64,
    },
    /// Uses the dashboard in a real browser, on the demo's services. Part of `test`.
    Dashboard,
    /// Measures how long the dashboard's first page takes in a real browser, against the API call that it makes.
    PageTime {
        /// A running connlog-query, as http://host:port.
        #[arg(long, value_name = "URL")]
        url: String,
        /// A token of role auditor.
        #[arg(long, value_name = "TOKEN")]
        token: String,
    },
    /// Makes the pictures of the README.
    Screenshots,
    /// Measures connlog against what one would otherwise have; figures go to target/bench/report.json.
    Bench {
        /// In a few minutes, on a tenth of the history.
        #[arg(long)]
        quick: bool,
        /// Also how figures grow up to 50 M rows, which wants 45 GB of disk.
        #[arg(long, conflicts_with = "quick")]
        large: bool,
    },
    /// Attacks the services as strangers and agents could, and prints what that costs them and others.
    Abuse {
        /// Each attack for a minute, not for a few seconds.
        #[arg(long)]
        whole: bool,
    },
    /// Feeds what strangers reach with bytes that libFuzzer makes up, for ten seconds each.
    Fuzz {
        /// How long each target is fed, in seconds.
        #[arg(long, default_value_t = fuzz::SHORT, value_name = "N")]
        seconds: u32,
        /// Adds what reaches new code to the corpus in `crates/fuzz`.
        #[arg(long)]
        keep: bool,
    },
    /// Asks the API for what its description allows. Part of `test`.
    FuzzApi,
    /// Installs what the tests need, builds everything, and runs every test; the last line counts them.
    Test {
        /// Only tests whose name contains this, as the summary prints it: `connlog-store/plans`, `demo`.
        #[arg(value_name = "PATTERN")]
        pattern: Option<String>,
        /// Only what the inner loop needs: no browser, no chaos, nothing a second time through a pooler.
        #[arg(long)]
        fast: bool,
    },
    /// Checks format, clippy, documentation, manifests, and the licences and sources of what is built in.
    Lint,
    /// Runs what is too long or too heavy for every commit, and prints date, versions and figures of each part.
    Nightly {
        /// Only these parts, by name; all of them if none is given.
        #[arg(value_name = "PART")]
        parts: Vec<nightly::Part>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo { check, seconds } => demo::run(check, seconds),
        Command::Dashboard => dashboard::check(),
        Command::PageTime { url, token } => dashboard::page_time(&url, &token),
        Command::Screenshots => dashboard::screenshots(),
        Command::Abuse { whole } => abuse::run(whole),
        Command::Bench { quick, large } => bench::run(quick, large),
        Command::Fuzz { seconds, keep } => fuzz::run(seconds, keep),
        Command::FuzzApi => fuzz_api::run(fuzz_api::EXAMPLES),
        Command::Test { pattern, fast } => test::run(&test::Selection { pattern, fast }),
        Command::Lint => lint::run(),
        Command::Nightly { parts } => nightly::run(&parts),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
