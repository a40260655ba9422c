//! The admin listener: `/livez`, `/readyz` and `/metrics`, away from what users reach.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::shutdown::Shutdown;

/// Asks whether the service can do its work now; the error says in one line why not.
pub type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
}

/// How long asking for readiness may take.
const READINESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves the admin endpoints until the process ends, so that a service that drains can be watched.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: PrometheusHandle, shutdown: Shutdown) {
    let admin = Admin { readiness, metrics, shutdown };
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async |State(admin): State<Admin>| admin.metrics.render()))
        .with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    if admin.shutdown.has_begun() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    match tokio::time::timeout(READINESS_TIMEOUT, (admin.readiness)()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer in time\n".to_owned()),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
