//! What may run only so many times at once, in all and of one token: tails, which are refused beyond that, and exports, which
//! wait for their turn for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::error::ApiError;

/// Most exports of one token that wait for their turn. A further one is refused at once.
const WAITING: usize = 8;
/// With more tokens than this in a queue, those are forgotten that have no export.
const TOKENS: usize = 1_000;

/// The right to run one more, for as long as it is held.
pub(crate) struct Slot {
    _permits: Vec<OwnedSemaphorePermit>,
    running: metrics::Gauge,
}

/// What waits for its turn: so many run at once, and so many of one token.
#[derive(Clone)]
pub(crate) struct Queue {
    all: Arc<Semaphore>,
    tokens: Arc<Mutex<HashMap<Uuid, Turns>>>,
    most_of_token: usize,
    patience: Duration,
}

/// The turns of one token.
#[derive(Clone)]
struct Turns {
    /// Those that run or wait.
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Queue {
    /// A queue in which each waits for at most `patience`.
    pub(crate) fn new(most: usize, most_of_token: usize, patience: Duration) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), tokens: Arc::default(), most_of_token, patience }
    }

    /// Waits for the turn of a token; metrics have it as `kind`. The token's own limit comes first, so that it never has more in
    /// the queue of all than it may run.
    pub(crate) async fn enter(&self, token: Uuid, kind: &'static str) -> Result<Slot, ApiError> {
        let Turns { places, running } = self.turns_of(token);
        let place = places.try_acquire_owned().map_err(|_| ApiError::too_many(&format!("{kind} of this token")))?;
        let turn =
            async { Some((running.acquire_owned().await.ok()?, Arc::clone(&self.all).acquire_owned().await.ok()?)) };
        let Ok(Some((own, all))) = tokio::time::timeout(self.patience, turn).await else {
            metrics::counter!("connlog_query_refused_total", "kind" => kind).increment(1);
            return Err(ApiError::too_many(kind));
        };
        Ok(Slot::of(vec![place, own, all], kind))
    }

    fn turns_of(&self, token: Uuid) -> Turns {
        let mut tokens = self.tokens.lock().expect("nobody panics while holding the queue");
        if tokens.len() >= TOKENS {
            tokens.retain(|_, turns| Arc::strong_count(&turns.places) > 1);
        }
        let new = || Turns {
            places: Arc::new(Semaphore::new(self.most_of_token + WAITING)),
            running: Arc::new(Semaphore::new(self.most_of_token)),
        };
        tokens.entry(token).or_insert_with(new).clone()
    }
}

impl Slot {
    /// Takes one of `free`, of what is called `kind` in metrics.
    pub(crate) fn take(free: &Arc<Semaphore>, kind: &'static str) -> Result<Self, ApiError> {
        let permit = Arc::clone(free).try_acquire_owned().map_err(|_| ApiError::too_many(kind))?;
        Ok(Self::of(vec![permit], kind))
    }

    fn of(permits: Vec<OwnedSemaphorePermit>, kind: &'static str) -> Self {
        let running = metrics::gauge!("connlog_query_running", "kind" => kind);
        running.increment(1.0);
        Self { _permits: permits, running }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn one_token_does_not_take_all_places_and_waits_for_its_turn() {
        let queue = Queue::new(3, 2, PATIENCE);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = queue.enter(one, "exports").await.unwrap();
        let _second = queue.enter(one, "exports").await.unwrap();
        assert!(queue.enter(one, "exports").await.is_err());
        let others = queue.enter(other, "exports").await.unwrap();
        assert!(queue.enter(other, "exports").await.is_err(), "there are no more");
        let waits = tokio::spawn({
            let queue = Queue { patience: Duration::from_mins(1), ..queue.clone() };
            async move { queue.enter(one, "exports").await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waits.await.unwrap(), "its turn comes");
        drop(others);
        assert!(queue.enter(other, "exports").await.is_ok());
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded_and_what_is_kept_of_tokens_is_forgotten() {
        let queue = Queue::new(1, 1, Duration::from_mins(1));
        let token = Uuid::from_u128(1);
        let _running = queue.enter(token, "exports").await.unwrap();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.enter(token, "exports").await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(queue.enter(token, "exports").await.is_err(), "at once");
        for number in 0..2 * TOKENS {
            queue.turns_of(Uuid::from_u128(u128::try_from(number).unwrap() + 2));
        }
        let kept = queue.tokens.lock().unwrap().len();
        assert!(kept <= TOKENS + 1 && queue.tokens.lock().unwrap().contains_key(&token), "{kept}");
        for task in waiting {
            task.abort();
        }
    }
}
