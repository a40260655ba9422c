//! What an agent calls: connects and disconnects, durable when the call returns.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use connlog_proto::v1;
use prost::Message as _;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::client::{self, Client, Progress, TlsFiles, TokenSource};
pub use crate::keeper::State;
use crate::keeper::{Gone, Keeper};
use crate::open::OpenConnections;
use crate::spool::{Damage, Spool, SpoolError};

/// The server keeps 64 characters of the name of an app, and so many bytes of a reason (`proto/README.md`); no address is
/// longer.
const MAX_APP_NAME_BYTES: usize = 512;
const MAX_REASON_BYTES: usize = 1024;
const MAX_IP_BYTES: usize = 64;

/// How an agent reports.
#[derive(Debug, Clone)]
pub struct Config {
    /// Servers, as `https://host:port` or, without TLS, `http://host:port`. One is used at a time; the next is tried when it cannot be reached.
    pub servers: Vec<String>,
    /// The agent's token.
    pub token: TokenSource,
    /// What is trusted and shown when a server speaks TLS.
    pub tls: TlsFiles,
    /// The folder of the spool.
    pub spool: PathBuf,
    /// Bound of the spool, in bytes.
    pub max_spool_bytes: u64,
    /// What the agent calls its version.
    pub agent_version: String,
}

impl Config {
    /// The bound of a spool if nothing else is asked for: 64 MiB, some 400,000 events.
    pub const DEFAULT_SPOOL_BYTES: u64 = 64 << 20;
}

/// The beginning of a connection.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// The client app, such as `ssh`, `cursor`, `goland`; `reconnecting_pty` for a web terminal.
    pub app_name: String,
    /// Address of the client, if known.
    pub ip: Option<IpAddr>,
    /// The client's own id of its session, if it has one.
    pub client_session_id: Option<Uuid>,
}

/// The end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Disconnect {
    /// The client app, as when it began.
    pub app_name: String,
    /// When it began, if known: the log then shows it even if the beginning was never reported.
    pub connected_at: Option<SystemTime>,
    /// Exit status.
    pub status_code: Option<i32>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Bytes received from the client; 0 if not counted.
    pub rx_bytes: u64,
    /// Bytes sent to the client; 0 if not counted.
    pub tx_bytes: u64,
}

/// Why an event was not accepted. It is not in the spool.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The id is nil.
    #[error("the connection's id is nil")]
    NilId,
    /// Neither a connect nor a disconnect can do without the name of the app.
    #[error("app_name is empty")]
    NoApp,
    /// The spool refused.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The spool's thread has ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// What a reporter has to do and what troubles it.
#[derive(Debug, Clone)]
pub struct Status {
    /// What the spool holds.
    pub spool: State,
    /// Whether a stream is up.
    pub connected: bool,
    /// The last thing that went wrong on the way to a server.
    pub last_error: Option<String>,
    /// Events that the server did not accept, since this process began.
    pub rejected: u64,
}

/// Reports the connections of a workspace. Dropping it ends the stream; what is not sent stays in the spool.
#[derive(Debug)]
pub struct Reporter {
    keeper: Keeper,
    open: Arc<OpenConnections>,
    progress: Arc<Mutex<Progress>>,
    client: JoinHandle<()>,
}

impl Reporter {
    /// Opens the spool and begins to stream it. Must be called within a Tokio runtime. What was damaged is returned, and
    /// is recorded on the server as lost.
    pub fn start(config: Config) -> Result<(Self, Damage), SpoolError> {
        Self::start_with(config, OpenConnections::in_memory())
    }

    /// Like [`start`](Self::start), with connections that are open already.
    pub fn start_with(config: Config, open: OpenConnections) -> Result<(Self, Damage), SpoolError> {
        let (spool, damage) = Spool::open(&config.spool, config.max_spool_bytes, client::time_of)?;
        let keeper = Keeper::start(spool);
        let open = Arc::new(open);
        let progress = Arc::new(Mutex::new(Progress::default()));
        let client = Client::new(config, keeper.clone(), Arc::clone(&open), Arc::clone(&progress));
        let client = tokio::spawn(client.run());
        Ok((Self { keeper, open, progress, client }, damage))
    }

    /// Reports an event that another process made, with its own time.
    pub async fn report(&self, message: &v1::Connection) -> Result<u64, ReportError> {
        let id = check(message)?;
        let message = shrink(message);
        if message.action() == v1::Action::Disconnect {
            let seq = self.append(&message).await?;
            self.open.remove(id);
            return Ok(seq);
        }
        // Listed before it is appended: what a heartbeat does not list and the server knows would be taken for ended.
        self.open.insert(id);
        self.append(&message).await.inspect_err(|_| self.open.remove(id))
    }

    /// Reports that a connection began, now. Returns its number once it is durable.
    pub async fn connect(&self, id: Uuid, connect: Connect) -> Result<u64, ReportError> {
        let message = v1::Connection {
            ip: connect.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            client_session_id: connect.client_session_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
            ..event(id, v1::Action::Connect, connect.app_name)
        };
        self.report(&message).await
    }

    /// Reports that a connection ended, now. Returns its number once it is durable.
    pub async fn disconnect(&self, id: Uuid, disconnect: Disconnect) -> Result<u64, ReportError> {
        let message = v1::Connection {
            connected_at: disconnect.connected_at.map(timestamp),
            status_code: disconnect.status_code,
            reason: disconnect.reason,
            rx_bytes: disconnect.rx_bytes,
            tx_bytes: disconnect.tx_bytes,
            ..event(id, v1::Action::Disconnect, disconnect.app_name)
        };
        self.report(&message).await
    }

    /// What there is to do, and what troubles it.
    pub async fn status(&self) -> Result<Status, ReportError> {
        let spool = self.keeper.state().await?;
        let progress = self.progress.lock().expect("no one panics while holding the progress").clone();
        let Progress { connected, last_error, rejected } = progress;
        Ok(Status { spool, connected, last_error, rejected })
    }

    async fn append(&self, message: &v1::Connection) -> Result<u64, ReportError> {
        Ok(self.keeper.append(message.encode_to_vec()).await??)
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.client.abort();
    }
}

/// The id of an event that can be accepted.
pub(crate) fn check(message: &v1::Connection) -> Result<Uuid, ReportError> {
    let id = Uuid::from_slice(&message.id).ok().filter(|id| !id.is_nil()).ok_or(ReportError::NilId)?;
    if message.app_name.is_empty() { Err(ReportError::NoApp) } else { Ok(id) }
}

/// The event with its texts cut as the server would cut them: a long one must not keep others from being sent.
pub(crate) fn shrink(message: &v1::Connection) -> v1::Connection {
    let cut = |text: &str, bytes: usize| text[..text.floor_char_boundary(bytes)].to_owned();
    v1::Connection {
        app_name: cut(&message.app_name, MAX_APP_NAME_BYTES),
        ip: cut(&message.ip, MAX_IP_BYTES),
        reason: message.reason.as_deref().map(|reason| cut(reason, MAX_REASON_BYTES)),
        ..message.clone()
    }
}

/// An event that happens now.
pub(crate) fn event(id: Uuid, action: v1::Action, app_name: String) -> v1::Connection {
    v1::Connection {
        id: id.as_bytes().to_vec(),
        action: action.into(),
        timestamp: Some(timestamp(SystemTime::now())),
        app_name,
        ..v1::Connection::default()
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}
