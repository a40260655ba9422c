//! The reporter against the real service: what it accepted is in the log once, whatever the network does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::Parser;
use connlog_agent::client::{TlsFiles, TokenSource};
use connlog_agent::spool::SpoolError;
use connlog_agent::{Config, Connect, Disconnect, Reporter};
use connlog_runtime::shutdown::Shutdown;
use connlog_store::roles::INGEST;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::process::free_address;
use connlog_testkit::wait::{until, until_value};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

struct Service {
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<bool>>,
}

impl Service {
    async fn start(database: &TestDatabase, address: SocketAddr) -> Self {
        let arguments = ["connlog-ingest", "--database-url", &database.url_as(INGEST), "--heartbeat-interval", "500ms"];
        let config = connlog_ingest::Config::try_parse_from(arguments).unwrap();
        // The address may linger for a moment after the service before it.
        let bind = async || TcpListener::bind(address).await;
        let listener = until_value("the address is free", bind, Result::is_ok).await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = Shutdown::new();
        let running = tokio::spawn(connlog_ingest::run(config, listener, admin, shutdown.clone()));
        Self { shutdown, running }
    }

    async fn stop(self) {
        self.shutdown.begin();
        assert!(self.running.await.unwrap().unwrap());
    }
}

async fn database() -> (TestDatabase, fixtures::Site) {
    let database = TestDatabase::create().await.unwrap();
    let site = fixtures::site(1, 1);
    fixtures::import(&database.store().unwrap(), &site.directory, Utc::now()).await.unwrap();
    (database, site)
}

/// Starts a reporter, as soon as the one before has let go of the spool.
async fn reporter(folder: &Path, servers: &[SocketAddr], token: TokenSource, max_spool_bytes: u64) -> Reporter {
    let config = Config {
        servers: servers.iter().map(|address| format!("http://{address}")).collect(),
        token,
        tls: TlsFiles::default(),
        spool: folder.to_owned(),
        max_spool_bytes,
        agent_version: "test".to_owned(),
    };
    let start = async || Reporter::start(config.clone()).map(|(reporter, _)| reporter);
    until_value("the spool is free", start, |started| !matches!(started, Err(SpoolError::Owned(_)))).await.unwrap()
}

fn ssh() -> Connect {
    Connect { app_name: "ssh".to_owned(), ..Connect::default() }
}

fn bye() -> Disconnect {
    Disconnect { app_name: "ssh".to_owned(), status_code: Some(1), ..Disconnect::default() }
}

async fn number(database: &TestDatabase, sql: &str) -> i64 {
    database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

async fn delivered(reporter: &Reporter) {
    until_value(
        "everything is delivered",
        async || reporter.status().await.unwrap(),
        |status| status.spool.pending == 0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_the_log_once_through_restarts_of_server_and_agent() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().unwrap();
    let token = || TokenSource::Text(site.token.clone());
    // Nobody listens yet, and a first life of the agent ends before anybody does.
    let first = reporter(folder.path(), &[address], token(), 1 << 20).await;
    let ids: Vec<Uuid> = (0..40).map(|_| Uuid::new_v4()).collect();
    for id in &ids[..10] {
        first.connect(*id, ssh()).await.unwrap();
    }
    assert!(!first.status().await.unwrap().connected);
    drop(first);
    let second = reporter(folder.path(), &[address], token(), 1 << 20).await;
    for (round, part) in ids.chunks(10).enumerate() {
        let service = Service::start(&database, address).await;
        for id in part {
            if round > 0 {
                second.connect(*id, ssh()).await.unwrap();
            }
            second.disconnect(*id, bye()).await.unwrap();
        }
        delivered(&second).await;
        service.stop().await;
    }
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs WHERE code = 1").await, 40);
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL").await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM lost_events").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_spool_gave_up_is_counted_exactly_in_the_log() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().unwrap();
    let reporter = reporter(folder.path(), &[address], TokenSource::Text(site.token.clone()), 64 << 10).await;
    for _ in 0..2_000 {
        reporter.connect(Uuid::new_v4(), ssh()).await.unwrap();
    }
    let lost = reporter.status().await.unwrap().spool.lost.unwrap();
    assert!(lost.count() > 100 && lost.count() < 2_000);
    let service = Service::start(&database, address).await;
    delivered(&reporter).await;
    let recorded =
        "SELECT coalesce(sum(events), 0)::bigint FROM lost_events WHERE cause = 'spool full' AND since <= until";
    assert_eq!(number(&database, recorded).await, i64::try_from(lost.count()).unwrap());
    let there = number(&database, "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL").await;
    assert_eq!(there + i64::try_from(lost.count()).unwrap(), 2_000);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_and_a_rotated_token_are_picked_up() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "not the token yet\n").unwrap();
    let (nobody, address) = (free_address().unwrap(), free_address().unwrap());
    let service = Service::start(&database, address).await;
    let spool = folder.path().join("spool");
    let reporter = reporter(&spool, &[nobody, address], TokenSource::File(token.clone()), 1 << 20).await;
    reporter.connect(Uuid::new_v4(), ssh()).await.unwrap();
    let refused = |status: &connlog_agent::Status| {
        status.last_error.as_ref().is_some_and(|error| error.contains("unknown, expired or revoked"))
    };
    until_value("the token is refused", async || reporter.status().await.unwrap(), refused).await;
    std::fs::write(&token, format!("{}\n", site.token)).unwrap();
    delivered(&reporter).await;
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL").await, 1);
    drop(reporter);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_list_what_is_open() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().unwrap();
    let service = Service::start(&database, address).await;
    let reporter = reporter(folder.path(), &[address], TokenSource::Text(site.token.clone()), 1 << 20).await;
    let id = Uuid::new_v4();
    reporter.connect(id, ssh()).await.unwrap();
    delivered(&reporter).await;
    let store = database.store().unwrap();
    let lost_after = chrono::TimeDelta::minutes(10);
    let now = Utc::now() + chrono::TimeDelta::minutes(30);
    let swept = store.sweep_silent(now, now - chrono::TimeDelta::hours(1), lost_after).await.unwrap();
    assert_eq!(swept.len(), 1, "as if it had been silent");
    let open = async || number(&database, "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL").await;
    until("the next heartbeat reopens it", async || open().await > 0).await;
    drop(reporter);
    service.stop().await;
}

/// The time of the slowest hundredth of `count` appends.
async fn slow_append(reporter: &Reporter, count: usize) -> Duration {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        reporter.connect(Uuid::new_v4(), ssh()).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[count * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_swallows_everything_costs_the_workspace_nothing() {
    let (database, site) = database().await;
    let (healthy, swallowing) = (free_address().unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let black_hole = swallowing.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        // Connections are accepted and never read.
        while let Ok((connection, _)) = swallowing.accept().await {
            held.push(connection);
        }
    });
    let service = Service::start(&database, healthy).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let with_healthy = reporter(folders[0].path(), &[healthy], TokenSource::Text(site.token.clone()), 8 << 20).await;
    let with_black_hole =
        reporter(folders[1].path(), &[black_hole], TokenSource::Text(site.token.clone()), 8 << 20).await;
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (healthy, black_hole) = (slow_append(&with_healthy, 200).await, slow_append(&with_black_hole, 200).await);
        ratios.push(black_hole.as_secs_f64() / healthy.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!("append at the 99th percentile, black-holed to healthy: {ratios:.2?}");
    // Both wait for the same disk. A reporter that waited for the network would be slower by orders of magnitude.
    assert!(ratios[2] < 5.0, "{ratios:?}");
    drop((with_healthy, with_black_hole));
    service.stop().await;
}

/// The server counts numbers of the spool, and a snapshot gives them out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_went_back_in_time_loses_nothing_and_does_not_stall() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let (spool, snapshot) = (folder.path().join("spool"), folder.path().join("snapshot"));
    let address = free_address().unwrap();
    let start = async || reporter(&spool, &[address], TokenSource::Text(site.token.clone()), 1 << 20).await;
    let service = Service::start(&database, address).await;
    let first = start().await;
    for _ in 0..5 {
        first.connect(Uuid::new_v4(), ssh()).await.unwrap();
    }
    delivered(&first).await;
    drop(first);
    // The second one has the spool, as the first one left it, and has nothing to write yet.
    let second = start().await;
    copy(&spool, &snapshot);
    for _ in 0..3_000 {
        second.disconnect(Uuid::new_v4(), bye()).await.unwrap();
    }
    delivered(&second).await;
    drop(second);
    service.stop().await;
    std::fs::remove_dir_all(&spool).unwrap();
    copy(&snapshot, &spool);
    let third = start().await;
    for _ in 0..2_500 {
        third.disconnect(Uuid::new_v4(), bye()).await.unwrap();
    }
    let service = Service::start(&database, address).await;
    delivered(&third).await;
    for _ in 0..3 {
        third.disconnect(Uuid::new_v4(), bye()).await.unwrap();
        delivered(&third).await;
    }
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs WHERE code = 1").await, 3_000 + 2_500 + 3);
    assert_eq!(number(&database, "SELECT count(*) FROM lost_events").await, 0);
    drop(third);
    service.stop().await;
}

fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_texts_do_not_keep_anything_from_being_sent() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().unwrap();
    let reporter = reporter(folder.path(), &[address], TokenSource::Text(site.token.clone()), 64 << 20).await;
    for _ in 0..150 {
        let reason = Some("ä".repeat(30_000));
        reporter.disconnect(Uuid::new_v4(), Disconnect { reason, ..bye() }).await.unwrap();
    }
    let service = Service::start(&database, address).await;
    delivered(&reporter).await;
    assert_eq!(
        number(&database, "SELECT count(*) FROM connection_logs WHERE length(disconnect_reason) > 500").await,
        150
    );
    drop(reporter);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_in_its_tls_is_left_for_the_next() {
    let (database, site) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let healthy = free_address().unwrap();
    let service = Service::start(&database, healthy).await;
    let servers = vec![format!("https://{}", silent.local_addr().unwrap()), format!("http://{healthy}")];
    let config = Config {
        servers,
        token: TokenSource::Text(site.token.clone()),
        tls: TlsFiles::default(),
        spool: folder.path().to_owned(),
        max_spool_bytes: 1 << 20,
        agent_version: "test".to_owned(),
    };
    let reporter = Reporter::start(config).unwrap().0;
    reporter.connect(Uuid::new_v4(), ssh()).await.unwrap();
    delivered(&reporter).await;
    drop((reporter, silent));
    service.stop().await;
}
