//! What may run only so many times at once: exports and tails.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// The right to run one more, for as long as it is held.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    running: metrics::Gauge,
}

impl Slot {
    /// Takes one of `free`, of what is called `kind` in metrics.
    pub(crate) fn take(free: &Arc<Semaphore>, kind: &'static str) -> Result<Self, ApiError> {
        let permit = Arc::clone(free).try_acquire_owned().map_err(|_| ApiError::too_many(kind))?;
        let running = metrics::gauge!("connlog_query_running", "kind" => kind);
        running.increment(1.0);
        Ok(Self { _permit: permit, running })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.running.decrement(1.0);
    }
}
