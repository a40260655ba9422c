//! The admin listener: `/livez`, `/readyz` and `/metrics`, away from what users reach.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

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

/// Serves the admin endpoints until everything else has stopped.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: PrometheusHandle, shutdown: Shutdown) {
    let admin = Admin { readiness, metrics, shutdown: shutdown.clone() };
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async |State(admin): State<Admin>| admin.metrics.render()))
        .with_state(admin);
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.begun().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin listener failed");
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    if admin.shutdown.has_begun() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    match (admin.readiness)().await {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
