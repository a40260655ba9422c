//! One entry, counts for charts, the audit, and the API described.

mod support;

use chrono::{NaiveTime, TimeDelta};
use connlog_model::clock::rfc3339;
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::write;
use connlog_testkit::wait::{until, until_value};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Service, stage};
use uuid::Uuid;

#[tokio::test]
async fn one_entry_is_found_by_its_id_wherever_it_is_and_by_nobody_else() {
    let stage = stage(&[]).await;
    let (one, two) = (&stage.sites[0].agent, &stage.sites[1].agent);
    let long_ago = now() - TimeDelta::days(300);
    write(&stage.store, vec![fixtures::connect(one, 1, now()), fixtures::web(two, 50, long_ago, Method::Tunnel)]).await;
    let reach = Some(vec![one.workspace.organization_id]);
    let narrow = fixtures::api_token(&stage.store, Role::Auditor, None, reach, now()).await.unwrap();
    let (open, web) = (one.row_id(Uuid::from_u128(1)), two.workspace.web_row_id(Uuid::from_u128(50)));
    for (token, id, expected) in [
        (&stage.auditor, open.to_string(), 200),
        (&stage.auditor, web.to_string(), 200),
        (&narrow, open.to_string(), 200),
        (&narrow, web.to_string(), 404),
        (&stage.auditor, Uuid::new_v4().to_string(), 404),
        (&stage.auditor, "nothing".to_owned(), 400),
    ] {
        let (status, body) = stage.service.get_at(&format!("/api/v2/connectionlog/{id}"), token, &[]).await;
        assert_eq!(status.as_u16(), expected, "{body}");
        if expected == 200 {
            assert_eq!(body["id"], id);
        }
    }
}

#[tokio::test]
async fn stats_of_rows_and_of_days_agree_with_each_other_and_with_the_list() {
    let stage = stage(&[]).await;
    let (one, two) = (&stage.sites[0].agent, &stage.sites[1].agent);
    let midnight = (now().date_naive() - TimeDelta::days(5)).and_time(NaiveTime::MIN).and_utc();
    let mut events = Vec::new();
    for number in 0..50_u128 {
        let start = midnight + TimeDelta::hours(i64::try_from(number).unwrap());
        let agent = if number % 5 == 0 { two } else { one };
        events.push(fixtures::connect(agent, number + 1, start));
        if number % 2 == 0 {
            events.push(fixtures::disconnect(agent, number + 1, start + TimeDelta::minutes(1)));
        }
        events.push(fixtures::web(agent, 1_000 + number, start, Method::WorkspaceApp));
    }
    write(&stage.store, events).await;
    let counts = async |query: &str, bucket: &str| {
        let parameters = [("q", query), ("bucket", bucket)];
        let (status, body) = stage.service.get_at("/api/v2/connectionlog/stats", &stage.auditor, &parameters).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    };
    let by_day = counts("", "1d").await;
    assert_eq!((&by_day["count"], &by_day["complete"]), (&json!(100), &json!(true)));
    let first = &by_day["buckets"][0];
    assert_eq!(first["time"], rfc3339(midnight));
    assert_eq!(first["methods"], json!({ "ssh": 24, "workspace_app": 24 }));
    assert_eq!(first["statuses"], json!({ "completed": 12, "ongoing": 12, "web": 24 }));
    assert_eq!(
        by_day["organizations"][0],
        json!({ "id": one.workspace.organization_id, "name": "org-1", "count": 80 })
    );
    assert_eq!(by_day["apps"], json!({ "": 50, "ssh": 50 }));
    assert_eq!(by_day["workspaces"][0]["name"], "workspace-1");
    assert_eq!(by_day["users"][0], json!({ "id": one.workspace.owner_id, "name": "user-1", "count": 40 }));
    // The same from rows: an hour is not answered by the counts.
    let by_hour = counts("", "1h").await;
    assert_eq!((by_hour["buckets"].as_array().unwrap().len(), &by_hour["count"]), (50, &json!(100)));
    for part in ["organizations", "apps", "workspaces", "users"] {
        assert_eq!(by_hour[part], by_day[part], "{part}");
    }
    for query in [
        "method:ssh",
        "organization:org-2",
        "status:completed",
        "status:ongoing",
        "type:workspace_app",
        "username:user-2",
        "code:200",
    ] {
        let listed = stage.service.search(&stage.auditor, query).await;
        assert_eq!(counts(query, "1d").await["count"], listed["count"], "{query}");
        assert_eq!(counts(query, "1h").await["count"], listed["count"], "{query}");
    }
    let bounds = format!(
        "connected_after:\"{}\" connected_before:\"{}\"",
        rfc3339(midnight),
        rfc3339(midnight + TimeDelta::hours(10))
    );
    assert_eq!(counts(&bounds, "1d").await["count"], 22);
    for bucket in ["1s", "0", "1.5s", "400d", "soon"] {
        let parameters = [("bucket", bucket)];
        let (status, body) = stage.service.get_at("/api/v2/connectionlog/stats", &stage.auditor, &parameters).await;
        assert_eq!((status, &body["validations"][0]["field"]), (StatusCode::BAD_REQUEST, &json!("bucket")), "{bucket}");
    }
}

#[tokio::test]
async fn every_use_of_a_token_is_audited_and_no_other_request() {
    let stage = stage(&[]).await;
    write(&stage.store, vec![fixtures::connect(&stage.sites[0].agent, 1, now())]).await;
    let reporter = fixtures::api_token(&stage.store, Role::Reporter, None, None, now()).await.unwrap();
    stage.service.get(&stage.auditor, &[("q", "type:ssh")]).await;
    stage.service.get(&stage.auditor, &[("q", "type:nonsense")]).await;
    stage.service.get(&reporter, &[]).await;
    stage.service.get("wrong", &[]).await;
    stage.service.get_at("/api/v2/connectionlog/stats", &stage.auditor, &[]).await;
    let client = stage.database.client().await.unwrap();
    let sql = "SELECT endpoint, query, status, rows FROM api_audit ORDER BY id";
    let recorded = async || client.query(sql, &[]).await.unwrap();
    let rows = until_value("four uses are recorded", recorded, |rows| rows.len() >= 4).await;
    let found: Vec<(String, String, i16, Option<i64>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let list = "/api/v2/connectionlog".to_owned();
    let expected = [
        (list.clone(), "type:ssh".to_owned(), 200, Some(1)),
        (list.clone(), "type:nonsense".to_owned(), 400, None),
        (list, String::new(), 403, None),
        ("/api/v2/connectionlog/stats".to_owned(), String::new(), 200, None),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn who_guesses_tokens_is_slowed_down_and_who_has_one_is_not() {
    let stage = stage(&[]).await;
    assert_eq!(stage.service.get(&stage.auditor, &[]).await.0, StatusCode::OK);
    let mut statuses = Vec::new();
    for guess in 0..25 {
        statuses.push(stage.service.get(&format!("guess-{guess}"), &[]).await.0);
    }
    assert_eq!(statuses[..20], [StatusCode::UNAUTHORIZED; 20]);
    assert_eq!(statuses[20..], [StatusCode::TOO_MANY_REQUESTS; 5]);
    assert_eq!(stage.service.get(&stage.auditor, &[]).await.0, StatusCode::OK, "who is recognized already goes on");
    let late = fixtures::api_token(&stage.store, Role::Auditor, None, None, now()).await.unwrap();
    assert_eq!(stage.service.get(&late, &[]).await.0, StatusCode::OK, "a token that is good is never refused");
}

#[tokio::test]
async fn answers_say_how_fresh_they_are() {
    let stage = stage(&[]).await;
    let ask = async || (now(), stage.service.open("/api/v2/connectionlog", &stage.auditor, &[]).await);
    let says = |answer: &(_, reqwest::Response)| answer.1.headers().contains_key("connlog-fresh-as-of");
    let (before, response) = until_value("an answer says how fresh it is", ask, says).await;
    let as_of = response.headers()["connlog-fresh-as-of"].to_str().unwrap();
    let as_of = chrono::DateTime::parse_from_rfc3339(as_of).unwrap();
    assert!((before - as_of.to_utc()).abs() < TimeDelta::seconds(10));
}

/// Run with `CONNLOG_WRITE_OPENAPI=1` to write the file anew.
#[tokio::test]
async fn the_committed_description_is_what_the_code_says_and_is_served() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let description = connlog_query::openapi::description();
    if std::env::var_os("CONNLOG_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &description).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == description,
        "crates/query/openapi.json is out of date: CONNLOG_WRITE_OPENAPI=1 writes it anew"
    );
    let stage = stage(&[]).await;
    let (status, served) = stage.service.get_at("/api/v2/connectionlog/openapi.json", "", &[]).await;
    assert_eq!((status, &served["openapi"]), (StatusCode::OK, &Value::from("3.1.0")));
    assert_eq!(served, serde_json::from_str::<Value>(&committed).unwrap());
    for page in ["/docs", "/docs/docs.js", "/docs/docs.css"] {
        let response = stage.service.open(page, "", &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.text().await.unwrap().contains("http://"), "nothing from elsewhere");
    }
}

#[tokio::test]
async fn what_takes_too_long_is_audited_too() {
    let stage = stage(&[]).await;
    let service = Service::start(stage.database.url(), &["--request-timeout", "300ms"]).await;
    assert_eq!(service.get(&stage.auditor, &[]).await.0, StatusCode::OK);
    let mut client = stage.database.client().await.unwrap();
    let locked = client.transaction().await.unwrap();
    locked.batch_execute("LOCK TABLE connection_log_counts IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(service.get(&stage.auditor, &[]).await.0, StatusCode::SERVICE_UNAVAILABLE);
    locked.commit().await.unwrap();
    let sql = "SELECT count(*) FROM api_audit WHERE status = 503";
    until("it is recorded", async || client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).await;
}
