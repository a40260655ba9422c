//! What the API shows, field by field. Names, order and presence are those that existing clients know; `inferred` and
//! `session` are connlog's own.

use std::net::IpAddr;

use connlog_model::app::display_name;
use connlog_model::clock::{LATE, Timestamp, rfc3339};
use connlog_store::read::{DirectoryUser, Entry};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A page of entries.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionLogList {
    /// The entries, newest first.
    pub connection_logs: Vec<ConnectionLog>,
    /// How many match in all; at most `count_cap + 1` if it is capped.
    pub count: i64,
    /// Where counting stopped; 0 if the count is exact.
    pub count_cap: i64,
    /// What `after` takes for the next page; omitted when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Whether the page is short because looking for entries took too long; `next_cursor` goes on from there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub incomplete: bool,
}

/// An entry.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the API that this one serves")]
pub struct ConnectionLog {
    pub id: Uuid,
    pub connect_time: String,
    pub organization: MinimalOrganization,
    pub workspace_owner_id: Uuid,
    pub workspace_owner_username: String,
    pub workspace_id: Uuid,
    pub workspace_name: String,
    pub agent_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ip: Option<IpAddr>,
    pub r#type: &'static str,
    pub type_display_name: String,
    pub connection_method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_info: Option<WebInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_info: Option<SshInfo>,
    /// Whether connlog concluded the end rather than being told.
    pub inferred: bool,
    /// How many events contradict what is recorded; omitted if none does.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(required = false)]
    pub contradictions: i64,
    /// When the log heard of it, if that was more than 5 minutes after `connect_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<String>,
    /// When the log heard of the end, if that was more than 5 minutes after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_received_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the API that this one serves")]
pub struct MinimalOrganization {
    pub id: Uuid,
    pub name: String,
    pub display_name: String,
    pub icon: String,
}

/// What only web events have.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the API that this one serves")]
pub struct WebInfo {
    pub user_agent: String,
    pub user: Option<User>,
    pub slug_or_port: String,
    pub status_code: i32,
}

/// What only connections to agents have.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the API that this one serves")]
pub struct SshInfo {
    pub connection_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// A session of a client; what is unknown is omitted.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Session {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_session_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Public address of a client whose session came through a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub client_ip: Option<IpAddr>,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the API that this one serves")]
pub struct User {
    pub id: Uuid,
    pub username: String,
    pub name: String,
    pub email: String,
    pub avatar_url: String,
    pub created_at: String,
    pub updated_at: String,
    pub last_seen_at: String,
    pub status: String,
    pub login_type: String,
    pub organization_ids: Vec<Uuid>,
    pub roles: Vec<UserRole>,
}

/// A role of a user. The directory knows none.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of the API that this one serves")]
pub struct UserRole {
    pub name: String,
    pub display_name: String,
}

/// The time of receipt, if it is late.
pub(crate) fn late(received_at: Option<Timestamp>, happened_at: Option<Timestamp>) -> Option<Timestamp> {
    received_at
        .zip(happened_at)
        .filter(|(received, happened)| *received - *happened > LATE)
        .map(|(received, _)| received)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl From<Entry> for ConnectionLog {
    fn from(entry: Entry) -> Self {
        let received_at = late(Some(entry.received_at), Some(entry.connect_time));
        let ended_received_at = late(entry.ended_received_at, entry.disconnect_time);
        let family = entry.connection_type();
        let app_display_name = entry.app_name.as_deref().map(|name| display_name(name).to_owned());
        let user = entry.user.map(User::from);
        let (web_info, ssh_info, session) = if entry.method.is_web() {
            let web = WebInfo {
                user_agent: entry.user_agent,
                user,
                slug_or_port: entry.slug_or_port,
                status_code: entry.code.unwrap_or_default(),
            };
            (Some(web), None, None)
        } else {
            let ssh = SshInfo {
                connection_id: entry.connection_id.unwrap_or_default(),
                disconnect_time: entry.disconnect_time.map(rfc3339),
                disconnect_reason: entry.disconnect_time.map(|_| entry.disconnect_reason.unwrap_or_default()),
                exit_code: entry.code,
            };
            let session = Session {
                client_session_id: entry.client_session_id,
                rx_bytes: entry.rx_bytes,
                tx_bytes: entry.tx_bytes,
                user,
                client_ip: entry.client_ip,
            };
            (None, Some(ssh), session.is_known().then_some(session))
        };
        Self {
            id: entry.id,
            connect_time: rfc3339(entry.connect_time),
            organization: MinimalOrganization {
                id: entry.organization.id,
                name: entry.organization.name,
                display_name: entry.organization.display_name,
                icon: entry.organization.icon,
            },
            workspace_owner_id: entry.workspace_owner_id,
            workspace_owner_username: entry.workspace_owner_username,
            workspace_id: entry.workspace_id,
            workspace_name: entry.workspace_name,
            agent_name: entry.agent_name,
            ip: entry.ip,
            r#type: family.as_str(),
            type_display_name: app_display_name.clone().unwrap_or_else(|| family.display_name().to_owned()),
            connection_method: entry.method.as_str(),
            app_name: entry.app_name,
            app_display_name,
            web_info,
            ssh_info,
            inferred: entry.disconnect_inferred,
            contradictions: entry.contradictions,
            received_at: received_at.map(rfc3339),
            ended_received_at: ended_received_at.map(rfc3339),
            session,
        }
    }
}

impl Session {
    fn is_known(&self) -> bool {
        self.client_session_id.is_some()
            || self.rx_bytes.is_some()
            || self.tx_bytes.is_some()
            || self.user.is_some()
            || self.client_ip.is_some()
    }
}

impl From<DirectoryUser> for User {
    fn from(user: DirectoryUser) -> Self {
        Self {
            id: user.id,
            username: user.username,
            name: user.name,
            email: user.email,
            avatar_url: user.avatar_url,
            created_at: rfc3339(user.created_at),
            updated_at: rfc3339(user.updated_at),
            last_seen_at: rfc3339(user.last_seen_at),
            status: user.status,
            login_type: user.login_type,
            organization_ids: Vec::new(),
            roles: Vec::new(),
        }
    }
}
