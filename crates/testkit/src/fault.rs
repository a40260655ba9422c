//! A TCP proxy that injects the faults of a bad network: cuts, stalls, half-open connections, resets in the middle of a
//! frame, and reconnects that end at another server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What has happened to the network. A connection compares with what it was when it began.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    cuts: u64,
    freezes: u64,
    resets: u64,
    stalled: bool,
}

/// A proxy to one of several servers at a time.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    servers: usize,
    target: Arc<AtomicUsize>,
    weather: Arc<watch::Sender<Weather>>,
}

impl FaultProxy {
    /// Listens on a loopback port, and forwards to the first of `servers`.
    pub async fn start(servers: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, target) = (Arc::new(watch::channel(Weather::default()).0), Arc::new(AtomicUsize::new(0)));
        let proxy =
            Self { address, servers: servers.len(), target: Arc::clone(&target), weather: Arc::clone(&weather) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = servers[target.load(Ordering::Relaxed) % servers.len()];
                tokio::spawn(forward(client, server, weather.subscribe()));
            }
        });
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Forwards nothing until told otherwise; connections stay open.
    pub fn stall(&self, stalled: bool) {
        self.weather.send_modify(|weather| weather.stalled = stalled);
    }

    /// Leaves all present connections half-open: nothing is forwarded on them until they are cut. New ones work.
    pub fn freeze(&self) {
        self.weather.send_modify(|weather| weather.freezes += 1);
    }

    /// Resets each connection in the middle of what it forwards next.
    pub fn reset(&self) {
        self.weather.send_modify(|weather| weather.resets += 1);
    }

    /// New connections end at the next server.
    pub fn switch(&self) {
        self.target.store((self.target.load(Ordering::Relaxed) + 1) % self.servers, Ordering::Relaxed);
    }
}

async fn forward(client: TcpStream, server: SocketAddr, weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _unsupported_is_only_slower = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // Either end of the connection ends both.
    tokio::select! {
        () = pump(client_read, server_write, weather.clone()) => {}
        () = pump(server_read, client_write, weather) => {}
    }
}

async fn pump(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let began = *weather.borrow_and_update();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
            changed = weather.changed() => {
                if changed.is_err() || weather.borrow().cuts > began.cuts {
                    return;
                }
                continue;
            }
        };
        let now = *weather.borrow_and_update();
        if now.resets > began.resets {
            let _gone = writer.write_all(&buffer[..length / 2]).await;
            let _closed = writer.reunite(reader).map(|socket| socket.set_zero_linger());
            return;
        }
        let held = |now: &Weather| now.cuts == began.cuts && (now.stalled || now.freezes > began.freezes);
        if weather.wait_for(|now| !held(now)).await.is_err() || weather.borrow().cuts > began.cuts {
            return;
        }
        if writer.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
