//! What may run only so many times at once: exports and tails, and tails of one token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

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

/// How many run of each token, of what one token may not take all of.
#[derive(Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<Uuid, usize>>>);

/// The right of a token to run one more, for as long as it is held.
pub(crate) struct Share {
    shares: Shares,
    token: Uuid,
}

impl Shares {
    /// Takes one of the `most` of `token`.
    pub(crate) fn take(&self, token: Uuid, most: usize) -> Result<Share, ApiError> {
        let mut running = self.0.lock().expect("nobody panics while holding the shares");
        let of_token = running.entry(token).or_default();
        if *of_token >= most {
            return Err(ApiError::too_many("tails of this token"));
        }
        *of_token += 1;
        Ok(Share { shares: self.clone(), token })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut running = self.shares.0.lock().expect("nobody panics while holding the shares");
        if let Some(of_token) = running.get_mut(&self.token) {
            *of_token -= 1;
            if *of_token == 0 {
                running.remove(&self.token);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.running.decrement(1.0);
    }
}
