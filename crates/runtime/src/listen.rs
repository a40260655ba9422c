//! Accepting connections, with or without TLS.
//!
//! Handshakes run beside each other and in bounded number and time: a peer that connects and says nothing holds up nobody. So does
//! one that does not take what it is given, or whom nobody recognizes (`strangers.rs`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::WaitForCancellationFutureOwned;
use uuid::Uuid;

use crate::frames::Frames;
use crate::strangers::{Acquaintance, Strangers};
use crate::tls::{ServerTls, bound_to};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 1024;
/// Connections that are ready and not taken yet.
const READY: usize = 64;
/// What a peer that speaks HTTP/2 says first (RFC 9113, section 3.4). Until it is whole, or something else, nobody knows what is
/// spoken, and no other clock runs.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a peer may take for that.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a stranger may say over one connection.
const STRANGER_BYTES: usize = 512 << 10;
/// Pause when the system gives no further connection, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer takes so many bytes in each [`ConnectionLimits::stall`] while something waits for it.
const STALL_BYTES: usize = 16 << 10;

/// What connections of a listener may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most at once. Beyond it one of a stranger ends for each new one; without strangers the new one waits.
    pub all: usize,
    /// Most of strangers: of peers that are not recognized yet. Beyond it one of them ends for each new one.
    pub strangers: usize,
    /// How long a peer may leave what waits for it where it is. One that takes 16 KiB in that time is slow, and stays.
    pub stall: Duration,
}

/// A connection of a client. It counts among those at once until it is dropped.
pub type Socket = Counted<Either<TcpStream, TlsStream<TcpStream>>>;

/// The connections of a listener, ready to be spoken on.
#[derive(Debug)]
pub struct Connections {
    ready: mpsc::Receiver<(Socket, SocketAddr)>,
}

impl Connections {
    /// Accepts from `listener`, with TLS if there is one, until this is dropped.
    pub fn accept(listener: TcpListener, tls: Option<Arc<ServerTls>>, limits: ConnectionLimits) -> Self {
        let (sender, ready) = mpsc::channel(READY);
        for cause in ["stranger", "stalled", "talkative"] {
            metrics::counter!("connlog_connections_ended_total", "cause" => cause).increment(0);
        }
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = accept_all(&listener, tls, &sender, limits) => {}
            }
        });
        Self { ready }
    }

    /// The next connection; none when accepting has ended.
    pub async fn next(&mut self) -> Option<(Socket, SocketAddr)> {
        self.ready.recv().await
    }
}

async fn accept_all(
    listener: &TcpListener,
    tls: Option<Arc<ServerTls>>,
    sender: &mpsc::Sender<(Socket, SocketAddr)>,
    limits: ConnectionLimits,
) {
    let (handshakes, room) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(Semaphore::new(limits.all)));
    let strangers = Arc::new(Strangers::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it, small answers wait for the acknowledgement of the ones before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        if room.available_permits() == 0 {
            strangers.end_one();
        }
        let acquaintance = strangers.admit(peer.ip(), limits.strangers);
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let ended = acquaintance.ended();
        let counted = move |stream| Counted::new(stream, place, acquaintance, limits.stall);
        let Some(tls) = &tls else {
            if sender.send((counted(Either::Left(stream)), peer)).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (acceptor, sender) = (TlsAcceptor::from(tls.current()), sender.clone());
        tokio::spawn(async move {
            let handshake = tokio::select! {
                done = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => done,
                () = ended => return,
            };
            drop(permit);
            match handshake {
                // If nobody takes it the service is stopping.
                Ok(Ok(stream)) => drop(sender.send((counted(Either::Right(stream)), peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        });
    }
}

/// A connection and its place among those that there may be at once.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    /// When a peer is given up of which nobody knows what it speaks.
    silent_until: Option<Pin<Box<Sleep>>>,
    /// How much it has said, while it matters.
    said: usize,
    spoken: Spoken,
    acquaintance: Acquaintance,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    stall: Stall,
    _place: OwnedSemaphorePermit,
    _open: Gauge,
}

/// What a peer speaks.
#[derive(Debug)]
enum Spoken {
    /// As much as has come is the beginning of [`PREFACE`].
    Unknown,
    Http2(Frames),
    Other,
}

impl Spoken {
    /// Follows what comes; `left` is what is left of the preface. False once it is too much that carries nothing.
    fn read(&mut self, left: &[u8], new: &[u8], is_recognized: bool) -> bool {
        let new = match self {
            Self::Unknown => {
                let common = left.len().min(new.len());
                if left[..common] != new[..common] {
                    *self = Self::Other;
                } else if common == left.len() {
                    *self = Self::Http2(Frames::new());
                }
                &new[common..]
            }
            Self::Http2(_) | Self::Other => new,
        };
        if let Self::Http2(frames) = self { frames.read(new, is_recognized) } else { true }
    }
}

/// Whether the peer takes what it is given.
#[derive(Debug)]
struct Stall {
    time: Duration,
    /// When it must have taken enough; none if nothing has had to wait yet.
    until: Option<Pin<Box<Sleep>>>,
    taken: usize,
}

impl Stall {
    /// Passes on what became of a write; an error if the peer has left it waiting for too long.
    fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.taken = self.taken.saturating_add(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let time = self.time;
                let until = self.until.get_or_insert_with(|| {
                    self.taken = 0;
                    Box::pin(tokio::time::sleep(time))
                });
                while until.as_mut().poll(context).is_ready() {
                    if self.taken < STALL_BYTES {
                        metrics::counter!("connlog_connections_ended_total", "cause" => "stalled").increment(1);
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")));
                    }
                    self.taken = 0;
                    until.as_mut().reset(tokio::time::Instant::now() + time);
                }
            }
        }
        written
    }
}

/// How many connections there are.
#[derive(Debug)]
struct Gauge;

impl Drop for Gauge {
    fn drop(&mut self) {
        metrics::gauge!("connlog_connections").decrement(1.0);
    }
}

impl<S> Counted<S> {
    fn new(stream: S, place: OwnedSemaphorePermit, acquaintance: Acquaintance, stall: Duration) -> Self {
        metrics::gauge!("connlog_connections").increment(1.0);
        let silent_until = Some(Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)));
        let ended = Box::pin(acquaintance.ended());
        let stall = Stall { time: stall, until: None, taken: 0 };
        Self {
            stream,
            silent_until,
            said: 0,
            spoken: Spoken::Unknown,
            acquaintance,
            ended,
            stall,
            _place: place,
            _open: Gauge,
        }
    }

    /// Whether the peer is recognized.
    pub fn acquaintance(&self) -> &Acquaintance {
        &self.acquaintance
    }

    /// An error once the connection has to give way.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a stranger gives way to another peer"));
        }
        Ok(())
    }

    /// The connection itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl Socket {
    /// Whom the certificate of the peer is bound to, if it has shown one that is bound.
    pub fn bound_to(&self) -> Vec<Uuid> {
        let Either::Right(tls) = &self.stream else { return Vec::new() };
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        chain.first().map(bound_to).unwrap_or_default()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        let expected = PREFACE.get(self.said..).unwrap_or_default();
        self.said = self.said.saturating_add(new.len());
        let is_recognized = self.acquaintance.is_recognized();
        if !self.spoken.read(expected, new, is_recognized) || (self.said > STRANGER_BYTES && !is_recognized) {
            metrics::counter!("connlog_connections_ended_total", "cause" => "talkative").increment(1);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer says too much")));
        }
        if self.silent_until.is_none() {
            return read;
        }
        if !expected.starts_with(new) || self.said >= PREFACE.len() || (read.is_ready() && new.is_empty()) {
            self.silent_until = None;
        } else if let Some(deadline) = &mut self.silent_until
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.stall.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.stall.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The address of the peer of a connection.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);
