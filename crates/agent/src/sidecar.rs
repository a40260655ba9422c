//! The sidecar: one long-lived process owns the spool; programs that come and go hand it their events over a unix socket.
//!
//! Whoever cannot reach it, because it is being restarted, say, leaves the event, durably, in a drop directory, where the
//! sidecar picks it up. A request on the socket is a length (4 bytes, little-endian) and a `connlog.v1.Connection`; a length
//! of 0 asks for the status. The answer is a byte (0: accepted, else one of [`Refusal`]), a length and a text.

pub mod drop_directory;
mod hand_over;
mod serve;

use std::path::{Path, PathBuf};

pub use self::hand_over::{Accepted, HandOverError, hand_over, status};
pub use self::serve::{ServeError, serve};

/// The socket, in the folder of the spool.
const SOCKET: &str = "connlog.sock";
/// Largest request, in bytes.
const MAX_REQUEST_BYTES: u32 = 64 << 10;
/// The answer to what was accepted.
const ACCEPTED: u8 = 0;

/// Why the sidecar did not accept an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The event is at fault: trying again is of no use.
    Invalid = 1,
    /// The sidecar could not store it: the drop directory may be able to.
    Storage = 2,
}

/// The socket of the sidecar whose spool is in `folder`.
pub fn socket_path(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}
