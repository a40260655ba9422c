//! Metrics of a program that ends: to a file, or to a gateway.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
use connlog_model::clock::truncate_to_micros;
use connlog_runtime::telemetry;
use connlog_store::Store;

use crate::config::Config;

/// How long a gateway may take.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Reports what is known of retention wherever `config` says. A report that fails is said and does not fail the purge.
pub(crate) async fn report(config: &Config, store: &Store) {
    let metrics = telemetry::metrics();
    match store.retention_state(1, truncate_to_micros(Utc::now())).await {
        Ok(state) => state.set_metrics(),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the state of retention is unknown"),
    }
    let text = metrics.render();
    if let Some(path) = &config.metrics_textfile
        && let Err(error) = write_file(path, &text)
    {
        tracing::warn!(path = %path.display(), error = format!("{error:#}"), "metrics were not written");
    }
    if let Some(url) = config.metrics_pushgateway.clone() {
        let pushed = tokio::task::spawn_blocking(move || push(&url, &text)).await;
        if let Err(error) = pushed.context("the push panicked").flatten() {
            tracing::warn!(error = format!("{error:#}"), "metrics were not pushed");
        }
    }
}

/// A collector never sees half of a file.
fn write_file(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// Replaces what the gateway has of this job.
fn push(url: &str, text: &str) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PUSH_TIMEOUT)).build().into();
    agent.put(format!("{url}/metrics/job/connlog-purge")).content_type("text/plain; version=0.0.4").send(text)?;
    Ok(())
}
