//! Service logs: a line for each acknowledged event, in both formats.

mod support;

use connlog_model::clock::rfc3339;
use connlog_model::role::Role;
use connlog_proto::v1;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::wait::{PATIENCE, until};
use nix::sys::signal::Signal;
use support::{
    Binary, HelloOf, Service, Stream, authorized, client, connect, database_with, disconnect, minutes_ago, web,
};
use uuid::Uuid;

#[tokio::test]
async fn each_acknowledged_event_has_one_line_in_each_format_and_a_replay_none() {
    let (database, store, sites) = database_with(1).await;
    let reporter = fixtures::api_token(&store, Role::Reporter, None, None, now()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (json, human) = (folder.path().join("log.json"), folder.path().join("log.txt"));
    let flags = ["--log-json", json.to_str().unwrap(), "--log-human", human.to_str().unwrap()];
    let service = Service::start(database.url(), &flags).await;
    let (id, event_id, time) = (Uuid::new_v4(), Uuid::new_v4(), minutes_ago(5));
    let mut stream = Stream::open(service.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let mut calls = client(service.address).await;
    for _ in 0..3 {
        stream.next_seq = 1;
        let last = stream.send(vec![connect(id, time), disconnect(id, time)]).await;
        stream.acked(last).await.unwrap();
        let event = v1::ReportedEvent {
            workspace_id: sites[0].agent.workspace.workspace_id.as_bytes().to_vec(),
            agent_name: "main".to_owned(),
            user_id: sites[0].agent.workspace.owner_id.as_bytes().to_vec(),
            event: Some(v1::reported_event::Event::Web(web(event_id, time))),
            ..v1::ReportedEvent::default()
        };
        calls.report_events(authorized(v1::ReportEventsRequest { events: vec![event] }, &reporter)).await.unwrap();
    }
    // What is not accepted has a line of another kind.
    stream.send(vec![connect(Uuid::nil(), time)]).await;
    stream.ack().await.unwrap();

    let lines = std::fs::read_to_string(json).unwrap();
    let (lines, others): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.contains(r#""level":"INFO","msg":"connection_log","#));
    assert_eq!(others.len(), 1, "{others:?}");
    assert!(others[0].contains(r#""level":"WARN","msg":"connection_log_rejected","#), "{others:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
    let workspace = &sites[0].agent.workspace;
    let row = sites[0].agent.row_id(id);
    let fields = |id: Uuid,
                  kind: &str,
                  code: &str,
                  ip: &str,
                  web: (&str, &str, &str),
                  connection: &str,
                  reason: &str,
                  status: &str| {
        format!(
            r#""ID":"{id}","OrganizationID":"{}","WorkspaceOwnerID":"{}","WorkspaceID":"{}","WorkspaceName":"workspace-1","AgentName":"main","Type":"{kind}","Code":{code},"Ip":"{ip}","UserAgent":"{}","UserID":{},"SlugOrPort":"{}","ConnectionID":{connection},"DisconnectReason":"{reason}","Time":"{}","ConnectionStatus":"{status}"}}}}"#,
            workspace.organization_id,
            workspace.owner_id,
            workspace.workspace_id,
            web.0,
            web.1,
            web.2,
            rfc3339(time)
        )
    };
    let connection = format!("\"{id}\"");
    let owner = format!("\"{}\"", workspace.owner_id);
    let browser = "Mozilla/5.0 (X11; Linux x86_64)";
    for expected in [
        fields(row, "ssh", "null", "10.1.2.3", ("", "null", ""), &connection, "", "connected"),
        fields(row, "ssh", "1", "10.1.2.3", ("", "null", ""), &connection, "bye", "disconnected"),
        fields(
            workspace.web_row_id(event_id),
            "workspace_app",
            "200",
            "127.0.0.1",
            (browser, &owner, "code-server"),
            "null",
            "",
            "connected",
        ),
    ] {
        assert!(lines.iter().any(|line| line.ends_with(&expected)), "{expected} is not in {lines:#?}");
    }
    let begins = |line: &&str| {
        line.starts_with(r#"{"ts":"20"#)
            && line.contains(r#"","level":"INFO","msg":"connection_log","caller":"crates/ingest/src/service_log.rs:"#)
            && line.contains(
                r#"","func":"connlog_ingest::service_log::emit","logger_names":["connlog"],"fields":{"request_id":""#,
            )
    };
    assert!(lines.iter().all(begins), "{lines:#?}");
    let human = std::fs::read_to_string(human).unwrap();
    assert_eq!(
        human.lines().filter(|line| line.contains(" [info]  connlog: connection_log  request_id=")).count(),
        3,
        "{human}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_leaves_at_least_one_line_for_each_acknowledged_event() {
    let (database, _store, sites) = database_with(1).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.json");
    let mut ingest = Binary::start(database.url(), None, Some(&log));
    let mut stream = Stream::open(ingest.address, &sites[0].token, &HelloOf::new()).await.unwrap();
    let ids: Vec<Uuid> = (0..400).map(|_| Uuid::new_v4()).collect();
    for chunk in ids.chunks(10) {
        stream.send(chunk.iter().map(|id| connect(*id, minutes_ago(5))).collect()).await;
    }
    let acknowledged = usize::try_from(stream.ack().await.unwrap().committed_seq).unwrap();
    ingest.process.signal(Signal::SIGKILL).unwrap();
    tokio::task::block_in_place(|| ingest.process.wait(PATIENCE)).unwrap();
    let lines = std::fs::read_to_string(log).unwrap();
    assert!(acknowledged > 0);
    for id in &ids[..acknowledged] {
        assert!(lines.contains(&id.to_string()), "{id} was acknowledged and is not in the log");
    }
}

#[tokio::test]
async fn inferred_ends_reopenings_losses_and_dead_letters_have_lines_too() {
    let (database, _store, sites) = database_with(1).await;
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("log.json");
    let service = Service::start(database.url(), &["--log-json", json.to_str().unwrap()]).await;
    let (id, time, hello) = (Uuid::new_v4(), minutes_ago(5), HelloOf::new());
    let mut stream = Stream::open(service.address, &sites[0].token, &hello).await.unwrap();
    let last = stream.send(vec![connect(id, time)]).await;
    stream.acked(last).await.unwrap();
    // Numbers 2 to 4 never come, and 5 is no event. All of it is sent twice.
    for _ in 0..2 {
        stream.next_seq = 5;
        let last = stream.send(vec![connect(Uuid::nil(), time)]).await;
        stream.acked(last).await.unwrap();
    }
    // Another boot does not list the connection; then it does.
    let hello = HelloOf { boot: Uuid::new_v4(), last_seq: 5, ..hello };
    let mut stream = Stream::open(service.address, &sites[0].token, &hello).await.unwrap();
    let lines = async || {
        let text = std::fs::read_to_string(&json).unwrap();
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>()
    };
    until("the end is inferred", async || lines().await.iter().any(|line| line["fields"]["Inferred"] == true)).await;
    stream.heartbeat(&[id]).await;
    until("it is open again", async || lines().await.iter().any(|line| line["fields"]["Reopened"] == true)).await;

    let lines = lines().await;
    let told: Vec<_> =
        lines.iter().map(|line| (line["msg"].as_str().unwrap(), line["level"].as_str().unwrap())).collect();
    let expected = [
        ("connection_log", "INFO"),
        ("connection_log_rejected", "WARN"),
        ("connection_log_lost", "WARN"),
        ("connection_log", "INFO"),
        ("connection_log", "INFO"),
    ];
    assert_eq!(told, expected, "{lines:#?}");
    let fields: Vec<_> = lines.iter().map(|line| &line["fields"]).collect();
    assert_eq!((&fields[1]["Field"], &fields[1]["Seq"]), (&"id".into(), &5.into()));
    assert_eq!(
        (&fields[2]["FirstSeq"], &fields[2]["LastSeq"], &fields[2]["Events"]),
        (&2.into(), &4.into(), &3.into())
    );
    assert_eq!(fields[3]["ConnectionStatus"], "disconnected");
    assert_eq!(fields[3]["DisconnectReason"], "agent restarted");
    assert_eq!(fields[3]["ConnectionID"], id.to_string());
    assert_eq!(fields[4]["ConnectionStatus"], "connected");
    assert_eq!(fields[4]["ID"], fields[0]["ID"]);
}
