//! What the tests of connlog-query share: the service, and a client.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::ops::Deref;

use clap::Parser;
use connlog_query::Config;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::roles::QUERY;
use connlog_testkit::fixtures::{self, Site};
use connlog_testkit::pooler::database_arguments;
use connlog_testkit::stage::Stage;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;

/// The service in this process.
pub struct Service {
    pub base: String,
    pub shutdown: Shutdown,
    http: reqwest::Client,
}

impl Service {
    pub async fn start(database_url: &str, flags: &[&str]) -> Self {
        let mut arguments = vec!["connlog-query".to_owned()];
        arguments.extend(database_arguments(database_url, QUERY).unwrap());
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let config = Config::try_parse_from(arguments).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        tokio::spawn(connlog_query::run(config, listener, admin, shutdown.clone()));
        Self { base, shutdown, http: reqwest::Client::new() }
    }

    /// A GET of the list with parameters.
    pub async fn get(&self, token: &str, parameters: &[(&str, &str)]) -> (StatusCode, Value) {
        self.get_at("/api/v2/connectionlog", token, parameters).await
    }

    /// A GET with parameters.
    pub async fn get_at(&self, path: &str, token: &str, parameters: &[(&str, &str)]) -> (StatusCode, Value) {
        let request = self.http.get(format!("{}{path}", self.base)).query(parameters);
        let response = request.header("Coder-Session-Token", token).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// A GET whose answer is read by whoever asks.
    pub async fn open(&self, path: &str, token: &str, parameters: &[(&str, &str)]) -> reqwest::Response {
        let request = self.http.get(format!("{}{path}", self.base)).query(parameters);
        request.header("Coder-Session-Token", token).send().await.unwrap()
    }

    /// An answer to a client that can read what is compressed.
    pub async fn compressed(&self, path: &str, token: &str, encoding: &str) -> reqwest::Response {
        let request = self.http.get(format!("{}{path}", self.base)).header("Accept-Encoding", encoding);
        request.header("Coder-Session-Token", token).send().await.unwrap()
    }

    /// The list without parameters, as it is on the wire.
    pub async fn text(&self, token: &str) -> String {
        let request = self.http.get(format!("{}/api/v2/connectionlog", self.base));
        request.header("Coder-Session-Token", token).send().await.unwrap().text().await.unwrap()
    }

    /// The answer to a search.
    pub async fn search(&self, token: &str, query: &str) -> Value {
        let (status, body) = self.get(token, &[("q", query)]).await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        body
    }

    /// How many entries a search counts; as many as it lists, unless the page is full.
    pub async fn count(&self, token: &str, query: &str) -> u64 {
        let body = self.search(token, query).await;
        let (count, listed) =
            (body["count"].as_u64().unwrap(), body["connection_logs"].as_array().unwrap().len() as u64);
        assert_eq!(count.min(100), listed, "{query}");
        count
    }
}

/// A stage, and the service on it.
pub struct Served {
    pub stage: Stage,
    pub service: Service,
}

impl Deref for Served {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

/// The sites whose numbers are given, with the organization of each.
pub fn sites(numbers: impl IntoIterator<Item = (u128, u128)>) -> Vec<Site> {
    numbers.into_iter().map(|(number, organization)| fixtures::site(number, organization)).collect()
}

/// Two sites of two organizations, and the service with `flags`.
pub async fn stage(flags: &[&str]) -> Served {
    serve(Stage::new(sites([(1, 1), (2, 2)])).await, flags).await
}

/// The service with `flags` on a stage. Its budgets of time are such that a busy machine does not run out of them, unless
/// a test gives its own.
pub async fn serve(stage: Stage, flags: &[&str]) -> Served {
    let mut flags = flags.to_vec();
    for budget in ["--count-budget", "--scan-budget"] {
        if !flags.contains(&budget) {
            flags.extend([budget, "30s"]);
        }
    }
    let service = Service::start(stage.database.url(), &flags).await;
    Served { stage, service }
}
