//! The watch: notes that this ingest is listening, and closes what silent and deleted agents left open.

use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::clock::Clock;
use connlog_model::connection::Connection;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::{Store, StoreError};

/// How often the watch looks.
const ROUND: Duration = Duration::from_secs(10);
/// A longer pause of all ingests was an outage, and silence during it says nothing.
const LONGEST_PAUSE: TimeDelta = TimeDelta::seconds(60);

/// Watches until the service stops.
pub(crate) async fn watch(store: Store, clock: Clock, lost_after: TimeDelta, shutdown: Shutdown) {
    loop {
        if let Err(error) = round(&store, &clock, lost_after).await {
            if error.is_unavailable() || error.is_transient() {
                tracing::debug!(%error, "a round of the watch was skipped");
            } else {
                tracing::error!(error = &error as &dyn std::error::Error, "a round of the watch failed");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = shutdown.begun() => return,
        }
    }
}

async fn round(store: &Store, clock: &Clock, lost_after: TimeDelta) -> Result<(), StoreError> {
    let now = clock.now();
    let heard_since = store.attend(now, LONGEST_PAUSE).await?;
    let silent = store.sweep_silent(now, heard_since, lost_after).await?;
    report("lost", &silent.closed);
    let deleted = store.sweep_deleted().await?;
    report("deleted", &deleted.closed);
    Ok(())
}

fn report(cause: &'static str, closed: &[Connection]) {
    if !closed.is_empty() {
        tracing::info!(cause, connections = closed.len(), "connections are taken for ended");
        metrics::counter!("connlog_ingest_inferred_total", "cause" => cause).increment(closed.len() as u64);
    }
}
