//! Two-stage shutdown: the first signal drains, a second one forces. A background task that ends by itself ends the
//! process: nothing keeps running on half of its parts.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells the parts of a service to stop, and waits for them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A shutdown that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGTERM and SIGINT ask for; a second signal ends the process at once.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let draining = shutdown.draining.clone();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            for already_draining in [false, true] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if already_draining {
                    tracing::warn!("second signal: stopping without draining");
                    std::process::exit(130);
                }
                tracing::info!("signal received: draining");
                draining.cancel();
            }
        });
        Ok(shutdown)
    }

    /// Asks everything to stop.
    pub fn begin(&self) {
        self.draining.cancel();
    }

    /// Whether stopping was asked for.
    pub fn has_begun(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until stopping is asked for.
    pub async fn begun(&self) {
        self.draining.cancelled().await;
    }

    /// Runs a part of the service in the background. If it ends before a shutdown begins, one begins and the service
    /// fails.
    pub fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let (draining, failed) = (self.draining.clone(), self.failed.clone());
        // A part that panics is dropped while the guard is armed.
        let guard = Guard { name, draining, failed };
        self.tasks.spawn(async move {
            part.await;
            drop(guard);
        });
    }

    /// Waits until all parts have ended, at most `grace`. Returns whether the service ended well: nobody failed and
    /// everybody was in time.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.tasks.close();
        let in_time = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if !in_time {
            tracing::error!(grace_seconds = grace.as_secs(), "shutdown took longer than the grace period");
        }
        in_time && !self.failed.is_cancelled()
    }
}

struct Guard {
    name: &'static str,
    draining: CancellationToken,
    failed: CancellationToken,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.draining.is_cancelled() {
            tracing::error!(part = self.name, "a part of the service ended by itself; stopping");
            self.failed.cancel();
            self.draining.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_stops_the_service_and_fails_it() {
        let shutdown = Shutdown::new();
        shutdown.spawn("waiting", {
            let shutdown = shutdown.clone();
            async move { shutdown.begun().await }
        });
        shutdown.spawn("panicking", async { panic!("on purpose") });
        shutdown.begun().await;
        assert!(!shutdown.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn an_orderly_shutdown_succeeds() {
        let shutdown = Shutdown::new();
        shutdown.spawn("waiting", {
            let shutdown = shutdown.clone();
            async move { shutdown.begun().await }
        });
        shutdown.begin();
        assert!(shutdown.finish(Duration::from_secs(5)).await);
    }
}
