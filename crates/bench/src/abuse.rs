//! Attacks on the services, and what they cost the others: memory at its worst, and how long an agent and an auditor wait meanwhile.
//!
//! Everything is bounded in number and time, and goes to loopback.

mod attacks;
mod witness;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use connlog_testkit::database::connect;
use connlog_testkit::process::Process;

use self::attacks::{Attack, Target};
use self::witness::Witness;
use crate::fleet;
use crate::ingest;
use crate::service::{Ingest, Service};

/// Memory that an attack may cost a service above what it has when idle, in MiB.
const MOST_MIB: f64 = 256.0;
/// How long the slowest of a hundred acknowledgements, or pages, may take meanwhile.
const SLOWEST: Duration = Duration::from_secs(1);
/// Most tries of an attack that exceeds a bound. Other work on the machine makes the agent and the auditor wait, too.
const ATTEMPTS: u32 = 5;
/// Memory above what a service has when idle that counts as given back, in MiB, and how often it is looked at.
const SETTLED_MIB: f64 = 48.0;
const MOST_LOOKS: u32 = 30;
/// How long services settle before what they have when idle is read.
const SETTLING: Duration = Duration::from_secs(2);

/// Attacks one after another, each for `time`, on services of a migrated database. Returns the names of those that cost too much.
pub async fn run(database_url: &str, time: Duration) -> Result<Vec<&'static str>> {
    crate::run::allow_many_files()?;
    let client = connect(database_url).await?;
    let agents = fleet::enlist(&client, 2).await?;
    let ingest = ingest::start(database_url, &[])?;
    let query = Service::start(database_url).await?;
    // What a first call makes is there before anything is compared.
    Witness::watch(&ingest, &query, &agents[0], Duration::from_secs(1)).await?;
    tokio::time::sleep(SETTLING).await;
    let idle = (ingest.memory_mib()?, query.memory_mib()?);
    println!("idle: connlog-ingest {:.0} MiB, connlog-query {:.0} MiB", idle.0, idle.1);
    println!(
        "| attack | ingest, MiB more | query, MiB more | ack, p99 | page, p99 | failed pages | |\n|---|---|---|---|---|---|---|"
    );
    let mut missed = Vec::new();
    for attack in attacks::ALL {
        let mut is_met = false;
        for attempt in 1..=ATTEMPTS {
            settle(&ingest, &query, idle).await?;
            ingest.forget_peak_memory()?;
            query.forget_peak_memory()?;
            // In a process of its own, at the lowest priority: what an attacker computes does not cost the attacked.
            let mut attacker = Command::new("nice");
            attacker.args(["-n", "19"]).arg(std::env::current_exe()?).args(["attack", "--name", attack.name]);
            attacker.args(["--ingest", &ingest.address().to_string(), "--query", &query.address().to_string()]);
            attacker.args(["--token", &agents[1].token, "--seconds", &time.as_secs().to_string()]);
            let mut attacker = Process::spawn(attack.name, &attacker, "KILL")?;
            let seen = Witness::watch(&ingest, &query, &agents[0], time).await?;
            ensure!(attacker.exit_status().is_none_or(|status| status.success()), "the attack broke off");
            drop(attacker);
            let more = (ingest.peak_memory_mib()? - idle.0, query.peak_memory_mib()? - idle.1);
            is_met = is_within_bounds(more, &seen);
            print_row(attack.name, attempt, more, &seen, is_met);
            if is_met {
                break;
            }
        }
        if !is_met {
            missed.push(attack.name);
        }
    }
    Ok(missed)
}

fn is_within_bounds(more: (f64, f64), seen: &Witness) -> bool {
    more.0.max(more.1) < MOST_MIB && seen.ack_p99.max(seen.page_p99) <= SLOWEST && seen.failures == 0
}

fn print_row(name: &str, attempt: u32, more: (f64, f64), seen: &Witness, is_met: bool) {
    let name = if attempt == 1 { name.to_owned() } else { format!("{name}, attempt {attempt}") };
    println!(
        "| {name} | {:.0} | {:.0} | {:.0} ms | {:.0} ms | {} | {} |",
        more.0,
        more.1,
        seen.ack_p99.as_secs_f64() * 1e3,
        seen.page_p99.as_secs_f64() * 1e3,
        seen.failures,
        if is_met { "met" } else { "**missed**" }
    );
}

/// Waits for what the attack before cost to be given back, so that it is not counted twice.
async fn settle(ingest: &Ingest, query: &Service, idle: (f64, f64)) -> Result<()> {
    for _ in 0..MOST_LOOKS {
        if ingest.memory_mib()? < idle.0 + SETTLED_MIB && query.memory_mib()? < idle.1 + SETTLED_MIB {
            break;
        }
        tokio::time::sleep(SETTLING / 4).await;
    }
    Ok(())
}

/// Attacks by itself for so long. What it holds is let go of when its time is over.
pub async fn attack(name: &str, ingest: SocketAddr, query: SocketAddr, agent: &str, time: Duration) -> Result<()> {
    crate::run::allow_many_files()?;
    let attack: &Attack = attacks::ALL.iter().find(|attack| attack.name == name).context("there is no such attack")?;
    let target = Target { ingest, query, agent };
    tokio::time::timeout(time, (attack.run)(target)).await.unwrap_or(Ok(()))
}
