//! A client of the REST API.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The REST API, with a token.
pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Api {
    /// The API at `address`.
    pub(crate) fn new(address: SocketAddr, token: String) -> Self {
        Self { http: reqwest::Client::new(), url: format!("http://{address}/api/v2/connectionlog"), token }
    }

    /// A page.
    pub(crate) async fn page(&self, query: &str, limit: u64, offset: u64) -> Result<Value> {
        let parameters = [("q", query), ("limit", &limit.to_string()), ("offset", &offset.to_string())];
        let response =
            self.http.get(&self.url).query(&parameters).header("Coder-Session-Token", &self.token).send().await?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("{query:?} answered {status} without JSON"))?;
        ensure!(status.is_success(), "{query:?} answered {status}: {body}");
        Ok(body)
    }

    /// How many entries match.
    pub(crate) async fn count(&self, query: &str) -> Result<u64> {
        self.page(query, 1, 0).await?["count"].as_u64().context("there is no count")
    }
}
