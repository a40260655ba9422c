//! Exports: every row once, in each format, and the position from which a later one brings the rest.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::{Stage, write};
use connlog_testkit::wait::{PATIENCE, until};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::time::Instant;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::cursor::Position;
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source, WebEvent};
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_store::roles::QUERY;
use connlog_testkit::process::{Process, free_address};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Served, Service};
use uuid::Uuid;

const EXPORT: &str = "/api/v2/connectionlog/export";

struct Exports(Served);

impl Deref for Exports {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

/// In whole seconds, so that times compare as texts do.
fn a_month_ago() -> Timestamp {
    chrono::DateTime::from_timestamp(now().timestamp(), 0).unwrap() - TimeDelta::days(30)
}

async fn stage() -> Exports {
    Exports(support::serve(Stage::new(support::sites([(1, 1)])).await, &[]).await)
}

impl Exports {
    async fn export(&self, parameters: &[(&str, &str)]) -> String {
        let response = self.service.open(EXPORT, &self.auditor, parameters).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.text().await.unwrap()
    }

    /// The rows of an NDJSON export, and the record at its end.
    async fn ndjson(&self, parameters: &[(&str, &str)]) -> (Vec<Value>, Value) {
        let text = self.export(parameters).await;
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let end = lines.pop().unwrap()["export"].take();
        assert_eq!(end["rows"], lines.len(), "{end}");
        (lines, end)
    }

    /// The changes since a position, `count` of them at least.
    async fn changes(&self, since: &str, count: usize) -> (Vec<Value>, String) {
        self.changes_until(since, |all| all.len() >= count).await
    }

    /// The changes since a position until they are all. Transactions elsewhere on the server hold the feed up.
    async fn changes_until(&self, since: &str, are_all: impl Fn(&[Value]) -> bool) -> (Vec<Value>, String) {
        let (mut all, mut position) = (Vec::new(), since.to_owned());
        let deadline = Instant::now() + PATIENCE;
        while !are_all(&all) {
            assert!(Instant::now() < deadline, "{} changes are not all", all.len());
            let (changes, end) = self.ndjson(&[("since", &position)]).await;
            all.extend(changes);
            end["position"].as_str().unwrap().clone_into(&mut position);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        (all, position)
    }

    async fn sessions(&self, numbers: std::ops::Range<u128>) {
        self.sessions_since(a_month_ago(), numbers).await;
    }

    async fn sessions_since(&self, base: Timestamp, numbers: std::ops::Range<u128>) {
        let mut events = Vec::new();
        for number in numbers {
            let start = base + TimeDelta::minutes(i64::try_from(number / 3).unwrap());
            events.push(fixtures::connect(&self.sites[0].agent, number, start));
            if number % 5 > 0 {
                events.push(fixtures::disconnect(&self.sites[0].agent, number, start + TimeDelta::minutes(4)));
            }
        }
        write(&self.store, events).await;
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_large_is_compressed_for_who_can_read_it() {
    let stage = stage().await;
    stage.sessions(1..200).await;
    let magic: [(&str, &[u8]); 2] = [("gzip", &[0x1f, 0x8b]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd])];
    for path in ["/api/v2/connectionlog?limit=100", EXPORT] {
        let plain = stage.service.open(path, &stage.auditor, &[]).await;
        assert_eq!(plain.headers().get("content-encoding"), None);
        let plain = plain.bytes().await.unwrap();
        for (encoding, begins) in magic {
            let answer = stage.service.compressed(path, &stage.auditor, encoding).await;
            assert_eq!(answer.headers()["content-encoding"], encoding, "{path}");
            assert!(answer.headers().get_all("vary").iter().any(|vary| vary == "accept-encoding"));
            let bytes = answer.bytes().await.unwrap();
            assert!(bytes.starts_with(begins) && bytes.len() * 4 < plain.len(), "{path}: {}", bytes.len());
        }
    }
    let tail = stage.service.compressed("/api/v2/connectionlog/tail", &stage.auditor, "gzip").await;
    assert_eq!(tail.headers().get("content-encoding"), None, "each event is read as soon as it is there");
}

#[tokio::test]
async fn an_export_whose_turn_does_not_come_is_refused_and_told_when_to_come_again() {
    let stage = stage().await;
    let service = Service::start(stage.database.url(), &["--max-exports", "0", "--export-patience", "100ms"]).await;
    let refused = service.open(EXPORT, &stage.auditor, &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.text().await.unwrap().contains("Too many exports at once."));
}

#[tokio::test]
async fn an_export_has_every_row_once_in_order_and_resumes_from_any() {
    let stage = stage().await;
    // More than a chunk, with many of the same time.
    stage.sessions(1..7_001).await;
    let (rows, end) = stage.ndjson(&[]).await;
    assert_eq!((rows.len(), &end["complete"]), (7_000, &Value::from(true)));
    let order: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["connect_time"].as_str().unwrap(), row["id"].as_str().unwrap())).collect();
    assert!(order.is_sorted_by(|earlier, later| earlier > later));
    let listed = stage.service.get(&stage.auditor, &[("limit", "3")]).await.1;
    let mut first = rows[0].clone();
    first.as_object_mut().unwrap().remove("cursor");
    assert_eq!(listed["connection_logs"][0], first, "a row is an entry of the list, with its cursor");
    for resumed_after in [0, 4_998, 4_999, 5_000, 6_998, 6_999] {
        let cursor = rows[resumed_after]["cursor"].as_str().unwrap();
        let (rest, rest_end) = stage.ndjson(&[("after", cursor)]).await;
        assert_eq!(ids(&rest), ids(&rows)[resumed_after + 1..]);
        assert_eq!(rest_end["position"], end["position"], "the whole is complete up to where the first part began");
    }
    let (some, _) = stage.ndjson(&[("q", "status:ongoing")]).await;
    assert_eq!(some.len(), 1_400);
    let (none, end) = stage.ndjson(&[("q", "username:nobody")]).await;
    assert_eq!((none.len(), &end["complete"]), (0, &Value::from(true)));
}

#[tokio::test]
async fn an_export_since_a_position_brings_every_later_change_and_nothing_else() {
    let stage = stage().await;
    let base = a_month_ago();
    stage.sessions_since(base, 1..101).await;
    let (rows, end) = stage.ndjson(&[]).await;
    let position = end["position"].as_str().unwrap();

    // A late event, of long ago; an end of what was open; a new one; and of what is open it becomes known who it was.
    let (agent, long_ago) = (&stage.sites[0].agent, now() - TimeDelta::days(200));
    write(&stage.store, vec![fixtures::connect(agent, 1_000, long_ago), fixtures::disconnect(agent, 1_000, long_ago)])
        .await;
    write(&stage.store, vec![fixtures::disconnect(agent, 5, now())]).await;
    write(&stage.store, vec![fixtures::connect(agent, 1_001, now())]).await;
    let Event::Agent(connect) = fixtures::connect(agent, 10, base + TimeDelta::minutes(3)) else { unreachable!() };
    let client = Client { user_id: Some(agent.workspace.owner_id), ..connect.client.clone() };
    write(&stage.store, vec![Event::Agent(AgentEvent { source: Source::Reporter, client, ..connect })]).await;
    let expected = [1_000, 5, 1_001, 10].map(|number| agent.row_id(Uuid::from_u128(number)).to_string());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    // The export may have begun before the last of its rows could be told from what still ran.
    let (mut changes, later) = stage.changes_until(position, |all| ids(all).ends_with(&expected)).await;
    changes.drain(..changes.len() - expected.len());
    assert_eq!(ids(&changes), expected, "in the order in which they were committed");
    // The two parts together are what a new export has.
    let mut together: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows.into_iter().chain(changes.iter().cloned()) {
        together.insert(row["id"].as_str().unwrap().to_owned(), row);
    }
    let (anew, _) = stage.ndjson(&[]).await;
    for row in anew {
        let known = together.remove(row["id"].as_str().unwrap()).unwrap();
        assert_eq!((&known["connect_time"], &known["ssh_info"]), (&row["connect_time"], &row["ssh_info"]));
    }
    assert!(together.is_empty());
    // Any row's cursor is a position, too.
    let (rest, _) = stage.changes(changes[1]["cursor"].as_str().unwrap(), 2).await;
    assert_eq!(ids(&rest), expected[2..]);
    let (none, _) = stage.ndjson(&[("since", &later)]).await;
    assert_eq!(none.len(), 0);
}

/// A transaction that began before and commits later must not be skipped: sequences and times would skip it.
#[tokio::test]
async fn what_commits_late_is_after_every_position_that_was_given_before() {
    let stage = stage().await;
    stage.sessions(1..4).await;
    let mut slow = stage.database.client().await.unwrap();
    let late = slow.transaction().await.unwrap();
    // It has its number now and commits after the other.
    late.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    stage.sessions(10..12).await;
    let (rows, end) = stage.ndjson(&[]).await;
    assert_eq!(rows.len(), 5, "an export has what is committed");
    late.execute(
        "WITH changed AS (UPDATE connection_logs SET disconnect_reason = 'late' WHERE connection_id = $1 RETURNING id, connect_time)
         INSERT INTO changes (ids, days) SELECT array_agg(id), array_agg((connect_time AT TIME ZONE 'UTC')::date) FROM changed",
        &[&Uuid::from_u128(1)],
    )
    .await
    .unwrap();
    late.commit().await.unwrap();
    // The late one, and what could not be told from it when the export began.
    let (changes, _) = stage.changes(end["position"].as_str().unwrap(), 3).await;
    let late = stage.sites[0].agent.row_id(Uuid::from_u128(1)).to_string();
    assert!(ids(&changes).contains(&late.as_str()), "{changes:#?}");
}

/// Trims the feed as if everything in it were old, until something went.
async fn trim(stage: &Exports, max_bytes: i64) {
    // Transactions of other tests on the server keep what they may not see yet.
    until("something is trimmed", async || stage.store.trim_changes(now(), max_bytes).await.unwrap() > 0).await;
}

#[tokio::test]
async fn a_position_that_is_gone_is_refused_and_says_how_to_begin_anew() {
    let stage = stage().await;
    stage.sessions(1..3).await;
    let (_, end) = stage.ndjson(&[]).await;
    let old = end["position"].as_str().unwrap().to_owned();
    // Known, but for its place: that of another database, or from before a restore.
    let elsewhere = Position { anchor: Uuid::new_v4(), ..Position::decode(&old).unwrap() }.encode();
    for number in 10..13 {
        stage.sessions(number..number + 1).await;
    }
    let (changes, newer) = stage.changes(&old, 3).await;
    assert!(changes.len() >= 3);
    trim(&stage, 0).await;
    for position in [&old, &elsewhere] {
        let (status, body) = stage.service.get_at(EXPORT, &stage.auditor, &[("since", position)]).await;
        assert_eq!(status, StatusCode::GONE);
        assert!(body["detail"].as_str().unwrap().contains("Start anew: export everything"), "{body}");
        let tail = "/api/v2/connectionlog/tail";
        assert_eq!(stage.service.get_at(tail, &stage.auditor, &[("since", position)]).await.0, StatusCode::GONE);
    }
    // The end of the feed is never trimmed: whoever is up to date stays so.
    let (rest, _) = stage.ndjson(&[("since", &newer)]).await;
    assert_eq!(rest.len(), 0);
}

#[tokio::test]
async fn changes_stay_for_a_registered_consumer_up_to_a_bound_past_which_it_has_a_gap() {
    let stage = stage().await;
    let registered = stage.store.register_consumer("siem").await.unwrap().encode();
    for number in 1..4 {
        stage.sessions(number..number + 1).await;
    }
    let read = async |since: &str, consumer: &str| {
        stage.service.open(EXPORT, &stage.auditor, &[("since", since), ("consumer", consumer)]).await.status()
    };
    // As if everything were old: nothing of what it has not read goes.
    let kept = stage.store.trim_changes(now(), 1 << 30).await.unwrap();
    assert_eq!((kept, read(&registered, "siem").await), (0, StatusCode::OK));
    assert_eq!(read(&registered, "nobody").await, StatusCode::BAD_REQUEST);
    let (status, body) = stage.service.get_at(EXPORT, &stage.auditor, &[("consumer", "siem")]).await;
    assert_eq!((status, &body["validations"][0]["field"]), (StatusCode::BAD_REQUEST, &Value::from("consumer")));

    // It is the token's that read as it first: nobody else moves it on.
    let stranger = fixtures::api_token(&stage.store, Role::Auditor, None, None, now()).await.unwrap();
    let newest = stage.ndjson(&[]).await.1["position"].as_str().unwrap().to_owned();
    let (status, body) = stage.service.get_at(EXPORT, &stranger, &[("since", &newest), ("consumer", "siem")]).await;
    assert_eq!((status, &body["validations"][0]["field"]), (StatusCode::BAD_REQUEST, &Value::from("consumer")));

    // What it says that it has goes.
    let (_, position) = stage.changes(&registered, 3).await;
    assert_eq!(read(&position, "siem").await, StatusCode::OK);
    trim(&stage, 1 << 30).await;
    assert_eq!(read(&registered, "siem").await, StatusCode::GONE);
    assert_eq!(stage.store.consumers().await.unwrap()[0].gap_at, None);

    // Nobody keeps everything: past the bound it goes, and the consumer is told.
    for number in 4..7 {
        stage.sessions(number..number + 1).await;
    }
    trim(&stage, 0).await;
    until("its gap is noted", async || {
        stage.store.trim_changes(now(), 0).await.unwrap();
        stage.store.consumers().await.unwrap()[0].gap_at.is_some()
    })
    .await;
    assert_eq!(read(&position, "siem").await, StatusCode::GONE);
    assert!(stage.store.remove_consumer("siem").await.unwrap());
}

/// Rows with everything that a format could stumble over.
async fn difficult(stage: &Exports) {
    let agent = &stage.sites[0].agent;
    let start = now() - TimeDelta::days(1);
    let outcome = Outcome {
        reason: "=cmd|' /C calc'!A1, \"quoted\"\nnext line".to_owned(),
        code: Some(255),
        rx_bytes: Some(10),
        tx_bytes: Some(20),
    };
    let mut events = vec![fixtures::connect(agent, 1, start)];
    let Event::Agent(connect) = fixtures::connect(agent, 1, start) else { unreachable!() };
    events.push(Event::Agent(AgentEvent {
        time: start + TimeDelta::milliseconds(1_500),
        action: Action::Disconnect { connected_at: None, outcome },
        ..connect.clone()
    }));
    events.push(fixtures::connect(agent, 2, start + TimeDelta::seconds(2)));
    for (number, method, slug, status) in [
        (50, Method::WorkspaceApp, "code-server", 200),
        (51, Method::PortForwarding, "8080", 502),
        (52, Method::Tunnel, "", 403),
    ] {
        let Event::Web(web) = fixtures::web(agent, number, start, method) else { unreachable!() };
        events.push(Event::Web(WebEvent {
            slug_or_port: slug.to_owned(),
            status_code: status,
            user_agent: "@SUM(1+1)".to_owned(),
            ip: Some(IpAddr::from([192, 0, 2, 7])),
            ..web
        }));
    }
    events.push(Event::Agent(AgentEvent {
        connection_id: Uuid::from_u128(3),
        client: connlog_model::event::Client {
            method: Some(Method::ReconnectingPty),
            app_name: None,
            ip: None,
            client_ip: Some(IpAddr::from([198, 51, 100, 7])),
            ..connect.client
        },
        ..match fixtures::connect(agent, 3, start + TimeDelta::seconds(3)) {
            Event::Agent(event) => event,
            Event::Web(_) => unreachable!(),
        }
    }));
    write(&stage.store, events).await;
}

#[tokio::test]
async fn csv_keeps_to_rfc_4180_and_guards_against_formulas() {
    let stage = stage().await;
    difficult(&stage).await;
    let text = stage.export(&[("format", "csv")]).await;
    assert!(text.ends_with("\r\n"));
    let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(text.as_bytes());
    let head = reader.headers().unwrap().clone();
    let records: Vec<BTreeMap<String, String>> = reader
        .records()
        .map(|record| head.iter().map(str::to_owned).zip(record.unwrap().iter().map(str::to_owned)).collect())
        .collect();
    assert_eq!(records.len(), 7);
    let (rows, end) = (&records[..6], &records[6]);
    assert_eq!((end["record"].as_str(), end["rows"].as_str(), end["complete"].as_str()), ("export", "6", "true"));
    let public: Vec<&str> = rows.iter().map(|row| row["client_ip"].as_str()).filter(|ip| !ip.is_empty()).collect();
    assert_eq!(public, ["198.51.100.7"]);
    let ended = rows.iter().find(|row| row["status"] == "completed").unwrap();
    assert_eq!(ended["disconnect_reason"], "'=cmd|' /C calc'!A1, \"quoted\"\nnext line");
    assert_eq!((ended["duration_seconds"].as_str(), ended["code"].as_str()), ("1.5", "255"));
    assert_eq!((ended["rx_bytes"].as_str(), ended["tx_bytes"].as_str()), ("10", "20"));
    assert!(rows.iter().filter(|row| row["type"] == "workspace_app").all(|row| row["user_agent"] == "'@SUM(1+1)"));
    let columns: Vec<&str> = head.iter().collect();
    insta::assert_snapshot!(columns.join("\n"));
}

#[tokio::test]
async fn ocsf_events_have_what_their_classes_require() {
    let stage = stage().await;
    difficult(&stage).await;
    let text = stage.export(&[("format", "ocsf")]).await;
    let mut events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut classes = BTreeSet::new();
    for event in &events {
        // Required of every event, and of metadata and product: https://schema.ocsf.io/1.3.0/classes/base_event
        for required in ["activity_id", "category_uid", "class_uid", "severity_id", "time", "type_uid"] {
            assert!(event[required].is_i64(), "{required} in {event}");
        }
        assert_eq!(event["metadata"]["version"], "1.3.0");
        assert!(event["metadata"]["product"]["vendor_name"].is_string());
        let (class, activity) = (event["class_uid"].as_i64().unwrap(), event["activity_id"].as_i64().unwrap());
        assert_eq!(event["type_uid"], class * 100 + activity);
        if class == 0 {
            continue;
        }
        classes.insert(class);
        // Network Activity and its kin: a destination or a source; HTTP: a request or a response with its code.
        assert!(event["dst_endpoint"]["uid"].is_string());
        assert!(event.get("src_endpoint").is_none_or(|source| source["ip"].is_string()));
        let unknown = fields(event).difference(&fields_of(class)).cloned().collect::<Vec<_>>();
        assert_eq!(unknown, [] as [String; 0], "fields that class {class} does not have");
        // HTTP: a request or a response with its code; tunnels: one of several, of which the type is always there.
        assert_eq!(class == 4002, event["http_request"].is_object());
        assert!(event.get("http_response").is_none_or(|response| response["code"].is_i64()));
        assert_eq!(class == 4014, event["tunnel_type_id"].is_i64());
        assert_eq!(event.get("actor").is_some(), event["metadata"]["profiles"] == json!(["host"]));
        if let Some(user) = event.get("actor").map(|actor| &actor["user"]) {
            assert!(user["uid"].is_string() && user["name"].is_string());
        }
    }
    assert_eq!(classes, BTreeSet::from([4001, 4002, 4007, 4014]));
    // Golden, but for what differs from run to run.
    for event in &mut events {
        redact(event);
    }
    events.sort_by_key(|event| event["metadata"]["uid"].to_string());
    insta::assert_json_snapshot!(events);
}

fn fields(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// What a class of version 1.3.0 has of the fields that it makes sense to give, with the profile `host`:
/// <https://schema.ocsf.io/1.3.0/classes/base_event>, `network_activity`, `http_activity`, `ssh_activity`, `tunnel_activity`.
fn fields_of(class: i64) -> BTreeSet<String> {
    let of_all = "activity_id activity_name category_name category_uid class_name class_uid count duration end_time message metadata \
                  severity severity_id start_time status status_code status_detail status_id time type_name type_uid unmapped \
                  app_name connection_info dst_endpoint src_endpoint traffic tls actor device";
    let of_class = match class {
        4002 => "http_request http_response http_status",
        4007 => "auth_type auth_type_id client_hassh server_hassh protocol_ver file",
        4014 => "protocol_name session tunnel_interface tunnel_type tunnel_type_id user",
        _ => "",
    };
    of_all.split_whitespace().chain(of_class.split_whitespace()).map(str::to_owned).collect()
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "time" | "start_time" | "end_time" | "connect_time" | "cursor" | "position" => {
                        *value = Value::from("…");
                    }
                    _ => redact(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_parameters_is_named() {
    let stage = stage().await;
    stage.sessions(1..3).await;
    let (rows, end) = stage.ndjson(&[]).await;
    let (cursor, position) = (rows[0]["cursor"].as_str().unwrap(), end["position"].as_str().unwrap());
    let page = stage.service.get(&stage.auditor, &[("limit", "1")]).await.1;
    let of_the_list = page["next_cursor"].as_str().unwrap().to_owned();
    for (parameters, field) in [
        (vec![("format", "xml")], "format"),
        (vec![("after", "x")], "after"),
        (vec![("since", cursor)], "since"),
        (vec![("after", cursor), ("since", position)], "after"),
        (vec![("q", "type:x")], "type"),
        (vec![("q", "organization:nowhere")], "organization"),
        (vec![("after", &of_the_list)], "after"),
    ] {
        let (status, body) = stage.service.get_at(EXPORT, &stage.auditor, &parameters).await;
        assert_eq!((status, &body["validations"][0]["field"]), (StatusCode::BAD_REQUEST, &Value::from(field)));
    }
}

#[tokio::test]
async fn an_export_keeps_to_its_tokens_organizations_and_is_audited() {
    let stage = stage().await;
    let theirs = fixtures::site(2, 2);
    fixtures::import(&stage.store, &theirs.directory, now()).await.unwrap();
    write(&stage.store, vec![fixtures::connect(&theirs.agent, 77, now())]).await;
    stage.sessions(1..4).await;
    let reach = Some(vec![theirs.agent.workspace.organization_id]);
    let narrow = fixtures::api_token(&stage.store, Role::Auditor, None, reach, now()).await.unwrap();
    let text = stage.service.open(EXPORT, &narrow, &[("q", "status:ongoing")]).await.text().await.unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(&theirs.agent.row_id(Uuid::from_u128(77)).to_string()));
    let client = stage.database.client().await.unwrap();
    let sql = "SELECT count(*) FROM api_audit WHERE endpoint = '/api/v2/connectionlog/export' AND format = 'ndjson'
               AND query = 'status:ongoing' AND rows = 1 AND complete AND status = 200 AND host(address) = '127.0.0.1'";
    until("the export is audited", async || client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_does_not_hold_up_the_end_of_the_service() {
    let stage = stage().await;
    stage.sessions(1..25_000).await;
    let (listen, admin) = (free_address().unwrap(), free_address().unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_connlog-query"));
    command.args(["--database-url", &stage.database.url_as(QUERY), "--listen", &listen.to_string()]);
    command.args(["--admin-listen", &admin.to_string()]).env("CONNLOG_LOG", "warn");
    let mut process = Process::spawn("connlog-query", &command, "KILL").unwrap();
    process.wait_until_listening(listen, PATIENCE).unwrap();
    let mut stalled = Vec::new();
    for path in ["export", "export", "tail"] {
        let mut socket = tokio::net::TcpStream::connect(listen).await.unwrap();
        let request = format!(
            "GET /api/v2/connectionlog/{path} HTTP/1.1\r\nHost: connlog\r\nCoder-Session-Token: {}\r\n\r\n",
            stage.auditor
        );
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
        // Only that an answer has begun.
        socket.readable().await.unwrap();
        stalled.push(socket);
    }
    // By then everything between the exports and who does not read them is full.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::task::block_in_place(|| process.wait(PATIENCE)).unwrap();
    assert!(ended.success(), "within the grace period, and in good order: {ended:?}");
    let client = stage.database.client().await.unwrap();
    let unfinished = "SELECT count(*) FROM api_audit WHERE complete IS NULL";
    assert_eq!(client.query_one(unfinished, &[]).await.unwrap().get::<_, i64>(0), 0, "all ends are recorded");
}
