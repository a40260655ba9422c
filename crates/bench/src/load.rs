//! Under load: thousands of agents, each with a TCP connection of its own; a burst; everybody back at once; everything at once.

mod fleet;
mod mixed;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{TimeDelta, Utc};
use connlog_model::clock::Timestamp;
use connlog_testkit::database::connect;
use tokio_postgres::Client;

use self::fleet::Fleet;
pub(crate) use self::mixed::{AGENTS as MIXED_AGENTS, Mixed, measure as measure_mixed};
use crate::cpu::{self, Cpu};
use crate::report::Report;
use crate::service::Ingest;

/// How much.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Agents that are connected at once.
    pub agents: u32,
    /// Events of the burst, and of the reconnect.
    pub events: u32,
    /// How long the agents are idle.
    pub idle: Duration,
    /// Further numbers of agents to try, ascending.
    pub largest: Vec<u32>,
}

/// Measures on a database that [`generate`](crate::history::generate) filled.
pub(crate) async fn measure(database_url: &str, load: &Load, report: &mut Report) -> Result<()> {
    let client = connect(database_url).await?;
    let postmaster = cpu::postmaster(&client).await?;
    let most = load.largest.iter().copied().chain([load.agents]).max().unwrap_or(load.agents);
    let agents = crate::fleet::enlist(&client, most).await?;
    let mut ingest = Ingest::start(database_url, &["--max-connections", "100000"])?;

    let before = ingest.memory_mib()?;
    let began = Instant::now();
    let mut fleet = Fleet::new(ingest.address());
    fleet.grow(&agents[..load.agents as usize]).await?;
    println!("\n{} agents connected in {:.1} s", load.agents, began.elapsed().as_secs_f64());
    report.state("load.connect", began.elapsed().as_secs_f64());
    report.state("load.memory_per_stream", (ingest.memory_mib()? - before) * 1024.0 / f64::from(load.agents));

    let cpu_before = (Cpu::of(ingest.pid())?, Cpu::of_children(postmaster)?);
    fleet.idle(load.idle).await?;
    let cpu_after = (Cpu::of(ingest.pid())?, Cpu::of_children(postmaster)?);
    let share = |cpu: Cpu| cpu.micros() / 1e4 / load.idle.as_secs_f64();
    report.state("load.idle_cpu", share(cpu_after.0 - cpu_before.0));
    report.state("load.idle_cpu_postgres", share(cpu_after.1 - cpu_before.1));

    let rows = Rows::of(&client).await?;
    let began = Instant::now();
    let sessions = fleet.burst(load.events).await?;
    let took = began.elapsed().as_secs_f64();
    rows.expect_more(&client, sessions).await?;
    println!("a burst of {} events, acknowledged in order within {took:.1} s, nothing lost", sessions * 2);
    report.state("load.burst", f64::from(load.events) / took);
    report.state("load.burst_memory", ingest.peak_memory_mib()?);

    let rows = Rows::of(&client).await?;
    let (took, sessions, errors) = fleet.reconnect(load.events, &mut ingest).await?;
    rows.expect_more(&client, sessions).await?;
    println!(
        "killed in the middle of {} events: all agents back and acknowledged in {:.1} s",
        sessions * 2,
        took.as_secs_f64()
    );
    report.state("load.reconnect", took.as_secs_f64());
    report.state("load.reconnect_errors", f64::from(errors));
    report.state("load.reconnect_memory", ingest.peak_memory_mib()?);

    let mut held = load.agents;
    for &wanted in &load.largest {
        let heard = async {
            fleet.grow(&agents[held as usize..wanted as usize]).await?;
            fleet.burst(wanted * 2).await
        };
        match heard.await {
            Ok(_) => held = wanted,
            Err(error) => {
                println!("{wanted} agents were too many: {error:#}");
                break;
            }
        }
    }
    report.state("load.largest_fleet", f64::from(held));
    report.state("load.largest_fleet_memory", ingest.peak_memory_mib()?);
    Ok(())
}

/// How many rows the log has, open ones and others, of a time that all new ones lie in.
struct Rows {
    since: Timestamp,
    open: i64,
    history: i64,
}

impl Rows {
    async fn of(client: &Client) -> Result<Self> {
        Self::since(client, Utc::now() - TimeDelta::hours(2)).await
    }

    async fn since(client: &Client, since: Timestamp) -> Result<Self> {
        let sql = "SELECT count(*) FILTER (WHERE disconnect_time IS NULL AND method <= 2), count(*) FROM connection_logs WHERE connect_time > $1";
        let row = client.query_one(sql, &[&since]).await?;
        Ok(Self { since, open: row.get(0), history: row.get(1) })
    }

    async fn expect_more(&self, client: &Client, sessions: u32) -> Result<()> {
        let now = Self::since(client, self.since).await?;
        let (open, more) = (now.open - self.open, now.history - self.history);
        ensure!(open == 0, "{open} more connections are open than before");
        ensure!(more == i64::from(sessions), "{more} rows for {sessions} sessions: something is lost or doubled");
        Ok(())
    }
}
