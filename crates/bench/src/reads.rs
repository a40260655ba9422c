//! Reads at size: pages and counts against the straightforward SQL on one table, an export against COPY.

use std::time::{Duration, Instant};

use anyhow::Result;
use connlog_testkit::database::connect;
use futures::StreamExt as _;
use tokio_postgres::Client;

use crate::plain;
use crate::report::Report;
use crate::service::Service;

/// Requests of a search.
const REQUESTS: usize = 40;
const REQUESTS_U32: u32 = 40;
/// Pages of a walk by cursors.
const PAGES: usize = 20;
/// Runs of the straightforward SQL, which is slow.
const PLAIN_RUNS: usize = 3;
/// Rounds of exports, each against a COPY.
const EXPORT_ROUNDS: usize = 5;

/// A search, and its condition in SQL.
struct Case {
    query: &'static str,
    sql: &'static str,
}

/// Every filter that is indexed, alone and in pairs, matching much, little or nothing.
const CASES: [Case; 20] = [
    Case { query: "", sql: "true" },
    Case { query: "organization:org-1", sql: "organization_id = 'a0000000-0000-0000-0000-000000000001'" },
    Case { query: "organization:org-7", sql: "organization_id = 'a0000000-0000-0000-0000-000000000007'" },
    Case { query: "method:ssh", sql: "method = 1" },
    Case { query: "app:cursor", sql: "app_name = 'cursor'" },
    Case { query: "app:mps", sql: "app_name = 'mps'" },
    Case { query: "type:jetbrains", sql: "method = 1 AND app_name IN ('goland', 'mps')" },
    Case { query: "status:completed", sql: "disconnect_time IS NOT NULL" },
    Case { query: "workspace_owner:user-0", sql: "workspace_owner_id = 'b0000000-0000-0000-0000-000000000000'" },
    Case { query: "workspace_owner:user-1500", sql: "workspace_owner_id = 'b0000000-0000-0000-0000-000000001500'" },
    Case { query: "workspace:workspace-1", sql: "workspace_id = 'c0000000-0000-0000-0000-000000000001'" },
    Case { query: "workspace:workspace-5990", sql: "workspace_id = 'c0000000-0000-0000-0000-000000005990'" },
    Case { query: "username:user-3", sql: "user_id = 'b0000000-0000-0000-0000-000000000003'" },
    Case {
        query: "connection_id:00000000-0000-0000-0000-000000000001",
        sql: "connection_id = '00000000-0000-0000-0000-000000000001'",
    },
    Case {
        query: "workspace_owner:user-0 method:tunnel",
        sql: "workspace_owner_id = 'b0000000-0000-0000-0000-000000000000' AND method = 5",
    },
    Case {
        query: "workspace_owner:user-0 app:mps",
        sql: "workspace_owner_id = 'b0000000-0000-0000-0000-000000000000' AND app_name = 'mps'",
    },
    Case {
        query: "organization:org-7 app:mps",
        sql: "organization_id = 'a0000000-0000-0000-0000-000000000007' AND app_name = 'mps'",
    },
    Case {
        query: "organization:org-1 method:tunnel",
        sql: "organization_id = 'a0000000-0000-0000-0000-000000000001' AND method = 5",
    },
    Case {
        query: "workspace_owner:user-1500 type:jetbrains",
        sql: "workspace_owner_id = 'b0000000-0000-0000-0000-000000001500' AND method = 1 AND app_name IN ('goland', 'mps')",
    },
    Case {
        query: "organization:org-1 status:completed",
        sql: "organization_id = 'a0000000-0000-0000-0000-000000000001' AND disconnect_time IS NOT NULL",
    },
];

/// Measures on a database that [`generate`](crate::history::generate) filled.
pub(crate) async fn measure(database_url: &str, report: &mut Report) -> Result<()> {
    let client = connect(database_url).await?;
    client.batch_execute("SET jit = off").await?;
    let (ours, one_table) = plain::bytes_per_row(&client).await?;
    let service = Service::start(database_url).await?;
    pages(&client, &service, report).await?;
    counts(&client, &service, report).await?;
    exports(&client, &service, report).await?;
    report.add("storage.bytes_per_row", ours, one_table, "bytes", 1);
    println!("connlog-query had {:.0} MiB at most", service.peak_memory_mib()?);
    Ok(())
}

/// Exact counts of much.
async fn counts(client: &Client, service: &Service, report: &mut Report) -> Result<()> {
    for (key, case) in [("query.count_all", &CASES[0]), ("query.count_org", &CASES[1])] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..REQUESTS {
            ours.push(service.page(case.query, None).await?.0);
        }
        for _ in 0..PLAIN_RUNS {
            let began = Instant::now();
            client.query(&format!("SELECT count(*) FROM plain_logs l WHERE {}", case.sql), &[]).await?;
            theirs.push(began.elapsed());
        }
        report.add(key, millis(quantile(&mut ours, 95)), millis(quantile(&mut theirs, 50)), "ms", REQUESTS_U32);
    }
    Ok(())
}

async fn pages(client: &Client, service: &Service, report: &mut Report) -> Result<()> {
    let mut worst = (0.0, 0.0);
    println!("\nms of a page of 25 with its count (targets: p95 of a page 20, median of a first page 5)");
    println!("{:>7} {:>7} {:>9} {:>10} {:>8}  search", "median", "p95", "deep p95", "plain SQL", "ratio");
    for case in &CASES {
        let mut first = Vec::with_capacity(REQUESTS);
        let mut cursor = None;
        for request in 0..REQUESTS + 3 {
            let (elapsed, page) = service.page(case.query, None).await?;
            if request >= 3 {
                first.push(elapsed);
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
        }
        let mut deep = Vec::with_capacity(PAGES);
        for _ in 0..PAGES {
            let Some(after) = cursor else { break };
            let (elapsed, page) = service.page(case.query, Some(&after)).await?;
            deep.push(elapsed);
            cursor = page["next_cursor"].as_str().map(str::to_owned);
        }
        let plain = straightforward(client, case.sql, 0).await?;
        let median = quantile(&mut first, 50);
        let (first_p95, deep_p95) = (millis(quantile(&mut first, 95)), millis(quantile(&mut deep, 95)));
        if first_p95 > worst.0 {
            worst = (first_p95, millis(plain));
        }
        if case.query.is_empty() {
            let offset = straightforward(client, case.sql, PAGES * 25).await?;
            report.add("query.first_page", first_p95, millis(plain), "ms", REQUESTS_U32);
            report.add("query.deep_cursor", deep_p95, millis(offset), "ms", REQUESTS_U32 / 2);
        }
        if case.query.starts_with("connection_id") {
            report.add("query.no_match", first_p95, millis(plain), "ms", REQUESTS_U32);
        }
        println!(
            "{:>7.1} {:>7.1} {:>9.1} {:>10.1} {:>8.4}  {}",
            millis(median),
            first_p95,
            deep_p95,
            millis(plain),
            median.as_secs_f64() / plain.as_secs_f64(),
            if case.query.is_empty() { "(everything)" } else { case.query }
        );
    }
    report.add("query.worst_filter", worst.0, worst.1, "ms", REQUESTS_U32);
    Ok(())
}

/// The page and its exact count, on one table.
async fn straightforward(client: &Client, condition: &str, offset: usize) -> Result<Duration> {
    let page = format!(
        "SELECT l.*, o.name, w.username, u.username FROM plain_logs l LEFT JOIN organizations o ON o.id = l.organization_id
         LEFT JOIN users w ON w.id = l.workspace_owner_id LEFT JOIN users u ON u.id = l.user_id
         WHERE {condition} ORDER BY l.connect_time DESC, l.id DESC LIMIT 25 OFFSET {offset}"
    );
    let count = format!("SELECT count(*) FROM plain_logs l WHERE {condition}");
    let mut times = Vec::new();
    for _ in 0..PLAIN_RUNS {
        let began = Instant::now();
        client.query(&page, &[]).await?;
        client.query(&count, &[]).await?;
        times.push(began.elapsed());
    }
    Ok(quantile(&mut times, 50))
}

const EXPORTED: &str = "connected_after:\"{}\"";

async fn exports(client: &Client, service: &Service, report: &mut Report) -> Result<()> {
    // Some days are enough, and keep a round short.
    let since: chrono::DateTime<chrono::Utc> =
        client.query_one("SELECT max(connect_time) - interval '7 days' FROM connection_logs", &[]).await?.get(0);
    let query = EXPORTED.replace("{}", &since.to_rfc3339());
    let copy = format!(
        "COPY (SELECT l.*, o.name, o.display_name, o.icon, w.username, u.username, u.name, u.email
         FROM connection_logs l LEFT JOIN organizations o ON o.id = l.organization_id
         LEFT JOIN users w ON w.id = l.workspace_owner_id LEFT JOIN users u ON u.id = l.user_id
         WHERE l.connect_time >= '{}') TO STDOUT",
        since.to_rfc3339()
    );
    let mut pairs = Vec::new();
    for _ in 0..EXPORT_ROUNDS {
        let (took, rows, bytes) = service.export(&query).await?;
        let began = Instant::now();
        let stream = client.copy_out(&copy).await?;
        futures::pin_mut!(stream);
        let mut copied = 0;
        while let Some(part) = stream.next().await {
            copied += bytecount::count(&part?, b'\n');
        }
        let copy_took = began.elapsed();
        let speed = |rows: f64, took: Duration| rows / took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 rows")]
        let (ours, theirs) = (speed(rows as f64, took), speed(copied as f64, copy_took));
        println!("export: {rows} rows, {} MB: {ours:.0} rows/s; COPY {theirs:.0} rows/s", bytes / 1_000_000);
        pairs.push((ours, theirs));
    }
    report.add_rounds("export.ndjson", &pairs, "rows/s");
    Ok(())
}

fn quantile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
