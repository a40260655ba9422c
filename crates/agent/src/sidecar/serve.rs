//! The sidecar's side of the socket, and the pick-up of the drop directory.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connlog_proto::v1;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{ACCEPTED, MAX_REQUEST_BYTES, Refusal, drop_directory, socket_path};
use crate::open::OpenConnections;
use crate::reporter::{Config, ReportError, Reporter, Status};
use crate::spool::SpoolError;

/// How often the drop directory is looked at.
const PICK_UP_INTERVAL: Duration = Duration::from_secs(1);
/// How long a program may take with its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the sidecar cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The socket cannot be made.
    #[error("cannot listen on the socket: {0}")]
    Socket(#[source] io::Error),
}

/// Runs the sidecar until `stop` completes. Whatever was accepted is in the spool.
pub async fn serve(config: Config, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let folder = config.spool.clone();
    fs::create_dir_all(&folder).map_err(|error| ServeError::Spool(SpoolError::Write(error)))?;
    let open = OpenConnections::kept_in(folder.join("open"));
    let (reporter, damage) = Reporter::start_with(config, open)?;
    for (first, last) in &damage.lost {
        tracing::error!(first, last, "records of the spool were damaged; they are reported as lost");
    }
    if damage.tail_bytes > 0 {
        tracing::warn!(bytes = damage.tail_bytes, "the end of the spool was no record: a write that did not finish");
    }
    let reporter = Arc::new(reporter);
    let listener = listen(&socket_path(&folder)).map_err(ServeError::Socket)?;
    let owner = fs::metadata(&folder).map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    let owner = owner.map_err(ServeError::Socket)?;
    tokio::pin!(stop);
    let mut pick_up = tokio::time::interval(PICK_UP_INTERVAL);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = pick_up.tick() => take_dropped(&folder, &reporter).await,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if is_trusted(&socket, owner) => {
                    let reporter = Arc::clone(&reporter);
                    tokio::spawn(async move {
                        let answered = tokio::time::timeout(REQUEST_TIMEOUT, answer(socket, &reporter)).await;
                        if let Ok(Err(error)) = answered {
                            tracing::debug!(%error, "a program went away in the middle of its request");
                        }
                    });
                }
                Ok(_) => tracing::warn!("a program of another user tried to report"),
                Err(error) => {
                    tracing::warn!(%error, "a program could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// A socket that only its owner can open. One that a dead sidecar left is replaced: the lock of the spool says that it is
/// dead.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The owner of the spool, and root.
fn is_trusted(socket: &UnixStream, owner: u32) -> bool {
    socket.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0)
}

async fn answer(mut socket: UnixStream, reporter: &Reporter) -> io::Result<()> {
    let length = socket.read_u32_le().await?;
    if length > MAX_REQUEST_BYTES {
        return reply(&mut socket, Refusal::Invalid as u8, "the request is too large").await;
    }
    let mut request = vec![0; usize::try_from(length).unwrap_or(0)];
    socket.read_exact(&mut request).await?;
    if request.is_empty() {
        return match reporter.status().await {
            Ok(status) => reply(&mut socket, ACCEPTED, &show(&status)).await,
            Err(error) => reply(&mut socket, Refusal::Storage as u8, &error.to_string()).await,
        };
    }
    let Ok(event) = v1::Connection::decode(&request[..]) else {
        return reply(&mut socket, Refusal::Invalid as u8, "the request is no event").await;
    };
    match reporter.report(&event).await {
        Ok(seq) => reply(&mut socket, ACCEPTED, &seq.to_string()).await,
        Err(error) => reply(&mut socket, refusal(&error) as u8, &error.to_string()).await,
    }
}

fn refusal(error: &ReportError) -> Refusal {
    match error {
        ReportError::NilId | ReportError::NoApp | ReportError::Spool(SpoolError::TooLarge(_)) => Refusal::Invalid,
        ReportError::Spool(_) | ReportError::Gone(_) => Refusal::Storage,
    }
}

async fn reply(socket: &mut UnixStream, verdict: u8, text: &str) -> io::Result<()> {
    let mut bytes = vec![verdict];
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    socket.write_all(&bytes).await?;
    socket.shutdown().await
}

async fn take_dropped(folder: &Path, reporter: &Reporter) {
    let left = match drop_directory::list(folder) {
        Ok(left) => left,
        Err(error) => return tracing::warn!(%error, "the drop directory cannot be read"),
    };
    for left in left {
        let outcome = match &left.event {
            Some(event) => match reporter.report(event).await {
                Ok(_) => left.taken(),
                Err(error) if refusal(&error) == Refusal::Invalid => left.put_aside(),
                // It stays where it is, for the next round.
                Err(error) => return tracing::warn!(%error, "a dropped event cannot be taken"),
            },
            None => left.put_aside(),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a dropped event was taken and cannot be removed; it will be sent again");
        }
    }
}

fn show(status: &Status) -> String {
    let lost = status.spool.lost.as_ref().map_or(0, crate::spool::Lost::count);
    format!(
        "connected: {}\npending: {}\nacknowledged: {}\nspool_bytes: {}\nlost: {lost}\nrejected: {}\nlast_error: {}\n",
        status.connected,
        status.spool.pending,
        status.spool.acked_seq,
        status.spool.bytes,
        status.rejected,
        status.last_error.as_deref().unwrap_or("none")
    )
}
