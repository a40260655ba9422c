//! The service as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use connlog_model::clock::Clock;
use connlog_runtime::admin::{self, Readiness};
use connlog_runtime::http::{self, HttpLimits};
use connlog_runtime::listen::{ConnectionLimits, Connections};
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::tls::ServerTls;
use connlog_runtime::{telemetry, traces};
use connlog_store::browser::Lifetimes;
use connlog_store::{Store, StoreConfig, schema};
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{Status, TraceContextExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, NotForContentType, Predicate as _, SizeAbove};
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::audit::{Audit, audited};
use crate::auth::{Authenticator, Recognition, paced};
use crate::config::Config;
use crate::contradictions::contradictions;
use crate::dashboard;
use crate::error::ApiError;
use crate::export::export;
use crate::forms::{Forms, read_forms};
use crate::fresh::{Freshness, stated};
use crate::gaps::gaps;
use crate::list::list;
use crate::one::one;
use crate::openapi;
use crate::pulse::Pulse;
use crate::retention::{self, retention};
use crate::slot::{Queue, Shares};
use crate::stats::stats;
use crate::tail::tail;

/// Database connections of exports, tails and the pulse.
const FOLLOWING_CONNECTIONS: usize = 6;

/// What handlers work with.
#[derive(Clone)]
pub struct Service {
    /// The primary database.
    pub(crate) primary: Store,
    /// What the log is read from.
    pub(crate) reads: Store,
    /// The same for exports and tails, with connections of their own: pages do not wait for them.
    pub(crate) follows: Store,
    pub(crate) authenticator: Authenticator,
    pub(crate) audit: Audit,
    pub(crate) pulse: Pulse,
    pub(crate) freshness: Freshness,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// Exports, which wait for their turn.
    pub(crate) exports: Queue,
    /// Tails that may still begin.
    pub(crate) tails: Arc<Semaphore>,
    /// Tails of each token.
    pub(crate) shares: Shares,
    /// Forms that are being read.
    pub(crate) forms: Forms,
    pub(crate) shutdown: Shutdown,
    /// Whether answers by TLS have no `Strict-Transport-Security`.
    pub(crate) no_hsts: bool,
}

/// How much an answer may cost.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) count_cap: i64,
    pub(crate) count_budget: Duration,
    pub(crate) scan_budget: Duration,
    pub(crate) tails_per_token: usize,
    pub(crate) tail_lag: Duration,
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
    store_config.password_file.clone_from(&config.database_password_file);
    store_config.statement_timeout = Some(request_timeout);
    (store_config.reads, store_config.pooled) = (true, config.database_pooled);
    let store = Store::new(&store_config)?;
    schema::check_for_service(&store).await.context("cannot start on this database")?;
    let reads = match &config.database_read_url {
        Some(url) => {
            let reads = Store::new(&StoreConfig { url: url.clone(), ..store_config.clone() })?;
            schema::check(&reads).await.context("cannot start on the database for reads")?;
            reads
        }
        None => store.clone(),
    };
    let tls = ServerTls::load(&config.tls, listener.local_addr()?, &["h2", "http/1.1"], &shutdown)?;
    let follows = Store::new(&StoreConfig {
        url: config.database_read_url.clone().unwrap_or(config.database_url.clone()),
        max_connections: FOLLOWING_CONNECTIONS,
        application_name: "connlog-query follow".to_owned(),
        ..store_config
    })?;
    let metrics = telemetry::metrics();
    // Counters are there from the start: what begins with its first event has no increase to alert on.
    metrics::counter!("connlog_query_failed_attempts_total").increment(0);
    metrics::counter!("connlog_query_copied_sessions_total").increment(0);
    for cause in ["too_many", "too_large", "too_slow"] {
        metrics::counter!("connlog_query_refused_forms_total", "cause" => cause).increment(0);
    }
    for kind in ["exports", "strangers"] {
        metrics::counter!("connlog_query_refused_total", "kind" => kind).increment(0);
    }
    for kind in ["exports", "tails"] {
        metrics::gauge!("connlog_query_running", "kind" => kind).set(0);
    }
    tokio::spawn(admin::serve(admin_listener, readiness(store.clone()), metrics, shutdown.clone()));
    let clock = config.clock.clone();
    retention::keep_metrics(reads.clone(), clock.clone(), &shutdown);
    let tails = Arc::new(Semaphore::new(config.max_tails));
    let has_followers = {
        let (tails, most) = (Arc::clone(&tails), config.max_tails);
        move || tails.available_permits() < most
    };
    let recognition = Recognition {
        remember: config.token_cache.to_std()?,
        lifetimes: Lifetimes { idle: config.session_idle, all: config.session_lifetime },
        renewal: config.session_renewal,
        is_secure: tls.is_some(),
    };
    let authenticator = Authenticator::new(store.clone(), clock.clone(), recognition);
    shutdown.spawn("revocations", authenticator.clone().follow_revocations(shutdown.clone()));
    let service = Service {
        primary: store.clone(),
        authenticator,
        audit: Audit::start(store, clock.clone(), &shutdown),
        pulse: Pulse::start(follows.clone(), has_followers, &shutdown),
        freshness: Freshness::start(reads.clone(), clock.clone(), &shutdown),
        reads,
        follows,
        clock,
        exports: Queue::new(config.max_exports, config.max_exports_per_token, config.export_patience.to_std()?),
        tails,
        shares: Shares::default(),
        forms: Forms::default(),
        shutdown: shutdown.clone(),
        no_hsts: config.no_hsts,
        limits: Limits {
            count_cap: config.count_cap,
            count_budget: config.count_budget.to_std()?,
            scan_budget: config.scan_budget.to_std()?,
            tails_per_token: config.max_tails_per_token,
            tail_lag: config.tail_lag.to_std()?,
        },
    };
    let router = routes(service, request_timeout);
    let address = listener.local_addr()?;
    let limits = ConnectionLimits {
        all: config.max_connections,
        strangers: config.max_unrecognized,
        stall: config.stall_timeout.to_std()?,
    };
    let connections = Connections::accept(listener, tls, limits);
    tracing::info!(%address, "connlog-query is listening");
    let limits = HttpLimits {
        head_timeout: config.idle_timeout.to_std()?,
        max_head_bytes: config.max_head_bytes,
        drain: config.grace_period.to_std()? / 2,
    };
    shutdown.spawn("HTTP listener", http::serve(connections, router, limits, shutdown.clone()));
    shutdown.begun().await;
    Ok(shutdown.finish(config.grace_period.to_std()?).await)
}

/// The routes, within what each request goes through.
fn routes(service: Service, request_timeout: Duration) -> Router {
    let log = Router::new()
        .route("/api/v2/connectionlog", get(list))
        .route("/api/v2/connectionlog/{id}", get(one))
        .route("/api/v2/connectionlog/{id}/contradictions", get(contradictions))
        .route("/api/v2/connectionlog/export", get(export))
        .route("/api/v2/connectionlog/tail", get(tail))
        .route("/api/v2/connectionlog/stats", get(stats))
        .route("/api/v2/connectionlog/gaps", get(gaps))
        .route("/api/v2/connectionlog/retention", get(retention))
        .layer(compression())
        .layer(from_fn_with_state(service.clone(), stated));
    log.route("/api/v2/connectionlog/openapi.json", get(openapi::openapi))
        .route("/docs", get(openapi::docs))
        .route("/docs/docs.js", get(openapi::docs_script))
        .route("/docs/docs.css", get(openapi::docs_style))
        .merge(dashboard::routes(service.clone()))
        .fallback(dashboard::not_found)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn_with_state(service.clone(), read_forms))
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
        // Outside of the timeout: what took too long was a use, too.
        .layer(from_fn_with_state(service.clone(), audited))
        .layer(from_fn_with_state(service.clone(), private))
        .layer(from_fn(measure))
        // Outside of what measures: what is refused costs next to nothing.
        .layer(from_fn_with_state(service.clone(), paced))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(NewRequestId))
        .with_state(service)
}

/// Compresses answers of more than 1 KiB for clients that accept it, but no streams of events: each event is given at once.
pub(crate) fn compression() -> CompressionLayer<And<SizeAbove, NotForContentType>> {
    let is_worth_it = SizeAbove::new(1024).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_worth_it)
}

fn readiness(store: Store) -> Readiness {
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move { schema::check_running(&store).await.map(|()| None).map_err(|error| error.one_line()) })
    })
}

/// Neither browsers nor proxies keep answers that depend on who asks.
async fn private(State(service): State<Service>, request: Request, next: Next) -> Response {
    let by_tls = service.authenticator.came_by_tls(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let is_public = |value: &HeaderValue| value.as_bytes().starts_with(b"public");
    if !headers.get(CACHE_CONTROL).is_some_and(is_public) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append(VARY, HeaderValue::from_static("authorization, cookie, coder-session-token"));
    }
    if by_tls && !service.no_hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

async fn measure(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let path =
        request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let id = request.headers().get("x-request-id").map_or("", |id| id.to_str().unwrap_or_default());
    let span = tracing::info_span!("request", id, endpoint = path);
    let trace = traces::serve(format!("{} {path}", request.method()), request.headers());
    trace.span().set_attribute(KeyValue::new("http.route", path.clone()));
    let response = next.run(request).with_context(trace.clone()).instrument(span).await;
    trace.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(response.status().as_u16())));
    if response.status().is_server_error() {
        trace.span().set_status(Status::error(""));
    }
    trace.span().end();
    let status = response.status().as_u16().to_string();
    metrics::histogram!("connlog_query_request_seconds", "endpoint" => path, "status" => status)
        .record(began.elapsed().as_secs_f64());
    response
}

/// The id of a request that brings none. It is in the answer, and in whatever is logged about it.
#[derive(Clone, Copy)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        Some(RequestId::new(Uuid::now_v7().to_string().parse().ok()?))
    }
}
