//! The service as a whole.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use connlog_runtime::admin::{self, Readiness};
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::telemetry;
use connlog_store::{Store, StoreConfig, schema};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::auth::Authenticator;
use crate::config::Config;
use crate::error::ApiError;
use crate::list::list;

/// What handlers work with.
#[derive(Clone)]
pub struct Service {
    pub(crate) store: Store,
    pub(crate) authenticator: Authenticator,
    pub(crate) count_cap: i64,
}

/// Runs the service until `shutdown`. Returns whether it ended well.
pub async fn run(
    config: Config,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: Shutdown,
) -> anyhow::Result<bool> {
    let store = Store::new(&StoreConfig::new(&config.database_url, "connlog-query", usize::from(config.connections)))?;
    schema::check(&store).await.context("cannot start on this database")?;
    let metrics = telemetry::metrics();
    shutdown.spawn("admin listener", admin::serve(admin_listener, readiness(store.clone()), metrics, shutdown.clone()));
    let service = Service {
        authenticator: Authenticator::new(store.clone(), config.clock.clone(), config.token_cache.to_std()?),
        store,
        count_cap: config.count_cap,
    };
    let router = Router::new()
        .route("/api/v2/connectionlog", get(list))
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn(measure))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, config.request_timeout.to_std()?))
        .layer(CatchPanicLayer::new())
        .with_state(service);
    tracing::info!(address = %listener.local_addr()?, "connlog-query is listening");
    shutdown.spawn("HTTP listener", {
        let shutdown = shutdown.clone();
        async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.begun().await }).await;
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP listener failed");
            }
        }
    });
    shutdown.begun().await;
    Ok(shutdown.finish(config.grace_period.to_std()?).await)
}

fn readiness(store: Store) -> Readiness {
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move { schema::check(&store).await.map_err(|error| error.to_string()) })
    })
}

async fn measure(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let path =
        request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::histogram!("connlog_query_request_seconds", "endpoint" => path, "status" => status)
        .record(began.elapsed().as_secs_f64());
    response
}
