//! `cargo xtask demo`: the whole of connlog on one machine, with traffic that looks like a day of a real fleet.

mod agent;
mod api;
mod check;
mod collected;
mod directory;
mod ledger;
mod observed;
mod proxy;
pub(crate) mod services;
mod sessions;
mod traffic;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::agent::{authorized, timestamp};
pub(crate) use self::api::Api;
pub(crate) use self::directory::Directory;
pub(crate) use self::ledger::Ledger;
pub(crate) use self::services::Services;
pub(crate) use self::traffic::Traffic;
use crate::install;

/// How often the live summary is renewed.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(2);

/// Runs the demo, until Ctrl-C or until it is checked.
pub(crate) fn run(check: bool, seconds: u64) -> Result<()> {
    install::postgresql()?;
    services::build()?;
    tokio::runtime::Runtime::new()?.block_on(demo(check, seconds))
}

async fn demo(check: bool, seconds: u64) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let directory = Directory::sample();
    let mut services = Services::start(&directory)?;
    let ledger = Ledger::default();
    let traffic = Traffic::start(&directory, &services, &ledger);
    let api = Api::new(services.query, services.auditor_token.clone());
    announce(&services, &directory);
    let ends = check.then(|| Instant::now() + Duration::from_secs(seconds));
    let interrupted = loop {
        tokio::select! {
            () = tokio::time::sleep(SUMMARY_INTERVAL) => {}
            _ = interrupt.recv() => break true,
            _ = terminate.recv() => break true,
        }
        summarize(&api, &ledger).await?;
        if ends.is_some_and(|ends| Instant::now() >= ends) {
            break false;
        }
    };
    println!();
    if interrupted {
        println!("stopping");
    }
    traffic.quiesce().await?;
    let outcome = if check && !interrupted { check::check(&api, &ledger, &directory, &services).await } else { Ok(()) };
    traffic.stop().await;
    services.stop()?;
    println!("stopped; nothing is left running");
    outcome
}

fn announce(services: &Services, directory: &Directory) {
    let base = format!("http://{}", services.query);
    println!();
    println!("  dashboard     {base}/ (sign in with the auditor's token: {})", services.auditor_token);
    println!("  REST API      {base}/api/v2/connectionlog");
    println!("  gRPC ingest   {}", services.ingest);
    println!("  metrics       http://{}/metrics, http://{}/metrics", services.ingest_admin, services.query_admin);
    println!("  database      {}", services.database_url);
    println!("  service logs  {}", services.service_log.display());
    let idle = directory.idle_workspace();
    println!();
    println!(
        "  For the tour of the README, in another terminal (`me` is {}; AGENT is of {}):",
        directory.auditor(),
        idle.name
    );
    println!();
    println!("  export AUDITOR='{}'", services.auditor_token);
    println!("  export AGENT='{}'", idle.agent_token);
    println!("  export DATABASE='{}'", services.database_url);
    println!("  export API='{base}' INGEST='http://{}'", services.ingest);
    println!("  export CONNLOG_URL=\"$API\" CONNLOG_TOKEN=\"$AUDITOR\"");
    println!(
        "  curl -s -H \"Coder-Session-Token: $AUDITOR\" \"$API/api/v2/connectionlog?q=type:vscode+status:ongoing&limit=3\""
    );
    println!();
}

async fn summarize(api: &Api, ledger: &Ledger) -> Result<()> {
    let (all, ongoing) = (api.count("").await?, api.count("status:ongoing").await?);
    let line = format!(
        "sent {} events, acknowledged {}; the log has {all} entries, {ongoing} ongoing",
        ledger.sent(),
        ledger.acknowledged()
    );
    let mut out = std::io::stdout();
    if out.is_terminal() {
        write!(out, "\r\x1b[K{line}")?;
    } else {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}
