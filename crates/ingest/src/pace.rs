//! How fast one sender may go. An agent that streams is read no faster; a call that comes too soon is told to come back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use uuid::Uuid;

/// A sender may save up so many seconds of its rate.
const BURST_SECONDS: u32 = 10;
/// A disconnect without a start is looked for on up to 45 days, and costs its sender as much as this many events. At one event each,
/// random ids would make the database do forty times the work that their sender is allowed.
const LOOK_BACK_EVENTS: usize = 50;
/// A dead letter costs its sender as much as this many events, since all of it is kept. An agent that sends nothing else leaves ten a
/// second at the default rate. At one event each it would be 5,000 a second, or 150 GB a day.
const LETTER_EVENTS: usize = 500;
/// The longest time in which a sender is not read, or not answered, for what it has to pay. An agent that is not read for longer would
/// count as lost.
pub const LONGEST_PAYMENT: Duration = Duration::from_secs(30);
/// How often senders that have not been heard of are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// The rates of senders, by agent or by reporter's token.
#[derive(Clone)]
pub struct Pace {
    senders: Arc<DefaultKeyedRateLimiter<Uuid>>,
    burst: NonZeroU32,
}

impl Pace {
    /// `events_per_second` of each sender, after a burst of ten seconds' worth, or of one batch of `max_batch_events`.
    pub fn new(events_per_second: NonZeroU32, max_batch_events: usize) -> Self {
        let batch = u32::try_from(max_batch_events).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let burst = events_per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1)).max(batch);
        let senders = Arc::new(RateLimiter::keyed(Quota::per_second(events_per_second).allow_burst(burst)));
        Self { senders, burst }
    }

    /// Takes the right to send `events`, if `sender` has it now.
    pub fn allows(&self, sender: Uuid, events: usize) -> bool {
        // More than ever fits is for other limits to refuse.
        number(events).is_none_or(|events| !matches!(self.senders.check_key_n(&sender, events), Ok(Err(_))))
    }

    /// Takes the right to send `events` as soon as `sender` has it: of more than a burst, one burst after the other.
    pub async fn wait(&self, sender: Uuid, events: usize) {
        let mut left = number(events);
        while let Some(events) = left {
            let now = events.min(self.burst);
            let _never_more_than_a_burst = self.senders.until_key_n_ready(&sender, now).await;
            left = NonZeroU32::new(events.get() - now.get());
        }
    }

    /// Waits until `sender` has paid for look-backs and dead letters, but for no longer than [`LONGEST_PAYMENT`]. All look-backs
    /// together cost a burst at most.
    pub async fn pay(&self, sender: Uuid, look_backs: usize, letters: usize) {
        metrics::counter!("connlog_ingest_look_backs_total").increment(look_backs as u64);
        let burst = usize::try_from(self.burst.get()).unwrap_or(usize::MAX);
        let of_look_backs = look_backs.saturating_mul(LOOK_BACK_EVENTS).min(burst);
        let price = of_look_backs.saturating_add(letters.saturating_mul(LETTER_EVENTS));
        let _paid_or_not = tokio::time::timeout(LONGEST_PAYMENT, self.wait(sender, price)).await;
    }

    /// Forgets senders that have all of their burst again, for as long as somebody uses this.
    pub fn forget(&self) -> impl Future<Output = ()> + use<> {
        forget(&self.senders)
    }
}

/// Forgets senders that have all of their burst again, for as long as somebody uses `senders`.
pub(crate) fn forget(senders: &Arc<DefaultKeyedRateLimiter<Uuid>>) -> impl Future<Output = ()> + use<> {
    let senders = Arc::downgrade(senders);
    async move {
        loop {
            tokio::time::sleep(FORGET_INTERVAL).await;
            let Some(senders) = senders.upgrade() else { return };
            senders.retain_recent();
            senders.shrink_to_fit();
        }
    }
}

fn number(events: usize) -> Option<NonZeroU32> {
    u32::try_from(events).ok().and_then(NonZeroU32::new)
}
