//! The pulse: one look a moment at how far the change feed goes, for all tails of this process.
//!
//! It also remembers when the feed passed which transaction, so that a tail knows how far it is behind.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use connlog_model::cursor::Position;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use tokio::sync::watch;

/// How often the feed is looked at while anybody tails.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often it is looked at while nobody does.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);
/// How often it remembers where the feed was, and how often at most.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const SAMPLES: usize = 900;

/// How far the change feed goes.
#[derive(Clone)]
pub struct Pulse {
    end: watch::Receiver<Option<Position>>,
    passed: Arc<Mutex<VecDeque<(Instant, u64)>>>,
    held_up_since: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// Starts looking: often while there are followers.
    pub fn start(store: Store, has_followers: impl Fn() -> bool + Send + 'static, shutdown: &Shutdown) -> Self {
        let (sender, end) = watch::channel(None);
        let pulse = Self { end, passed: Arc::default(), held_up_since: Arc::default() };
        shutdown.spawn("pulse", look(store, sender, pulse.clone(), has_followers, shutdown.clone()));
        pulse
    }

    /// Waits until the feed goes further than `position`.
    pub async fn beyond(&self, position: Position) {
        let mut end = self.end.clone();
        let goes_further = |end: &Option<Position>| end.is_some_and(|end| end > position);
        // An error means that the service is stopping; whoever waits is told so otherwise.
        if end.wait_for(goes_further).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn sample(&self, end: Position, stands_still: bool) {
        let mut since = self.held_up_since.lock().expect("no one panics while holding a time");
        *since = stands_still.then(|| since.unwrap_or_else(Instant::now));
        let mut passed = self.passed.lock().expect("no one panics while holding the samples");
        if passed.back().is_none_or(|(at, _)| at.elapsed() > SAMPLE_INTERVAL) {
            passed.push_back((Instant::now(), end.transaction));
            if passed.len() > SAMPLES {
                passed.pop_front();
            }
        }
    }

    /// For how long the feed has stood still although later transactions began: one that is older still runs.
    pub fn held_up(&self) -> Duration {
        let since = *self.held_up_since.lock().expect("no one panics while holding a time");
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// For how long the feed has gone further than `position`, as far as is remembered.
    pub fn behind(&self, position: Position) -> Duration {
        let passed = self.passed.lock().expect("no one panics while holding the samples");
        let first = passed.iter().find(|(_, transaction)| *transaction > position.transaction);
        first.map_or(Duration::ZERO, |(at, _)| at.elapsed())
    }
}

async fn look(
    store: Store,
    sender: watch::Sender<Option<Position>>,
    pulse: Pulse,
    has_followers: impl Fn() -> bool,
    shutdown: Shutdown,
) {
    let mut last = None;
    loop {
        match store.feed_state().await {
            Ok((end, has_later)) => {
                pulse.sample(end, has_later && last == Some(end));
                last = Some(end);
                wake(&store, &sender, end, has_followers()).await;
            }
            Err(error) => tracing::debug!(%error, "the change feed could not be looked at"),
        }
        let interval = if has_followers() { INTERVAL } else { IDLE_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// Wakes the tails if any row of the log changed: most transactions are about something else.
async fn wake(store: &Store, sender: &watch::Sender<Option<Position>>, end: Position, has_followers: bool) {
    let before = *sender.borrow();
    let changed = match before {
        Some(before) if before == end => return,
        Some(before) if has_followers => store.changed_between(before, end).await.unwrap_or(true),
        _ => true,
    };
    if changed {
        sender.send_replace(Some(end));
    }
}
