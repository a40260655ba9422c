//! Health says what is true: under a database that is gone, slow, of another schema, and with a queue that stays full.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_store::schema;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fault::FaultProxy;
use connlog_testkit::wait::until;
use support::{HelloOf, Service, Stream, connect, database_with, minutes_ago};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

async fn grpc_health(service: &Service) -> &'static str {
    let request = HealthCheckRequest { service: "connlog.v1.ConnectionLog".to_owned() };
    let mut health = HealthClient::new(support::channel(service.address).await);
    health.check(request).await.unwrap().into_inner().status().as_str_name()
}

async fn is_ready(service: &Service) -> bool {
    service.admin("/readyz").await == (200, "ok\n".to_owned())
}

#[tokio::test]
async fn a_database_that_does_not_answer_or_is_gone_makes_it_unready_and_not_dead() {
    let database = TestDatabase::create().await.unwrap();
    let server = database.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let proxy = FaultProxy::start(vec![server.parse().unwrap()]).await.unwrap();
    let url = database.url().replace(&server, &proxy.address().to_string());
    let service = Service::start(&url, &[]).await;
    until("it is ready", async || is_ready(&service).await && grpc_health(&service).await == "SERVING").await;

    proxy.stall(true);
    until("it is not ready", async || !is_ready(&service).await).await;
    let (status, text) = service.admin("/readyz").await;
    assert_eq!(status, 503);
    assert!(text == "the database does not answer in time\n" || text.contains("unavailable"), "{text}");
    assert_eq!(service.admin("/livez").await, (200, "ok\n".to_owned()));
    until("gRPC health says so", async || grpc_health(&service).await == "NOT_SERVING").await;
    proxy.stall(false);
    until("it is ready again", async || is_ready(&service).await && grpc_health(&service).await == "SERVING").await;

    proxy.cut();
    until("it is ready after its connections broke", async || is_ready(&service).await).await;
}

#[tokio::test]
async fn an_older_schema_makes_it_unready_and_a_newer_one_does_not() {
    let (database, _store, _) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    until("it is ready", async || is_ready(&service).await).await;
    let client = database.client().await.unwrap();
    let known = schema::known_version();
    client
        .batch_execute(&format!("UPDATE refinery_schema_history SET version = {} WHERE version = {known}", known + 1))
        .await
        .unwrap();
    assert!(is_ready(&service).await, "a migration that runs ahead does not take it out");
    client.batch_execute(&format!("DELETE FROM refinery_schema_history WHERE version > {}", known - 1)).await.unwrap();
    let (status, text) = service.admin("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("run `connlogctl migrate`"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_stays_full_makes_it_unready_until_it_drains() {
    let (database, _store, sites) = database_with(1).await;
    let flags = ["--max-queued-events", "40", "--max-batch-events", "10", "--max-transaction-events", "10"];
    let service = Service::start(database.url(), &flags).await;
    until("it is ready", async || is_ready(&service).await).await;
    // Nothing can be committed.
    let mut blocker = database.client().await.unwrap();
    let blocking = blocker.transaction().await.unwrap();
    blocking.batch_execute("LOCK TABLE connection_logs IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let mut last = 0;
    for _ in 0..10 {
        last = stream.send((0..10).map(|_| connect(Uuid::new_v4(), minutes_ago(5))).collect()).await;
    }
    until("it says so", async || {
        service.admin("/readyz").await == (503, "too many events wait for a commit\n".to_owned())
    })
    .await;
    until("gRPC health, too", async || grpc_health(&service).await == "NOT_SERVING").await;
    assert_eq!(service.admin("/livez").await.0, 200);
    blocking.rollback().await.unwrap();
    stream.acked(last).await.unwrap();
    until("it is ready again", async || is_ready(&service).await && grpc_health(&service).await == "SERVING").await;
}
