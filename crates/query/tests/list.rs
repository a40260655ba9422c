//! The list: its wire to the character, its errors, its paging, and who sees what.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::{Stage, write};
use connlog_testkit::wait::until;
use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::event::{Client, Event, Outcome, WebEvent};
use connlog_model::identity::{AgentIdentity, BootNumber};
use connlog_model::method::Method;
use connlog_model::role::Role;
use reqwest::StatusCode;
use serde_json::Value;
use support::Served;
use uuid::Uuid;

/// A fixed time, so that what is golden stays so. Days that far back exist for events that carry their own time.
fn at(minute: i64) -> Timestamp {
    let midnight = (now().date_naive() - TimeDelta::days(20)).and_time(chrono::NaiveTime::MIN).and_utc();
    midnight + TimeDelta::minutes(minute) + TimeDelta::microseconds(123_400)
}

fn session_at(
    agent: &Arc<AgentIdentity>,
    number: u128,
    minute: i64,
    method: Method,
    app: Option<&str>,
    end: Option<Outcome>,
) -> Vec<Event> {
    let client = Client {
        method: Some(method),
        app_name: app.map(str::to_owned),
        ip: Some("10.0.0.1".parse().unwrap()),
        ..fixtures::ssh_client()
    };
    fixtures::session(agent, number, at(minute), &client, end.map(|outcome| (at(minute + 5), outcome)))
}

fn web_at(
    agent: &Arc<AgentIdentity>,
    number: u128,
    minute: i64,
    method: Method,
    slug: &str,
    status: i32,
    user: Option<Uuid>,
) -> Event {
    Event::Web(WebEvent {
        user_id: user,
        ip: None,
        user_agent: "curl/8.9.1".to_owned(),
        slug_or_port: slug.to_owned(),
        status_code: status,
        ..fixtures::web_event(agent, number, at(minute), method)
    })
}

async fn stage(flags: &[&str]) -> Served {
    let sites = support::sites((1..=4).map(|number| (number, number % 2 + 1)));
    let owner = sites[0].agent.workspace.owner_id;
    let imported_at = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
    support::serve(Stage::at(sites, Some(owner), imported_at).await, flags).await
}

#[tokio::test]
async fn the_wire_of_each_type_is_golden() {
    let stage = stage(&[]).await;
    let agent = &stage.sites[0].agent;
    let user = Some(agent.workspace.owner_id);
    let outcome = Outcome { reason: "bye".to_owned(), code: Some(3), rx_bytes: Some(10), tx_bytes: Some(20) };
    let mut events = Vec::new();
    events.extend(session_at(agent, 1, 1, Method::Ssh, Some("ssh"), None));
    events.extend(session_at(agent, 2, 2, Method::Ssh, Some("cursor"), Some(outcome)));
    events.extend(session_at(
        agent,
        3,
        3,
        Method::Ssh,
        Some("goland"),
        Some(Outcome { code: Some(0), ..Outcome::default() }),
    ));
    events.extend(session_at(agent, 4, 4, Method::ReconnectingPty, None, None));
    events.push(web_at(agent, 5, 5, Method::WorkspaceApp, "code-server", 200, user));
    events.push(web_at(agent, 6, 6, Method::PortForwarding, "8080", 502, None));
    events.push(web_at(agent, 7, 7, Method::Tunnel, "", 403, Some(Uuid::from_u128(404))));
    write(&stage.store, events).await;
    // A row that lacks its directory, and an inferred end.
    let mut stranger = (**agent).clone();
    stranger.workspace.organization_id = Uuid::from_u128(11);
    stranger.workspace.owner_id = Uuid::from_u128(12);
    stranger.workspace.workspace_id = Uuid::from_u128(13);
    write(&stage.store, session_at(&Arc::new(stranger), 8, 8, Method::Ssh, Some("home_made"), None)).await;
    write(&stage.store, session_at(agent, 9, 9, Method::Ssh, Some("zed"), None)).await;
    let client = stage.database.client().await.unwrap();
    // Only the last one was streamed by a boot that fell silent.
    let (silent, alive) = (Uuid::from_u128(70), Uuid::from_u128(71));
    let sql = "UPDATE connection_logs SET boot = CASE connection_id WHEN $1 THEN $2::int ELSE $3::int END WHERE disconnect_time IS NULL AND method <= 2";
    let [of_silent, of_alive] = [silent, alive].map(|boot| BootNumber::of(boot).code());
    client.execute(sql, &[&Uuid::from_u128(9), &of_silent, &of_alive]).await.unwrap();
    let sql = "INSERT INTO agent_spools (agent, spool_id, boot_id, stream_id, earlier_boot_seq, last_seen_at)
        SELECT agent, $1, $1, $1, 0, $2 FROM agents WHERE workspace_id = $3";
    for (boot, seen_at) in [(silent, at(12)), (alive, now())] {
        client.execute(sql, &[&boot, &seen_at, &agent.workspace.workspace_id]).await.unwrap();
    }
    let swept = stage.store.sweep_silent(now(), at(0), TimeDelta::minutes(10)).await.unwrap();
    assert_eq!(swept.len(), 1);

    let text = stage.service.text(&stage.auditor).await;
    // To the character, but for the day of the test, and with an entry a line.
    let text = text.replace(&at(0).date_naive().to_string(), "DAY").replace(r#"},{"id":"#, "},\n{\"id\":");
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn an_empty_log_is_an_empty_list() {
    let stage = stage(&[]).await;
    let text = stage.service.text(&stage.auditor).await;
    assert_eq!(text, r#"{"connection_logs":[],"count":0,"count_cap":0}"#);
}

#[tokio::test]
async fn errors_of_a_search_are_those_that_clients_know() {
    let stage = stage(&[]).await;
    for (query, expected) in [
        ("x:", vec![("q", r#"Query element "x:" cannot start or end with ':'"#)]),
        (":x foo:bar", vec![("q", r#"Query element ":x" cannot start or end with ':'"#)]),
        ("a:b:c type:x", vec![("q", r#"Query element "a:b:c" can only contain 1 ':'"#)]),
        ("foo:bar", vec![("foo", r#""foo" is not a valid query param"#)]),
        ("hello world", vec![("search", r#""search" is not a valid query param"#)]),
        (
            "organisation:x",
            vec![("organisation", r#""organisation" is not a valid query param. Did you mean "organization"?"#)],
        ),
        (
            "type:ssh type:vscode",
            vec![(
                "type",
                r#"Query param "type" provided more than once, found 2 times. Only provide 1 instance of this query param."#,
            )],
        ),
        (
            "type:x",
            vec![(
                "type",
                r#"Query param "type" has invalid value: "x" is not a valid value. One of: ssh, vscode, jetbrains, reconnecting_pty, workspace_app, port_forwarding, tunnel"#,
            )],
        ),
        (
            "status:done",
            vec![(
                "status",
                r#"Query param "status" has invalid value: "done" is not a valid value. One of: ongoing, completed"#,
            )],
        ),
        ("workspace_id:1", vec![("workspace_id", r#"Query param "workspace_id" must be a valid uuid"#)]),
        (
            "connected_after:yesterday",
            vec![(
                "connected_after",
                r#"Query param "connected_after" must be a valid date format (2006-01-02T15:04:05.999999999Z07:00): "#,
            )],
        ),
        (
            "organization:nowhere",
            vec![(
                "organization",
                r#"Query param "organization" has invalid value: organization "nowhere" either does not exist, or you are unauthorized to view it"#,
            )],
        ),
        (
            "status:x organization:nowhere",
            vec![
                (
                    "organization",
                    r#"Query param "organization" has invalid value: organization "nowhere" either does not exist, or you are unauthorized to view it"#,
                ),
                ("status", r#"Query param "status" has invalid value: "x" is not a valid value. One of: "#),
            ],
        ),
        (
            "organization:\0",
            vec![(
                "organization",
                r#"Query param "organization" has invalid value: organization "\x00" either does not exist, or you are unauthorized to view it"#,
            )],
        ),
        (
            "organization:a\u{200b}",
            vec![(
                "organization",
                r#"Query param "organization" has invalid value: organization "a\u200b" either does not exist, or you are unauthorized to view it"#,
            )],
        ),
        (
            "zzz:1 status:x aaa:1 type:y connection_id:z",
            vec![
                ("type", r#"Query param "type" has invalid value: "y" is not a valid value. One of: "#),
                ("connection_id", r#"Query param "connection_id" must be a valid uuid"#),
                ("status", r#"Query param "status" has invalid value: "x" is not a valid value. One of: "#),
                ("aaa", r#""aaa" is not a valid query param"#),
                ("zzz", r#""zzz" is not a valid query param"#),
            ],
        ),
    ] {
        let (status, body) = stage.service.get(&stage.auditor, &[("q", query)]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(body["message"], "Invalid connection search query.", "{query}");
        let validations = body["validations"].as_array().unwrap();
        assert_eq!(validations.len(), expected.len(), "{query}: {body}");
        for (found, (field, detail)) in validations.iter().zip(expected) {
            let text = found["detail"].as_str().unwrap();
            assert_eq!(found["field"], field, "{query}");
            // A detail that ends in a colon goes on with words of our own.
            let matches = if detail.ends_with(": ") { text.starts_with(detail) } else { text == detail };
            assert!(matches, "{query}: {text:?} is not {detail:?}");
        }
    }
}

#[tokio::test]
async fn errors_of_paging_name_the_parameter() {
    let stage = stage(&[]).await;
    for (name, value) in [("limit", "-1"), ("limit", "x"), ("limit", "2147483648"), ("offset", "-5"), ("offset", "1.5")]
    {
        let (status, body) = stage.service.get(&stage.auditor, &[(name, value)]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body["message"], "Query parameters have invalid values.");
        assert_eq!(body["validations"][0]["field"], name);
        let detail = body["validations"][0]["detail"].as_str().unwrap();
        let begin = format!("Query param \"{name}\" must be a valid 32-bit positive integer: ");
        assert!(detail.starts_with(&begin), "{detail}");
    }
    let (status, body) = stage.service.get(&stage.auditor, &[("after_id", "x")]).await;
    assert_eq!((status, &body["validations"][0]["field"]), (StatusCode::BAD_REQUEST, &Value::from("after_id")));
    let ignored = Uuid::new_v4().to_string();
    for fine in
        [("limit", "0"), ("limit", "2147483647"), ("offset", "2147483647"), ("after_id", &ignored), ("limit", "")]
    {
        assert_eq!(stage.service.get(&stage.auditor, &[fine]).await.0, StatusCode::OK, "{fine:?}");
    }
}

#[tokio::test]
async fn pages_are_in_a_total_order_and_repeat_nothing() {
    let stage = stage(&["--count-cap", "10", "--count-budget", "1us"]).await;
    let agent = &stage.sites[0].agent;
    // Many of the same time, over several days, open and ended.
    let mut events = Vec::new();
    for number in 0..60_u128 {
        let minute = i64::try_from(number % 4).unwrap() * 1440 * 2;
        let end = (number % 3 > 0).then(Outcome::default);
        events.extend(session_at(agent, number + 1, minute, Method::Ssh, Some("ssh"), end));
    }
    write(&stage.store, events).await;
    for size in [1, 7, 100] {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for offset in (0..70).step_by(size) {
            let (limit, offset) = (size.to_string(), offset.to_string());
            let (_, body) = stage.service.get(&stage.auditor, &[("limit", &limit), ("offset", &offset)]).await;
            assert_eq!((&body["count"], &body["count_cap"]), (&Value::from(60), &Value::from(0)));
            for entry in body["connection_logs"].as_array().unwrap() {
                let key =
                    (entry["connect_time"].as_str().unwrap().to_owned(), entry["id"].as_str().unwrap().to_owned());
                assert!(seen.insert(key.clone()), "{key:?} is on two pages");
                order.push(key);
            }
        }
        assert_eq!(order.len(), 60);
        assert!(order.is_sorted_by(|earlier, later| earlier > later), "newest first, ties by id");
    }
    // A count that has to be made row by row is capped where it is past the cap and its time is used up.
    let owner = stage.service.search(&stage.auditor, "workspace_owner:user-1").await;
    assert_eq!((&owner["count"], &owner["count_cap"]), (&Value::from(11), &Value::from(10)));
    let one = stage.service.search(&stage.auditor, &format!("connection_id:{}", Uuid::from_u128(3))).await;
    assert_eq!((&one["count"], &one["count_cap"]), (&Value::from(1), &Value::from(0)));
}

/// Filters, each with how many of the entries of `populate` it matches, per site.
const FILTERS: [(&str, u64); 22] = [
    ("", 7),
    ("type:ssh", 2),
    ("type:vscode", 1),
    ("type:jetbrains", 1),
    ("type:reconnecting_pty", 1),
    ("type:workspace_app", 1),
    ("type:tunnel", 1),
    ("method:ssh", 4),
    ("method:reconnecting_pty", 1),
    ("method:port_forwarding", 0),
    ("app:cursor", 1),
    ("app:Zed", 1),
    ("app:code-server", 0),
    ("status:ongoing", 2),
    ("status:completed", 3),
    ("status:completed type:vscode", 1),
    ("status:ongoing method:tunnel", 0),
    ("username:USER-1", 1),
    ("user_email:user-1@EXAMPLE.com", 1),
    ("username:nobody", 0),
    ("username:me", 1),
    ("type:\"\" app:\"\"", 7),
];

async fn populate(stage: &Served) {
    let acting = Some(stage.sites[0].agent.workspace.owner_id);
    for (number, site) in (0_u128..).zip(&stage.sites) {
        let (agent, base) = (&site.agent, number * 100);
        let mut events = Vec::new();
        events.extend(session_at(agent, base + 1, 1, Method::Ssh, Some("ssh"), None));
        events.extend(session_at(
            agent,
            base + 2,
            2,
            Method::Ssh,
            Some("cursor"),
            Some(Outcome { code: Some(0), ..Outcome::default() }),
        ));
        events.extend(session_at(
            agent,
            base + 3,
            3,
            Method::Ssh,
            Some("goland"),
            Some(Outcome { code: Some(0), ..Outcome::default() }),
        ));
        events.extend(session_at(
            agent,
            base + 4,
            4,
            Method::Ssh,
            Some("zed"),
            Some(Outcome { code: Some(0), ..Outcome::default() }),
        ));
        events.extend(session_at(agent, base + 5, 5, Method::ReconnectingPty, None, None));
        events.push(web_at(agent, base + 6, 6, Method::WorkspaceApp, "code-server", 200, acting));
        events.push(web_at(agent, base + 7, 7, Method::Tunnel, "", 101, None));
        write(&stage.store, events).await;
    }
}

#[tokio::test]
async fn a_token_limited_to_an_organization_sees_pages_and_counts_only_its_own() {
    let stage = stage(&[]).await;
    populate(&stage).await;
    let organization = stage.sites[0].agent.workspace.organization_id;
    let me = Some(stage.sites[0].agent.workspace.owner_id);
    let limited = fixtures::api_token(&stage.store, Role::Auditor, me, Some(vec![organization]), now()).await.unwrap();
    let none =
        fixtures::api_token(&stage.store, Role::Auditor, me, Some(vec![Uuid::from_u128(99)]), now()).await.unwrap();
    let empty = fixtures::api_token(&stage.store, Role::Auditor, me, Some(vec![]), now()).await.unwrap();
    for (query, per_site) in FILTERS {
        assert_eq!(stage.service.count(&stage.auditor, query).await, per_site * 4, "{query}");
        assert_eq!(stage.service.count(&limited, query).await, per_site * 2, "{query}");
        assert_eq!(stage.service.count(&none, query).await, 0, "{query}");
        assert_eq!(stage.service.count(&empty, query).await, 0, "{query}");
    }
    let listed = stage.service.search(&limited, "").await;
    for entry in listed["connection_logs"].as_array().unwrap() {
        assert_eq!(entry["organization"]["id"], organization.to_string());
    }
    // Sites 1 and 3 are in organization 2, sites 2 and 4 in organization 1.
    for (query, all, own) in [
        ("organization:org-2".to_owned(), 14, Some(14)),
        (format!("organization:{organization}"), 14, Some(14)),
        ("organization:ORG-1".to_owned(), 14, None),
        ("workspace_owner:user-1".to_owned(), 7, Some(7)),
        ("workspace_owner:me".to_owned(), 7, Some(7)),
        ("workspace_owner:User-2".to_owned(), 7, Some(0)),
        ("workspace_owner_email:USER-1@example.com".to_owned(), 7, Some(7)),
        ("workspace_owner_email:user-2@example.com".to_owned(), 7, Some(0)),
        (format!("workspace_id:{}", stage.sites[2].agent.workspace.workspace_id), 7, Some(7)),
        (format!("workspace_id:{}", stage.sites[3].agent.workspace.workspace_id), 7, Some(0)),
        (format!("connection_id:{}", Uuid::from_u128(101)), 1, Some(0)),
        (format!("connected_after:\"{}\"", rfc3339(at(5))), 12, Some(6)),
        (format!("connected_before:\"{}\"", rfc3339(at(2))), 8, Some(4)),
        (format!("connected_after:\"{}\" connected_before:\"{0}\"", rfc3339(at(3))), 4, Some(2)),
    ] {
        assert_eq!(stage.service.count(&stage.auditor, &query).await, all, "{query}");
        match own {
            Some(own) => assert_eq!(stage.service.count(&limited, &query).await, own, "{query}"),
            None => {
                assert_eq!(stage.service.get(&limited, &[("q", &query)]).await.0, StatusCode::BAD_REQUEST, "{query}");
            }
        }
    }
}

#[tokio::test]
async fn bounds_of_time_are_inclusive_and_exact_below_a_microsecond() {
    let stage = stage(&[]).await;
    write(&stage.store, session_at(&stage.sites[0].agent, 1, 1, Method::Ssh, Some("ssh"), None)).await;
    let time = at(1);
    for (query, count) in [
        (format!("connected_after:\"{}\"", rfc3339(time)), 1),
        (format!("connected_before:\"{}\"", rfc3339(time)), 1),
        (format!("connected_after:\"{}\"", rfc3339(time + TimeDelta::nanoseconds(1))), 0),
        (format!("connected_after:\"{}\"", rfc3339(time - TimeDelta::nanoseconds(1))), 1),
        (format!("connected_before:\"{}\"", rfc3339(time + TimeDelta::nanoseconds(1))), 1),
        (format!("connected_before:\"{}\"", rfc3339(time - TimeDelta::nanoseconds(1))), 0),
        (
            format!(
                "connected_before:\"{}\"",
                time.with_timezone(&chrono::FixedOffset::east_opt(7200).unwrap()).to_rfc3339()
            ),
            1,
        ),
    ] {
        assert_eq!(stage.service.count(&stage.auditor, &query).await, count, "{query}");
    }
}

#[tokio::test]
async fn deleted_users_do_not_match_by_name_and_their_entries_stay() {
    let stage = stage(&[]).await;
    populate(&stage).await;
    let mut directory = stage.sites[1].directory.clone();
    for entry in &mut directory {
        if let connlog_store::directory::DirectoryEntry::User { deleted, .. } = entry {
            *deleted = true;
        }
    }
    fixtures::import(&stage.store, &directory, now()).await.unwrap();
    assert_eq!(stage.service.count(&stage.auditor, "workspace_owner:user-2").await, 0);
    assert_eq!(stage.service.count(&stage.auditor, "").await, 28);
}

#[tokio::test]
async fn only_tokens_that_may_read_do() {
    let stage = stage(&[]).await;
    let token = async |role| fixtures::api_token(&stage.store, role, None, None, now()).await.unwrap();
    let revoked = token(Role::Admin).await;
    let id = stage.store.api_tokens().await.unwrap().last().unwrap().id;
    stage.store.revoke_token(id, now()).await.unwrap();
    let agent = stage.sites[0].token.clone();
    let expired = connlog_store::tokens::generate();
    let row = connlog_store::tokens::ApiToken {
        id: Uuid::new_v4(),
        role: Role::Auditor,
        user_id: None,
        organizations: None,
        created_at: now(),
        expires_at: Some(now() - TimeDelta::seconds(1)),
        revoked_at: None,
    };
    stage.store.create_token(&row, &connlog_store::tokens::digest(&expired)).await.unwrap();
    for (token, expected) in [
        (expired, StatusCode::UNAUTHORIZED),
        (stage.auditor.clone(), StatusCode::OK),
        (token(Role::Admin).await, StatusCode::OK),
        (token(Role::Reporter).await, StatusCode::FORBIDDEN),
        (agent, StatusCode::UNAUTHORIZED),
        (revoked, StatusCode::UNAUTHORIZED),
        ("wrong".to_owned(), StatusCode::UNAUTHORIZED),
    ] {
        let (status, body) = stage.service.get(&token, &[]).await;
        assert_eq!(status, expected, "{body}");
        assert_eq!(status.is_success(), body.get("message").is_none(), "{body}");
    }
    let url = format!("{}/api/v2/connectionlog", stage.service.base);
    let http = reqwest::Client::new();
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status();
    assert_eq!(status(http.get(&url)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(http.get(&url).bearer_auth(&stage.auditor)).await, StatusCode::OK);
    assert_eq!(
        status(http.get(&url).header("Cookie", format!("a=b; coder_session_token={}", stage.auditor))).await,
        StatusCode::OK
    );
    assert_eq!(status(http.post(&url).bearer_auth(&stage.auditor)).await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(status(http.get(format!("{}/nothing", stage.service.base))).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn me_of_a_token_without_a_user_matches_nothing() {
    let stage = stage(&[]).await;
    populate(&stage).await;
    let nobody = fixtures::api_token(&stage.store, Role::Auditor, None, None, now()).await.unwrap();
    for query in ["workspace_owner:me", "username:me"] {
        assert_eq!(stage.service.count(&nobody, query).await, 0);
    }
}

#[tokio::test]
async fn names_match_in_any_case_of_any_alphabet_and_a_nul_matches_nothing() {
    let stage = stage(&[]).await;
    populate(&stage).await;
    let mut directory = stage.sites[1].directory.clone();
    for entry in &mut directory {
        if let connlog_store::directory::DirectoryEntry::User { username, email, .. } = entry {
            *username = "\u{39d}\u{399}\u{39a}\u{39f}\u{3a3}".to_owned();
            *email = "\u{c4}RZTE@example.com".to_owned();
        }
    }
    fixtures::import(&stage.store, &directory, now()).await.unwrap();
    for (query, count) in [
        ("workspace_owner:\u{39d}\u{399}\u{39a}\u{39f}\u{3a3}", 7),
        ("workspace_owner:\u{3bd}\u{3b9}\u{3ba}\u{3bf}\u{3c2}", 7),
        ("workspace_owner_email:\u{e4}rzte@EXAMPLE.com", 7),
        ("username:a\0b", 0),
        ("user_email:\0", 0),
        ("workspace_owner:\0", 0),
        ("app:a\0b", 0),
    ] {
        assert_eq!(stage.service.count(&stage.auditor, query).await, count, "{query:?}");
    }
}

#[tokio::test]
async fn the_history_of_a_deleted_organization_is_found_by_its_id() {
    let stage = stage(&[]).await;
    populate(&stage).await;
    let mut directory = stage.sites[0].directory.clone();
    for entry in &mut directory {
        if let connlog_store::directory::DirectoryEntry::Organization { deleted, .. } = entry {
            *deleted = true;
        }
    }
    fixtures::import(&stage.store, &directory, now()).await.unwrap();
    let id = stage.sites[0].agent.workspace.organization_id;
    assert_eq!(stage.service.count(&stage.auditor, &format!("organization:{id}")).await, 14);
    assert_eq!(stage.service.get(&stage.auditor, &[("q", "organization:org-2")]).await.0, StatusCode::BAD_REQUEST);
    let unknown = Uuid::from_u128(99);
    let own = fixtures::api_token(&stage.store, Role::Auditor, None, Some(vec![unknown]), now()).await.unwrap();
    assert_eq!(stage.service.count(&own, &format!("organization:{unknown}")).await, 0);
}

#[tokio::test]
async fn pages_reach_open_connections_that_are_older_than_any_day_of_history() {
    let stage = stage(&[]).await;
    let agent = &stage.sites[0].agent;
    let ancient = now() - TimeDelta::days(390);
    for (number, days) in [(1, 0), (2, 100), (3, 389), (4, 390)] {
        let time = now() - TimeDelta::days(days);
        let event = if number == 4 {
            fixtures::connect(agent, number, ancient)
        } else {
            fixtures::web(agent, number, time, Method::Tunnel)
        };
        write(&stage.store, vec![event]).await;
    }
    let mut found = Vec::new();
    for offset in ["0", "1", "2", "3", "4"] {
        let (_, body) = stage.service.get(&stage.auditor, &[("limit", "1"), ("offset", offset)]).await;
        assert_eq!(body["count"], 4);
        found.extend(
            body["connection_logs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["connect_time"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(found.len(), 4);
    assert!(found.is_sorted_by(|newer, older| newer > older), "{found:?}");
    assert_eq!(found[3], rfc3339(ancient));
}

#[tokio::test]
async fn a_request_that_takes_too_long_says_so_and_leaves_nothing_running() {
    let stage = stage(&["--request-timeout", "1s"]).await;
    populate(&stage).await;
    let mut blocker = stage.database.client().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE connection_logs").await.unwrap();
    let (status, body) = stage.service.get(&stage.auditor, &[("q", "workspace_owner:user-1")]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["message"].is_string(), "{body}");
    let client = stage.database.client().await.unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'connlog-query' AND state = 'active'
        AND datname = current_database()";
    let is_cancelled = async || client.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 0;
    until("the statement is cancelled", is_cancelled).await;
    lock.rollback().await.unwrap();
    assert_eq!(stage.service.get(&stage.auditor, &[]).await.0, StatusCode::OK);
}
