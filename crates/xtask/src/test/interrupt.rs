//! Ctrl-C and SIGTERM: what runs is stopped, nothing more is begun, and the summary is printed of what was done.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell gives to a program that Ctrl-C ended.
pub(super) const EXIT_CODE: i32 = 130;

static HAS_COME: AtomicBool = AtomicBool::new(false);

/// Whether one of them has come.
pub(super) fn has_come() -> bool {
    HAS_COME.load(Ordering::Relaxed)
}

/// Notes them from now on, in place of ending the program.
pub(super) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                // A second one does not wait for the summary.
                if HAS_COME.swap(true, Ordering::Relaxed) {
                    std::process::exit(EXIT_CODE);
                }
            }
        });
    });
    Ok(())
}
