//! Cutting what is too long as soon as it is read: a message waits for its commit, and may become a dead letter, and
//! neither may be as large as a sender likes.

use connlog_model::limits::{MAX_NAME_BYTES, MAX_REASON_BYTES, MAX_SLUG_OR_PORT_BYTES, MAX_USER_AGENT_BYTES};
use connlog_proto::v1;

/// Longest id that is kept, so that a dead letter shows what was wrong with it. A good one has 16 bytes.
const MAX_ID_BYTES: usize = 64;
/// Longest address that is kept.
const MAX_IP_BYTES: usize = 128;

/// Cuts the strings of a message to what the log keeps of them.
pub fn shrink_connection(message: &mut v1::Connection) {
    message.id.truncate(MAX_ID_BYTES);
    message.client_session_id.truncate(MAX_ID_BYTES);
    cut(&mut message.ip, MAX_IP_BYTES);
    cut(&mut message.client_ip, MAX_IP_BYTES);
    // Control characters are dropped and the rest is cut again when the name is normalized.
    cut(&mut message.app_name, MAX_NAME_BYTES * 4);
    if let Some(reason) = &mut message.reason {
        // NUL, which is removed later, does not count.
        cut(reason, MAX_REASON_BYTES * 2);
    }
}

/// Cuts the strings of a message to what the log keeps of them.
pub fn shrink_reported(message: &mut v1::ReportedEvent) {
    message.workspace_id.truncate(MAX_ID_BYTES);
    message.user_id.truncate(MAX_ID_BYTES);
    message.boot_id.truncate(MAX_ID_BYTES);
    cut(&mut message.agent_name, MAX_NAME_BYTES * 2);
    match &mut message.event {
        Some(v1::reported_event::Event::Connection(connection)) => shrink_connection(connection),
        Some(v1::reported_event::Event::Web(web)) => {
            web.event_id.truncate(MAX_ID_BYTES);
            web.connection_id.truncate(MAX_ID_BYTES);
            cut(&mut web.ip, MAX_IP_BYTES);
            cut(&mut web.user_agent, MAX_USER_AGENT_BYTES * 2);
            cut(&mut web.slug_or_port, MAX_SLUG_OR_PORT_BYTES * 2);
        }
        Some(v1::reported_event::Event::Presence(presence)) => presence.boot_id.truncate(MAX_ID_BYTES),
        Some(v1::reported_event::Event::Lost(lost)) => cut(&mut lost.cause, MAX_REASON_BYTES * 2),
        None => {}
    }
}

/// Cuts the strings of a message to what the log keeps of them.
pub fn shrink_sequenced(message: &mut v1::SequencedEvent) {
    match &mut message.event {
        Some(v1::sequenced_event::Event::Connection(connection)) => shrink_connection(connection),
        Some(v1::sequenced_event::Event::Lost(lost)) => cut(&mut lost.cause, MAX_REASON_BYTES * 2),
        None => {}
    }
}

fn cut(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        // A copy of its own: cutting alone would keep the memory.
        *text = text[..text.floor_char_boundary(max_bytes)].to_owned();
    }
}
