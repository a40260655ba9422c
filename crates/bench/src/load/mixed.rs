//! Everything at once: half of what ingest can do, with queries, an export, a tail and a purge, against each by itself.

use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::{Days, NaiveDate};
use connlog_testkit::database::connect;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::fleet::Agent;
use crate::report::Report;
use crate::service::{Ingest, Service};
use crate::sessions::{batches, messages, sessions};
use crate::stream::{Spool, Stream};
use crate::{purge, reads};

/// Agents that write.
pub(crate) const AGENTS: u32 = 50;
/// Sessions that begin, and that end, in one message.
const HALF_BATCH: u32 = 10;

/// Messages of each agent that show what ingest can do.
const MESSAGES: u32 = 200;

/// How much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixed {
    /// How long each side of a round takes.
    pub window: Duration,
    /// Rounds; in each the oldest day of history is purged.
    pub rounds: u32,
}

/// Measures on a database that [`generate`](crate::history::generate) filled, at half of the rate that ingest can do with
/// messages like these.
pub(crate) async fn measure(
    database_url: &str,
    ingest: &Ingest,
    agents: &[Agent],
    mixed: Mixed,
    report: &mut Report,
) -> Result<()> {
    let client = connect(database_url).await?;
    let agents = &agents[..(AGENTS as usize).min(agents.len())];
    let query = Service::start(database_url).await?;
    let first: NaiveDate = client.query_one("SELECT min(day) FROM days() AS day", &[]).await?.get(0);
    let since = reads::some_days(&client).await?;
    // The first time warms up.
    write(ingest, agents, Duration::ZERO, MESSAGES).await?;
    let began = Instant::now();
    write(ingest, agents, Duration::ZERO, MESSAGES).await?;
    // Half as fast.
    let pause = began.elapsed() * 2 / MESSAGES;
    let rate = f64::from(2 * HALF_BATCH) * f64::from(u32::try_from(agents.len())?) / pause.as_secs_f64();
    println!("in messages of {} events ingest can do {:.0} events/s", 2 * HALF_BATCH, rate * 2.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of messages")]
    let messages = (mixed.window.as_secs_f64() / pause.as_secs_f64()) as u32;
    let (mut acks, mut pages) = (Vec::new(), Vec::new());
    for round in 1..=mixed.rounds {
        let ack_alone = write(ingest, agents, pause, messages).await?;
        let page_alone = read(&query, mixed.window).await?;
        // The oldest day goes in each round.
        let cutoff = first + Days::new(round.into());
        let (ack, page, (), (), ()) = tokio::try_join!(
            write(ingest, agents, pause, messages),
            read(&query, mixed.window),
            within(mixed.window, query.export(&since)),
            within(mixed.window, query.tail()),
            purge::run(database_url, cutoff),
        )?;
        println!(
            "at {rate:.0} events/s: p99 to ack {ack_alone:.1} ms alone, {ack:.1} mixed; p95 of a page {page_alone:.1} ms alone, {page:.1} mixed"
        );
        acks.push((ack, ack_alone));
        pages.push((page, page_alone));
    }
    report.add_rounds("load.mixed_ack_p99", &acks);
    report.add_rounds("load.mixed_query_p95", &pages);
    Ok(())
}

/// Runs `work` for at most `window`.
async fn within<T>(window: Duration, work: impl Future<Output = Result<T>>) -> Result<()> {
    tokio::time::timeout(window, work).await.map_or(Ok(()), |done| done.map(|_| ()))
}

/// Each agent writes `count` messages, one every `pause`, several of them in flight; the 99th percentile, in ms, of what
/// it takes from when a message is due to its acknowledgement.
async fn write(ingest: &Ingest, agents: &[Agent], pause: Duration, count: u32) -> Result<f64> {
    let agents_f64 = f64::from(u32::try_from(agents.len())?);
    let mut running = JoinSet::new();
    for (number, agent) in (0_u32..).zip(agents) {
        let channel = Channel::from_shared(format!("http://{}", ingest.address()))?.connect().await?;
        let mut stream = Stream::open(channel, &agent.token, Spool::new()).await?;
        let queue = messages(&batches(&sessions(HALF_BATCH * count), HALF_BATCH as usize), 1);
        let first = tokio::time::Instant::now() + pause.mul_f64(f64::from(number) / agents_f64);
        running.spawn(async move { stream.send_paced(queue, first, pause).await });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done??);
    }
    Ok(crate::quantile(times, 99))
}

/// Searches one after another; the 95th percentile of a page, in ms.
async fn read(query: &Service, window: Duration) -> Result<f64> {
    let until = Instant::now() + window;
    let mut times = Vec::new();
    for case in reads::CASES.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        times.push(query.page(case.query, None).await?.0.as_secs_f64() * 1000.0);
    }
    Ok(crate::quantile(times, 95))
}
