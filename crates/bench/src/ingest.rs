//! Writing at size: events over gRPC until they are acknowledged, against one prepared upsert into one table, called
//! directly.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use connlog_testkit::database::connect;
use futures::{SinkExt as _, TryStreamExt as _};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tonic::codegen::Bytes;
use tonic::transport::Channel;
use url::Url;

use crate::cpu::{self, Cpu};
use crate::fleet::Agent;
use crate::peer::{Layout, Row, Upsert};
use crate::report::Report;
use crate::service::Ingest;
use crate::sessions::{Batch, batches, messages, sessions};
use crate::stream::{Spool, Stream};
use crate::wire::CountingProxy;

/// Connections that begin, and that end, in one message of an agent.
const HALF_BATCH: usize = 500;
/// Events of one upsert.
const UPSERTED: usize = 1_000;
/// The time after which statistics of the server are up to date.
const STATISTICS: Duration = Duration::from_secs(3);
/// Writers of both sides, each with a connection to the database.
const WRITERS: usize = 3;

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events of a round, half of them connects.
    pub events: u32,
    /// Agents, each with a stream.
    pub agents: u32,
    /// Rounds of each side, in turn.
    pub rounds: u32,
}

/// What one round took.
pub(crate) struct Round {
    elapsed: Duration,
    service: Cpu,
    database: Cpu,
}

impl Round {
    /// Events a second.
    pub(crate) fn rate(&self, events: u32) -> f64 {
        rate(events, self.elapsed)
    }

    /// µs of CPU an event: of the service, or of the baseline's writer, and of PostgreSQL.
    fn micros(&self, events: u32) -> (f64, f64) {
        (self.service.micros() / f64::from(events), self.database.micros() / f64::from(events))
    }
}

/// By then signs of life are noted, between two rounds.
const NOTED: Duration = Duration::from_secs(1);

/// Starts `connlog-ingest` with as many writers as the other side has, and further flags.
pub(crate) fn start(database_url: &str, further: &[&str]) -> Result<Ingest> {
    let writers = WRITERS.to_string();
    Ingest::start(database_url, &[&["--writers", &writers], further].concat())
}

/// Measures on a database that [`generate`](crate::history::generate) filled.
pub(crate) async fn measure(
    database_url: &str,
    ingest: &Ingest,
    agents: &[Agent],
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let agents = &agents[..size.agents as usize];
    let client = connect(database_url).await?;
    let postmaster = cpu::postmaster(&client).await?;
    let updated_before = updates(&client).await?;
    let (mut peers, mut plains, mut floors, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut streams = open_streams(ingest, agents).await?;
    // The first round of each warms up.
    for round in 0..=size.rounds {
        // No side pays for what the other one wrote.
        client.batch_execute("CHECKPOINT").await?;
        let our = stream_round(ingest, &mut streams, size, postmaster).await?;
        client.batch_execute("CHECKPOINT").await?;
        let peer = upsert_round(database_url, Layout::Peer, agents, size, postmaster).await?;
        client.batch_execute("CHECKPOINT").await?;
        let plain = upsert_round(database_url, Layout::Plain, agents, size, postmaster).await?;
        let copied = rate(size.events, copy_round(&client, size).await?);
        let [ours, theirs, keyless] = [&our, &peer, &plain].map(|round| round.rate(size.events));
        let [cost, their_cost] = [&our, &peer].map(|round| round.micros(size.events));
        let warming = if round == 0 { " (warming up)" } else { "" };
        println!(
            "{ours:.0} events/s over gRPC ({:.1} µs of CPU an event, {:.1} of PostgreSQL), {theirs:.0} by the peer \
             ({:.1} and {:.1}), {keyless:.0} without keys, {copied:.0} by COPY{warming}",
            cost.0, cost.1, their_cost.0, their_cost.1
        );
        if round > 0 {
            peers.push((ours, theirs));
            plains.push((ours, keyless));
            floors.push((ours, copied));
            cpu.push((cost.0 + cost.1, their_cost.0 + their_cost.1));
        }
    }
    report.add_rounds("ingest.peer", &peers);
    report.add_rounds("ingest.plain", &plains);
    report.add_rounds("ingest.floor", &floors);
    report.add_rounds("ingest.cpu_per_event", &cpu);
    println!("connlog-ingest had {:.0} MiB at most", ingest.peak_memory_mib()?);
    // Backends hand in what they counted when they are idle.
    tokio::time::sleep(STATISTICS).await;
    let updated = updates(&client).await?;
    report.state("ingest.hot_ratio", ratio(updated.0 - updated_before.0, updated.1 - updated_before.1));
    round_trips(database_url, agents, size, report).await
}

/// Updates of rows of days that touched no index, and all of them, since the database was made.
async fn updates(client: &Client) -> Result<(u64, u64)> {
    let sql =
        "SELECT coalesce(sum(n_tup_hot_upd), 0)::bigint, coalesce(sum(n_tup_upd), 0)::bigint FROM pg_stat_user_tables
        WHERE relname ~ '^connection_logs_[0-9]{8}$'";
    let row = client.query_one(sql, &[]).await?;
    Ok((u64::try_from(row.get::<_, i64>(0))?, u64::try_from(row.get::<_, i64>(1))?))
}

/// Exchanges with PostgreSQL for each transaction of the writers, against those of each statement of the peer.
async fn round_trips(database_url: &str, agents: &[Agent], size: Size, report: &mut Report) -> Result<()> {
    let client = connect(database_url).await?;
    let postmaster = cpu::postmaster(&client).await?;
    let server = Url::parse(database_url)?.socket_addrs(|| None)?[0];
    let proxy = CountingProxy::start(server).await?;
    let counted_url = proxy.url(database_url)?;
    let ingest = start(&counted_url, &[])?;
    // Connections are made and statements prepared.
    let mut streams = open_streams(&ingest, agents).await?;
    stream_round(&ingest, &mut streams, size, postmaster).await?;
    let before = (proxy.exchanges(), ingest.metric("connlog_ingest_commit_seconds_count").await?);
    stream_round(&ingest, &mut streams, size, postmaster).await?;
    let after = (proxy.exchanges(), ingest.metric("connlog_ingest_commit_seconds_count").await?);
    let ours = ratio(after.0 - before.0, after.1 - before.1);
    drop(ingest);
    let (writers, statements) = writers(&counted_url, Layout::Peer, agents, size).await?;
    let before = proxy.exchanges();
    upsert(writers).await?;
    report.add("ingest.round_trips", ours, ratio(proxy.exchanges() - before, statements));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 of both")]
fn ratio(value: u64, of: u64) -> f64 {
    value as f64 / of as f64
}

/// Events a second of `rounds` rounds over gRPC, of each by itself.
pub(crate) async fn rates(database_url: &str, ingest: &Ingest, agents: &[Agent], size: Size) -> Result<Vec<f64>> {
    let client = connect(database_url).await?;
    let postmaster = cpu::postmaster(&client).await?;
    let mut rates = Vec::new();
    let mut streams = open_streams(ingest, &agents[..size.agents as usize]).await?;
    for round in 0..=size.rounds {
        client.batch_execute("CHECKPOINT").await?;
        let done = stream_round(ingest, &mut streams, size, postmaster).await?;
        if round > 0 {
            rates.push(done.rate(size.events));
        }
    }
    Ok(rates)
}

/// The final rows of a round, copied into an empty table like a day of history, with all its indexes: two events for each.
async fn copy_round(client: &Client, size: Size) -> Result<Duration> {
    client.batch_execute(&COPY_SETUP.replace("{rows}", &(size.events / 2).to_string())).await?;
    let rows = copy_out(client, "COPY copy_source TO STDOUT (FORMAT binary)").await?;
    client.batch_execute("CHECKPOINT").await?;
    let (elapsed, _) = copy_in(client, "COPY copy_target FROM STDIN (FORMAT binary)", rows).await?;
    client.batch_execute("DROP TABLE copy_source; DROP TABLE copy_target").await?;
    Ok(elapsed)
}

/// What a `COPY … TO STDOUT` gives.
pub(crate) async fn copy_out(client: &Client, sql: &str) -> Result<Vec<Bytes>> {
    Ok(client.copy_out(sql).await?.try_collect().await?)
}

/// How long a `COPY … FROM STDIN` takes, and of how many rows.
pub(crate) async fn copy_in(client: &Client, sql: &str, rows: Vec<Bytes>) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let sink = client.copy_in(sql).await?;
    futures::pin_mut!(sink);
    for part in rows {
        // Not `send`, which would flush after each row.
        sink.feed(part).await?;
    }
    let count = sink.finish().await?;
    Ok((began.elapsed(), count))
}

/// A table like a day of history, with the indexes that a day has, and rows with ids of their own.
const COPY_SETUP: &str = "
DO $$
DECLARE day text := (SELECT max(day_table(day)) FROM days() AS day);
BEGIN
    EXECUTE format('CREATE TABLE copy_target (LIKE %I INCLUDING ALL)', day);
END
$$;
CREATE TABLE copy_source AS SELECT * FROM connection_logs WHERE method <= 2 ORDER BY connect_time DESC LIMIT {rows};
UPDATE copy_source SET id = gen_random_uuid(), connection_id = gen_random_uuid()";

fn rate(events: u32, elapsed: Duration) -> f64 {
    f64::from(events) / elapsed.as_secs_f64()
}

/// A stream of each agent, which it keeps over the rounds, as agents do.
pub(crate) async fn open_streams(ingest: &Ingest, agents: &[Agent]) -> Result<Vec<Stream>> {
    let address = ingest.address();
    let mut streams = Vec::new();
    for agent in agents {
        let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
        streams.push(Stream::open(channel, &agent.token, Spool::new()).await?);
    }
    Ok(streams)
}

/// All agents send what they have to say.
pub(crate) async fn stream_round(
    ingest: &Ingest,
    streams: &mut Vec<Stream>,
    size: Size,
    postmaster: u32,
) -> Result<Round> {
    let next = |stream: &Stream| messages(&batches_of_round(size), stream.spool().acked + 1);
    let queues: Vec<_> = streams.iter().map(next).collect();
    let before = (Cpu::of(ingest.pid())?, Cpu::of_children(postmaster)?);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (mut stream, queue) in streams.drain(..).zip(queues) {
        running.spawn(async move { stream.send_all(queue).await.map(|()| stream) });
    }
    while let Some(done) = running.join_next().await {
        streams.push(done??);
    }
    let elapsed = began.elapsed();
    let after = (Cpu::of(ingest.pid())?, Cpu::of_children(postmaster)?);
    for stream in streams {
        // As an agent does each half minute: it has nothing open any more.
        stream.beat().await?;
    }
    tokio::time::sleep(NOTED).await;
    Ok(Round { elapsed, service: after.0 - before.0, database: after.1 - before.1 })
}

/// A connection of the baseline's writer, its statement, and the rows of each execution.
type Writer = (Client, Upsert, Vec<Vec<Row>>);

/// The same events of the same agents into the one table.
async fn upsert_round(
    database_url: &str,
    layout: Layout,
    agents: &[Agent],
    size: Size,
    postmaster: u32,
) -> Result<Round> {
    let (writers, _) = writers(database_url, layout, agents, size).await?;
    let before = (Cpu::of(std::process::id())?, Cpu::of_children(postmaster)?);
    let began = Instant::now();
    let _open = upsert(writers).await?;
    let elapsed = began.elapsed();
    let after = (Cpu::of(std::process::id())?, Cpu::of_children(postmaster)?);
    Ok(Round { elapsed, service: after.0 - before.0, database: after.1 - before.1 })
}

/// The baseline's writers, with statements of [`UPSERTED`] events as a server would gather them, some of each agent in
/// turn; and how many statements they have.
async fn writers(database_url: &str, layout: Layout, agents: &[Agent], size: Size) -> Result<(Vec<Writer>, u64)> {
    let (mut writers, mut count) = (Vec::new(), 0);
    for writer in 0..WRITERS {
        let client = connect(database_url).await?;
        let upsert = Upsert::prepare(&client, layout).await?;
        let own = agents.iter().skip(writer).step_by(WRITERS);
        let mut queues: Vec<_> = own.map(|agent| (agent.clone(), VecDeque::from(batches_of_round(size)))).collect();
        let mut statements = Vec::new();
        while queues.iter().any(|(_, queue)| !queue.is_empty()) {
            let mut rows = Vec::new();
            for (agent, queue) in &mut queues {
                rows.extend(queue.pop_front().into_iter().flat_map(|batch| rows_of(agent, batch)));
                if rows.len() >= UPSERTED {
                    statements.push(std::mem::take(&mut rows));
                }
            }
            statements.push(rows);
        }
        statements.retain(|rows| !rows.is_empty());
        count += statements.len() as u64;
        writers.push((client, upsert, statements));
    }
    Ok((writers, count))
}

/// Executes all statements. The connections are returned open, so that what their backends spent can be read.
async fn upsert(writers: Vec<Writer>) -> Result<Vec<Client>> {
    let mut running = JoinSet::new();
    for (client, upsert, statements) in writers {
        running.spawn(async move {
            for rows in statements {
                upsert.run(&client, &rows).await?;
            }
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::new();
    while let Some(done) = running.join_next().await {
        clients.push(done??);
    }
    Ok(clients)
}

fn rows_of(agent: &Agent, batch: Batch) -> impl Iterator<Item = Row> {
    let row = |has_ended| {
        let agent = agent.identity.clone();
        move |session| Row { agent: agent.clone(), session, has_ended }
    };
    batch.connects.into_iter().map(row(false)).chain(batch.disconnects.into_iter().map(row(true)))
}

/// What one agent has to say in a round.
fn batches_of_round(size: Size) -> Vec<Batch> {
    batches(&sessions(size.events / 2 / size.agents), HALF_BATCH)
}
