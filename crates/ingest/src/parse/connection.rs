//! Connects and disconnects of connections to agents.

use std::sync::Arc;

use connlog_model::address;
use connlog_model::app::{UNKNOWN_APP, normalize};
use connlog_model::event::{Action, AgentEvent, Client, Outcome, Source as Reported};
use connlog_model::identity::{AgentIdentity, BootNumber};
use connlog_model::limits::{MAX_REASON_BYTES, clean_text};
use connlog_model::method::Method;
use connlog_proto::{coder, v1};
use uuid::Uuid;

use super::{Invalid, Span, optional_id, required_id};

/// Where an event comes from, as its bearer's token and its stream say.
#[derive(Debug, Clone)]
pub struct Source {
    /// The agent that the connection is to.
    pub agent: Arc<AgentIdentity>,
    /// The agent's boot, see [`AgentEvent::boot`].
    pub boot: Option<BootNumber>,
    /// Who sent it.
    pub reported: Reported,
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
    let (method, app_name) = client_app(message, action == Action::Connect)?;
    Ok(AgentEvent {
        agent: Arc::clone(&source.agent),
        connection_id,
        boot: source.boot,
        time,
        time_is_receipt: message.timestamp.is_none(),
        source: source.reported,
        received_at: span.now,
        client: Client {
            method,
            app_name,
            ip: address::read(&message.ip),
            client_ip: address::read(&message.client_ip),
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
        // It cannot say that it does not know: an agent of that API always means it on a disconnect.
        status_code: (message.action == v1::Action::Disconnect as i32).then_some(message.status_code),
        reason: message.reason,
        app_name: message.app_name,
        ..v1::Connection::default()
    }
}

/// The method, if the message says it, and the normalized name of the app; `unknown` is no name. Whatever else is not said
/// of a connect, it is SSH: that is what agents send for a client that they do not recognize. A disconnect says nothing new.
fn client_app(message: &v1::Connection, is_connect: bool) -> Result<(Option<Method>, Option<String>), Invalid> {
    #[expect(deprecated, reason = "existing agents still send the type")]
    let number = message.r#type;
    let kind = v1::Type::try_from(number).map_err(|_| Invalid::new("type", format!("{number} is not a type")))?;
    let said = match kind {
        v1::Type::Unspecified => is_connect.then_some(Method::Ssh),
        v1::Type::ReconnectingPty => Some(Method::ReconnectingPty),
        v1::Type::Ssh | v1::Type::Vscode | v1::Type::Jetbrains => Some(Method::Ssh),
    };
    if !message.app_name.is_empty() {
        let name = normalize(&message.app_name);
        return Ok(match name.as_str() {
            "reconnecting_pty" => (Some(Method::ReconnectingPty), None),
            UNKNOWN_APP => (said, None),
            _ => (said, Some(name)),
        });
    }
    let app_name = match kind {
        v1::Type::Vscode => Some("vscode"),
        v1::Type::Jetbrains => Some("jetbrains"),
        v1::Type::Unspecified | v1::Type::Ssh | v1::Type::ReconnectingPty => None,
    };
    Ok((said, app_name.map(str::to_owned)))
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
        Source { agent: Arc::new(agent), boot: None, reported: Reported::Agent, user_id: None }
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
        for (action, kind, app, method, name) in [
            (1, 0, "Cursor", Some(Method::Ssh), Some("cursor")),
            (1, 2, "", Some(Method::Ssh), Some("vscode")),
            (1, 1, "", Some(Method::Ssh), None),
            (1, 0, "", Some(Method::Ssh), None),
            (1, 3, "", Some(Method::Ssh), Some("jetbrains")),
            (1, 4, "", Some(Method::ReconnectingPty), None),
            (1, 0, "reconnecting-pty", Some(Method::ReconnectingPty), None),
            (1, 4, "zed", Some(Method::ReconnectingPty), Some("zed")),
            (1, 2, "goland", Some(Method::Ssh), Some("goland")),
            (1, 0, " ", Some(Method::Ssh), None),
            (1, 0, "unknown", Some(Method::Ssh), None),
            (2, 0, "", None, None),
            (2, 0, "zed", None, Some("zed")),
            (2, 1, "", Some(Method::Ssh), None),
            (2, 4, "", Some(Method::ReconnectingPty), None),
        ] {
            let client = parse(&message(action, kind, app)).unwrap().client;
            assert_eq!((client.method, client.app_name.as_deref()), (method, name), "{action} {kind} {app:?}");
        }
    }

    #[test]
    fn what_cannot_be_accepted_names_its_field() {
        let field = |message: &v1::Connection| parse(message).unwrap_err().field;
        assert_eq!(field(&message(0, 1, "")), "action");
        assert_eq!(field(&message(3, 1, "")), "action");
        assert_eq!(field(&message(1, 9, "")), "type");
        assert_eq!(field(&message(1, 99, "zed")), "type", "an unknown number is never taken for SSH");
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
