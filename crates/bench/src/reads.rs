//! Reads at size: pages and counts against the straightforward SQL on one table, an export against COPY.

use std::time::{Duration, Instant};

use anyhow::Result;
use connlog_store::write::Batch;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::connect;
use futures::StreamExt as _;
use tokio_postgres::Client;

use crate::fleet::Agent;
use crate::peer::{self, Layout, Row, Upsert};
use crate::report::Report;
use crate::service::Service;
use crate::sessions::{Session, sessions};

/// Rounds of a search: [`REQUESTS`] of ours, then one of the straightforward SQL, which is slow.
const ROUNDS: u32 = 5;
/// Requests of a search in a round.
const REQUESTS: usize = 8;
/// Requests of a count in a round: of fewer, a p95 is the slowest.
const COUNTS: usize = 40;
/// Connections that are open: a few, and as many as a large fleet has.
const OPEN_FEW: usize = 3;
const OPEN_MANY: u32 = 10_000;
/// Events that are written at once.
const WRITTEN: usize = 1_000;
/// Pages of a walk by cursors.
const PAGES: usize = 20;
/// Rounds of exports, each against a COPY.
const EXPORT_ROUNDS: usize = 5;

/// A search, and its condition in SQL.
pub(crate) struct Case {
    pub(crate) query: &'static str,
    sql: &'static str,
}

/// Every filter that is indexed, alone and in pairs, matching much, little or nothing.
pub(crate) const CASES: [Case; 20] = [
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
pub(crate) async fn measure(database_url: &str, agents: &[Agent], report: &mut Report) -> Result<()> {
    let client = connect(database_url).await?;
    client.batch_execute("SET jit = off").await?;
    let (ours, one_table) = peer::bytes_per_row(&client).await?;
    let service = Service::start(database_url).await?;
    pages(&client, &service, report).await?;
    counts(&client, &service, report).await?;
    ongoing(database_url, &client, &service, agents, report).await?;
    exports(&client, &service, report).await?;
    report.add("storage.open", ours, one_table);
    println!("connlog-query had {:.0} MiB at most", service.peak_memory_mib()?);
    Ok(())
}

/// Exact counts of much: a page with its count, against the count alone.
async fn counts(client: &Client, service: &Service, report: &mut Report) -> Result<()> {
    for (key, case) in [("query.count_all", &CASES[0]), ("query.count_org", &CASES[1])] {
        let sql = format!("SELECT count(*) FROM peer_logs l WHERE {}", case.sql);
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let ours = quantile(&mut pages_of(service, case.query, COUNTS).await?, 95);
            let began = Instant::now();
            client.query(&sql, &[]).await?;
            pairs.push((millis(ours), millis(began.elapsed())));
        }
        report.add_rounds(key, &pairs);
    }
    Ok(())
}

/// Few and many connections that are open, among the rows of full days.
async fn ongoing(
    database_url: &str,
    client: &Client,
    service: &Service,
    agents: &[Agent],
    report: &mut Report,
) -> Result<()> {
    let store = Store::new(&StoreConfig::new(database_url, "connlog-bench", 1))?;
    let upsert = Upsert::prepare(client, Layout::Peer).await?;
    let open: Vec<(Session, &Agent)> = sessions(OPEN_MANY).into_iter().zip(agents.iter().cycle()).collect();
    let (few, rest) = open.split_at(OPEN_FEW);
    for (key, part) in [("query.ongoing_few", few), ("query.ongoing_many", rest)] {
        write(&store, part, false).await?;
        for rows in part.chunks(WRITTEN) {
            let rows: Vec<Row> = rows.iter().map(|(session, agent)| row(session, agent, false)).collect();
            upsert.run(client, &rows).await?;
        }
        client.batch_execute("ANALYZE peer_logs").await?;
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let ours = quantile(&mut pages_of(service, "status:ongoing", COUNTS).await?, 95);
            let theirs = straightforward(client, "disconnect_time IS NULL AND connection_id IS NOT NULL", 0).await?;
            pairs.push((millis(ours), millis(theirs)));
        }
        report.add_rounds(key, &pairs);
    }
    // The other measurements start without open connections.
    write(&store, &open, true).await?;
    for rows in open.chunks(WRITTEN) {
        let rows: Vec<Row> = rows.iter().map(|(session, agent)| row(session, agent, true)).collect();
        upsert.run(client, &rows).await?;
    }
    Ok(())
}

fn row(session: &Session, agent: &Agent, has_ended: bool) -> Row {
    Row { agent: agent.identity.clone(), session: *session, has_ended }
}

/// Writes beginnings or ends as connlog-ingest would.
async fn write(store: &Store, sessions: &[(Session, &Agent)], has_ended: bool) -> Result<()> {
    for part in sessions.chunks(WRITTEN) {
        let events = part.iter().map(|(session, agent)| session.event(&agent.identity, has_ended)).collect();
        store.apply_batch(&Batch { events, ..Batch::default() }, 1, chrono::Utc::now()).await?;
    }
    Ok(())
}

async fn pages_of(service: &Service, query: &str, requests: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        times.push(service.page(query, None).await?.0);
    }
    Ok(times)
}

/// p95 of a first page without a filter, in ms.
pub(crate) async fn first_page_p95(service: &Service) -> Result<f64> {
    page_p95(service, "").await
}

/// p95 of a first page of the slowest search, in ms.
pub(crate) async fn worst_page_p95(service: &Service) -> Result<f64> {
    let mut worst: f64 = 0.0;
    for case in &CASES {
        worst = worst.max(page_p95(service, case.query).await?);
    }
    Ok(worst)
}

async fn page_p95(service: &Service, query: &str) -> Result<f64> {
    // The first ones warm up.
    pages_of(service, query, REQUESTS).await?;
    let mut times = pages_of(service, query, 2 * REQUESTS).await?;
    Ok(millis(quantile(&mut times, 95)))
}

/// How long the pages after the first one take.
async fn walk(service: &Service, query: &str) -> Result<Vec<Duration>> {
    let mut cursor = service.page(query, None).await?.1["next_cursor"].as_str().map(str::to_owned);
    let mut times = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let Some(after) = cursor else { break };
        let (elapsed, page) = service.page(query, Some(&after)).await?;
        times.push(elapsed);
        cursor = page["next_cursor"].as_str().map(str::to_owned);
    }
    Ok(times)
}

async fn pages(client: &Client, service: &Service, report: &mut Report) -> Result<()> {
    let mut worst = ("", Vec::<(f64, f64)>::new());
    println!("\nms of a page of 25 with its count (targets: p95 of a page 20, median of a first page 5)");
    println!("{:>7} {:>7} {:>9} {:>10} {:>8}  search", "median", "p95", "deep p95", "plain SQL", "ratio");
    for case in &CASES {
        let (mut first, mut deep, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pairs, mut deep_pairs) = (Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=ROUNDS {
            let mut ours = pages_of(service, case.query, REQUESTS).await?;
            let theirs = straightforward(client, case.sql, 0).await?;
            if round == 0 {
                continue;
            }
            pairs.push((millis(quantile(&mut ours, 95)), millis(theirs)));
            first.extend(ours);
            plain.push(theirs);
            let mut walked = walk(service, case.query).await?;
            if case.query.is_empty() {
                let offset = straightforward(client, case.sql, PAGES * 25).await?;
                deep_pairs.push((millis(quantile(&mut walked, 95)), millis(offset)));
            }
            deep.extend(walked);
        }
        if worst.1.is_empty()
            || crate::median(worst.1.iter().map(|pair| pair.0).collect())
                < crate::median(pairs.iter().map(|pair| pair.0).collect())
        {
            worst = (case.query, pairs.clone());
        }
        if case.query.is_empty() {
            report.add_rounds("query.first_page", &pairs);
            report.add_rounds("query.deep_cursor", &deep_pairs);
        }
        if case.query.starts_with("connection_id") {
            report.add_rounds("query.no_match", &pairs);
        }
        let (median, plain) = (quantile(&mut first, 50), quantile(&mut plain, 50));
        println!(
            "{:>7.1} {:>7.1} {:>9.1} {:>10.1} {:>8.4}  {}",
            millis(median),
            millis(quantile(&mut first, 95)),
            millis(quantile(&mut deep, 95)),
            millis(plain),
            median.as_secs_f64() / plain.as_secs_f64(),
            if case.query.is_empty() { "(everything)" } else { case.query }
        );
    }
    report.add_rounds("query.worst_filter", &worst.1);
    report.is_of(worst.0);
    Ok(())
}

/// The page and its exact count, on one table.
async fn straightforward(client: &Client, condition: &str, offset: usize) -> Result<Duration> {
    let page = format!(
        "SELECT l.*, o.name, w.username, u.username FROM peer_logs l LEFT JOIN organizations o ON o.id = l.organization_id
         LEFT JOIN users w ON w.id = l.workspace_owner_id LEFT JOIN users u ON u.id = l.user_id
         WHERE {condition} ORDER BY l.connect_time DESC, l.id DESC LIMIT 25 OFFSET {offset}"
    );
    let count = format!("SELECT count(*) FROM peer_logs l WHERE {condition}");
    let began = Instant::now();
    client.query(&page, &[]).await?;
    client.query(&count, &[]).await?;
    Ok(began.elapsed())
}

/// The search for some days: enough for an export, and it stays short.
pub(crate) async fn some_days(client: &Client) -> Result<String> {
    let since = client.query_one("SELECT max(day) - 7 FROM days() AS day", &[]).await?.get::<_, chrono::NaiveDate>(0);
    Ok(format!("connected_after:\"{since}T00:00:00Z\""))
}

async fn exports(client: &Client, service: &Service, report: &mut Report) -> Result<()> {
    let query = some_days(client).await?;
    let copy = format!(
        "COPY (SELECT l.*, t.owner_id, t.workspace_id, t.workspace_name, t.agent_name, o.name, o.display_name, o.icon, w.username, u.username, u.name, u.email
         FROM connection_logs l JOIN targets t USING (target) LEFT JOIN organizations o ON o.id = t.organization_id
         LEFT JOIN users w ON w.id = t.owner_id LEFT JOIN users u ON u.id = l.user_id
         WHERE l.connect_time >= '{}') TO STDOUT",
        query.split('"').nth(1).unwrap_or_default()
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
    report.add_rounds("export.ndjson", &pairs);
    Ok(())
}

fn quantile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
