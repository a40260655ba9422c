//! Waiting on a condition with a deadline, in place of a sleep that hopes.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// Deadline of everything that must happen: far beyond what a busy machine with two cores needs.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds.
///
/// # Panics
/// After [`PATIENCE`], naming `what` never happened.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until_value(what, async || condition().await, |held| *held).await;
}

/// Waits until what `look` finds is as wanted, and returns it.
///
/// # Panics
/// After [`PATIENCE`], with the value that was found last.
pub async fn until_value<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    mut is_wanted: impl FnMut(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look().await;
        if is_wanted(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}; last seen: {found:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
