//! The other side of the socket: short-lived programs hand their events over.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use connlog_proto::v1;
use prost::Message as _;

use super::{ACCEPTED, Refusal, drop_directory, socket_path};
use crate::reporter::{check, shrink};

/// How long the sidecar may take to accept an event before it is left in the drop directory.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest text of an answer, in bytes.
const MAX_ANSWER_BYTES: u32 = 64 << 10;

/// How an event was accepted. Either way it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The sidecar has it in its spool.
    Spooled,
    /// It waits in the drop directory for the sidecar.
    Dropped,
}

/// Why an event is not stored anywhere.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The event is at fault.
    #[error("the event is not acceptable: {0}")]
    Invalid(String),
    /// Neither the sidecar nor the drop directory could store it.
    #[error("the event cannot be stored: {0}")]
    Storage(#[source] io::Error),
}

/// Hands an event to the sidecar whose spool is in `folder`, or leaves it in the drop directory. The folder must be there:
/// where no sidecar ever was, none will pick anything up.
pub fn hand_over(folder: &Path, event: &v1::Connection) -> Result<Accepted, HandOverError> {
    // Here too, since whoever picks it up later cannot tell the program.
    check(event).map_err(|error| HandOverError::Invalid(error.to_string()))?;
    let event = &shrink(event);
    match ask(folder, &event.encode_to_vec()) {
        Ok((ACCEPTED, _)) => Ok(Accepted::Spooled),
        Ok((refusal, text)) if refusal == Refusal::Invalid as u8 => Err(HandOverError::Invalid(text)),
        _ => drop_directory::leave(folder, event).map(|()| Accepted::Dropped).map_err(HandOverError::Storage),
    }
}

/// What the sidecar says of itself.
pub fn status(folder: &Path) -> io::Result<String> {
    Ok(ask(folder, &[])?.1)
}

fn ask(folder: &Path, request: &[u8]) -> io::Result<(u8, String)> {
    let mut socket = UnixStream::connect(socket_path(folder))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    socket.write_all(&length.to_le_bytes())?;
    socket.write_all(request)?;
    let mut head = [0; 5];
    socket.read_exact(&mut head)?;
    let [verdict, length @ ..] = head;
    let length = u32::from_le_bytes(length).min(MAX_ANSWER_BYTES);
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    socket.read_exact(&mut text)?;
    Ok((verdict, String::from_utf8_lossy(&text).into_owned()))
}
