//! Diagnostics on standard error, and metrics.
//!
//! `CONNLOG_LOG` filters what is written (default `info`), in the syntax of `tracing_subscriber::EnvFilter`;
//! `CONNLOG_LOG_FORMAT=json` writes one object a line.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Starts writing diagnostics. Later calls change nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env("CONNLOG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var("CONNLOG_LOG_FORMAT").is_ok_and(|format| format == "json");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a subscriber is set already, which is what the caller wants.
    let _already_set = if json { builder.json().try_init() } else { builder.try_init() };
}

/// The metrics of this process, installed at the first call.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another recorder of metrics is installed; /metrics will be empty");
            }
            handle
        })
        .clone()
}
