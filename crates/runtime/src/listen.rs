//! Accepting connections, with or without TLS.
//!
//! Handshakes run beside each other and in bounded number and time: a peer that connects and says nothing holds up nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
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
/// Pause when the system gives no further connection, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection of a client.
pub type Socket = Either<TcpStream, TlsStream<TcpStream>>;

/// The connections of a listener, ready to be spoken on.
#[derive(Debug)]
pub struct Connections {
    ready: mpsc::Receiver<(Socket, SocketAddr)>,
    address: SocketAddr,
}

impl Connections {
    /// Accepts from `listener`, with TLS if there is one, until this is dropped.
    pub fn accept(listener: TcpListener, tls: Option<Arc<ServerTls>>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY);
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = accept_all(&listener, tls, &sender) => {}
            }
        });
        Ok(Self { ready, address })
    }

    /// The next connection; none when accepting has ended.
    pub async fn next(&mut self) -> Option<(Socket, SocketAddr)> {
        self.ready.recv().await
    }
}

impl axum::serve::Listener for Connections {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.next().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn accept_all(listener: &TcpListener, tls: Option<Arc<ServerTls>>, sender: &mpsc::Sender<(Socket, SocketAddr)>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
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
        let Some(tls) = &tls else {
            if sender.send((Either::Left(stream), peer)).await.is_err() {
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
                Ok(Ok(stream)) => drop(sender.send((Either::Right(stream), peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        });
    }
}

/// The address of the peer of a connection.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Connections>> for PeerAddress {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Connections>) -> Self {
        Self(*stream.remote_addr())
    }
}
