//! Where the time goes: each step of the write path by itself, on one connection, without gRPC.

use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use connlog_store::write::Batch;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::connect;
use tokio_postgres::Client;

use crate::fleet::Agent;
use crate::ingest::{copy_in, copy_out};
use crate::sessions::sessions;

/// Connections of a round, and how many are committed together.
const SESSIONS: u32 = 20_000;
const BATCH: usize = 2_000;

/// The whole days before today that rows are taken from.
const ROWS: &str =
    "COPY (SELECT * FROM connection_logs WHERE method <= 2 AND connect_time < date_trunc('day', now(), 'UTC')
    AND connect_time >= date_trunc('day', now(), 'UTC') - interval '3 days') TO STDOUT (FORMAT binary)";

/// Measures on a database that [`generate`](crate::history::generate) filled.
pub(crate) async fn measure(database_url: &str, agents: &[Agent], rounds: u32) -> Result<()> {
    let client = connect(database_url).await?;
    batches(database_url, &client, agents, rounds).await?;
    indexes(&client, rounds).await
}

/// Connects, and disconnects that find their rows and end them in place.
async fn batches(database_url: &str, client: &Client, agents: &[Agent], rounds: u32) -> Result<()> {
    // As the writers of connlog-ingest have it.
    let config = StoreConfig { by_key: true, ..StoreConfig::new(database_url, "connlog-bench", 1) };
    let store = Store::new(&config)?;
    let (mut connects, mut disconnects) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        client.batch_execute("CHECKPOINT").await?;
        let sessions = sessions(SESSIONS);
        for (has_ended, micros) in [(false, &mut connects), (true, &mut disconnects)] {
            let began = Instant::now();
            for part in sessions.chunks(BATCH) {
                let events = part.iter().zip(agents.iter().cycle());
                let events = events.map(|(session, agent)| session.event(&agent.identity, has_ended)).collect();
                store.apply_batch(&Batch { events, ..Batch::default() }, 1, Utc::now()).await?;
            }
            // The first round warms up.
            if round > 0 {
                micros.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(SESSIONS));
            }
        }
    }
    let (connect, disconnect) = (crate::median(connects), crate::median(disconnects));
    println!("by one writer, without gRPC: {connect:.1} µs a connect, {disconnect:.1} µs a disconnect");
    Ok(())
}

/// A binary COPY of connections into a table without indexes, and into one with each of the indexes of a day alone.
async fn indexes(client: &Client, rounds: u32) -> Result<()> {
    let rows = copy_out(client, ROWS).await?;
    let day = "day_table(current_date - 1)";
    let sql =
        format!("SELECT {day}, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = {day}::regclass ORDER BY 2");
    let mut tables = vec![("none".to_owned(), String::new())];
    for row in client.query(&sql, &[]).await? {
        let (day, definition): (String, String) = (row.get(0), row.get(1));
        let (_, on) = definition.split_once(&format!("{day} USING ")).with_context(|| definition.clone())?;
        tables.push((on.to_owned(), format!("CREATE INDEX ON cost_rows USING {on}")));
    }
    let mut micros: Vec<Vec<f64>> = vec![Vec::new(); tables.len()];
    for _ in 0..rounds {
        for ((_, index), times) in tables.iter().zip(&mut micros) {
            client.batch_execute("CREATE TABLE cost_rows (LIKE connection_logs)").await?;
            client.batch_execute(index).await?;
            client.batch_execute("CHECKPOINT").await?;
            let (elapsed, count) = copy_in(client, "COPY cost_rows FROM STDIN (FORMAT binary)", rows.clone()).await?;
            times.push(elapsed.as_secs_f64() * 1e6 / f64::from(u32::try_from(count)?));
            client.batch_execute("DROP TABLE cost_rows").await?;
        }
    }
    println!("\nµs of a connection that is copied into a table with one of the indexes of a day");
    for ((index, _), times) in tables.iter().zip(micros) {
        println!("{:>7.2}  {index}", crate::median(times));
    }
    Ok(())
}
