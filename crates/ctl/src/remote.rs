//! Asking connlog-query, as any client of its API does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use connlog_runtime::program;
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// Where connlog-query is, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// Address of connlog-query.
    #[arg(long, env = "CONNLOG_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// File that holds the token; else the variable `CONNLOG_TOKEN` does.
    #[arg(long, env = "CONNLOG_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authorities of the server's certificate, as PEM; without it, those of the system.
    #[arg(long, env = "CONNLOG_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A connection to connlog-query.
pub(crate) struct Session {
    agent: Agent,
    base: String,
    token: String,
}

impl Remote {
    pub(crate) fn session(&self) -> Result<Session> {
        let token = match &self.token_file {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => std::env::var("CONNLOG_TOKEN").context("no token: set CONNLOG_TOKEN, or give --token-file")?,
        };
        let roots = match &self.ca_file {
            Some(path) => {
                let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                let certificate = Certificate::from_pem(&pem).with_context(|| format!("{}", path.display()))?;
                RootCerts::new_with_certs(&[certificate])
            }
            None => RootCerts::PlatformVerifier,
        };
        let tls = TlsConfig::builder().root_certs(roots).build();
        // What the service says of a refusal is in the body.
        let agent = Agent::config_builder().http_status_as_error(false).tls_config(tls).build().new_agent();
        let base = self.url.trim_end_matches('/').to_owned();
        Ok(Session { agent, base, token: token.trim().to_owned() })
    }
}

impl Session {
    /// A GET. What the service says of a refusal becomes the error, field by field.
    pub(crate) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Body> {
        let url = format!("{}/api/v2/connectionlog{path}", self.base);
        let request = self.agent.get(url).query_pairs(parameters.iter().copied());
        let answered = request.header("Coder-Session-Token", &self.token).call();
        let mut response = answered.with_context(|| format!("cannot reach {}", self.base))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body: Value = response.body_mut().read_json().unwrap_or_default();
        bail!("{}", explain(&body).unwrap_or_else(|| format!("{} answers {status}", self.base)))
    }
}

fn explain(body: &Value) -> Option<String> {
    let mut text = body["message"].as_str()?.to_owned();
    if let Some(detail) = body["detail"].as_str() {
        text = format!("{text} {detail}");
    }
    for validation in body["validations"].as_array().into_iter().flatten() {
        text = format!("{text}\n  {}: {}", validation["field"].as_str()?, validation["detail"].as_str()?);
    }
    Some(text)
}

/// The exit code of an outcome. A reader that closed its end, `head`, say, is no failure.
pub(crate) fn finish(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => program::failure(&error),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
