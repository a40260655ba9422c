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
/// How far back the pulse remembers, one sample a second.
const SAMPLES: usize = 900;

/// How far the change feed goes.
#[derive(Clone)]
pub struct Pulse {
    end: watch::Receiver<Option<Position>>,
    passed: Arc<Mutex<VecDeque<(Instant, u64)>>>,
}

impl Pulse {
    /// Starts looking.
    pub fn start(store: Store, shutdown: &Shutdown) -> Self {
        let (sender, end) = watch::channel(None);
        let pulse = Self { end, passed: Arc::default() };
        let passed = Arc::clone(&pulse.passed);
        shutdown.spawn("pulse", look(store, sender, passed, shutdown.clone()));
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
    passed: Arc<Mutex<VecDeque<(Instant, u64)>>>,
    shutdown: Shutdown,
) {
    let mut sampled = Instant::now();
    loop {
        match store.feed_end().await {
            Ok(end) => {
                let mut passed = passed.lock().expect("no one panics while holding the samples");
                if passed.is_empty() || sampled.elapsed() > Duration::from_secs(1) {
                    sampled = Instant::now();
                    passed.push_back((sampled, end.transaction));
                    if passed.len() > SAMPLES {
                        passed.pop_front();
                    }
                }
                drop(passed);
                sender.send_if_modified(|last| last.replace(end) != Some(end));
            }
            Err(error) => tracing::debug!(%error, "the change feed could not be looked at"),
        }
        // The pulse itself holds one receiver.
        let interval = if sender.receiver_count() > 1 { INTERVAL } else { IDLE_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.begun() => return,
        }
    }
}
