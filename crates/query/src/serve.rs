//! The service as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use connlog_model::clock::Clock;
use connlog_runtime::admin::{self, Readiness};
use connlog_runtime::listen::Connections;
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::telemetry;
use connlog_runtime::tls::ServerTls;
use connlog_store::{Store, StoreConfig, schema};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::Authenticator;
use crate::config::Config;
use crate::error::ApiError;
use crate::gaps::gaps;
use crate::list::list;

/// What handlers work with.
#[derive(Clone)]
pub struct Service {
    pub(crate) store: Store,
    pub(crate) authenticator: Authenticator,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
}

/// How much an answer may cost.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) count_cap: i64,
    pub(crate) count_budget: Duration,
    pub(crate) scan_budget: Duration,
}

/// Runs the service until `shutdown`. Returns whether it ended well.
pub async fn run(
    config: Config,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: Shutdown,
) -> anyhow::Result<bool> {
    let request_timeout = config.request_timeout.to_std()?;
    let connections = usize::from(config.connections);
    let mut store_config = StoreConfig::new(&config.database_url, "connlog-query", connections);
    store_config.statement_timeout = Some(request_timeout);
    let store = Store::new(&store_config)?;
    schema::check(&store).await.context("cannot start on this database")?;
    let tls = ServerTls::load(&config.tls, &["h2", "http/1.1"], &shutdown)?;
    let metrics = telemetry::metrics();
    tokio::spawn(admin::serve(admin_listener, readiness(store.clone()), metrics, shutdown.clone()));
    let service = Service {
        authenticator: Authenticator::new(store.clone(), config.clock.clone(), config.token_cache.to_std()?),
        store,
        clock: config.clock.clone(),
        limits: Limits {
            count_cap: config.count_cap,
            count_budget: config.count_budget.to_std()?,
            scan_budget: config.scan_budget.to_std()?,
        },
    };
    let router = Router::new()
        .route("/api/v2/connectionlog", get(list))
        .route("/api/v2/connectionlog/gaps", get(gaps))
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request panicked");
            ApiError::internal().into_response()
        }))
        .layer(from_fn(move |request: Request, next: Next| async move {
            match tokio::time::timeout(request_timeout, next.run(request)).await {
                Ok(response) => response,
                Err(_) => ApiError::timed_out().into_response(),
            }
        }))
        .layer(from_fn(measure))
        .with_state(service);
    let address = listener.local_addr()?;
    let connections = Connections::accept(listener, tls)?;
    tracing::info!(%address, "connlog-query is listening");
    let drain_time = config.grace_period.to_std()? / 2;
    shutdown.spawn("HTTP listener", {
        let shutdown = shutdown.clone();
        async move {
            let draining = shutdown.clone();
            let served = axum::serve(connections, router).with_graceful_shutdown(async move { draining.begun().await });
            let ended = tokio::select! {
                served = served.into_future() => served,
                // A peer that never finishes its request does not hold up the end.
                () = async { shutdown.begun().await; tokio::time::sleep(drain_time).await } => Ok(()),
            };
            if let Err(error) = ended {
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
        Box::pin(async move { schema::check_running(&store).await.map_err(|error| error.to_string()) })
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
