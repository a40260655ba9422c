//! Diagnostics on standard error, and metrics.
//!
//! `CONNLOG_LOG` filters what is written (default `info`), in the syntax of `tracing_subscriber::EnvFilter`; a running service
//! takes another filter on its admin listener. `CONNLOG_LOG_FORMAT=json` writes one object a line.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Starts writing diagnostics. Later calls change nothing. The error is one line about `CONNLOG_LOG`.
pub fn init() -> Result<(), String> {
    let wanted = initial_filter();
    let filter =
        EnvFilter::try_new(&wanted).map_err(|error| format!("CONNLOG_LOG: {wanted:?} is not a filter: {error}"))?;
    let json = std::env::var("CONNLOG_LOG_FORMAT").is_ok_and(|format| format == "json");
    let (filter, handle) = reload::Layer::new(filter);
    let written = fmt::layer().with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(filter);
    let outcome = if json { subscriber.with(written.json()).try_init() } else { subscriber.with(written).try_init() };
    // An error means that a subscriber is set already, which is what the caller wants.
    if outcome.is_ok() {
        let _set_once = FILTER.set(handle);
    }
    Ok(())
}

/// What is written unless something else is asked for while the program runs.
fn initial_filter() -> String {
    let given = std::env::var("CONNLOG_LOG").unwrap_or_default();
    if given.trim().is_empty() { DEFAULT_FILTER.to_owned() } else { given }
}

/// What is written unless something else is asked for.
const DEFAULT_FILTER: &str = "info";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The filter in force; nothing if diagnostics go elsewhere.
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

/// Puts another filter in force; an empty one is that of the start. The error is a text for whoever asked.
pub fn set_filter(text: &str) -> Result<(), String> {
    let text = if text.trim().is_empty() { initial_filter() } else { text.trim().to_owned() };
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("{text:?} is not a filter: {error}"))?;
    let handle = FILTER.get().ok_or("diagnostics are not written by this program")?;
    handle.reload(filter).map_err(|error| error.to_string())
}

/// Bounds of the buckets of times, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of the buckets of sizes of batches, in events.
const EVENTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 2500.0];

/// The metrics of this process, installed at the first call.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &EVENTS));
            let recorder = builder.expect("the bounds are not empty").build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another recorder of metrics is installed; /metrics will be empty");
            }
            metrics::gauge!("connlog_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
            handle
        })
        .clone()
}
