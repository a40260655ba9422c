//! The gaps of the record and the proof of its retention: what they show, and to whom.

mod support;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{rfc3339, truncate_to_micros};
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_store::purge::{PurgeRun, Removed};
use connlog_store::write::Batch;
use connlog_store::{Hole, LostRecord, RejectedRecord};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, now};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::Service;
use uuid::Uuid;

#[tokio::test]
async fn losses_and_dead_letters_are_shown_newest_first_to_those_whose_they_are() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let time = truncate_to_micros(Utc::now()) - TimeDelta::hours(1);
    let (ours, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let id = Uuid::from_u128;
    let lost = |number: u128, organization_id, minutes, events| LostRecord {
        id: id(number),
        recorded_at: time + TimeDelta::minutes(minutes),
        organization_id,
        workspace_id: id(31),
        agent_id: Some(id(32)),
        hole: Some(Hole { spool_id: id(33), first_seq: 5, last_seq: 4 + events }),
        events,
        since: Some(time),
        until: None,
        cause: "spool full".to_owned(),
    };
    let rejected = |number: u128, organization_id, minutes| RejectedRecord {
        id: id(number),
        received_at: time + TimeDelta::minutes(minutes),
        organization_id,
        workspace_id: None,
        agent_id: None,
        token_id: Some(id(34)),
        position: None,
        message_type: "connlog.v1.ReportedEvent",
        message: vec![1],
        field: "workspace_id".to_owned(),
        reason: "is nil".to_owned(),
        events: 1,
        is_merged: false,
    };
    let batch = Batch {
        lost: vec![lost(11, ours, 1, 7), lost(12, theirs, 4, 100)],
        rejected: vec![rejected(13, Some(ours), 3), rejected(14, None, 2)],
        ..Batch::default()
    };
    store.apply_batch(&batch, 1, now()).await.unwrap();
    // A replay is the same record.
    store.apply_batch(&batch, 1, now()).await.unwrap();
    let all = fixtures::api_token(&store, Role::Auditor, None, None, now()).await.unwrap();
    let limited = fixtures::api_token(&store, Role::Auditor, None, Some(vec![ours]), now()).await.unwrap();
    let reporter = fixtures::api_token(&store, Role::Reporter, None, None, now()).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let ids = |body: &Value| -> Vec<u128> {
        let gaps = body["gaps"].as_array().unwrap();
        gaps.iter().map(|gap| gap["id"].as_str().unwrap().parse::<Uuid>().unwrap().as_u128()).collect()
    };

    let (_, body) = service.get_at("/api/v2/connectionlog/gaps", &all, &[]).await;
    assert_eq!(ids(&body), [12, 13, 14, 11]);
    assert_eq!((&body["count"], &body["events_lost"], &body["events_rejected"]), (&json!(4), &json!(107), &json!(2)));
    let (_, page) = service.get_at("/api/v2/connectionlog/gaps", &all, &[("limit", "2"), ("offset", "1")]).await;
    assert_eq!((ids(&page), &page["count"]), (vec![13, 14], &json!(4)));
    let (_, body) = service.get_at("/api/v2/connectionlog/gaps", &limited, &[]).await;
    assert_eq!(ids(&body), [13, 11]);
    assert_eq!((&body["count"], &body["events_lost"], &body["events_rejected"]), (&json!(2), &json!(7), &json!(1)));
    let shown = |minutes: i64| connlog_model::clock::rfc3339(time + TimeDelta::minutes(minutes));
    let expected = json!([
        {"id": id(13), "kind": "rejected", "recorded_at": shown(3), "events": 1, "organization_id": ours,
            "field": "workspace_id", "reason": "is nil", "message_type": "connlog.v1.ReportedEvent"},
        {"id": id(11), "kind": "lost", "recorded_at": shown(1), "events": 7, "organization_id": ours, "workspace_id": id(31),
            "agent_id": id(32), "spool_id": id(33), "first_seq": 5, "last_seq": 11, "since": shown(0), "cause": "spool full"},
    ]);
    assert_eq!(body["gaps"], expected);
    assert_eq!(service.get_at("/api/v2/connectionlog/gaps", &reporter, &[]).await.0, StatusCode::FORBIDDEN);
    assert_eq!(service.get_at("/api/v2/connectionlog/gaps", &all, &[("limit", "x")]).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn retention_is_proven_by_its_runs_and_their_numbers_are_for_those_who_see_all() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let all = fixtures::api_token(&store, Role::Auditor, None, None, now()).await.unwrap();
    let limited =
        fixtures::api_token(&store, Role::Auditor, None, Some(vec![Uuid::from_u128(1)]), now()).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let (status, body) = service.get_at("/api/v2/connectionlog/retention", &all, &[]).await;
    let nothing = json!({ "retention_seconds": 0, "backlog": { "days": 0, "entries": 0 }, "runs": [] });
    assert_eq!((status, body), (StatusCode::OK, nothing));

    let (retention, started_at) = (TimeDelta::days(30), now() - TimeDelta::minutes(10));
    for (number, minutes, outcome) in [(1, 0, "complete"), (2, 1, "incomplete")] {
        let started_at = started_at + TimeDelta::minutes(minutes);
        let run = PurgeRun {
            id: Uuid::from_u128(number),
            started_at,
            finished_at: started_at + TimeDelta::seconds(2),
            cutoff: Some(started_at - retention),
            retention: Some(retention),
            removed: Removed { days_dropped: 1, rows_dropped: 100, ..Removed::default() },
            rows_left: i64::from(outcome != "complete"),
            outcome: outcome.to_owned(),
            error: None,
        };
        store.record_purge_run(&run).await.unwrap();
    }
    // A day is due since, and still there.
    let site = fixtures::site(1, 1);
    let event = fixtures::web(&site.agent, 1, now() - retention - TimeDelta::days(2), Method::Tunnel);
    store.apply_batch(&Batch { events: vec![event], ..Batch::default() }, 1, now()).await.unwrap();
    let (_, body) = service.get_at("/api/v2/connectionlog/retention", &all, &[("limit", "1")]).await;
    assert_eq!(
        (&body["retention_seconds"], &body["backlog"]),
        (&json!(2_592_000), &json!({ "days": 1, "entries": 1 }))
    );
    assert_eq!(body["runs"].as_array().unwrap().len(), 1);
    let run = &body["runs"][0];
    assert_eq!(
        (&run["id"], &run["outcome"], &run["removed"]["left"]),
        (&json!(Uuid::from_u128(2)), &json!("incomplete"), &json!(1))
    );
    assert_eq!(body["last_complete"], json!(rfc3339(started_at + TimeDelta::seconds(2))));

    let (_, body) = service.get_at("/api/v2/connectionlog/retention", &limited, &[]).await;
    assert_eq!((body.get("backlog"), body["runs"][1].get("removed")), (None, None));
    assert_eq!(body["runs"][1]["outcome"], "complete");
}

/// Without this, one agent that tells absurd losses fails the page of all.
#[tokio::test]
async fn a_sum_that_no_number_holds_fails_no_page() {
    let database = TestDatabase::create().await.unwrap();
    let token = fixtures::api_token(&database.store().unwrap(), Role::Auditor, None, None, now()).await.unwrap();
    let absurd = "INSERT INTO lost_events (id, recorded_at, organization_id, workspace_id, events, since, until, cause)
        SELECT gen_random_uuid(), now(), gen_random_uuid(), gen_random_uuid(), 1::bigint << 53, '1970-01-01Z', '9999-12-31 23:59:59Z', 'x'
        FROM generate_series(1, 2000)";
    database.client().await.unwrap().batch_execute(absurd).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let (status, body) = service.get_at("/api/v2/connectionlog/gaps", &token, &[]).await;
    assert_eq!((status, &body["events_lost"]), (StatusCode::OK, &json!(i64::MAX)));
    let page = reqwest::Client::new().get(format!("{}/record", service.base)).header("Coder-Session-Token", &token);
    assert_eq!(page.send().await.unwrap().status(), StatusCode::OK);
}
