//! Events as they were accepted: validated, cleaned, bound to an identity.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::identity::{AgentIdentity, BootNumber};
use crate::method::Method;

/// A connect or a disconnect of a connection to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEvent {
    /// The agent that the connection is to.
    pub agent: Arc<AgentIdentity>,
    /// The connection, as the agent names it.
    pub connection_id: Uuid,
    /// The boot of the agent that streamed the event; [`BootNumber::EARLIER`] if that was an earlier boot than the stream's,
    /// none if nobody said so: the event came neither over the agent's own stream nor from a reporter that knows.
    pub boot: Option<BootNumber>,
    /// When it happened.
    pub time: Timestamp,
    /// Whether the reporter gave no time, so that `time` is that of receipt.
    pub time_is_receipt: bool,
    /// Who says so.
    pub source: Source,
    /// When the server got it.
    pub received_at: Timestamp,
    /// What the event says about the client.
    pub client: Client,
    /// What happened.
    pub action: Action,
}

/// Who reports events about connections to agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The agent itself.
    Agent,
    /// A trusted reporter, on the agent's behalf.
    Reporter,
}

impl Source {
    /// As the database has it.
    pub fn code(self) -> i16 {
        match self {
            Self::Agent => 0,
            Self::Reporter => 1,
        }
    }

    /// The source of a [`code`](Self::code).
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Agent, Self::Reporter].into_iter().find(|source| source.code() == code)
    }

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Reporter => "reporter",
        }
    }
}

/// What one event says about the client of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    /// How the connection came, if the event says so.
    pub method: Option<Method>,
    /// Normalized name of the app, if known.
    pub app_name: Option<String>,
    /// Address of the client, if known.
    pub ip: Option<IpAddr>,
    /// Public address of the client, if its session came through a tunnel and `ip` is an address within it.
    pub client_ip: Option<IpAddr>,
    /// The client's own id of its session, if it has one.
    pub session_id: Option<Uuid>,
    /// Who connected, if a reporter knows; an agent never names a user.
    pub user_id: Option<Uuid>,
}

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It began.
    Connect,
    /// It ended.
    Disconnect {
        /// When it had begun, if the reporter says so.
        connected_at: Option<Timestamp>,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a connection ended, as its agent saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Why, in words; empty if not said.
    pub reason: String,
    /// Exit status, if known.
    pub code: Option<i32>,
    /// Bytes received from the client, if counted.
    pub rx_bytes: Option<i64>,
    /// Bytes sent to the client, if counted.
    pub tx_bytes: Option<i64>,
}

impl AgentEvent {
    /// The id of the row that this event is about.
    pub fn row_id(&self) -> Uuid {
        self.agent.row_id(self.connection_id)
    }

    /// When the connection began, if the event says so: a connect by its own time, a disconnect by `connected_at`.
    pub fn start_claim(&self) -> Option<Timestamp> {
        match self.action {
            Action::Connect => (!self.time_is_receipt).then_some(self.time),
            Action::Disconnect { connected_at, .. } => connected_at,
        }
    }

    /// When the connection began, or, if the event does not say, the time of the event.
    pub fn start(&self) -> Timestamp {
        self.start_claim().unwrap_or(self.time)
    }
}

/// An event of a workspace app, a forwarded port or a tunnel: a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebEvent {
    /// The reporter's id of the event, which with its workspace and `time` makes it idempotent.
    pub event_id: Uuid,
    /// The agent it went to, and with it the workspace.
    pub agent: Arc<AgentIdentity>,
    /// Who acted; none if unauthenticated or unknown.
    pub user_id: Option<Uuid>,
    /// One of the web methods.
    pub method: Method,
    /// When it happened.
    pub time: Timestamp,
    /// When the server got it.
    pub received_at: Timestamp,
    /// Address of the client, if known.
    pub ip: Option<IpAddr>,
    /// The client's user agent; empty if unknown.
    pub user_agent: String,
    /// Slug of the app, or number of the port.
    pub slug_or_port: String,
    /// HTTP status.
    pub status_code: i32,
    /// The connection that it is part of, if any.
    pub connection_id: Option<Uuid>,
}

impl WebEvent {
    /// The id of its row.
    pub fn row_id(&self) -> Uuid {
        self.agent.workspace.web_row_id(self.event_id)
    }
}

/// Anything that the log accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// About a connection to an agent.
    Agent(AgentEvent),
    /// About a web request or a tunnel.
    Web(WebEvent),
}

impl Event {
    /// The id of the row that this event is about.
    pub fn row_id(&self) -> Uuid {
        match self {
            Self::Agent(event) => event.row_id(),
            Self::Web(event) => event.row_id(),
        }
    }

    /// The agent that it is about.
    pub fn agent(&self) -> &Arc<AgentIdentity> {
        match self {
            Self::Agent(event) => &event.agent,
            Self::Web(event) => &event.agent,
        }
    }

    /// The earliest time that the event speaks of.
    pub fn start(&self) -> Timestamp {
        match self {
            Self::Agent(event) => event.start(),
            Self::Web(event) => event.time,
        }
    }
}
