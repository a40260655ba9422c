//! Serving HTTP with limits on what a peer may take: time to send a head, its size, silence.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::listen::{Connections, PeerAddress};
use crate::shutdown::Shutdown;

/// What a peer of an HTTP listener may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// How long the head of a request may take, from the moment that the connection is ready for one: an idle connection ends
    /// after as long.
    pub head_timeout: Duration,
    /// Largest head of a request, in bytes; beyond it the answer is 431.
    pub max_head_bytes: usize,
    /// How long a shutdown waits for requests that run.
    pub drain: Duration,
}

/// Flow control of HTTP/2: this is the most that a peer can make the service hold of bodies that nobody reads.
const STREAM_WINDOW_BYTES: u32 = 32 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 128 << 10;
/// Requests at once of a connection that speaks HTTP/2.
const MAX_STREAMS: u32 = 64;
/// Requests that a peer took back before they were begun. Beyond it the connection ends: CVE-2023-44487, "rapid reset".
const MAX_RESET_STREAMS: usize = 20;
/// What an answer may hold that its peer does not take.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// How often a peer that speaks HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Answers on `connections` until `shutdown`, and then finishes what runs. Handlers find the peer in `ConnectInfo<PeerAddress>`, and
/// its [`Acquaintance`](crate::strangers::Acquaintance) in the extensions of a request: who recognizes a caller says so there.
pub async fn serve(mut connections: Connections, router: Router, limits: HttpLimits, shutdown: Shutdown) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX));
    let graceful = GracefulShutdown::new();
    let over = CancellationToken::new();
    loop {
        let (socket, peer) = tokio::select! {
            Some(accepted) = connections.next() => accepted,
            () = shutdown.begun() => break,
        };
        let acquaintance = socket.acquaintance().clone();
        let service = router.clone().map_request(move |request: Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(PeerAddress(peer)));
            request.extensions_mut().insert(acquaintance.clone());
            request
        });
        let connection = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).into_owned();
        let watched = graceful.watch(connection);
        let over = over.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = watched => if let Err(error) = ended {
                    tracing::debug!(%peer, error, "a connection ended");
                },
                () = over.cancelled() => tracing::debug!(%peer, "a connection was not over when the service stopped"),
            }
        });
    }
    drop(connections);
    tokio::select! {
        () = graceful.shutdown() => {}
        // A peer that never finishes its request, or never reads its answer, does not hold up the end: nor does what its
        // connection keeps.
        () = tokio::time::sleep(limits.drain) => over.cancel(),
    }
}
