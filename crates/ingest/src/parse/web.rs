//! Web events: workspace apps, forwarded ports, tunnels.

use std::sync::Arc;

use connlog_model::address;
use connlog_model::event::WebEvent;
use connlog_model::limits::{MAX_SLUG_OR_PORT_BYTES, MAX_USER_AGENT_BYTES, clean_text};
use connlog_model::method::Method;
use connlog_proto::v1;

use super::connection::Source;
use super::{Invalid, Span, optional_id, required_id};

/// Validates a web event.
pub fn web(message: &v1::WebConnection, source: &Source, span: &Span) -> Result<WebEvent, Invalid> {
    let event_id = required_id("event_id", &message.event_id)?;
    let method = match v1::WebType::try_from(message.r#type) {
        Ok(v1::WebType::WorkspaceApp) => Method::WorkspaceApp,
        Ok(v1::WebType::PortForwarding) => Method::PortForwarding,
        Ok(v1::WebType::Tunnel) => Method::Tunnel,
        _ => return Err(Invalid::new("type", format!("{} is not a web type", message.r#type))),
    };
    let time = message
        .timestamp
        .as_ref()
        .ok_or_else(|| Invalid::new("timestamp", "is missing: a replay is recognized by it"))?;
    Ok(WebEvent {
        event_id,
        agent: Arc::clone(&source.agent),
        user_id: source.user_id,
        method,
        time: span.time("timestamp", time)?,
        received_at: span.now,
        ip: address::read(&message.ip),
        user_agent: clean_text(&message.user_agent, MAX_USER_AGENT_BYTES),
        slug_or_port: clean_text(&message.slug_or_port, MAX_SLUG_OR_PORT_BYTES),
        status_code: message.status_code,
        connection_id: optional_id("connection_id", &message.connection_id)?,
    })
}
