//! Accepting connections, with or without TLS.
//!
//! Handshakes run beside each other and in bounded number and time: a peer that connects and says nothing holds up nobody.

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

use crate::tls::ServerTls;

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
/// Pause when the system gives no further connection, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection of a client. It counts among those at once until it is dropped.
pub type Socket = Counted<Either<TcpStream, TlsStream<TcpStream>>>;

/// The connections of a listener, ready to be spoken on.
#[derive(Debug)]
pub struct Connections {
    ready: mpsc::Receiver<(Socket, SocketAddr)>,
}

impl Connections {
    /// Accepts from `listener`, with TLS if there is one, until this is dropped: at most `max_connections` at once, while
    /// further ones wait in the kernel's queue.
    pub fn accept(listener: TcpListener, tls: Option<Arc<ServerTls>>, max_connections: usize) -> Self {
        let (sender, ready) = mpsc::channel(READY);
        let room = Arc::new(Semaphore::new(max_connections));
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = accept_all(&listener, tls, &sender, &room) => {}
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
    room: &Arc<Semaphore>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(room).acquire_owned().await else { return };
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
        let Some(tls) = &tls else {
            if sender.send((Counted::new(Either::Left(stream), place), peer)).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (acceptor, sender) = (TlsAcceptor::from(tls.current()), sender.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            drop(permit);
            match handshake {
                // If nobody takes it the service is stopping.
                Ok(Ok(stream)) => drop(sender.send((Counted::new(Either::Right(stream), place), peer)).await),
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
    /// How much of the preface of HTTP/2 it has said.
    said: usize,
    _place: OwnedSemaphorePermit,
    _open: Gauge,
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
    fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("connlog_connections").increment(1.0);
        let silent_until = Some(Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)));
        Self { stream, silent_until, said: 0, _place: place, _open: Gauge }
    }

    /// The connection itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.silent_until.is_none() {
            return read;
        }
        let new = buffer.filled().get(before..).unwrap_or_default();
        let expected = PREFACE.get(self.said..).unwrap_or_default();
        self.said += new.len();
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The address of the peer of a connection.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);
