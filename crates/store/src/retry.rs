//! The one place where a whole transaction is tried again.

use std::time::Duration;

use crate::StoreError;

/// Most attempts. With agents held first a batch cannot deadlock, so a second attempt is rare and a tenth means trouble.
pub(crate) const MAX_ATTEMPTS: u32 = 10;
/// The longest pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE_MILLIS: u64 = 4;
/// The longest pause of all.
const LONGEST_PAUSE_MILLIS: u64 = 500;

/// Waits before attempt `attempt + 1`, with full jitter, if `error` may pass by itself; gives it back otherwise.
pub(crate) async fn pause(attempt: u32, error: StoreError) -> Result<(), StoreError> {
    if !error.is_transient() || attempt + 1 >= MAX_ATTEMPTS {
        return Err(error);
    }
    tracing::debug!(attempt, %error, "transaction retried");
    metrics::counter!("connlog_database_retries_total").increment(1);
    let ceiling = (FIRST_PAUSE_MILLIS << attempt).min(LONGEST_PAUSE_MILLIS);
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..=ceiling))).await;
    Ok(())
}
