//! A client's connection, as tonic wants to have it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use connlog_runtime::listen::Socket;
use connlog_runtime::strangers::{Acquaintance, network_of};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use uuid::Uuid;

/// A connection, plain or with TLS, and where it comes from.
pub(crate) struct Peer(pub Socket, pub SocketAddr);

/// Whose connection a request came by: in the extensions of each.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// Of an IPv6 address, its /64.
    pub(crate) address: IpAddr,
    pub(crate) acquaintance: Acquaintance,
    /// The agents and tokens that the certificate of the connection is for; none if it is for everybody, or there is none.
    pub(crate) bound_to: Arc<[Uuid]>,
}

impl Connected for Peer {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        Visitor {
            address: network_of(self.1.ip()),
            acquaintance: self.0.acquaintance().clone(),
            bound_to: self.0.bound_to().into(),
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
