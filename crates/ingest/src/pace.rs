//! How fast one sender may go. An agent that streams is read no faster; a call that comes too soon is told to come back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use uuid::Uuid;

/// A sender may save up so many seconds of its rate.
const BURST_SECONDS: u32 = 10;
/// How often senders that have not been heard of are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// The rates of senders, by agent or by reporter's token.
#[derive(Clone)]
pub struct Pace {
    senders: Arc<DefaultKeyedRateLimiter<Uuid>>,
}

impl Pace {
    /// `events_per_second` of each sender, after a burst of ten seconds' worth, or of one batch of `max_batch_events`.
    pub fn new(events_per_second: NonZeroU32, max_batch_events: usize) -> Self {
        let batch = u32::try_from(max_batch_events).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let burst = events_per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1)).max(batch);
        Self { senders: Arc::new(RateLimiter::keyed(Quota::per_second(events_per_second).allow_burst(burst))) }
    }

    /// Takes the right to send `events`, if `sender` has it now.
    pub fn allows(&self, sender: Uuid, events: usize) -> bool {
        // More than ever fits is for other limits to refuse.
        number(events).is_none_or(|events| !matches!(self.senders.check_key_n(&sender, events), Ok(Err(_))))
    }

    /// Takes the right to send `events` as soon as `sender` has it.
    pub async fn wait(&self, sender: Uuid, events: usize) {
        if let Some(events) = number(events) {
            // What never fits does not wait.
            let _too_many_for_ever = self.senders.until_key_n_ready(&sender, events).await;
        }
    }

    /// Forgets senders that have all of their burst again, for as long as somebody uses this.
    pub async fn forget(self) {
        loop {
            tokio::time::sleep(FORGET_INTERVAL).await;
            self.senders.retain_recent();
            self.senders.shrink_to_fit();
        }
    }
}

fn number(events: usize) -> Option<NonZeroU32> {
    u32::try_from(events).ok().and_then(NonZeroU32::new)
}
