//! The program: one run, or one after another.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use connlog_runtime::admin::{self, Readiness};
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::telemetry;
use connlog_store::{Store, StoreConfig, StoreError, schema};
use opentelemetry::trace::{Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context as OpenTelemetry, global};
use tokio::net::TcpListener;

use crate::config::Settings;
use crate::report::report;
use crate::run::{Failure, run};
use crate::summary::{Outcome, Summary};

/// Database connections.
const CONNECTIONS: usize = 4;
/// How long a statement waits for a lock, unless it has a bound of its own; with it, and the next one, nobody holds a purge up
/// for ever.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a statement runs.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(5);

/// The database, as a purge uses it.
pub fn open(database_url: &str, password_file: Option<&Path>) -> Result<Store, StoreError> {
    let mut config = StoreConfig::new(database_url, "connlog-purge", CONNECTIONS);
    config.password_file = password_file.map(Path::to_owned);
    (config.lock_timeout, config.statement_timeout) = (Some(LOCK_TIMEOUT), Some(STATEMENT_TIMEOUT));
    Store::new(&config)
}

/// Purges once and returns what was done; with `--every`, purges until `shutdown` and returns nothing.
pub async fn serve(settings: &Settings, shutdown: &Shutdown) -> Result<Option<Summary>> {
    telemetry::metrics();
    let config = &settings.config;
    let store = open(&config.database_url, config.database_password_file.as_deref())?;
    let Some(every) = settings.config.every else {
        let outcome = measured(settings, &store, shutdown).await;
        if !settings.config.dry_run && !matches!(outcome, Err(Failure::Busy)) {
            report(&settings.config, &store).await;
        }
        return Ok(Some(outcome?));
    };
    if let Some(address) = settings.config.admin_listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("--admin-listen {address}"))?;
        tokio::spawn(admin::serve(listener, readiness(store.clone()), telemetry::metrics(), shutdown.clone()));
    }
    let every = every.to_std().unwrap_or(Duration::MAX);
    while !shutdown.has_begun() {
        let began = Instant::now();
        match measured(settings, &store, shutdown).await {
            Ok(summary) => tracing::info!("{summary}"),
            Err(Failure::Busy) => tracing::info!("another purge is running; this one waits for its next turn"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the purge failed; it is tried again");
            }
        }
        report(&settings.config, &store).await;
        tokio::select! {
            () = tokio::time::sleep(every.saturating_sub(began.elapsed())) => {}
            () = shutdown.begun() => {}
        }
    }
    Ok(None)
}

/// A run, and how long it took, by the name that dashboards of Coder know.
async fn measured(settings: &Settings, store: &Store, shutdown: &Shutdown) -> Result<Summary, Failure> {
    let began = Instant::now();
    let trace = OpenTelemetry::new().with_span(global::tracer("connlog").start("purge"));
    let outcome = match schema::check_for_service(store).await {
        Ok(()) => opentelemetry::context::FutureExt::with_context(run(settings, store, shutdown), trace.clone()).await,
        Err(error) => Err(error.into()),
    };
    let done = outcome.as_ref().is_ok_and(|summary| summary.outcome != Outcome::Incomplete);
    trace.span().set_status(if done { Status::Ok } else { Status::error("incomplete") });
    trace.span().end();
    let success = if done { "true" } else { "false" };
    metrics::histogram!("coderd_dbpurge_iteration_duration_seconds", "success" => success)
        .record(began.elapsed().as_secs_f64());
    outcome
}

fn readiness(store: Store) -> Readiness {
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move { schema::check_running(&store).await.map(|()| None).map_err(|error| error.one_line()) })
    })
}
