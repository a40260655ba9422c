//! Clients that compress their messages, and clients whose token is revoked.

mod support;

use std::time::Duration;

use connlog_proto::v1;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::wait::until;
use support::{HelloOf, Service, Stream, authorized, client, connect, database_with, disconnect, minutes_ago, number};
use tonic::Code;
use tonic::codec::CompressionEncoding::Gzip;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compressed_is_taken_within_the_same_limits() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &["--max-message-bytes", "100000"]).await;
    let mut client = client(service.address).await.send_compressed(Gzip);
    let report = |reason: String| {
        let connection = v1::Connection { reason: Some(reason), ..connect(Uuid::new_v4(), minutes_ago(5)) };
        authorized(v1::ReportConnectionRequest { connection: Some(connection) }, &sites[0].token)
    };
    client.report_connection(report("a".repeat(50_000))).await.unwrap();
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 1);
    // A few hundred bytes on the wire.
    let refused = client.report_connection(report("a".repeat(200_000))).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::Internal | Code::ResourceExhausted), "{refused}");
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_ends_its_streams_on_every_replica_and_no_other() {
    let (database, store, sites) = database_with(2).await;
    let flags = ["--token-cache", "10m"];
    let replicas = [Service::start(database.url(), &flags).await, Service::start(database.url(), &flags).await];
    let mut revoked = Vec::new();
    for replica in &replicas {
        revoked.push(Stream::open(replica.address, &sites[0].token, &HelloOf::new()).await.unwrap());
    }
    let mut other = Stream::open(replicas[0].address, &sites[1].token, &HelloOf::new()).await.unwrap();
    for stream in revoked.iter_mut().chain([&mut other]) {
        let seq = stream.send(vec![connect(Uuid::new_v4(), minutes_ago(5))]).await;
        stream.acked(seq).await.unwrap();
    }
    assert_eq!(store.revoke_agents(sites[0].agent.agent_id, None, now()).await.unwrap(), 1);
    for stream in &mut revoked {
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.ack()).await.expect("within ten seconds");
        assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    }
    // A directory that still has the token does not bring it back.
    fixtures::import(&store, &sites[0].directory, now()).await.unwrap();
    for replica in &replicas {
        let refused = Stream::open(replica.address, &sites[0].token, &HelloOf::new()).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let seq = other.send(vec![connect(Uuid::new_v4(), minutes_ago(5))]).await;
    other.acked(seq).await.unwrap();
    assert_eq!(store.revoke_agents(None, Some(sites[1].agent.workspace.workspace_id), now()).await.unwrap(), 1);
    until("the other one's has ended, too", async || {
        tokio::time::timeout(Duration::from_secs(1), other.ack()).await.is_ok_and(|ack| ack.is_err())
    })
    .await;
}

/// Without this, whoever kept a token that was replaced writes with it for another day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_replaced_is_for_what_happened_before() {
    let (database, _store, sites) = database_with(1).await;
    let client_of_database = database.client().await.unwrap();
    let an_hour_ago = "UPDATE agent_tokens SET expires_at = now() + interval '23 hours'";
    client_of_database.batch_execute(an_hour_ago).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let token = &sites[0].token;
    let mut stream = Stream::open(service.address, token, &HelloOf::new()).await.unwrap();
    let (before, after) = (Uuid::new_v4(), Uuid::new_v4());
    let last = stream.send(vec![connect(before, minutes_ago(90)), connect(after, minutes_ago(30))]).await;
    stream.acked(last - 1).await.unwrap();
    assert_eq!(stream.ack().await.unwrap_err().code(), Code::Unauthenticated, "nothing of it is lost: it comes again");
    let mut calls = client(service.address).await;
    let mut call = async |minutes: i64| {
        let connection = Some(connect(Uuid::new_v4(), minutes_ago(minutes)));
        calls.report_connection(authorized(v1::ReportConnectionRequest { connection }, token)).await
    };
    call(80).await.unwrap();
    assert_eq!(call(20).await.unwrap_err().code(), Code::Unauthenticated);
    let rows = "SELECT count(*) FROM connection_logs";
    assert_eq!(number(&client_of_database, rows).await, 2);
    assert_eq!(number(&client_of_database, "SELECT count(*) FROM rejected_events").await, 0);
    // An agent that was deleted has no other token, and its connections end after that.
    let mark = |deleted: bool| format!("UPDATE workspace_agents SET deleted = {deleted}, deleted_at = now()");
    client_of_database.batch_execute(&mark(true)).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let mut stream = Stream::open(service.address, token, &HelloOf::new()).await.unwrap();
    let last = stream.send(vec![disconnect(before, minutes_ago(10))]).await;
    assert_eq!(stream.acked(last).await.unwrap(), []);
    client_of_database.batch_execute(&mark(false)).await.unwrap();
    // With the next token all of it goes.
    client_of_database.batch_execute("UPDATE agent_tokens SET expires_at = NULL").await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let mut stream = Stream::open(service.address, token, &HelloOf::new()).await.unwrap();
    let last = stream.send(vec![connect(after, minutes_ago(30))]).await;
    stream.acked(last).await.unwrap();
    assert_eq!(number(&client_of_database, rows).await, 3);
}
