//! Messages of agents and reporters: decoded, cut to size, and read into events.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, TimeDelta, Utc};
use connlog_ingest::parse::{
    Source, Span, connection, from_coder, shrink_connection, shrink_reported, shrink_sequenced, web,
};
use connlog_model::event::{Action, AgentEvent, Source as Reported, WebEvent};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_model::limits::{MAX_APP_NAME_CHARS, MAX_REASON_BYTES, MAX_SLUG_OR_PORT_BYTES, MAX_USER_AGENT_BYTES};
use connlog_proto::{coder, v1};
use prost::Message;
use uuid::Uuid;

static AGENT: LazyLock<Arc<AgentIdentity>> = LazyLock::new(|| {
    Arc::new(AgentIdentity {
        workspace: Workspace {
            organization_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(2),
            workspace_id: Uuid::from_u128(3),
            workspace_name: "dev".to_owned(),
        },
        agent_id: Some(Uuid::from_u128(4)),
        agent_name: "main".to_owned(),
    })
});

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).unwrap_or_default()
}

fn source() -> Source {
    Source { agent: Arc::clone(&AGENT), boot: None, reported: Reported::Agent, user_id: None }
}

fn span() -> Span {
    Span::new(now(), TimeDelta::days(400))
}

/// The first byte says which message the others are.
pub(crate) fn messages(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            if let Ok(mut message) = v1::Connection::decode(bytes) {
                read(&mut message);
            }
        }
        1 => {
            if let Ok(message) = v1::WebConnection::decode(bytes)
                && let Ok(event) = web(&message, &source(), &span())
            {
                check_web(&event);
            }
        }
        2 => {
            if let Ok(mut message) = v1::ReportedEvent::decode(bytes) {
                shrink_reported(&mut message);
                match message.event {
                    Some(v1::reported_event::Event::Connection(mut message)) => read(&mut message),
                    Some(v1::reported_event::Event::Web(message)) => {
                        if let Ok(event) = web(&message, &source(), &span()) {
                            check_web(&event);
                        }
                    }
                    _ => {}
                }
            }
        }
        3 => {
            if let Ok(mut message) = v1::SequencedEvent::decode(bytes) {
                shrink_sequenced(&mut message);
                if let Some(v1::sequenced_event::Event::Connection(mut message)) = message.event {
                    read(&mut message);
                }
            }
        }
        _ => {
            if let Ok(message) = coder::Connection::decode(bytes) {
                read(&mut from_coder(message));
            }
        }
    }
}

fn read(message: &mut v1::Connection) {
    shrink_connection(message);
    match connection(message, &source(), &span()) {
        Ok(event) => check(&event),
        Err(error) => assert!(!error.field.is_empty() && !error.reason.is_empty()),
    }
}

/// PostgreSQL takes no NUL.
fn check_text(text: &str, most: usize) {
    assert!(text.len() <= most && !text.contains('\0'), "{text:?}");
}

fn check(event: &AgentEvent) {
    assert!(!event.connection_id.is_nil());
    assert!(span_holds(event.time), "{}", event.time);
    if let Some(name) = &event.client.app_name {
        assert!(name.chars().count() <= MAX_APP_NAME_CHARS && !name.contains('\0'), "{name:?}");
    }
    if let Action::Disconnect { outcome, .. } = &event.action {
        check_text(&outcome.reason, MAX_REASON_BYTES);
        assert!([outcome.rx_bytes, outcome.tx_bytes].into_iter().flatten().all(|bytes| bytes >= 0));
    }
}

fn check_web(event: &WebEvent) {
    assert!(event.method.is_web() && !event.event_id.is_nil());
    assert!(span_holds(event.time), "{}", event.time);
    check_text(&event.user_agent, MAX_USER_AGENT_BYTES);
    check_text(&event.slug_or_port, MAX_SLUG_OR_PORT_BYTES);
}

fn span_holds(time: DateTime<Utc>) -> bool {
    (now() - TimeDelta::days(400)..=now() + TimeDelta::hours(24)).contains(&time)
}
