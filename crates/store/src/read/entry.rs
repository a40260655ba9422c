//! An entry of the log as it is read: the row, and what the directory knows of its organization and people.

use std::net::IpAddr;

use chrono::DateTime;
use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::cursor::Position;
use connlog_model::method::Method;
use tokio_postgres::Row;
use uuid::Uuid;

use super::whose::Place;
use crate::StoreError;

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
    /// Public address of the client of a tunnelled session.
    pub client_ip: Option<IpAddr>,
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
    /// When the log got the first event about it.
    pub received_at: Timestamp,
    /// When the log got the end; none if there is none, or it is inferred.
    pub ended_received_at: Option<Timestamp>,
    /// How many events contradict what is recorded.
    pub contradictions: i64,
    /// Its place in the change feed, if it was read from there.
    pub position: Option<Position>,
}

/// An organization; what the directory lacks is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
pub(super) const UNKNOWN_TIME: Timestamp = match DateTime::from_timestamp(-62_135_596_800, 0) {
    Some(time) => time,
    None => panic!("the year 1 is in range"),
};

/// The columns of a page, in the order in which [`entry`] reads them. By their place: finding values by name takes longer.
pub(super) const COLUMNS: &str = "id, connect_time, target, ip, method, app_name, connection_id, user_id, client_session_id, \
     received_at, disconnect_time, disconnect_reason, disconnect_inferred, code, user_agent, slug_or_port, rx_bytes, tx_bytes, \
     ended_received_at, client_ip";

/// The id of a row.
pub(super) fn id(row: &Row) -> Result<Uuid, StoreError> {
    Ok(row.try_get(0)?)
}

/// The time of a row.
pub(super) fn time(row: &Row) -> Result<Timestamp, StoreError> {
    Ok(row.try_get(1)?)
}

/// The target of a row.
pub(super) fn target(row: &Row) -> Result<i64, StoreError> {
    Ok(row.try_get(2)?)
}

/// The acting user of a row.
pub(super) fn user_id(row: &Row) -> Result<Option<Uuid>, StoreError> {
    Ok(row.try_get(7)?)
}

/// Reads a row of a page, of which it is known whose it is.
pub(super) fn entry(
    row: &Row,
    place: &Place,
    user: Option<DirectoryUser>,
    contradictions: i64,
) -> Result<Entry, StoreError> {
    let id = id(row)?;
    let method: i16 = row.try_get(4)?;
    Ok(Entry {
        id,
        connect_time: time(row)?,
        organization: place.organization.clone(),
        workspace_owner_id: place.owner_id,
        workspace_owner_username: place.owner_username.clone(),
        workspace_id: place.workspace_id,
        workspace_name: place.workspace_name.clone(),
        agent_name: place.agent_name.clone(),
        ip: row.try_get(3)?,
        method: Method::from_code(method)
            .ok_or_else(|| StoreError::Inconsistent(format!("entry {id} has the unknown method {method}")))?,
        app_name: row.try_get(5)?,
        connection_id: row.try_get(6)?,
        user,
        client_session_id: row.try_get(8)?,
        received_at: row.try_get(9)?,
        disconnect_time: row.try_get(10)?,
        disconnect_reason: row.try_get(11)?,
        disconnect_inferred: row.try_get(12)?,
        code: row.try_get(13)?,
        user_agent: row.try_get::<_, Option<String>>(14)?.unwrap_or_default(),
        slug_or_port: row.try_get::<_, Option<String>>(15)?.unwrap_or_default(),
        rx_bytes: row.try_get(16)?,
        tx_bytes: row.try_get(17)?,
        ended_received_at: row.try_get(18)?,
        client_ip: row.try_get(19)?,
        contradictions,
        position: None,
    })
}
