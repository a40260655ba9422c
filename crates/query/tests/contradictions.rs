//! What contradicts an entry: counted, shown to whom the entry is shown, and found; and what was heard of late.

mod support;

use chrono::TimeDelta;
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source};
use connlog_model::role::Role;
use connlog_testkit::fixtures::{self, Site, now};
use connlog_testkit::stage::write;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::stage;
use uuid::Uuid;

fn agent_event(site: &Site, number: u128, change: impl FnOnce(&mut AgentEvent)) -> Event {
    let Event::Agent(mut event) = fixtures::connect(&site.agent, number, now()) else { unreachable!() };
    change(&mut event);
    Event::Agent(event)
}

#[tokio::test]
async fn what_contradicts_an_entry_is_kept_beside_it_and_shown() {
    let stage = stage(&[]).await;
    let (site, other) = (&stage.sites[0], &stage.sites[1]);
    let start = now() - TimeDelta::minutes(3);
    let user = site.agent.workspace.owner_id;
    let connect = |change: fn(&mut AgentEvent)| {
        agent_event(site, 1, |event| {
            event.time = start;
            change(event);
        })
    };
    write(&stage.store, vec![connect(|_| ()), fixtures::connect(&other.agent, 2, start)]).await;
    let id = site.agent.row_id(Uuid::from_u128(1));
    let lie = || connect(|event| event.client.ip = Some("203.0.113.66".parse().unwrap()));
    // The same again, alone and among others, is one contradiction.
    write(&stage.store, vec![lie(), lie()]).await;
    write(&stage.store, vec![lie(), connect(|event| event.time -= TimeDelta::days(3))]).await;
    // A reporter names the user whatever else differs.
    let named = agent_event(site, 1, |event| {
        (event.time, event.source) = (start, Source::Reporter);
        event.client = Client { app_name: Some("zed".to_owned()), user_id: Some(user), ..event.client.clone() };
    });
    write(&stage.store, vec![named]).await;

    let (status, entry) = stage.service.get_at(&format!("/api/v2/connectionlog/{id}"), &stage.auditor, &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&entry["contradictions"], &entry["ip"], &entry["app_name"]),
        (&json!(3), &json!("10.0.0.1"), &json!("ssh"))
    );
    assert_eq!(entry["session"]["user"]["id"], json!(user));
    assert_eq!(stage.service.count(&stage.auditor, "contradicted:true").await, 1);
    assert_eq!(stage.service.count(&stage.auditor, "contradicted:true organization:org-2").await, 0);

    let path = format!("/api/v2/connectionlog/{id}/contradictions");
    let (status, body) = stage.service.get_at(&path, &stage.auditor, &[]).await;
    assert_eq!(status, StatusCode::OK);
    let found: Vec<Value> = body["contradictions"].as_array().unwrap().clone();
    let of =
        |field: &str| found.iter().find(|one| one["fields"] == json!([field])).unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(found.len(), 3);
    assert_eq!((&of("ip")["claim"]["ip"], &of("ip")["source"]), (&json!("203.0.113.66"), &json!("agent")));
    assert_eq!(of("connect_time")["claim"]["action"], "connect");
    assert_eq!((&of("app_name")["claim"]["app_name"], &of("app_name")["source"]), (&json!("zed"), &json!("reporter")));

    // Out of reach, it is not there; and an entry without any has an empty list.
    let narrow = Some(vec![other.agent.workspace.organization_id]);
    let narrow = fixtures::api_token(&stage.store, Role::Auditor, None, narrow, now()).await.unwrap();
    assert_eq!(stage.service.get_at(&path, &narrow, &[]).await.0, StatusCode::NOT_FOUND);
    let theirs = other.agent.row_id(Uuid::from_u128(2));
    let (status, body) =
        stage.service.get_at(&format!("/api/v2/connectionlog/{theirs}/contradictions"), &narrow, &[]).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "contradictions": [] })));
}

#[tokio::test]
async fn what_was_heard_of_late_is_visible_and_found() {
    let stage = stage(&[]).await;
    let site = &stage.sites[0];
    let heard = now();
    let late = agent_event(site, 1, |event| (event.time, event.received_at) = (heard - TimeDelta::hours(5), heard));
    let prompt = agent_event(site, 2, |event| (event.time, event.received_at) = (heard - TimeDelta::minutes(4), heard));
    let end = agent_event(site, 2, |event| {
        (event.time, event.received_at) = (heard - TimeDelta::minutes(2), heard + TimeDelta::hours(1));
        event.action = Action::Disconnect { connected_at: None, outcome: Outcome::default() };
    });
    write(&stage.store, vec![late, prompt]).await;
    let entry = async |number: u128| {
        let id = site.agent.row_id(Uuid::from_u128(number));
        stage.service.get_at(&format!("/api/v2/connectionlog/{id}"), &stage.auditor, &[]).await.1
    };
    let rfc3339 = connlog_model::clock::rfc3339;
    assert_eq!(entry(1).await["received_at"], rfc3339(heard));
    assert_eq!(entry(2).await.get("received_at"), None);
    assert_eq!(stage.service.count(&stage.auditor, "late:true").await, 1);
    write(&stage.store, vec![end]).await;
    let ended = entry(2).await;
    assert_eq!(ended["ended_received_at"], rfc3339(heard + TimeDelta::hours(1)));
    assert_eq!(ended["ssh_info"].get("exit_code"), None, "an unknown status is not 0");
    for (query, count) in [
        ("late:true".to_owned(), 2),
        (format!("received_after:\"{}\"", rfc3339(heard)), 2),
        (format!("received_before:\"{}\"", rfc3339(heard - TimeDelta::seconds(1))), 0),
        ("late:true contradicted:true".to_owned(), 0),
    ] {
        assert_eq!(stage.service.count(&stage.auditor, &query).await, count, "{query}");
    }
}
