//! Exchanges on the wire between a program and PostgreSQL, counted by a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that are passed on at once.
const BUFFER: usize = 256 << 10;
/// What is looked at of them for how a connection begins.
const FIRST_BYTES: usize = 1 << 10;

/// The server is so far away: what a client sends without waiting for an answer is one exchange, however fast the answer is.
const DISTANCE: Duration = Duration::from_millis(10);

/// How a connection begins that is not counted: of ingest, what does not write batches.
const NOT_COUNTED: &[u8] = b"application_name\0connlog-ingest\0";

/// A proxy that counts exchanges: each time the client speaks after the server did.
pub(crate) struct CountingProxy {
    address: SocketAddr,
    exchanges: Arc<AtomicU64>,
}

impl CountingProxy {
    /// Listens on a loopback port, and passes everything on to `server`.
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let exchanges = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&exchanges);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    // Without this the kernel holds small messages back, and exchanges overlap.
                    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
                        return;
                    }
                    forward(client, server, counter).await;
                });
            }
        });
        Ok(Self { address, exchanges })
    }

    /// `database_url` by way of the proxy.
    pub(crate) fn url(&self, database_url: &str) -> Result<String> {
        let mut url = url::Url::parse(database_url)?;
        url.set_port(Some(self.address.port())).map_err(|()| anyhow::anyhow!("the URL has no host"))?;
        Ok(url.into())
    }

    /// Exchanges so far.
    pub(crate) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }
}

async fn forward(client: TcpStream, server: TcpStream, counter: Arc<AtomicU64>) {
    let server_spoke = Arc::new(AtomicBool::new(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let asked = Arc::clone(&server_spoke);
    let mut counts = true;
    let asks = copy(from_client, to_server, Duration::ZERO, move |said| {
        counts &= !said.windows(NOT_COUNTED.len()).take(FIRST_BYTES).any(|part| part == NOT_COUNTED);
        if asked.swap(false, Ordering::Relaxed) && counts {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let answers = copy(from_server, to_client, DISTANCE, move |_| server_spoke.store(true, Ordering::Relaxed));
    tokio::join!(asks, answers);
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, distance: Duration, mut on_data: impl FnMut(&[u8])) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !distance.is_zero() {
            tokio::time::sleep(distance).await;
        }
        on_data(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    // The other side learns that nothing more comes.
    let _already_closed = to.shutdown().await;
}
