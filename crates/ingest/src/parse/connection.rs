//! Connects and disconnects of connections to agents.

use std::sync::Arc;

use connlog_model::app::{UNKNOWN_APP, normalize};
use connlog_model::event::{Action, AgentEvent, Client, Outcome};
use connlog_model::identity::AgentIdentity;
use connlog_model::limits::{MAX_REASON_BYTES, clean_text};
use connlog_model::method::Method;
use connlog_proto::{coder, v1};
use uuid::Uuid;

use super::{Invalid, Span, ip, optional_id, required_id};

/// Where an event comes from, as its bearer's token and its stream say.
#[derive(Debug, Clone)]
pub struct Source {
    /// The agent that the connection is to.
    pub agent: Arc<AgentIdentity>,
    /// The agent's boot, see [`AgentEvent::boot_id`].
    pub boot_id: Option<Uuid>,
    /// The acting user, if a reporter names one.
    pub user_id: Option<Uuid>,
}

/// Validates a connect or a disconnect.
pub fn connection(message: &v1::Connection, source: &Source, span: &Span) -> Result<AgentEvent, Invalid> {
    let connection_id = required_id("id", &message.id)?;
    let time = match &message.timestamp {
        Some(time) => span.time("timestamp", time)?,
        None => span.now,
    };
    let (method, app_name) = client_app(message)?;
    let action = match v1::Action::try_from(message.action) {
        Ok(v1::Action::Connect) => Action::Connect,
        Ok(v1::Action::Disconnect) => Action::Disconnect {
            connected_at: message.connected_at.as_ref().map(|time| span.time("connected_at", time)).transpose()?,
            outcome: outcome(message)?,
        },
        _ => {
            return Err(Invalid::new(
                "action",
                format!("{} is neither CONNECT (1) nor DISCONNECT (2)", message.action),
            ));
        }
    };
    Ok(AgentEvent {
        agent: Arc::clone(&source.agent),
        connection_id,
        boot_id: source.boot_id,
        time,
        time_is_receipt: message.timestamp.is_none(),
        client: Client {
            method,
            app_name,
            ip: ip(&message.ip),
            session_id: optional_id("client_session_id", &message.client_session_id)?,
            user_id: source.user_id,
        },
        action,
    })
}

/// The same message in the words of connlog's own API.
pub fn from_coder(message: coder::Connection) -> v1::Connection {
    #[expect(deprecated, reason = "existing agents still send the type")]
    v1::Connection {
        id: message.id,
        action: message.action,
        r#type: message.r#type,
        timestamp: message.timestamp,
        ip: message.ip,
        status_code: message.status_code,
        reason: message.reason,
        app_name: message.app_name,
        ..v1::Connection::default()
    }
}

/// The method, and the normalized name of the app; `unknown` is no name.
fn client_app(message: &v1::Connection) -> Result<(Method, Option<String>), Invalid> {
    if !message.app_name.is_empty() {
        let name = normalize(&message.app_name);
        return Ok(match name.as_str() {
            "reconnecting_pty" => (Method::ReconnectingPty, None),
            UNKNOWN_APP => (legacy_method(message), None),
            _ => (legacy_method(message), Some(name)),
        });
    }
    let legacy = |name: &str| Ok((Method::Ssh, Some(name.to_owned())));
    match legacy_type(message) {
        Ok(v1::Type::Ssh) => legacy("ssh"),
        Ok(v1::Type::Vscode) => legacy("vscode"),
        Ok(v1::Type::Jetbrains) => legacy("jetbrains"),
        Ok(v1::Type::ReconnectingPty) => Ok((Method::ReconnectingPty, None)),
        Ok(v1::Type::Unspecified) => Err(Invalid::new("app_name", "is empty, and there is no type either")),
        Err(number) => Err(Invalid::new("type", format!("{number} is not a type"))),
    }
}

/// A web terminal may name the app that it runs in.
fn legacy_method(message: &v1::Connection) -> Method {
    match legacy_type(message) {
        Ok(v1::Type::ReconnectingPty) => Method::ReconnectingPty,
        _ => Method::Ssh,
    }
}

fn legacy_type(message: &v1::Connection) -> Result<v1::Type, i32> {
    #[expect(deprecated, reason = "existing agents still send the type")]
    let number = message.r#type;
    v1::Type::try_from(number).map_err(|_| number)
}

fn outcome(message: &v1::Connection) -> Result<Outcome, Invalid> {
    Ok(Outcome {
        reason: clean_text(message.reason.as_deref().unwrap_or_default(), MAX_REASON_BYTES),
        code: message.status_code,
        rx_bytes: byte_count("rx_bytes", message.rx_bytes)?,
        tx_bytes: byte_count("tx_bytes", message.tx_bytes)?,
    })
}

/// Zero is what an agent that does not count sends.
fn byte_count(field: &'static str, count: u64) -> Result<Option<i64>, Invalid> {
    let count = i64::try_from(count).map_err(|_| Invalid::new(field, "is larger than 2^63-1"))?;
    Ok((count > 0).then_some(count))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use connlog_model::identity::Workspace;

    use super::*;

    fn source() -> Source {
        let workspace = Workspace {
            organization_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(2),
            workspace_id: Uuid::from_u128(3),
            workspace_name: "dev".to_owned(),
        };
        let agent = AgentIdentity { agent_id: None, agent_name: "main".to_owned(), workspace };
        Source { agent: Arc::new(agent), boot_id: None, user_id: None }
    }

    fn parse(message: &v1::Connection) -> Result<AgentEvent, Invalid> {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        connection(message, &source(), &Span::new(now, TimeDelta::days(400)))
    }

    fn message(action: i32, kind: i32, app: &str) -> v1::Connection {
        #[expect(deprecated, reason = "existing agents still send the type")]
        v1::Connection { id: vec![1; 16], action, r#type: kind, app_name: app.to_owned(), ..v1::Connection::default() }
    }

    #[test]
    fn the_client_is_named_by_the_app_or_else_by_the_type() {
        for (kind, app, method, name) in [
            (0, "Cursor", Method::Ssh, Some("cursor")),
            (2, "", Method::Ssh, Some("vscode")),
            (1, "", Method::Ssh, Some("ssh")),
            (3, "", Method::Ssh, Some("jetbrains")),
            (4, "", Method::ReconnectingPty, None),
            (0, "reconnecting-pty", Method::ReconnectingPty, None),
            (4, "zed", Method::ReconnectingPty, Some("zed")),
            (2, "goland", Method::Ssh, Some("goland")),
            (0, " ", Method::Ssh, None),
            (0, "unknown", Method::Ssh, None),
            (99, "zed", Method::Ssh, Some("zed")),
        ] {
            let client = parse(&message(1, kind, app)).unwrap().client;
            assert_eq!((client.method, client.app_name.as_deref()), (method, name), "{kind} {app:?}");
        }
    }

    #[test]
    fn what_cannot_be_accepted_names_its_field() {
        let field = |message: &v1::Connection| parse(message).unwrap_err().field;
        assert_eq!(field(&message(0, 1, "")), "action");
        assert_eq!(field(&message(3, 1, "")), "action");
        assert_eq!(field(&message(1, 0, "")), "app_name");
        assert_eq!(field(&message(1, 9, "")), "type");
        assert_eq!(field(&v1::Connection { id: vec![0; 16], ..message(1, 1, "") }), "id");
        assert_eq!(field(&v1::Connection { id: vec![1; 4], ..message(1, 1, "") }), "id");
        assert_eq!(field(&v1::Connection { client_session_id: vec![1; 4], ..message(1, 1, "") }), "client_session_id");
        assert_eq!(field(&v1::Connection { rx_bytes: 1 << 63, ..message(2, 1, "") }), "rx_bytes");
    }

    #[test]
    fn an_absent_time_is_that_of_receipt() {
        let event = parse(&message(1, 1, "")).unwrap();
        assert!(event.time_is_receipt);
        assert_eq!(event.time, DateTime::from_timestamp(1_700_000_000, 0).unwrap());
    }

    #[test]
    fn a_reason_is_cleaned_and_cut() {
        let reason = Some(format!("a\0b{}", "x".repeat(5_000)));
        let Action::Disconnect { outcome, .. } = parse(&v1::Connection { reason, ..message(2, 1, "") }).unwrap().action
        else {
            panic!("it is a disconnect")
        };
        assert!(outcome.reason.starts_with("abx"));
        assert_eq!(outcome.reason.len(), MAX_REASON_BYTES);
    }
}
