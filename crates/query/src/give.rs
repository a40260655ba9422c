//! Giving what takes long to a client that reads at its own pace: exports and tails.

use std::time::Duration;

use connlog_runtime::shutdown::Shutdown;
use tokio::sync::mpsc;

/// A client that reads nothing for so long is given up: it holds a slot that others wait for.
const STALL: Duration = Duration::from_mins(1);
/// How long a client has for the last word when the service stops.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(2);

/// Why something was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotGiven {
    /// The client went away, or reads nothing.
    Gone,
    /// The service is stopping.
    Stopping,
}

/// Waits until the client has room for `item`.
pub(crate) async fn give<T>(sender: &mpsc::Sender<T>, item: T, shutdown: &Shutdown) -> Result<(), NotGiven> {
    tokio::select! {
        given = sender.send_timeout(item, STALL) => given.map_err(|_| NotGiven::Gone),
        // Who reads has its turn before that.
        () = async { shutdown.begun().await; tokio::time::sleep(LAST_WORD).await } => Err(NotGiven::Stopping),
    }
}
