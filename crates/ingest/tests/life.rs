//! Signs of life: ends that the server infers, and what it must not infer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_proto::v1;
use connlog_store::directory::DirectoryEntry;
use connlog_store::{Store, StoreConfig, roles, schema};
use connlog_testkit::database::connect as database_client;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::postgres::{Options, PostgresServer};
use connlog_testkit::wait::until;
use support::{
    HelloOf, Service, Stream, authorized, client, connect, database_with, disconnect, import_sites, minutes_ago, number,
};
use tonic::Code;
use uuid::Uuid;

const ONGOING: &str = "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL";
const ENDED: &str = "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NOT NULL";

#[tokio::test]
async fn an_hour_without_ingest_closes_nothing_of_a_live_agent() {
    let (database, store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &[]).await;
    let (mut alive, hello, id) = opened(&service, &sites[0].token).await;
    let (dead, ..) = opened(&service, &sites[1].token).await;
    alive.heartbeat(&[id]).await;
    drop(dead);
    assert!(service.stop().await);

    // An hour later an ingest is there again; the first rounds of its watch come before any agent does.
    let service = Service::start(database.url(), &[]).await;
    service.clock.advance(TimeDelta::hours(1));
    let watch = async |now: Timestamp| {
        let heard_since = store.attend(now, TimeDelta::seconds(60)).await.unwrap();
        store.sweep_silent(now, heard_since, TimeDelta::minutes(10)).await.unwrap().len()
    };
    let back = now() + TimeDelta::hours(1);
    assert_eq!(watch(back).await, 0, "nobody could have been heard");
    let client = database.client().await.unwrap();
    let mut alive =
        Stream::open(service.address, &sites[0].token, &HelloOf { listed: vec![id], ..hello }).await.unwrap();
    for minute in 1..=9 {
        assert_eq!(watch(back + TimeDelta::minutes(minute)).await, 0, "everybody has the full time again");
    }
    service.clock.advance(TimeDelta::minutes(9));
    alive.heartbeat(&[id]).await;
    until("the sign of life is noted", async || {
        let sql = "SELECT count(*) FROM agent_spools WHERE last_seen_at > now() + interval '65 minutes'";
        number(&client, sql).await == 1
    })
    .await;
    assert_eq!(watch(back + TimeDelta::minutes(9) + TimeDelta::seconds(50)).await, 0);
    assert_eq!(watch(back + TimeDelta::minutes(10) + TimeDelta::seconds(30)).await, 1, "the dead one is closed");
    assert_eq!((number(&client, ONGOING).await, number(&client, ENDED).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_without_the_database_closes_nothing_of_a_live_agent() {
    let mut server = PostgresServer::start(Options::durable()).unwrap();
    let url = server.url("postgres");
    let store = Store::new(&StoreConfig::new(&url, "test", 2)).unwrap();
    schema::migrate(&store).await.unwrap();
    roles::set_up(&store).await.unwrap();
    let site = import_sites(&store, 1).await.remove(0);
    let service = Service::start(&url, &[]).await;
    let (mut stream, _, id) = opened(&service, &site.token).await;
    stream.heartbeat(&[id]).await;
    let client = database_client(&url).await.unwrap();
    until("somebody attends", async || number(&client, "SELECT count(*) FROM ingest_attendance").await == 1).await;

    server.stop_immediately().unwrap();
    service.clock.advance(TimeDelta::hours(1));
    server.restart().unwrap();
    let client = database_client(&url).await.unwrap();
    // The watch of the service itself, by its own clock.
    until("somebody attends again", async || {
        number(&client, "SELECT count(*) FROM ingest_attendance WHERE heard_since > now() + interval '50 minutes'")
            .await
            == 1
    })
    .await;
    assert_eq!((number(&client, ONGOING).await, number(&client, ENDED).await), (1, 0));
    stream.heartbeat(&[id]).await;
    until("the agent is heard", async || {
        number(&client, "SELECT count(*) FROM agent_spools WHERE last_seen_at > now() + interval '50 minutes'").await
            == 1
    })
    .await;
    assert_eq!(number(&client, ONGOING).await, 1);
}

/// A stream with one connection open.
async fn opened(service: &Service, token: &str) -> (Stream, HelloOf, Uuid) {
    let hello = HelloOf::new();
    let mut stream = Stream::open(service.address, token, &hello).await.unwrap();
    let id = Uuid::new_v4();
    let last = stream.send(vec![connect(id, minutes_ago(30))]).await;
    stream.acked(last).await.unwrap();
    (stream, hello, id)
}

/// Sends a heartbeat that lists `listed`, and waits until what it led to is committed: it is stamped in the same
/// transaction.
async fn heard(client: &tokio_postgres::Client, service: &Service, stream: &mut Stream, listed: &[Uuid]) {
    let sql = "SELECT (extract(epoch FROM max(last_seen_at)) * 1000000)::bigint FROM agent_spools";
    service.clock.advance(TimeDelta::seconds(1));
    let before = number(client, sql).await;
    stream.heartbeat(listed).await;
    until("the sign of life is noted", async || number(client, sql).await > before).await;
}

/// Sweeps until one connection has ended. What somebody holds is left for the next round, and ingest may still be at work.
async fn sweep_ends_one(store: &Store, after: TimeDelta) {
    let mut ended = 0;
    until("the sweep ends it", async || {
        ended += sweep(store, after).await;
        ended > 0
    })
    .await;
    assert_eq!(ended, 1);
}

async fn sweep(store: &Store, after: TimeDelta) -> usize {
    store.sweep_silent(now() + after, minutes_ago(600), TimeDelta::minutes(10)).await.unwrap().len()
}

#[tokio::test]
async fn what_a_silent_agent_had_open_ends_at_its_last_sign_of_life_and_reopens_when_it_returns() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (stream, hello, id) = opened(&service, &sites[0].token).await;
    drop(stream);
    assert_eq!(sweep(&store, TimeDelta::minutes(9)).await, 0);
    sweep_ends_one(&store, TimeDelta::minutes(11)).await;
    let client = database.client().await.unwrap();
    let sql = "SELECT h.disconnect_inferred AND h.code IS NULL AND h.disconnect_reason = 'agent lost' AND h.disconnect_time = p.last_seen_at
               FROM connection_logs h, agent_spools p";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));

    let mut stream =
        Stream::open(service.address, &sites[0].token, &HelloOf { listed: vec![id], ..hello }).await.unwrap();
    until("it is open again", async || number(&client, ONGOING).await == 1).await;
    assert_eq!(number(&client, ENDED).await, 0);
    assert_eq!(number(&client, "SELECT sum(entries - ended)::bigint FROM connection_log_counts").await, 1);
    assert_eq!(number(&client, "SELECT sum(ended)::bigint FROM connection_log_counts").await, 0);

    // A real end stays, whatever is listed.
    stream.next_seq = 2;
    let last = stream.send(vec![disconnect(id, minutes_ago(1))]).await;
    stream.acked(last).await.unwrap();
    heard(&client, &service, &mut stream, &[id]).await;
    let last = stream.send(vec![connect(Uuid::new_v4(), minutes_ago(1))]).await;
    stream.acked(last).await.unwrap();
    assert_eq!(
        number(
            &client,
            "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NOT NULL AND NOT disconnect_inferred"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_real_disconnect_replaces_an_inferred_one() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (stream, hello, id) = opened(&service, &sites[0].token).await;
    drop(stream);
    sweep_ends_one(&store, TimeDelta::minutes(11)).await;
    let mut stream = Stream::open(service.address, &sites[0].token, &hello).await.unwrap();
    stream.next_seq = 2;
    let last = stream.send(vec![disconnect(id, minutes_ago(20))]).await;
    stream.acked(last).await.unwrap();
    let client = database.client().await.unwrap();
    let row = client
        .query_one("SELECT disconnect_inferred, disconnect_reason, code FROM connection_logs", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, &str>(1), row.get::<_, i32>(2)), (false, "bye", 1));
}

#[tokio::test]
async fn a_new_boot_ends_what_the_old_one_had_open_once_its_spool_is_committed() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (mut stream, hello, ended) = opened(&service, &sites[0].token).await;
    let (kept, forgotten) = (Uuid::new_v4(), Uuid::new_v4());
    let last = stream.send(vec![connect(kept, minutes_ago(20)), connect(forgotten, minutes_ago(20))]).await;
    stream.acked(last).await.unwrap();
    drop(stream);
    // The new boot lists one; the disconnect of another is still in the spool, at 4.
    let reboot = HelloOf { boot: Uuid::new_v4(), listed: vec![kept], last_seq: 4, ..hello };
    let mut stream = Stream::open(service.address, &sites[0].token, &reboot).await.unwrap();
    let client = database.client().await.unwrap();
    stream.next_seq = 4;
    let last = stream.send(vec![disconnect(ended, minutes_ago(10))]).await;
    stream.acked(last).await.unwrap();
    until("the forgotten one is closed", async || number(&client, ONGOING).await == 1).await;
    let rows = client
        .query(
            "SELECT connection_id, disconnect_inferred, disconnect_reason FROM connection_logs
             WHERE disconnect_time IS NOT NULL ORDER BY disconnect_inferred",
            &[],
        )
        .await
        .unwrap();
    let found: Vec<(Uuid, bool, &str)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(found, [(ended, false, "bye"), (forgotten, true, "agent restarted")]);
    let open: Uuid = client
        .query_one("SELECT connection_id FROM connection_logs WHERE disconnect_time IS NULL", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(open, kept);
}

#[tokio::test]
async fn a_connection_that_two_heartbeats_do_not_list_is_closed_because_its_disconnect_was_lost() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (mut stream, _, listed) = opened(&service, &sites[0].token).await;
    let last = stream.send(vec![connect(Uuid::new_v4(), minutes_ago(20))]).await;
    stream.acked(last).await.unwrap();
    let client = database.client().await.unwrap();
    until("both are seen as open", async || number(&client, ONGOING).await == 2).await;
    // However many signs of life it takes: the first that does not list it only takes note.
    until("the unlisted one is closed", async || {
        stream.heartbeat(&[listed]).await;
        number(&client, ONGOING).await == 1
    })
    .await;
    let row = client
        .query_one(
            "SELECT disconnect_inferred, disconnect_reason FROM connection_logs WHERE disconnect_time IS NOT NULL",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, &str>(1)), (true, "disconnect lost"));
}

#[tokio::test]
async fn unary_agents_are_never_swept() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let request = v1::ReportConnectionRequest { connection: Some(connect(Uuid::new_v4(), minutes_ago(600))) };
    client(service.address).await.report_connection(authorized(request, &sites[0].token)).await.unwrap();
    assert_eq!(sweep(&store, TimeDelta::days(30)).await, 0);
    assert_eq!(number(&database.client().await.unwrap(), ONGOING).await, 1);
}

#[tokio::test]
async fn what_single_calls_reported_ends_without_an_end_if_the_operator_says_so() {
    let (database, store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &["--unary-lost-after", "2d"]).await;
    let mut calls = client(service.address).await;
    let report =
        |event: v1::Connection, token: &str| authorized(v1::ReportConnectionRequest { connection: Some(event) }, token);
    let (old, days_ago) = (Uuid::new_v4(), |days: i64| minutes_ago(days * 1440));
    calls.report_connection(report(connect(old, days_ago(5)), &sites[0].token)).await.unwrap();
    calls.report_connection(report(connect(Uuid::new_v4(), days_ago(1)), &sites[1].token)).await.unwrap();
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let streamed = stream.send(vec![connect(Uuid::new_v4(), days_ago(5))]).await;
    stream.acked(streamed).await.unwrap();
    store.close_days(now()).await.unwrap();
    let client = database.client().await.unwrap();
    until("the old one has ended", async || number(&client, ENDED).await == 1).await;
    let inferred = "SELECT count(*) FROM connection_logs
        WHERE disconnect_inferred AND disconnect_reason = 'no end came' AND disconnect_time = connect_time";
    assert_eq!((number(&client, inferred).await, number(&client, ONGOING).await), (1, 2));
    calls.report_connection(report(disconnect(old, days_ago(4)), &sites[0].token)).await.unwrap();
    assert_eq!((number(&client, inferred).await, number(&client, ENDED).await), (0, 1), "a real end takes its place");
}

#[tokio::test]
async fn deleting_a_workspace_closes_what_it_had_open_and_lets_its_spool_drain() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (mut stream, _, id) = opened(&service, &sites[0].token).await;
    let workspace = &sites[0].agent.workspace;
    let deletion = DirectoryEntry::Workspace {
        id: workspace.workspace_id,
        organization_id: workspace.organization_id,
        owner_id: workspace.owner_id,
        name: workspace.workspace_name.clone(),
        deleted: true,
    };
    let deleted_at = minutes_ago(3);
    fixtures::import(&store, &[deletion], deleted_at).await.unwrap();
    assert_eq!(store.sweep_deleted().await.unwrap().len(), 1);
    let client = database.client().await.unwrap();
    let row = client.query_one("SELECT disconnect_time, disconnect_reason FROM connection_logs", &[]).await.unwrap();
    assert_eq!((row.get::<_, Timestamp>(0), row.get::<_, &str>(1)), (deleted_at, "workspace deleted"));
    // Its agent still lists it, which changes nothing; what its spool holds is accepted.
    heard(&client, &service, &mut stream, &[id]).await;
    assert_eq!((number(&client, ONGOING).await, number(&client, ENDED).await), (0, 1));
    let last = stream.send(vec![disconnect(id, minutes_ago(4))]).await;
    stream.acked(last).await.unwrap();
    assert_eq!((number(&client, ONGOING).await, number(&client, ENDED).await), (0, 1));
}

#[tokio::test]
async fn a_newer_stream_of_a_spool_displaces_the_older_on_any_replica() {
    let (database, _store, sites) = database_with(1).await;
    let (first, second) = (Service::start(database.url(), &[]).await, Service::start(database.url(), &[]).await);
    let hello = HelloOf::new();
    let mut oldest = Stream::open(first.address, &sites[0].token, &hello).await.unwrap();
    let mut older = Stream::open(first.address, &sites[0].token, &hello).await.unwrap();
    assert_eq!(oldest.ack().await.unwrap_err().code(), Code::Aborted, "at once within a process");
    let mut newest = Stream::open(second.address, &sites[0].token, &hello).await.unwrap();
    older.send(vec![connect(Uuid::new_v4(), minutes_ago(1))]).await;
    assert_eq!(older.ack().await.unwrap_err().code(), Code::Aborted, "at the next commit on another replica");
    let last = newest.send(vec![connect(Uuid::new_v4(), minutes_ago(1))]).await;
    newest.acked(last).await.unwrap();
    let other = HelloOf { spool: Uuid::new_v4(), ..hello };
    let mut clone = Stream::open(second.address, &sites[0].token, &other).await.unwrap();
    let last = clone.send(vec![connect(Uuid::new_v4(), minutes_ago(1))]).await;
    clone.acked(last).await.unwrap();
    let last = newest.send(vec![connect(Uuid::new_v4(), minutes_ago(1))]).await;
    newest.acked(last).await.unwrap();
}

#[tokio::test]
async fn ten_thousand_connections_of_agents_that_die_together_are_closed_in_one_sweep() {
    let (database, store, sites) = database_with(100).await;
    let service = Service::start(database.url(), &[]).await;
    for site in &sites {
        let mut stream = Stream::open(service.address, &site.token, &HelloOf::new()).await.unwrap();
        let last = stream.send((0..100).map(|_| connect(Uuid::new_v4(), minutes_ago(5))).collect()).await;
        stream.acked(last).await.unwrap();
    }
    // Ingest goes on meanwhile.
    let mut other = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let swept = tokio::spawn({
        let store = store.clone();
        async move { sweep(&store, TimeDelta::minutes(11)).await }
    });
    let last = other.send(vec![connect(Uuid::new_v4(), minutes_ago(1))]).await;
    other.acked(last).await.unwrap();
    let mut ended = swept.await.unwrap();
    until("the next sweeps end what somebody held", async || {
        ended += sweep(&store, TimeDelta::minutes(11)).await;
        ended >= 9_900
    })
    .await;
    let client = database.client().await.unwrap();
    let sql = "SELECT count(*) FROM connection_logs WHERE disconnect_inferred";
    assert!(number(&client, sql).await >= 9_900);
}

#[tokio::test]
async fn a_reconnect_does_not_file_what_an_earlier_boot_left_in_the_spool_under_the_new_one() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (stream, hello, _) = opened(&service, &sites[0].token).await;
    drop(stream);
    // The new boot finds events 2 and 3 of the old one in the spool, and loses its first stream after 2.
    let reboot = HelloOf { boot: Uuid::new_v4(), last_seq: 3, ..hello };
    for seq in [2, 3] {
        let mut stream = Stream::open(service.address, &sites[0].token, &reboot).await.unwrap();
        stream.next_seq = seq;
        stream.send(vec![connect(Uuid::new_v4(), minutes_ago(20))]).await;
        stream.acked(seq).await.unwrap();
        if seq == 3 {
            let client = database.client().await.unwrap();
            until("all of the old boot is closed", async || number(&client, ONGOING).await == 0).await;
            let sql = "SELECT count(*) FROM connection_logs WHERE disconnect_reason = 'agent restarted'";
            assert_eq!(number(&client, sql).await, 3);
        }
    }
}

#[tokio::test]
async fn what_a_reporter_filed_before_the_agent_was_known_becomes_the_agents() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let id = Uuid::new_v4();
    let mut unknown = (*sites[0].agent).clone();
    unknown.agent_id = None;
    let event = fixtures::connect(&Arc::new(unknown), id.as_u128(), minutes_ago(30));
    let batch = connlog_store::write::Batch { events: vec![event], ..Default::default() };
    store.apply_batch(&batch, 1, now()).await.unwrap();
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let last = stream.send(vec![connect(id, minutes_ago(30))]).await;
    stream.acked(last).await.unwrap();
    drop(stream);
    sweep_ends_one(&store, TimeDelta::minutes(11)).await;
}

#[tokio::test]
async fn a_disconnect_completes_a_connection_whose_day_is_gone() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let id = Uuid::new_v4();
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let last = stream.send(vec![connect(id, minutes_ago(3 * 1440))]).await;
    stream.acked(last).await.unwrap();
    // A purge as of the future drops the day, and keeps what a live agent has open.
    store.drop_day(minutes_ago(3 * 1440).date_naive(), std::time::Duration::from_secs(5)).await.unwrap();
    let last = stream.send(vec![disconnect(id, minutes_ago(1))]).await;
    stream.acked(last).await.unwrap();
    let client = database.client().await.unwrap();
    assert_eq!((number(&client, ONGOING).await, number(&client, ENDED).await), (0, 1));
}

#[tokio::test]
async fn an_agent_whose_clock_is_an_hour_off_keeps_the_order_of_its_own_events() {
    let (database, _store, sites) = database_with(2).await;
    let service = Service::start(database.url(), &[]).await;
    for (site, off) in sites.iter().zip([TimeDelta::hours(1), -TimeDelta::hours(1)]) {
        let mut stream = Stream::open(service.address, &site.token, &HelloOf::new()).await.unwrap();
        let (id, began) = (Uuid::new_v4(), now() + off);
        let ended = began + TimeDelta::seconds(5);
        // The end is delivered first, and apart.
        let last = stream.send(vec![disconnect(id, ended)]).await;
        stream.acked(last).await.unwrap();
        let last = stream.send(vec![connect(id, began)]).await;
        stream.acked(last).await.unwrap();
        stream.heartbeat(&[]).await;
        let client = database.client().await.unwrap();
        let sql = "SELECT connect_time, disconnect_time FROM connection_logs WHERE connection_id = $1 AND NOT disconnect_inferred";
        let row = client.query_one(sql, &[&id]).await.unwrap();
        assert_eq!((row.get::<_, Timestamp>(0), row.get::<_, Timestamp>(1)), (began, ended));
    }
}

#[tokio::test]
async fn two_live_spools_of_one_agent_leave_each_other_alone_until_one_dies() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (mut one, _, of_one) = opened(&service, &sites[0].token).await;
    let (mut two, _, of_two) = opened(&service, &sites[0].token).await;
    let client = database.client().await.unwrap();
    for _ in 0..4 {
        heard(&client, &service, &mut one, &[of_one]).await;
        heard(&client, &service, &mut two, &[of_two]).await;
        assert_eq!(number(&client, ONGOING).await, 2);
    }
    assert_eq!(number(&client, ENDED).await, 0);
    // The second dies; the first lives on.
    drop(two);
    service.clock.advance(TimeDelta::minutes(20));
    heard(&client, &service, &mut one, &[of_one]).await;
    sweep_ends_one(&store, TimeDelta::minutes(21)).await;
    let open: Uuid = client
        .query_one("SELECT connection_id FROM connection_logs WHERE disconnect_time IS NULL", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(open, of_one);
}

#[tokio::test]
async fn a_boot_that_came_and_went_before_anything_was_closed_does_not_move_the_end() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let (stream, hello, _) = opened(&service, &sites[0].token).await;
    drop(stream);
    let client = database.client().await.unwrap();
    let seen = "SELECT (extract(epoch FROM last_seen_at) * 1000000)::bigint FROM agent_spools";
    let died_at = number(&client, seen).await;
    // A boot is greeted, and its stream is cut before it closes anything.
    let between = connlog_store::infer::Hello {
        agent: Arc::clone(&sites[0].agent),
        spool_id: hello.spool,
        boot_id: Uuid::new_v4(),
        stream_id: Uuid::new_v4(),
        first_unacked_seq: 2,
        last_seq: 1,
        received_at: now() + TimeDelta::hours(2),
    };
    store.greet(&between).await.unwrap();
    service.clock.advance(TimeDelta::hours(3));
    let reboot = HelloOf { boot: Uuid::new_v4(), last_seq: 1, ..hello };
    let _stream = Stream::open(service.address, &sites[0].token, &reboot).await.unwrap();
    until("it is closed", async || number(&client, ONGOING).await == 0).await;
    let ended = "SELECT (extract(epoch FROM disconnect_time) * 1000000)::bigint FROM connection_logs";
    assert_eq!(number(&client, ended).await, died_at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_with_a_wrong_clock_takes_no_agent_of_the_others_for_lost() {
    let (database, _, sites) = database_with(1).await;
    let right = Service::start(database.url(), &[]).await;
    let (mut stream, _, id) = opened(&right, &sites[0].token).await;
    stream.heartbeat(&[id]).await;
    let client = database.client().await.unwrap();
    until("somebody attends", async || number(&client, "SELECT count(*) FROM ingest_attendance").await == 1).await;

    let wrong = support::Binary::start_at("+3h", database.url());
    until("its first round is over", async || {
        let metrics =
            reqwest::get(format!("http://{}/metrics", wrong.admin_address)).await.unwrap().text().await.unwrap();
        let lead = metrics.lines().find_map(|line| line.strip_prefix("connlog_ingest_clock_lead_seconds "));
        lead.is_some_and(|lead| (lead.parse::<f64>().unwrap() - 10_800.0).abs() < 60.0)
    })
    .await;
    let attended = "SELECT count(*) FROM ingest_attendance WHERE attended_at > now() + interval '1 hour'";
    assert_eq!(number(&client, attended).await, 0, "it attends to nobody");
    assert_eq!((number(&client, ONGOING).await, number(&client, ENDED).await), (1, 0));
    assert!(right.stop().await);
}
