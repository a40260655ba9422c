//! An entry of the log as it is read: the row, and what the directory knows of its organization and people.

use std::net::IpAddr;

use chrono::DateTime;
use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::method::Method;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::xid::Xid8;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the table, commented in migrations/")]
pub struct Entry {
    pub id: Uuid,
    pub connect_time: Timestamp,
    pub organization: Organization,
    pub workspace_owner_id: Uuid,
    pub workspace_owner_username: String,
    pub workspace_id: Uuid,
    pub workspace_name: String,
    pub agent_name: String,
    pub ip: Option<IpAddr>,
    pub method: Method,
    pub app_name: Option<String>,
    pub connection_id: Option<Uuid>,
    /// The acting user, if one is known; what the directory lacks of them is empty.
    pub user: Option<DirectoryUser>,
    pub disconnect_time: Option<Timestamp>,
    pub disconnect_reason: Option<String>,
    pub disconnect_inferred: bool,
    pub code: Option<i32>,
    pub user_agent: String,
    pub slug_or_port: String,
    pub client_session_id: Option<Uuid>,
    pub rx_bytes: Option<i64>,
    pub tx_bytes: Option<i64>,
    /// The transaction that last changed the row.
    pub changed: u64,
}

/// An organization; what the directory lacks is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the table, commented in migrations/")]
pub struct Organization {
    pub id: Uuid,
    pub name: String,
    pub display_name: String,
    pub icon: String,
}

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the table, commented in migrations/")]
pub struct DirectoryUser {
    pub id: Uuid,
    pub username: String,
    pub name: String,
    pub email: String,
    pub avatar_url: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_seen_at: Timestamp,
    pub status: String,
    pub login_type: String,
}

impl Entry {
    /// Its type in the API.
    pub fn connection_type(&self) -> ConnectionType {
        ConnectionType::of(self.method, self.app_name.as_deref())
    }
}

/// Stands for a time that the directory lacks: the zero time of Go, which clients of the API take for "never".
const UNKNOWN_TIME: Timestamp = match DateTime::from_timestamp(-62_135_596_800, 0) {
    Some(time) => time,
    None => panic!("the year 1 is in range"),
};

/// Columns of a page that both tables have.
pub(super) const SHARED_COLUMNS: &str = "id, connect_time, organization_id, home, workspace_name, \
     agent_name, ip, method, app_name, connection_id, user_id, client_session_id, changed_xid";

/// Columns of a page that only history has, and what an open connection has instead.
pub(super) const HISTORY_ONLY: [(&str, &str); 8] = [
    ("disconnect_time", "NULL::timestamptz"),
    ("disconnect_reason", "NULL::text"),
    ("disconnect_inferred", "false"),
    ("code", "NULL::integer"),
    ("user_agent", "NULL::text"),
    ("slug_or_port", "NULL::text"),
    ("rx_bytes", "NULL::bigint"),
    ("tx_bytes", "NULL::bigint"),
];

/// Columns that the directory adds, over `page`, `homes`, `org`, `owner` and `actor`.
pub(super) const DIRECTORY_COLUMNS: &str = "homes.workspace_owner_id, homes.workspace_id, org.name AS organization_name, \
     org.display_name AS organization_display_name, org.icon AS organization_icon, owner.username AS owner_username, \
     actor.username AS actor_username, actor.name AS actor_name, actor.email AS actor_email, \
     actor.avatar_url AS actor_avatar_url, actor.created_at AS actor_created_at, actor.updated_at AS actor_updated_at, \
     actor.last_seen_at AS actor_last_seen_at, actor.status AS actor_status, actor.login_type AS actor_login_type";

/// Reads a row of a page.
pub(super) fn entry(row: &Row) -> Result<Entry, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let method: i16 = row.try_get("method")?;
    let text =
        |name: &str| -> Result<String, StoreError> { Ok(row.try_get::<_, Option<String>>(name)?.unwrap_or_default()) };
    Ok(Entry {
        id,
        connect_time: row.try_get("connect_time")?,
        organization: Organization {
            id: row.try_get("organization_id")?,
            name: text("organization_name")?,
            display_name: text("organization_display_name")?,
            icon: text("organization_icon")?,
        },
        workspace_owner_id: row.try_get("workspace_owner_id")?,
        workspace_owner_username: text("owner_username")?,
        workspace_id: row.try_get("workspace_id")?,
        workspace_name: row.try_get("workspace_name")?,
        agent_name: row.try_get("agent_name")?,
        ip: row.try_get("ip")?,
        method: Method::from_code(method)
            .ok_or_else(|| StoreError::Inconsistent(format!("entry {id} has the unknown method {method}")))?,
        app_name: row.try_get("app_name")?,
        connection_id: row.try_get("connection_id")?,
        user: actor(row)?,
        disconnect_time: row.try_get("disconnect_time")?,
        disconnect_reason: row.try_get("disconnect_reason")?,
        disconnect_inferred: row.try_get("disconnect_inferred")?,
        code: row.try_get("code")?,
        user_agent: text("user_agent")?,
        slug_or_port: text("slug_or_port")?,
        client_session_id: row.try_get("client_session_id")?,
        rx_bytes: row.try_get("rx_bytes")?,
        tx_bytes: row.try_get("tx_bytes")?,
        changed: row.try_get::<_, Xid8>("changed_xid")?.0,
    })
}

/// A user that the directory lacks keeps the id: it is who acted.
fn actor(row: &Row) -> Result<Option<DirectoryUser>, StoreError> {
    let Some(id) = row.try_get("user_id")? else { return Ok(None) };
    let text =
        |name: &str| -> Result<String, StoreError> { Ok(row.try_get::<_, Option<String>>(name)?.unwrap_or_default()) };
    let time = |name: &str| -> Result<Timestamp, StoreError> {
        Ok(row.try_get::<_, Option<Timestamp>>(name)?.unwrap_or(UNKNOWN_TIME))
    };
    Ok(Some(DirectoryUser {
        id,
        username: text("actor_username")?,
        name: text("actor_name")?,
        email: text("actor_email")?,
        avatar_url: text("actor_avatar_url")?,
        created_at: time("actor_created_at")?,
        updated_at: time("actor_updated_at")?,
        last_seen_at: time("actor_last_seen_at")?,
        status: text("actor_status")?,
        login_type: text("actor_login_type")?,
    }))
}
