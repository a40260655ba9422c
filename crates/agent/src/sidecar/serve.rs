//! The sidecar's side of the socket, and the pick-up of the drop directory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connlog_proto::v1;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::drop_directory::{Taken, Waiting};
use super::{ACCEPTED, MAX_REQUEST_BYTES, Refusal, drop_directory, socket_path};
use crate::open::OpenConnections;
use crate::reporter::{Config, ReportError, Reporter, Status};
use crate::spool::SpoolError;

/// How often the drop directory is looked at.
const PICK_UP_INTERVAL: Duration = Duration::from_secs(1);
/// How many events are picked up at a time.
const PICK_UP_EVENTS: usize = 200;
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
    let storage = |error| ServeError::Spool(SpoolError::Write(error));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(storage)?;
    let open = OpenConnections::kept_in(folder.join("open"));
    let (reporter, damage) = Reporter::start_with(config, open)?;
    for (first, last) in &damage.lost {
        tracing::error!(first, last, "records of the spool were damaged; they are reported as lost");
    }
    if damage.tail_bytes > 0 {
        tracing::warn!(bytes = damage.tail_bytes, "the end of the spool was no record: a write that did not finish");
    }
    drop_directory::prepare(&folder).map_err(storage)?;
    let reporter = Arc::new(reporter);
    // Beside the socket: however much there is to pick up, hooks are answered.
    let picking_up = AbortOnDrop(tokio::spawn(pick_up(folder.clone(), Arc::clone(&reporter))));
    let listener = listen(&socket_path(&folder)).map_err(ServeError::Socket)?;
    let owner = fs::metadata(&folder).map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    let owner = owner.map_err(ServeError::Socket)?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => {
                drop(picking_up);
                return Ok(());
            }
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if is_trusted(&socket, owner) => {
                    let (reporter, folder) = (Arc::clone(&reporter), folder.clone());
                    tokio::spawn(async move {
                        let answered = tokio::time::timeout(REQUEST_TIMEOUT, answer(socket, &reporter, &folder)).await;
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

async fn answer(mut socket: UnixStream, reporter: &Reporter, folder: &Path) -> io::Result<()> {
    let length = socket.read_u32_le().await?;
    if length > MAX_REQUEST_BYTES {
        return reply(&mut socket, Refusal::Invalid as u8, "the request is too large").await;
    }
    let mut request = vec![0; usize::try_from(length).unwrap_or(0)];
    socket.read_exact(&mut request).await?;
    if request.is_empty() {
        return match reporter.status().await {
            Ok(status) => reply(&mut socket, ACCEPTED, &show(&status, drop_directory::waiting(folder).ok())).await,
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

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn pick_up(folder: PathBuf, reporter: Arc<Reporter>) {
    let mut told = None;
    loop {
        let trouble = match drop_directory::take(&folder, PICK_UP_EVENTS) {
            Ok((taken, trouble)) => {
                let is_more = taken.len() == PICK_UP_EVENTS;
                match spool(taken, &reporter).await {
                    Ok(()) if is_more => continue,
                    Ok(()) => trouble.map(|error| error.to_string()),
                    Err(error) => Some(error),
                }
            }
            Err(error) => Some(error.to_string()),
        };
        // Once for each trouble: it is looked at every second.
        if let Some(trouble) = trouble.as_ref().filter(|trouble| told.as_ref() != Some(*trouble)) {
            tracing::warn!(error = %trouble, "an event in the drop directory cannot be taken; it waits");
        }
        told = trouble;
        tokio::time::sleep(PICK_UP_INTERVAL).await;
    }
}

async fn spool(taken: Vec<Taken>, reporter: &Reporter) -> Result<(), String> {
    for taken in taken {
        let Some(event) = &taken.event else {
            tracing::error!("a file of the drop directory is no event and is put aside");
            taken.put_aside().map_err(|error| error.to_string())?;
            continue;
        };
        let outcome = match reporter.report(event).await {
            Ok(_) => taken.done(),
            Err(error) if refusal(&error) == Refusal::Invalid => {
                tracing::error!(%error, "an event of the drop directory is not acceptable and is put aside");
                taken.put_aside()
            }
            // It stays where it is, for the next round.
            Err(error) => return Err(error.to_string()),
        };
        outcome.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn show(status: &Status, waiting: Option<Waiting>) -> String {
    let lost = status.spool.lost.as_ref().map_or(0, crate::spool::Lost::count);
    let Waiting { events, damaged } = waiting.unwrap_or_default();
    format!(
        "connected: {}\npending: {}\nacknowledged: {}\nspool_bytes: {}\nlost_and_not_yet_reported: {lost}\n\
         dropped_and_waiting: {events}\nput_aside: {damaged}\nrejected: {}\nlast_error: {}\n",
        status.connected,
        status.spool.pending,
        status.spool.acked_seq,
        status.spool.bytes,
        status.rejected,
        status.last_error.as_deref().unwrap_or("none")
    )
}
