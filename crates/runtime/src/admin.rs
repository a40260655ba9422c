//! The admin listener: `/livez`, `/readyz`, `/metrics` and `/log`, away from what users reach.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::shutdown::Shutdown;
use crate::telemetry;

/// Asks whether the service can do its work now. What is worth knowing all the same is said in one line, or nothing; the
/// error says in one line why it cannot.
pub type Readiness =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send>> + Send + Sync>;

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
}

/// How often what was measured is summed up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long asking for readiness may take.
const READINESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves the admin endpoints until the process ends, so that a service that drains can be watched.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: PrometheusHandle, shutdown: Shutdown) {
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            // What was measured waits in memory, and would for ever if nobody asked for the metrics.
            upkeep.run_upkeep();
        }
    });
    let admin = Admin { readiness, metrics, shutdown };
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async |State(admin): State<Admin>| admin.metrics.render()))
        .route("/log", get(filter).put(set_filter))
        .with_state(admin);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// What diagnostics are written, in the syntax of `CONNLOG_LOG`.
async fn filter() -> (StatusCode, String) {
    match telemetry::filter() {
        Some(filter) => (StatusCode::OK, format!("{filter}\n")),
        None => (StatusCode::NOT_FOUND, "diagnostics are not written by this program\n".to_owned()),
    }
}

/// Changes it until the end of the process. There are no tokens here, so only peers on this machine, or in this pod, may.
async fn set_filter(ConnectInfo(peer): ConnectInfo<SocketAddr>, text: String) -> (StatusCode, String) {
    if !peer.ip().to_canonical().is_loopback() {
        let advice = "only from this machine: by kubectl port-forward, say";
        return (StatusCode::FORBIDDEN, format!("the filter of diagnostics is changed {advice}\n"));
    }
    match telemetry::set_filter(&text) {
        Ok(()) => {
            let filter = telemetry::filter().unwrap_or_default();
            tracing::info!(filter, "the filter of diagnostics was changed");
            (StatusCode::OK, format!("{filter}\n"))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    if admin.shutdown.has_begun() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    match tokio::time::timeout(READINESS_TIMEOUT, (admin.readiness)()).await {
        Ok(Ok(None)) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Ok(Some(detail))) => (StatusCode::OK, format!("ok\n{detail}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer in time\n".to_owned()),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_machine_does_not_change_the_filter() {
        for (peer, is_let_in) in
            [("192.0.2.1:5", false), ("[2001:db8::1]:5", false), ("127.0.0.1:5", true), ("[::1]:5", true)]
        {
            let peer = peer.parse().unwrap();
            let (status, _) = set_filter(ConnectInfo(peer), "info".to_owned()).await;
            assert_eq!(status != StatusCode::FORBIDDEN, is_let_in, "{peer}");
        }
    }
}
