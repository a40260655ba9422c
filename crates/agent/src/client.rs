//! The streaming client: sends the spool until it is acknowledged, over one server after another.
//!
//! Every reconnect resends exactly what is not acknowledged. Pauses between attempts grow exponentially with full jitter,
//! so that a fleet does not come back all at once; a stream that a newer one displaced stays away for long.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_proto::v1::stream_events_request::Message as Outbound;
use connlog_proto::v1::stream_events_response::Message as Inbound;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use uuid::Uuid;

use crate::keeper::{Gone, Keeper};
use crate::open::OpenConnections;
use crate::reporter::Config;
use crate::spool::Record;
use crate::trace::SentBatches;

/// The first pause is at most this long; the bound doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A displaced stream stays away for between one and two of these: a clone of the workspace may be the other.
const DISPLACED_PAUSE: Duration = Duration::from_mins(2);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is asked whether it is there, and how long the answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the answer to a Hello may take.
const WELCOME_TIMEOUT: Duration = Duration::from_mins(1);
/// Signs of life, if the server does not say how often.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// Payload of one message, in bytes: servers take 4 MiB unless they are told to take less.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Most connections that a server lets an agent list.
const MAX_LISTED: usize = 10_000;
/// Messages that wait for the network.
const OUTBOUND_MESSAGES: usize = 4;

/// Where the agent's token comes from.
#[derive(Clone)]
pub enum TokenSource {
    /// A fixed text.
    Text(String),
    /// A file that is read again for each stream, so that a rotated token is picked up.
    File(PathBuf),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What a client trusts and shows when a server's address begins with `https`. The files are read again for each stream,
/// so that new ones are picked up.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Authorities of the server's certificate, as PEM; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and its key, as PEM, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    async fn read(&self) -> Result<ClientTlsConfig, Ended> {
        let read = async |path: &PathBuf| {
            tokio::fs::read(path).await.map_err(|error| Ended::TlsFile(path.display().to_string(), error))
        };
        let config = match &self.ca {
            Some(path) => {
                let pem = read(path).await?;
                if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                    return Err(Ended::NoCertificate(path.display().to_string()));
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        Ok(match &self.identity {
            Some((cert, key)) => config.identity(Identity::from_pem(read(cert).await?, read(key).await?)),
            None => config,
        })
    }
}

/// How the client is doing.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Whether a stream is up.
    pub connected: bool,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// Events that the server did not accept.
    pub rejected: u64,
}

/// Streams a spool.
pub struct Client {
    config: Config,
    keeper: Keeper,
    boot_id: Uuid,
    open: Arc<OpenConnections>,
    progress: Arc<Mutex<Progress>>,
    /// Something was acknowledged over the present stream.
    got_through: AtomicBool,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Status(#[from] Status),
    #[error("cannot connect: {}", causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("the server does not answer: no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    NoConnection,
    #[error("cannot read {0}: {1}")]
    TlsFile(String, std::io::Error),
    #[error("{0} has no certificate")]
    NoCertificate(String),
    #[error("the server's address is no URL")]
    Address,
    #[error("the token cannot be read: {0}")]
    Token(std::io::Error),
    #[error("the token cannot be sent: it has characters that a header cannot have")]
    TokenText,
    #[error("the server does not answer the Hello")]
    NoWelcome,
    #[error("the server ended the stream")]
    Closed,
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] crate::spool::SpoolError),
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl Ended {
    fn is_displaced(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == Code::Aborted)
    }
}

/// The time of an event of a spool, in microseconds since the epoch.
pub fn time_of(payload: &[u8]) -> Option<i64> {
    let time = v1::Connection::decode(payload).ok()?.timestamp?;
    time.seconds.checked_mul(1_000_000)?.checked_add(i64::from(time.nanos) / 1_000)
}

impl Client {
    /// Prepares to stream what `keeper` keeps. `open` is what heartbeats list.
    pub fn new(config: Config, keeper: Keeper, open: Arc<OpenConnections>, progress: Arc<Mutex<Progress>>) -> Self {
        Self { config, keeper, boot_id: Uuid::new_v4(), open, progress, got_through: AtomicBool::new(false) }
    }

    /// Streams until it is dropped, or the spool's thread is gone.
    pub async fn run(self) {
        let (mut attempt, mut server) = (0_u32, 0_usize);
        loop {
            let Some(address) = self.config.servers.get(server % self.config.servers.len().max(1)) else {
                self.note(|progress| progress.last_error = Some("no server is configured".to_owned()));
                return;
            };
            let Err(ended) = self.stream(address).await;
            tracing::info!(server = %address, error = %ended, "the stream ended");
            self.note(|progress| {
                progress.connected = false;
                progress.last_error = Some(ended.to_string());
            });
            if matches!(ended, Ended::Gone(_)) {
                return;
            }
            // A stream that got something through was a good one: the next pause is short again.
            if self.got_through.swap(false, Ordering::Relaxed) {
                attempt = 0;
            }
            tokio::time::sleep(pause(attempt, ended.is_displaced())).await;
            attempt = attempt.saturating_add(1);
            server = server.wrapping_add(1);
        }
    }

    async fn stream(&self, server: &str) -> Result<std::convert::Infallible, Ended> {
        let mut endpoint = endpoint(server)?;
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(self.config.tls.read().await?)?;
        }
        // Around all of it: the endpoint's own time ends with TCP, and a server may say nothing in its TLS.
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
        let channel = connecting.map_err(|_| Ended::NoConnection)??;
        let (outbound, messages) = mpsc::channel(OUTBOUND_MESSAGES);
        let acked_seq = self.keeper.state().await?.acked_seq;
        let open = self.listed();
        let hello = v1::Hello {
            boot_id: self.boot_id.as_bytes().to_vec(),
            first_unacked_seq: acked_seq + 1,
            open_connection_ids: open,
            agent_version: self.config.agent_version.clone(),
            spool_id: self.keeper.spool_id().as_bytes().to_vec(),
            last_seq: *self.keeper.last_seq().borrow(),
        };
        send(&outbound, Outbound::Hello(hello)).await?;
        let request = self.authorized(ReceiverStream::new(messages)).await?;
        let greet = async {
            let mut inbound = ConnectionLogClient::new(channel).stream_events(request).await?.into_inner();
            match inbound.message().await?.and_then(|answer| answer.message) {
                Some(Inbound::Welcome(welcome)) => Ok((welcome, inbound)),
                _ => Err(Ended::NoWelcome),
            }
        };
        let greeted = tokio::time::timeout(WELCOME_TIMEOUT, greet).await;
        let (welcome, mut inbound) = greeted.map_err(|_| Ended::NoWelcome)??;
        self.note(|progress| (progress.connected, progress.last_error) = (true, None));
        self.exchange(&welcome, acked_seq, &outbound, &mut inbound).await
    }

    async fn exchange(
        &self,
        welcome: &v1::Welcome,
        mut acked_seq: u64,
        outbound: &mpsc::Sender<v1::StreamEventsRequest>,
        inbound: &mut Streaming<v1::StreamEventsResponse>,
    ) -> Result<std::convert::Infallible, Ended> {
        let batch_limit = welcome.max_batch_events.max(1) as usize;
        let in_flight_limit = u64::from(welcome.max_in_flight_events.max(1));
        let mut last_seq = self.keeper.last_seq();
        let (mut sent_seq, mut sent) = (acked_seq, SentBatches::default());
        let mut heartbeat = interval(heartbeat_interval(welcome));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = in_flight_limit.saturating_sub(sent_seq.saturating_sub(acked_seq));
            let has_more = *last_seq.borrow_and_update() > sent_seq;
            tokio::select! {
                biased;
                answer = inbound.message() => match answer?.and_then(|answer| answer.message) {
                    Some(Inbound::Ack(ack)) => {
                        // What this stream did not send cannot be acknowledged, whatever an earlier one did.
                        let committed_seq = ack.committed_seq.min(sent_seq);
                        self.acknowledge(committed_seq, &ack.rejected)?;
                        acked_seq = acked_seq.max(committed_seq);
                        sent.acknowledged(committed_seq);
                    }
                    Some(Inbound::Welcome(_)) => {}
                    None => return Err(Ended::Closed),
                },
                _ = heartbeat.tick() => self.send_heartbeat(outbound).await?,
                permit = outbound.reserve(), if has_more && room > 0 => {
                    let permit = permit.map_err(|_| Ended::Closed)?;
                    let limit = batch_limit.min(usize::try_from(room).unwrap_or(usize::MAX));
                    let records = self.keeper.read(sent_seq, limit, MAX_BATCH_BYTES).await??;
                    let Some(newest) = records.last().map(Record::seq) else { continue };
                    let mut batch = v1::EventBatch {
                        events: records.into_iter().map(sequenced).collect(),
                        ..v1::EventBatch::default()
                    };
                    sent.begin(&mut batch, newest);
                    permit.send(request(Outbound::Batch(batch)));
                    sent_seq = newest;
                }
                changed = last_seq.changed(), if !has_more => changed.map_err(|_| Gone)?,
            }
        }
    }

    fn acknowledge(&self, committed_seq: u64, rejected: &[v1::Rejection]) -> Result<(), Ended> {
        for rejection in rejected {
            let v1::Rejection { seq, field, reason } = rejection;
            tracing::warn!(seq, field, reason, "the server keeps an event as a dead letter");
        }
        self.got_through.store(true, Ordering::Relaxed);
        self.note(|progress| progress.rejected += rejected.len() as u64);
        Ok(self.keeper.acknowledge(committed_seq)?)
    }

    /// The list comes before the number: the disconnect of whatever is not listed has at most that number. A list that is
    /// too long to be whole has no number, so that nothing is taken for ended because of it.
    async fn send_heartbeat(&self, outbound: &mpsc::Sender<v1::StreamEventsRequest>) -> Result<(), Ended> {
        let open_connection_ids = self.listed();
        let is_whole = open_connection_ids.len() < MAX_LISTED;
        let last_seq = if is_whole { *self.keeper.last_seq().borrow() } else { 0 };
        let at = Some(prost_types::Timestamp::from(std::time::SystemTime::now()));
        send(outbound, Outbound::Heartbeat(v1::Heartbeat { at, open_connection_ids, last_seq })).await
    }

    fn listed(&self) -> Vec<Vec<u8>> {
        self.open.list().iter().take(MAX_LISTED).map(|id| id.as_bytes().to_vec()).collect()
    }

    async fn authorized<T>(&self, message: T) -> Result<Request<T>, Ended> {
        let token = match &self.config.token {
            TokenSource::Text(token) => token.clone(),
            TokenSource::File(path) => tokio::fs::read_to_string(path).await.map_err(Ended::Token)?,
        };
        let mut request = Request::new(message);
        let mut value: tonic::metadata::MetadataValue<_> =
            format!("Bearer {}", token.trim()).parse().map_err(|_| Ended::TokenText)?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().expect("no one panics while holding the progress"));
    }
}

/// An error with its causes: "transport error" alone helps nobody.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(error.source(), |error| error.source());
    chain.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Checks that `server` is an address that a client can use.
pub fn check_address(server: &str) -> Result<(), String> {
    let uri: tonic::transport::Uri = server.parse().map_err(|_| format!("{server} is no URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        _ => Err(format!("{server} is not of the form https://host:port or http://host:port")),
    }
}

fn endpoint(server: &str) -> Result<Endpoint, Ended> {
    Ok(Channel::from_shared(server.to_owned())
        .map_err(|_| Ended::Address)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

fn pause(attempt: u32, displaced: bool) -> Duration {
    if displaced {
        return DISPLACED_PAUSE.mul_f64(rand::random_range(1.0..2.0));
    }
    let ceiling = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(LONGEST_PAUSE);
    ceiling.mul_f64(rand::random_range(0.0..1.0))
}

fn heartbeat_interval(welcome: &v1::Welcome) -> Duration {
    let interval = welcome.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
    interval.filter(|interval| *interval >= Duration::from_millis(100)).unwrap_or(DEFAULT_HEARTBEAT)
}

async fn send(outbound: &mpsc::Sender<v1::StreamEventsRequest>, message: Outbound) -> Result<(), Ended> {
    outbound.send(request(message)).await.map_err(|_| Ended::Closed)
}

fn request(message: Outbound) -> v1::StreamEventsRequest {
    v1::StreamEventsRequest { message: Some(message) }
}

fn sequenced(record: Record) -> v1::SequencedEvent {
    use v1::sequenced_event::Event;
    let seq = record.seq();
    let event = match record {
        // A record whose checksum holds and that is no event was written by another version: the server keeps it.
        Record::Event { payload, .. } => v1::Connection::decode(&payload[..]).ok().map(Event::Connection),
        Record::Lost(lost) => Some(Event::Lost(v1::LostEvents {
            count: lost.count(),
            since: lost.since_micros.map(from_micros),
            until: lost.until_micros.map(from_micros),
            cause: lost.cause.to_owned(),
        })),
    };
    v1::SequencedEvent { seq, event }
}

fn from_micros(micros: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
