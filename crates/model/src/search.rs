//! The search language of the API: `key:value` pairs, parsed into a [`Search`].
//!
//! Messages are those that clients of Coder's API know, to the character; a hint may follow them. Splitting is in
//! [`terms`], values are read in [`values`].

mod conditions;
mod terms;
mod values;
pub mod words;

use std::fmt;

use chrono::TimeDelta;
use uuid::Uuid;

pub use self::conditions::{AddressRange, CodeCondition, Comparison};

use crate::app::ConnectionType;
use crate::clock::{Timestamp, rfc3339};
use crate::method::Method;

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The field: a key of the query, or `q`.
    pub field: String,
    /// What is wrong, in the API's words.
    pub detail: String,
}

/// A user, by name or as the bearer of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// The user of the token that asks.
    Me,
    /// The user of that name, in lower case.
    Name(String),
}

/// Whether a connection is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Open.
    Ongoing,
    /// Ended. Web events are neither.
    Completed,
}

/// A parsed search query; an absent part does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Organization, by name or id, in lower case.
    pub organization: Option<String>,
    /// Owner of the workspace.
    pub workspace_owner: Option<UserRef>,
    /// Email of the workspace's owner, in lower case.
    pub workspace_owner_email: Option<String>,
    /// Type; matches its whole family.
    pub connection_type: Option<ConnectionType>,
    /// Method.
    pub method: Option<Method>,
    /// Client app, normalized.
    pub app: Option<String>,
    /// Who initiated the connection.
    pub username: Option<UserRef>,
    /// Email of who initiated the connection, in lower case.
    pub user_email: Option<String>,
    /// Earliest connect time, inclusive, rounded up to the microsecond.
    pub connected_after: Option<Timestamp>,
    /// Latest connect time, inclusive, rounded down to the microsecond.
    pub connected_before: Option<Timestamp>,
    /// Workspace.
    pub workspace_id: Option<Uuid>,
    /// Connection, as its agent names it.
    pub connection_id: Option<Uuid>,
    /// Whether it is still open.
    pub status: Option<Status>,
    /// Name of the workspace, in lower case.
    pub workspace: Option<String>,
    /// Name of the agent, in lower case.
    pub agent: Option<String>,
    /// Address of the client.
    pub ip: Option<AddressRange>,
    /// Part of the disconnect reason, in lower case.
    pub reason: Option<String>,
    /// Slug of the app, or forwarded port, of a web event, in lower case.
    pub slug_or_port: Option<String>,
    /// Part of the user agent of a web event, in lower case.
    pub user_agent: Option<String>,
    /// Session of a client, as the client names it.
    pub client_session_id: Option<Uuid>,
    /// Exit status of the session, or HTTP status of the web event.
    pub code: Option<CodeCondition>,
    /// Lasted longer; what is open lasts until now.
    pub longer_than: Option<TimeDelta>,
    /// Lasted shorter; what is open lasts until now.
    pub shorter_than: Option<TimeDelta>,
    /// Whether the end was inferred.
    pub inferred: Option<bool>,
    /// Web events by someone other than the owner of the workspace.
    pub other_owner: bool,
    /// Whether an event contradicts what is recorded.
    pub contradicted: bool,
    /// Whether the log got its beginning, or its end, more than 5 minutes after it happened.
    pub late: bool,
    /// Earliest time at which the log heard of it, inclusive, rounded up to the microsecond.
    pub received_after: Option<Timestamp>,
    /// Latest time at which the log heard of it, inclusive, rounded down to the microsecond.
    pub received_before: Option<Timestamp>,
}

/// The keys of the language, in the order in which errors are reported.
pub const KEYS: [&str; 29] = [
    "organization",
    "workspace_owner",
    "workspace_owner_email",
    "type",
    "method",
    "app",
    "username",
    "user_email",
    "connected_after",
    "connected_before",
    "workspace_id",
    "connection_id",
    "status",
    "workspace",
    "agent",
    "ip",
    "reason",
    "code",
    "longer_than",
    "shorter_than",
    "inferred",
    "other_owner",
    "slug_or_port",
    "user_agent",
    "client_session_id",
    "contradicted",
    "late",
    "received_after",
    "received_before",
];

/// Namespace of fingerprints. Fixed: cursors outlive a process.
const FINGERPRINT_NAMESPACE: Uuid = Uuid::from_u128(0x51c4_0e9d_7f3b_4a62_a8d1_3e90_c27b_64f5);

/// The canonical form: `key:value`, one a line, in the order of [`KEYS`], empty for a search that does not filter.
impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut put = |key: &str, value: Option<String>| match value {
            Some(value) => writeln!(f, "{key}:{value}"),
            None => Ok(()),
        };
        let user = |user: &Option<UserRef>| {
            user.as_ref().map(|user| match user {
                UserRef::Me => "me".to_owned(),
                UserRef::Name(name) => name.clone(),
            })
        };
        put("organization", self.organization.clone())?;
        put("workspace_owner", user(&self.workspace_owner))?;
        put("workspace_owner_email", self.workspace_owner_email.clone())?;
        put("type", self.connection_type.map(|family| family.as_str().to_owned()))?;
        put("method", self.method.map(|method| method.as_str().to_owned()))?;
        put("app", self.app.clone())?;
        put("username", user(&self.username))?;
        put("user_email", self.user_email.clone())?;
        put("connected_after", self.connected_after.map(rfc3339))?;
        put("connected_before", self.connected_before.map(rfc3339))?;
        put("workspace_id", self.workspace_id.map(|id| id.to_string()))?;
        put("connection_id", self.connection_id.map(|id| id.to_string()))?;
        put(
            "status",
            self.status.map(|status| if status == Status::Ongoing { "ongoing" } else { "completed" }.to_owned()),
        )?;
        put("workspace", self.workspace.clone())?;
        put("agent", self.agent.clone())?;
        put("ip", self.ip.map(|range| range.to_string()))?;
        put("reason", self.reason.clone())?;
        put("code", self.code.map(|condition| condition.to_string()))?;
        put("longer_than", self.longer_than.map(|duration| duration.to_string()))?;
        put("shorter_than", self.shorter_than.map(|duration| duration.to_string()))?;
        put("inferred", self.inferred.map(|inferred| inferred.to_string()))?;
        put("other_owner", self.other_owner.then(|| "true".to_owned()))?;
        put("slug_or_port", self.slug_or_port.clone())?;
        put("user_agent", self.user_agent.clone())?;
        put("client_session_id", self.client_session_id.map(|id| id.to_string()))?;
        put("contradicted", self.contradicted.then(|| "true".to_owned()))?;
        put("late", self.late.then(|| "true".to_owned()))?;
        put("received_after", self.received_after.map(rfc3339))?;
        put("received_before", self.received_before.map(rfc3339))
    }
}

impl Search {
    /// Parses `query`. All errors are reported together, except that of an element that cannot be split, which stands
    /// alone.
    pub fn parse(query: &str) -> Result<Self, Vec<Invalid>> {
        match Self::read(query) {
            Ok((search, invalid)) if invalid.is_empty() => Ok(search),
            Ok((_, invalid)) => Err(invalid),
            Err(invalid) => Err(vec![invalid]),
        }
    }

    /// Reads as much of `query` as can be read, and what cannot, for a caller who has more to find fault with. The error is
    /// that of an element that cannot be split.
    pub fn read(query: &str) -> Result<(Self, Vec<Invalid>), Invalid> {
        let terms = terms::split(query)?;
        let mut reader = values::Reader::new(terms);
        let search = Self {
            organization: reader.text("organization"),
            workspace_owner: reader.user("workspace_owner"),
            workspace_owner_email: reader.text("workspace_owner_email"),
            connection_type: reader.one_of("type", &ConnectionType::ALL.map(|t| (t.as_str(), t))),
            method: reader.one_of("method", &Method::ALL.map(|m| (m.as_str(), m))),
            app: reader.text("app").map(|name| crate::app::normalize(&name)),
            username: reader.user("username"),
            user_email: reader.text("user_email"),
            connected_after: reader.time("connected_after", values::Rounding::Up),
            connected_before: reader.time("connected_before", values::Rounding::Down),
            workspace_id: reader.uuid("workspace_id"),
            connection_id: reader.uuid("connection_id"),
            status: reader.one_of("status", &[("ongoing", Status::Ongoing), ("completed", Status::Completed)]),
            workspace: reader.text("workspace"),
            agent: reader.text("agent"),
            ip: reader.parsed("ip", "an IP address or a range in CIDR notation"),
            reason: reader.text("reason"),
            code: reader.parsed("code", "a number, or one after =, !=, <, <=, > or >="),
            longer_than: reader.duration("longer_than"),
            shorter_than: reader.duration("shorter_than"),
            inferred: reader.one_of("inferred", &[("true", true), ("false", false)]),
            other_owner: reader.one_of("other_owner", &[("true", ())]).is_some(),
            slug_or_port: reader.text("slug_or_port"),
            user_agent: reader.text("user_agent"),
            client_session_id: reader.uuid("client_session_id"),
            contradicted: reader.one_of("contradicted", &[("true", ())]).is_some(),
            late: reader.one_of("late", &[("true", ())]).is_some(),
            received_after: reader.time("received_after", values::Rounding::Up),
            received_before: reader.time("received_before", values::Rounding::Down),
        };
        Ok((search, reader.finish()))
    }

    /// A number that two searches share only if they ask for the same. It binds a cursor to its search.
    pub fn fingerprint(&self) -> u64 {
        Uuid::new_v5(&FINGERPRINT_NAMESPACE, self.to_string().as_bytes()).as_u64_pair().0
    }
}
