//! What the server concluded, told: in diagnostics, metrics and the service log.

use std::sync::Arc;

use connlog_model::clock::Clock;
use connlog_model::connection::Connection;
use connlog_runtime::shutdown::Shutdown;
use uuid::Uuid;

use crate::service_log::{ServiceLog, Subject};

/// Tells what was concluded.
#[derive(Clone)]
pub struct Conclusions {
    /// Where it is logged.
    pub service_log: Arc<ServiceLog>,
    /// Where the time comes from.
    pub clock: Clock,
    /// A service that stops waits for no log.
    pub shutdown: Shutdown,
}

impl Conclusions {
    /// Connections are taken for ended. `of` names what led to it: a stream, a call, a round of the watch.
    pub(crate) async fn ended(&self, of: Uuid, cause: &'static str, connections: &[Connection]) {
        if connections.is_empty() {
            return;
        }
        tracing::info!(%of, cause, connections = connections.len(), "connections are taken for ended");
        metrics::counter!("connlog_ingest_inferred_total", "cause" => cause).increment(connections.len() as u64);
        self.log(connections.iter().map(|connection| (of, Subject::Inferred(connection)))).await;
    }

    /// Connections that had been taken for ended are open.
    pub(crate) async fn reopened(&self, of: Uuid, connections: &[Connection]) {
        if connections.is_empty() {
            return;
        }
        tracing::info!(%of, connections = connections.len(), "connections that had been taken for ended are open");
        metrics::counter!("connlog_ingest_reopened_total").increment(connections.len() as u64);
        self.log(connections.iter().map(|connection| (of, Subject::Reopened(connection)))).await;
    }

    async fn log<'a>(&self, subjects: impl Iterator<Item = (Uuid, Subject<'a>)>) {
        self.service_log.log(subjects, self.clock.now(), Some(&self.shutdown)).await;
    }
}
