//! What a peer may take, and what operators see and turn while the service runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, now};
use std::time::{Duration, Instant};

use connlog_model::role::Role;
use connlog_store::roles::QUERY;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::process::{Process, free_address};
use connlog_testkit::wait::until;
use futures::future::join_all;
use reqwest::StatusCode;
use support::Service;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn raw(service: &Service) -> TcpStream {
    TcpStream::connect(service.base.trim_start_matches("http://")).await.unwrap()
}

/// What comes until the service closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_half_of_it_is_left_after_a_while() {
    let database = TestDatabase::create().await.unwrap();
    let service = Service::start(database.url(), &["--idle-timeout", "1s"]).await;
    let cases = [
        ("", 10_000),
        ("P", 10_000),
        ("PRI * HTTP/2.0\r\n", 10_000),
        ("GET /api/v2/connectionlog HTTP/1.1\r\nhost: x\r\n", 1000),
    ];
    join_all(cases.map(async |(begin, least)| {
        let began = Instant::now();
        let mut stream = raw(&service).await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        rest(stream).await;
        assert!(began.elapsed() >= Duration::from_millis(least - 100), "{begin:?}");
    }))
    .await;
    // After an answer the connection waits as long for the next request.
    let mut stream = raw(&service).await;
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_with_431() {
    let database = TestDatabase::create().await.unwrap();
    let service = Service::start(database.url(), &["--max-head-bytes", "8192"]).await;
    let status = async |bytes: usize| {
        let http = reqwest::Client::new();
        let request = http.get(format!("{}/docs", service.base)).header("x-long", "y".repeat(bytes));
        request.send().await.unwrap().status()
    };
    assert_eq!(status(7000).await, StatusCode::OK);
    assert_eq!(status(9000).await, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn beyond_the_most_connections_the_next_one_waits() {
    let database = TestDatabase::create().await.unwrap();
    let token = fixtures::api_token(&database.store().unwrap(), Role::Auditor, None, None, now()).await.unwrap();
    let service = Service::start(database.url(), &["--max-connections", "1", "--idle-timeout", "60s"]).await;
    let mut held = raw(&service).await;
    let request =
        format!("GET /api/v2/connectionlog?limit=1 HTTP/1.1\r\nhost: x\r\nCoder-Session-Token: {token}\r\n\r\n");
    held.write_all(request.as_bytes()).await.unwrap();
    held.read_u8().await.unwrap();
    let next = async || reqwest::get(format!("{}/docs", service.base)).await.unwrap().status();
    assert!(tokio::time::timeout(Duration::from_millis(700), next()).await.is_err());
    drop(held);
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), next()).await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_has_an_id_that_is_its_own_or_the_callers() {
    let database = TestDatabase::create().await.unwrap();
    let auditor = fixtures::api_token(&database.store().unwrap(), Role::Auditor, None, None, now()).await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let id_of = async |given: Option<&str>| {
        let mut request = reqwest::Client::new().get(format!("{}/api/v2/connectionlog", service.base));
        request = request.header("Coder-Session-Token", &auditor);
        if let Some(id) = given {
            request = request.header("X-Request-Id", id);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id_of(Some("from-a-proxy")).await, "from-a-proxy");
    let (one, other) = (id_of(None).await, id_of(None).await);
    assert!(one.len() == 36 && one != other, "{one} {other}");
}

#[tokio::test]
async fn what_is_logged_is_changed_while_it_runs() {
    let database = TestDatabase::create().await.unwrap();
    let (listen, admin) = (free_address().unwrap(), free_address().unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_connlog-query"));
    command.args(["--database-url", &database.url_as(QUERY), "--listen", &listen.to_string()]);
    command.args(["--admin-listen", &admin.to_string()]).env("CONNLOG_LOG", "warn");
    let mut process = Process::spawn("connlog-query", &command, "KILL").unwrap();
    process.wait_until_listening(listen, Duration::from_secs(30)).unwrap();
    let http = reqwest::Client::new();
    let url = format!("http://{admin}/log");
    let put = async |filter: &str| {
        let response = http.put(&url).body(filter.to_owned()).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    };
    assert_eq!(http.get(&url).send().await.unwrap().text().await.unwrap(), "warn\n");
    assert_eq!(put("connlog_query=debug,info").await.0, StatusCode::OK);
    assert_eq!(http.get(&url).send().await.unwrap().text().await.unwrap(), "connlog_query=debug,info\n");
    let (status, text) = put("a=b=c").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("is not a filter"), "{text}");
    assert_eq!(put("").await, (StatusCode::OK, "warn\n".to_owned()));
}

/// Without this, whoever opens connections and says nothing takes the places of all auditors.
#[tokio::test]
async fn strangers_give_way_to_the_next_who_comes() {
    let database = TestDatabase::create().await.unwrap();
    for flags in [["--max-connections", "3"], ["--max-unrecognized", "3"]] {
        let service = Service::start(database.url(), &flags).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(raw(&service).await);
        }
        let status = reqwest::get(format!("{}/docs", service.base)).await.unwrap().status();
        assert_eq!(status, StatusCode::OK);
        let first = tokio::time::timeout(Duration::from_secs(5), silent[0].read_u8()).await;
        assert!(first.unwrap().is_err(), "the oldest gave way");
    }
}

#[tokio::test]
async fn a_form_is_small_and_comes_soon() {
    let database = TestDatabase::create().await.unwrap();
    let service = Service::start(database.url(), &[]).await;
    let post = async |path: &str, bytes: usize| {
        let form = format!("token={}", "a".repeat(bytes));
        let request = reqwest::Client::new().post(format!("{}{path}", service.base));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        request.send().await.unwrap().status()
    };
    for path in ["/signin", "/preferences"] {
        assert_ne!(post(path, 10_000).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(post(path, 20_000).await, StatusCode::PAYLOAD_TOO_LARGE);
    }
    // One that does not come, and then a seventeenth of the address.
    let mut held = Vec::new();
    for _ in 0..16 {
        let mut stream = raw(&service).await;
        let half_a_form = "POST /signin HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close\r\n\r\ntoken=";
        stream.write_all(half_a_form.as_bytes()).await.unwrap();
        held.push(stream);
    }
    until("they are all being read", async || post("/signin", 10).await == StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(rest(held.remove(0)).await.starts_with("HTTP/1.1 408"));
}
