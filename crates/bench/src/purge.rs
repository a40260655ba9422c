//! Days that are over: compacted by `connlog-purge`, and what they take then; and one that is dropped, against deleted in batches from
//! the one table.

use std::time::Instant;

use anyhow::{Result, ensure};
use chrono::{Days, NaiveDate, Utc};
use connlog_testkit::database::connect;

use crate::report::Report;
use crate::{history, peer};

/// Compacts all days that are closed, and compares what nine of them take with what they take in the one table.
async fn compact(database_url: &str, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let summary = purge(database_url, &[]).await?;
    println!("compacting {} days took {:.1} s", summary["days_compacted"], began.elapsed().as_secs_f64());
    ensure!(summary["days_compacted"].as_i64() > Some(9), "days were to be compacted: {summary}");
    let (ours, one_table) = peer::bytes_per_row(&connect(database_url).await?).await?;
    report.add("storage.compacted", ours, one_table);
    Ok(())
}

/// Rows that the other side deletes at a time.
const BATCH: i64 = 10_000;

/// Fills the first day up to `rows` rows in both layouts, removes it from both, and so on with the next one.
pub(crate) async fn measure(database_url: &str, rows: i64, rounds: u32, report: &mut Report) -> Result<()> {
    let client = connect(database_url).await?;
    compact(database_url, report).await?;
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let day: NaiveDate = client.query_one("SELECT min(day) FROM days() AS day", &[]).await?.get(0);
        let next = day + Days::new(1);
        history::fill_day(database_url, day, rows).await?;
        peer::copy_before(&client, next).await?;
        peer::each(&client, "VACUUM (ANALYZE) peer_logs; CHECKPOINT").await?;

        let began = Instant::now();
        run(database_url, next).await?;
        let ours = began.elapsed().as_secs_f64();

        let began = Instant::now();
        while client.execute(DELETE_BATCH, &[&next, &BATCH]).await? > 0 {}
        client.batch_execute("VACUUM peer_logs").await?;
        pairs.push((ours, began.elapsed().as_secs_f64()));
    }
    report.add_rounds("purge.day", &pairs);
    Ok(())
}

const DELETE_BATCH: &str = "DELETE FROM peer_logs WHERE ctid IN (
    SELECT ctid FROM peer_logs WHERE connect_time < $1::date::timestamp AT TIME ZONE 'UTC' ORDER BY connect_time LIMIT $2)";

/// Runs the `connlog-purge` that lies beside this program: what lies before `cutoff`, a whole day, is to go.
pub(crate) async fn run(database_url: &str, cutoff: NaiveDate) -> Result<()> {
    let retention = format!("{}s", (Utc::now() - cutoff.and_time(chrono::NaiveTime::MIN).and_utc()).num_seconds());
    let summary = purge(database_url, &["--connection-logs-retention", &retention, "--compact=false"]).await?;
    // Of a day that somebody reads for longer than a purge waits, the rows go one by one.
    let rows = |key: &str| summary[key].as_i64().unwrap_or(0);
    ensure!(rows("rows_dropped") + rows("rows_trimmed") > 0, "a day was to go: {summary}");
    Ok(())
}

/// Runs it, and returns its summary.
async fn purge(database_url: &str, flags: &[&str]) -> Result<serde_json::Value> {
    let program = std::env::current_exe()?.with_file_name("connlog-purge");
    ensure!(program.exists(), "{} is missing: build the workspace in the same profile", program.display());
    let output = tokio::process::Command::new(program)
        .args(["--database-url", database_url, "--json"])
        .args(flags)
        .env_remove("CODER_CONNECTION_LOGS_RETENTION")
        .env("CONNLOG_LOG", "warn")
        .output()
        .await?;
    ensure!(output.status.success(), "connlog-purge: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
