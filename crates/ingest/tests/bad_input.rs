//! Bad input gets its documented answer, and what was well-formed is kept as a dead letter.

mod support;

use chrono::TimeDelta;
use connlog_model::role::Role;
use connlog_proto::coder::agent_client::AgentClient;
use connlog_proto::v1::directory_client::DirectoryClient;
use connlog_proto::{coder, v1};
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::wait::until;
use prost::Message as _;
use support::{
    HelloOf, Service, Stream, authorized, channel, client, connect, database_with, disconnect, minutes_ago, number,
    timestamp, web,
};
use tonic::Code;
use uuid::Uuid;

fn reported(site: &fixtures::Site, event: v1::reported_event::Event) -> v1::ReportedEvent {
    v1::ReportedEvent {
        workspace_id: site.agent.workspace.workspace_id.as_bytes().to_vec(),
        agent_name: "main".to_owned(),
        user_id: Vec::new(),
        event: Some(event),
        ..v1::ReportedEvent::default()
    }
}

#[tokio::test]
async fn unacceptable_events_are_named_kept_and_passed() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let good = || connect(Uuid::new_v4(), minutes_ago(5));
    #[expect(deprecated, reason = "existing agents still send the type")]
    let cases: Vec<(&str, v1::Connection)> = vec![
        ("id", v1::Connection { id: vec![0; 16], ..good() }),
        ("id", v1::Connection { id: vec![7; 15], ..good() }),
        ("id", v1::Connection { id: Vec::new(), ..good() }),
        ("action", v1::Connection { action: 0, ..good() }),
        ("action", v1::Connection { action: 9, ..good() }),
        ("type", v1::Connection { app_name: String::new(), r#type: 77, ..good() }),
        ("timestamp", v1::Connection { timestamp: Some(timestamp(now() + TimeDelta::hours(25))), ..good() }),
        ("timestamp", v1::Connection { timestamp: Some(timestamp(now() - TimeDelta::days(401))), ..good() }),
        (
            "timestamp",
            v1::Connection { timestamp: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), ..good() },
        ),
        (
            "connected_at",
            v1::Connection {
                connected_at: Some(timestamp(now() - TimeDelta::days(401))),
                ..disconnect(Uuid::new_v4(), minutes_ago(5))
            },
        ),
        ("client_session_id", v1::Connection { client_session_id: vec![1; 3], ..good() }),
        ("rx_bytes", v1::Connection { rx_bytes: u64::MAX, ..disconnect(Uuid::new_v4(), minutes_ago(5)) }),
    ];

    // By a call each.
    let mut unary = client(service.address).await;
    for (field, event) in &cases {
        let request = v1::ReportConnectionRequest { connection: Some(event.clone()) };
        let status = unary.report_connection(authorized(request, &sites[0].token)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
        assert!(status.message().starts_with(&format!("{field}: ")), "{status}");
    }
    let status =
        unary.report_connection(authorized(v1::ReportConnectionRequest::default(), &sites[0].token)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "connection: is missing"));
    let database = database.client().await.unwrap();
    let kept = async || number(&database, "SELECT count(*) FROM rejected_events").await;
    assert_eq!(kept().await, i64::try_from(cases.len()).unwrap());

    // Over a stream, between good ones, twice: a replay is the same letter.
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let events: Vec<v1::Connection> = cases.iter().flat_map(|(_, event)| [good(), event.clone()]).collect();
    let last = stream.send(events.clone()).await;
    let rejected = stream.acked(last).await.unwrap();
    let expected: Vec<(u64, &str)> = cases.iter().zip(1..).map(|((field, _), number)| (number * 2, *field)).collect();
    let found: Vec<(u64, &str)> = rejected.iter().map(|rejection| (rejection.seq, rejection.field.as_str())).collect();
    assert_eq!(found, expected);
    stream.next_seq = 1;
    stream.send(events).await;
    stream.ack().await.unwrap();
    assert_eq!(kept().await, i64::try_from(cases.len() * 2).unwrap());
    let message: Vec<u8> =
        database.query_one("SELECT message FROM rejected_events WHERE seq = 2", &[]).await.unwrap().get(0);
    let kept = v1::SequencedEvent::decode(&message[..]).unwrap();
    let received = v1::sequenced_event::Event::Connection(cases[0].1.clone());
    assert_eq!((kept.seq, kept.event), (2, Some(received)), "it is kept as it was received");
}

#[tokio::test]
async fn what_can_be_mended_is_mended() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let mut unary = client(service.address).await;
    let mut ids = Vec::new();
    for ip in ["not an address", "localhost", "10.0.0.1:22", "fe80::1%eth0", "::ffff:192.0.2.1"] {
        let id = Uuid::new_v4();
        ids.push(id);
        let event = v1::Connection {
            ip: ip.to_owned(),
            app_name: format!("Ed\0itor-{}", "x".repeat(100)),
            reason: Some(format!("nul\0 and {}", "é".repeat(2_000))),
            ..disconnect(id, minutes_ago(5))
        };
        let request = v1::ReportConnectionRequest { connection: Some(event) };
        unary.report_connection(authorized(request, &sites[0].token)).await.unwrap();
    }
    let database = database.client().await.unwrap();
    let sql = "SELECT host(ip), app_name, disconnect_reason FROM connection_logs WHERE connection_id = $1";
    for (id, ip) in ids.iter().zip([None, Some("127.0.0.1"), Some("10.0.0.1"), Some("fe80::1"), Some("192.0.2.1")]) {
        let row = database.query_one(sql, &[id]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), ip);
        let (app, reason): (&str, &str) = (row.get(1), row.get(2));
        assert!(app.starts_with("editor_xxx") && app.chars().count() == 64, "{app}");
        assert!(reason.starts_with("nul and éé") && reason.len() == 1024, "{} bytes", reason.len());
    }
}

#[tokio::test]
async fn oversized_and_broken_messages_are_refused_and_change_nothing() {
    let (database, store, sites) = database_with(1).await;
    let reporter = fixtures::api_token(&store, Role::Reporter, None, None, now()).await.unwrap();
    let service = Service::start(database.url(), &["--max-message-bytes", "20000", "--max-batch-events", "10"]).await;
    let mut calls = client(service.address).await;
    let event = v1::Connection { reason: Some("x".repeat(30_000)), ..disconnect(Uuid::new_v4(), minutes_ago(5)) };
    let request = v1::ReportConnectionRequest { connection: Some(event) };
    let status = calls.report_connection(authorized(request, &sites[0].token)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");

    let events = (0..11)
        .map(|_| reported(&sites[0], v1::reported_event::Event::Web(web(Uuid::new_v4(), minutes_ago(5)))))
        .collect();
    let status = calls.report_events(authorized(v1::ReportEventsRequest { events }, &reporter)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "events: has 11 entries, at most 10 are accepted")
    );

    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    stream.send((0..11).map(|_| connect(Uuid::new_v4(), minutes_ago(5))).collect()).await;
    assert_eq!(stream.ack().await.unwrap_err().code(), Code::InvalidArgument);

    // Truncated protobuf: a length-delimited field that promises more than there is.
    let mut grpc = tonic::client::Grpc::new(channel(service.address).await);
    grpc.ready().await.unwrap();
    let path = "/connlog.v1.ConnectionLog/ReportConnection".parse().unwrap();
    let broken = authorized(vec![0x0a_u8, 0x40, 0x01], &sites[0].token);
    let outcome: Result<tonic::Response<()>, _> = grpc.unary(broken, path, RawCodec).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Internal);
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 0);
}

/// Sends bytes as they are.
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = RawEncoder;
    type Decoder = NoDecoder;

    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }

    fn decoder(&mut self) -> NoDecoder {
        NoDecoder
    }
}

struct RawEncoder;

impl tonic::codec::Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        use bytes::BufMut as _;
        buffer.put_slice(&item);
        Ok(())
    }
}

struct NoDecoder;

impl tonic::codec::Decoder for NoDecoder {
    type Item = ();
    type Error = tonic::Status;

    fn decode(&mut self, _buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<()>, tonic::Status> {
        Ok(Some(()))
    }
}

#[tokio::test]
async fn a_reporters_events_stand_alone() {
    let (database, store, sites) = database_with(2).await;
    let organization = sites[0].agent.workspace.organization_id;
    let limited = fixtures::api_token(&store, Role::Reporter, None, Some(vec![organization]), now()).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let mut calls = client(service.address).await;
    let good = || reported(&sites[0], v1::reported_event::Event::Web(web(Uuid::new_v4(), minutes_ago(5))));
    let unknown = v1::ReportedEvent { workspace_id: vec![9; 16], ..good() };
    let other = reported(&sites[1], v1::reported_event::Event::Web(web(Uuid::new_v4(), minutes_ago(5))));
    let timeless = v1::WebConnection { timestamp: None, ..web(Uuid::new_v4(), minutes_ago(5)) };
    let timeless = reported(&sites[0], v1::reported_event::Event::Web(timeless));
    let empty = v1::ReportedEvent { event: None, ..good() };
    let user = v1::ReportedEvent { user_id: vec![1], ..good() };
    let on_behalf = v1::ReportedEvent {
        user_id: sites[1].agent.workspace.owner_id.as_bytes().to_vec(),
        ..reported(&sites[0], v1::reported_event::Event::Connection(connect(Uuid::new_v4(), minutes_ago(5))))
    };
    let events = vec![good(), unknown, good(), other, timeless, empty, user, on_behalf];
    let request = v1::ReportEventsRequest { events };
    let response = calls.report_events(authorized(request, &limited)).await.unwrap().into_inner();
    assert_eq!(response.accepted, 3);
    let rejected: Vec<(u64, &str)> = response.rejected.iter().map(|it| (it.seq, it.field.as_str())).collect();
    assert_eq!(rejected, [(1, "workspace_id"), (3, "workspace_id"), (4, "timestamp"), (5, "event"), (6, "user_id")]);
    assert_eq!(response.rejected[0].reason, response.rejected[1].reason, "what is out of reach looks unknown");
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM rejected_events WHERE token_id IS NOT NULL").await, 5);
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs WHERE user_id IS NOT NULL").await, 1);
}

#[tokio::test]
async fn a_workspace_is_known_from_the_moment_it_is_told() {
    let (database, store, _) = database_with(1).await;
    let admin = fixtures::api_token(&store, Role::Admin, None, None, now()).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let mut calls = client(service.address).await;
    let (later, time) = (fixtures::site(77, 1), minutes_ago(5));
    let request = || v1::ReportEventsRequest {
        events: vec![reported(&later, v1::reported_event::Event::Web(web(Uuid::from_u128(5), time)))],
    };
    let response = calls.report_events(authorized(request(), &admin)).await.unwrap().into_inner();
    assert_eq!((response.accepted, response.rejected.len()), (0, 1));
    let database = database.client().await.unwrap();
    let message: Vec<u8> = database.query_one("SELECT message FROM rejected_events", &[]).await.unwrap().get(0);
    assert_eq!(
        v1::ReportedEvent::decode(&message[..]).unwrap(),
        request().events[0],
        "the letter says for which workspace"
    );
    fixtures::import(&store, &later.directory, now()).await.unwrap();
    let response = calls.report_events(authorized(request(), &admin)).await.unwrap().into_inner();
    assert_eq!((response.accepted, response.rejected.len()), (1, 0));
}

#[tokio::test]
async fn numbers_and_lists_have_bounds() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let sequenced = |seq| {
        let event = v1::sequenced_event::Event::Connection(connect(Uuid::new_v4(), minutes_ago(5)));
        v1::SequencedEvent { seq, event: Some(event) }
    };
    for seq in [0, (1 << 53) + 1, u64::MAX / 2, u64::MAX] {
        let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
        stream.send_sequenced(vec![sequenced(seq)]).await;
        assert_eq!(stream.ack().await.unwrap_err().code(), Code::InvalidArgument, "{seq}");
    }
    let listed = (0..10_001).map(|_| Uuid::new_v4()).collect();
    let hello = HelloOf { listed, ..HelloOf::new() };
    let refused = Stream::open(service.address, &sites[0].token, &hello).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_long_message_is_cut_before_it_waits() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let event = v1::Connection {
        id: vec![7; 100_000],
        reason: Some("x".repeat(1_000_000)),
        ip: "y".repeat(100_000),
        ..disconnect(Uuid::new_v4(), minutes_ago(5))
    };
    let request = v1::ReportConnectionRequest { connection: Some(event) };
    let mut calls = client(service.address).await;
    let status = calls.report_connection(authorized(request, &sites[0].token)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let database = database.client().await.unwrap();
    assert!(number(&database, "SELECT length(message)::bigint FROM rejected_events").await < 4_000);
}

#[tokio::test]
async fn each_token_does_only_what_it_is_for() {
    let (database, store, sites) = database_with(1).await;
    let token = async |role| fixtures::api_token(&store, role, None, None, now()).await.unwrap();
    let (auditor, reporter, admin) =
        (token(Role::Auditor).await, token(Role::Reporter).await, token(Role::Admin).await);
    let revoked = token(Role::Reporter).await;
    let id = store.api_tokens().await.unwrap().last().unwrap().id;
    assert!(store.revoke_token(id, now()).await.unwrap());
    let expired = connlog_store::tokens::generate();
    let row = connlog_store::tokens::ApiToken {
        id: Uuid::new_v4(),
        role: Role::Reporter,
        user_id: None,
        organizations: None,
        created_at: now(),
        expires_at: Some(minutes_ago(1)),
        revoked_at: None,
    };
    store.create_token(&row, &connlog_store::tokens::digest(&expired)).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let (mut calls, mut coder_calls) =
        (client(service.address).await, AgentClient::new(channel(service.address).await));
    let mut directory = DirectoryClient::new(channel(service.address).await);

    for (token, as_agent, as_reporter, as_keeper) in [
        (sites[0].token.as_str(), Code::Ok, Code::PermissionDenied, Code::PermissionDenied),
        (&auditor, Code::PermissionDenied, Code::PermissionDenied, Code::PermissionDenied),
        (&reporter, Code::PermissionDenied, Code::Ok, Code::PermissionDenied),
        (&admin, Code::PermissionDenied, Code::Ok, Code::Ok),
        (&revoked, Code::Unauthenticated, Code::Unauthenticated, Code::Unauthenticated),
        (&expired, Code::Unauthenticated, Code::Unauthenticated, Code::Unauthenticated),
        ("wrong", Code::Unauthenticated, Code::Unauthenticated, Code::Unauthenticated),
    ] {
        let event = connect(Uuid::new_v4(), minutes_ago(5));
        let request = v1::ReportConnectionRequest { connection: Some(event) };
        let outcome = calls.report_connection(authorized(request, token)).await;
        assert_eq!(outcome.err().map_or(Code::Ok, |status| status.code()), as_agent, "{token}");
        let request = v1::ReportEventsRequest::default();
        let outcome = calls.report_events(authorized(request, token)).await;
        assert_eq!(outcome.err().map_or(Code::Ok, |status| status.code()), as_reporter, "{token}");
        let outcome = directory.sync(authorized(tokio_stream::empty(), token)).await;
        assert_eq!(outcome.err().map_or(Code::Ok, |status| status.code()), as_keeper, "{token}");
        let outcome = Stream::open(service.address, token, &HelloOf::new()).await;
        assert_eq!(outcome.err().map_or(Code::Ok, |status| status.code()), as_agent, "{token}");
        let connection = coder::Connection {
            id: vec![5; 16],
            action: 1,
            timestamp: Some(timestamp(minutes_ago(5))),
            app_name: "cursor".to_owned(),
            ..coder::Connection::default()
        };
        let request = coder::ReportConnectionRequest { connection: Some(connection) };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("coder-session-token", token.parse().unwrap());
        let outcome = coder_calls.report_connection(request).await;
        assert_eq!(outcome.err().map_or(Code::Ok, |status| status.code()), as_agent, "{token}");
    }
    let request = v1::ReportConnectionRequest { connection: Some(connect(Uuid::new_v4(), minutes_ago(5))) };
    assert_eq!(calls.report_connection(request).await.unwrap_err().code(), Code::Unauthenticated);
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 2);
}

#[tokio::test]
async fn what_lies_below_the_retention_floor_is_refused_and_kept() {
    let (database, store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    store
        .raise_floor(now() - TimeDelta::days(30), TimeDelta::days(30), std::time::Duration::from_secs(5))
        .await
        .unwrap();
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let old = minutes_ago(31 * 1440);
    let (late, ended) = (Uuid::new_v4(), Uuid::new_v4());
    let last = stream
        .send(vec![
            connect(late, old),
            connect(ended, minutes_ago(60)),
            v1::Connection { connected_at: Some(timestamp(old)), ..disconnect(ended, minutes_ago(5)) },
            v1::Connection { connected_at: Some(timestamp(old)), ..disconnect(Uuid::new_v4(), minutes_ago(5)) },
        ])
        .await;
    let rejected: Vec<u64> = stream.acked(last).await.unwrap().iter().map(|rejection| rejection.seq).collect();
    assert_eq!(rejected, [1, 4], "a disconnect that began below the floor completes what is there, and makes nothing");
    let database = database.client().await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM connection_logs").await, 1);
    assert_eq!(number(&database, "SELECT count(*) FROM rejected_events").await, 2);
}

#[tokio::test]
async fn missing_numbers_are_recorded_as_lost_and_counted_by_themselves() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let hello = HelloOf::new();
    let sequenced = |seq, event| v1::SequencedEvent { seq, event: Some(event) };
    let event = || v1::sequenced_event::Event::Connection(connect(Uuid::new_v4(), minutes_ago(5)));
    let lost = |count| {
        v1::sequenced_event::Event::Lost(v1::LostEvents {
            count,
            cause: "spool full".to_owned(),
            ..v1::LostEvents::default()
        })
    };
    let mut stream = Stream::open(service.address, &sites[0].token, &hello).await.unwrap();
    stream
        .send_sequenced(vec![
            sequenced(1, event()),
            sequenced(2, event()),
            sequenced(6, event()),
            sequenced(10, lost(3)),
        ])
        .await;
    stream.acked(10).await.unwrap();
    drop(stream);
    // The agent did not get the answer, and drops more, what was committed included.
    let mut stream = Stream::open(service.address, &sites[0].token, &hello).await.unwrap();
    stream.send_sequenced(vec![sequenced(12, lost(12)), sequenced(13, event())]).await;
    stream.acked(13).await.unwrap();
    let database = database.client().await.unwrap();
    until("the losses are recorded", async || number(&database, "SELECT count(*) FROM lost_events").await == 4).await;
    let rows = database
        .query("SELECT first_seq, last_seq, events, cause FROM lost_events ORDER BY first_seq", &[])
        .await
        .unwrap();
    let found: Vec<(i64, i64, i64, &str)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let gap = "gap in the sequence numbers";
    assert_eq!(found, [(3, 5, 3, gap), (7, 7, 1, gap), (8, 10, 3, "spool full"), (11, 12, 2, "spool full")]);
}

/// Without this, a loss with a time that the database cannot hold ends its stream, again and again.
#[tokio::test]
async fn a_loss_with_a_time_that_is_none_is_a_dead_letter_and_its_stream_goes_on() {
    let (database, _store, sites) = database_with(1).await;
    let service = Service::start(database.url(), &[]).await;
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let lost = |seq, seconds| {
        let since = Some(prost_types::Timestamp { seconds, nanos: 0 });
        let event = v1::sequenced_event::Event::Lost(v1::LostEvents { count: 1, since, ..v1::LostEvents::default() });
        v1::SequencedEvent { seq, event: Some(event) }
    };
    // The years -5000, 1 and 20000, and one of this century.
    stream
        .send_sequenced(vec![
            lost(1, -219_000_000_000),
            lost(2, -62_135_596_800),
            lost(3, 569_000_000_000),
            lost(4, 1_700_000_000),
        ])
        .await;
    let rejected = stream.acked(4).await.unwrap();
    let fields: Vec<(u64, &str)> = rejected.iter().map(|one| (one.seq, one.field.as_str())).collect();
    assert_eq!(fields, [(1, "since"), (2, "since"), (3, "since")]);
    let log = database.client().await.unwrap();
    // What is rejected is missing from the numbers, and so lost all the same.
    assert_eq!(number(&log, "SELECT sum(events)::bigint FROM lost_events").await, 4);
    assert_eq!(number(&log, "SELECT count(*) FROM rejected_events").await, 3);
}
