//! The search language of the API: `key:value` pairs, parsed into a [`Search`].
//!
//! Messages are those that clients of Coder's API know, to the character; a hint may follow them. Splitting is in
//! [`terms`], values are read in [`values`].

mod terms;
mod values;

use uuid::Uuid;

use crate::app::ConnectionType;
use crate::clock::Timestamp;
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
}

/// The keys of the language, in the order in which errors are reported.
pub const KEYS: [&str; 13] = [
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
];

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
        };
        Ok((search, reader.finish()))
    }
}
