//! Cursor pages of every kind of search, and connlog's own keys.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::write;
use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::event::{Client, Event, Outcome, WebEvent};
use connlog_model::identity::{AgentIdentity, BootNumber};
use connlog_model::method::Method;
use connlog_store::infer::{Boot, Hello};
use reqwest::StatusCode;
use serde_json::Value;
use support::stage;
use uuid::Uuid;

/// A session of `minutes`, open without an outcome.
fn numbered_session(
    agent: &Arc<AgentIdentity>,
    number: u128,
    start: Timestamp,
    minutes: i64,
    outcome: Option<Outcome>,
) -> Vec<Event> {
    let ip = format!("10.0.{}.{}", number / 250, number % 250);
    let public = format!("198.51.100.{}", number % 250);
    let client =
        Client { ip: Some(ip.parse().unwrap()), client_ip: Some(public.parse().unwrap()), ..fixtures::ssh_client() };
    let end = outcome.map(|outcome| (start + TimeDelta::minutes(minutes), outcome));
    fixtures::session(agent, number, start, &client, end)
}

fn failed(reason: &str, code: i32) -> Outcome {
    Outcome { reason: reason.to_owned(), code: Some(code), rx_bytes: None, tx_bytes: None }
}

#[tokio::test]
async fn cursors_walk_every_kind_of_search_once_while_the_log_changes() {
    let stage = stage(&[]).await;
    let base = now() - TimeDelta::days(40);
    let mut events = Vec::new();
    for number in 0..200_u128 {
        let start = base + TimeDelta::hours(i64::try_from(number / 5).unwrap() * 7);
        let site = &stage.sites[usize::try_from(number % 2).unwrap()];
        let outcome = if number % 7 == 0 { None } else { Some(failed("Connection RESET by peer", 7)) };
        events.extend(numbered_session(&site.agent, number + 1, start, 5, outcome));
    }
    write(&stage.store, events).await;
    for query in [
        "",
        "organization:org-1",
        "workspace_owner:user-1",
        "workspace:workspace-2",
        "ip:10.0.0.0/24",
        "longer_than:1m",
    ] {
        let all = stage.service.get(&stage.auditor, &[("q", query), ("limit", "1000")]).await.1;
        let expected: Vec<Value> = ids(&all);
        assert!(expected.len() >= 100, "{query}: {}", expected.len());
        for size in ["7", "40", "1000"] {
            let (mut seen, mut cursor, mut round) = (Vec::new(), None::<String>, 0);
            loop {
                let mut parameters = vec![("q", query), ("limit", size)];
                parameters.extend(cursor.as_deref().map(|cursor| ("after", cursor)));
                let (status, page) = stage.service.get(&stage.auditor, &parameters).await;
                assert_eq!(status, StatusCode::OK, "{page}");
                assert_eq!(page["count"], all["count"], "{query}");
                seen.extend(ids(&page));
                cursor = page["next_cursor"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    break;
                }
                // Newer entries do not shift the pages.
                round += 1;
                assert!(round < 60, "{query} does not end");
            }
            assert_eq!(seen, expected, "{query} by {size}");
        }
    }
    // What comes in front while one pages does not shift what is behind.
    let (_, first) = stage.service.get(&stage.auditor, &[("limit", "50")]).await;
    let rest = stage.service.get(&stage.auditor, &[("limit", "1000")]).await.1;
    write(&stage.store, numbered_session(&stage.sites[0].agent, 999, now(), 1, Some(failed("", 0)))).await;
    let after = first["next_cursor"].as_str().unwrap();
    let (_, second) = stage.service.get(&stage.auditor, &[("limit", "1000"), ("after", after)]).await;
    assert_eq!(ids(&second), ids(&rest)[50..]);
}

fn ids(page: &Value) -> Vec<Value> {
    page["connection_logs"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect()
}

#[tokio::test]
async fn a_cursor_that_is_damaged_or_of_another_query_is_refused() {
    let stage = stage(&[]).await;
    let mut events = numbered_session(&stage.sites[0].agent, 1, now(), 1, None);
    events.extend(numbered_session(&stage.sites[0].agent, 2, now(), 1, None));
    write(&stage.store, events).await;
    let (_, page) = stage.service.get(&stage.auditor, &[("q", "type:ssh"), ("limit", "1")]).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    for (parameters, detail) in [
        (
            vec![("q", "type:ssh"), ("after", &cursor[1..])],
            "is not a cursor: it was not made by this API, or is damaged",
        ),
        (vec![("q", "type:vscode"), ("after", cursor)], "is not a cursor: it belongs to another search query"),
        (vec![("q", "type:ssh"), ("after", cursor), ("offset", "0")], "cannot be combined with \"offset\""),
    ] {
        let (status, body) = stage.service.get(&stage.auditor, &parameters).await;
        assert_eq!((status, &body["validations"][0]["field"]), (StatusCode::BAD_REQUEST, &Value::from("after")));
        assert_eq!(body["validations"][0]["detail"], format!("Query param \"after\" {detail}"));
    }
    // The same search in other words is the same search.
    let (status, _) = stage.service.get(&stage.auditor, &[("q", " TYPE:\"ssh\" "), ("after", cursor)]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn own_keys_find_what_they_say() {
    let stage = stage(&[]).await;
    let (one, two) = (&stage.sites[0].agent, &stage.sites[1].agent);
    let start = now() - TimeDelta::days(3);
    let mut events = numbered_session(one, 1, start, 90, Some(failed("Connection RESET by peer", 255)));
    events.extend(numbered_session(one, 2, start + TimeDelta::minutes(1), 5, Some(failed("", 0))));
    events.extend(numbered_session(two, 300, start + TimeDelta::minutes(2), 1, None));
    events.push(fixtures::web(one, 50, start, Method::WorkspaceApp));
    let Event::Web(visit) = fixtures::web(one, 51, start, Method::Tunnel) else { unreachable!() };
    let visitor = Some(two.workspace.owner_id);
    events.push(Event::Web(WebEvent { user_id: visitor, status_code: 403, ..visit.clone() }));
    events.push(Event::Web(WebEvent { user_id: None, event_id: Uuid::from_u128(52), status_code: 401, ..visit }));
    write(&stage.store, events).await;
    // One whose end is inferred: another boot does not list it.
    let mut lost = numbered_session(two, 301, start + TimeDelta::minutes(3), 1, None);
    let boot = BootNumber::of(Uuid::new_v4());
    for event in &mut lost {
        if let Event::Agent(event) = event {
            event.boot = Some(boot);
        }
    }
    write(&stage.store, lost).await;
    let hello = Hello {
        agent: Arc::clone(two),
        spool_id: Uuid::new_v4(),
        boot_id: Uuid::new_v4(),
        stream_id: Uuid::new_v4(),
        first_unacked_seq: 1,
        last_seq: 0,
        received_at: now(),
    };
    stage.store.greet(&hello).await.unwrap();
    let ended_at = start + TimeDelta::minutes(13);
    let (spool_id, boot_id) = (hello.spool_id, hello.boot_id);
    let boot = Boot { agent: two, spool_id, boot_id, listed: &[], ended_at, live_since: now() };
    assert_eq!(stage.store.close_other_boots(&boot).await.unwrap().len(), 1);

    for (query, count) in [
        ("workspace:workspace-1", 5),
        ("workspace:Workspace-2", 2),
        ("workspace:nowhere", 0),
        ("agent:MAIN", 7),
        ("agent:main workspace_owner:user-2", 2),
        ("agent:other", 0),
        ("ip:10.0.0.1", 1),
        ("ip:10.0.0.0/24", 2),
        ("ip:10.0.0.0/16", 4),
        ("ip:198.51.100.1", 1),
        ("ip:198.51.100.0/24", 4),
        ("ip:::/0", 0),
        ("reason:reset", 1),
        ("reason:\"BY peer\"", 1),
        ("reason:lost", 0),
        ("code:0", 1),
        ("code:255", 1),
        ("code:>=400", 2),
        ("code:>=400 method:tunnel", 2),
        ("code:!=0", 4),
        ("code:<400", 3),
        ("longer_than:1h", 2),
        ("longer_than:1h status:completed", 1),
        ("longer_than:1h status:ongoing", 1),
        ("shorter_than:11m", 2),
        ("longer_than:4m shorter_than:20m", 2),
        ("inferred:true", 1),
        ("inferred:false", 6),
        ("inferred:true reason:restarted", 1),
        ("other_owner:true", 1),
        ("other_owner:true organization:org-2", 0),
        ("username:user-2 other_owner:true", 1),
        ("slug_or_port:Code-Server", 3),
        ("slug_or_port:code", 0),
        ("user_agent:mozilla", 3),
        ("user_agent:firefox", 0),
        ("client_session_id:00000000-0000-0000-0000-000000000001", 0),
    ] {
        // Of an IPv6 range everything must be quoted: it is full of colons.
        let query = query.replace("ip:::/0", "ip:\"::/0\"");
        assert_eq!(stage.service.count(&stage.auditor, &query).await, count, "{query}");
    }
}

#[tokio::test]
async fn own_keys_say_what_is_wrong_with_their_values() {
    let stage = stage(&[]).await;
    for (query, key, detail) in [
        ("ip:10.0.0.0/33", "ip", "Query param \"ip\" must be an IP address or a range in CIDR notation"),
        ("code:=>4", "code", "Query param \"code\" must be a number, or one after =, !=, <, <=, > or >="),
        (
            "other_owner:false",
            "other_owner",
            "Query param \"other_owner\" has invalid value: \"false\" is not a valid value. One of: true",
        ),
        (
            "inferred:maybe",
            "inferred",
            "Query param \"inferred\" has invalid value: \"maybe\" is not a valid value. One of: true, false",
        ),
        ("workspac:dev", "workspac", "\"workspac\" is not a valid query param. Did you mean \"workspace\"?"),
    ] {
        let (status, body) = stage.service.get(&stage.auditor, &[("q", query)]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(
            (&body["validations"][0]["field"], &body["validations"][0]["detail"]),
            (&Value::from(key), &Value::from(detail))
        );
    }
    let (_, body) = stage.service.get(&stage.auditor, &[("q", "longer_than:soon")]).await;
    let detail = body["validations"][0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("Query param \"longer_than\" must be a duration such as 90m or 2h30m: "), "{detail}");
}

#[tokio::test]
async fn a_search_that_runs_out_of_its_budget_says_so_and_goes_on_from_there() {
    let stage = stage(&["--scan-budget", "1us", "--count-budget", "1us"]).await;
    let mut events = Vec::new();
    for number in 0..30_u128 {
        let start = now() - TimeDelta::days(i64::try_from(number).unwrap());
        events.extend(numbered_session(
            &stage.sites[0].agent,
            number + 1,
            start,
            5,
            Some(failed("", i32::from(number % 10 == 9))),
        ));
    }
    write(&stage.store, events).await;
    let (mut found, mut incomplete, mut cursor) = (0, 0, None::<String>);
    for _ in 0..200 {
        let mut parameters = vec![("q", "code:1"), ("limit", "10")];
        parameters.extend(cursor.as_deref().map(|cursor| ("after", cursor)));
        let (_, page) = stage.service.get(&stage.auditor, &parameters).await;
        let (count, cap) = (page["count"].as_i64().unwrap(), page["count_cap"].as_i64().unwrap());
        assert!(cap > 0 && count > cap, "a count that was not finished cannot be taken for exact: {page}");
        found += ids(&page).len();
        incomplete += usize::from(page["incomplete"] == true);
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((found, cursor), (3, None));
    assert!(incomplete > 0);
}
