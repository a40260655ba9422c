//! Events of the Open Cybersecurity Schema Framework, version 1.3.0 (<https://schema.ocsf.io/1.3.0>).
//!
//! Agents' SSH is SSH Activity (4007), tunnels are Tunnel Activity (4014), workspace apps HTTP Activity (4002), web
//! terminals and forwarded ports Network Activity (4001). What the schema has no place for is in `unmapped.connlog`.

use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::method::Method;
use connlog_store::read::Entry;
use serde_json::{Map, Value, json};

use super::format::Summary;
use crate::json_text::write_line;

/// The version of the schema.
pub(super) const VERSION: &str = "1.3.0";
/// Network Activity.
const CATEGORY: u32 = 4;

/// A class of events, and what happened of it.
struct Class {
    uid: u32,
    name: &'static str,
    activity: u32,
    activity_name: &'static str,
}

pub(super) fn write(entry: &Entry, cursor: &str, bytes: &mut Vec<u8>) {
    put(&event(entry, cursor), bytes);
}

/// A Base Event (0) says how the export went: it is no activity of anybody.
pub(super) fn finish(summary: &Summary, bytes: &mut Vec<u8>) {
    let summary = json!({
        "activity_id": 99,
        "activity_name": "Export",
        "category_uid": 0,
        "class_uid": 0,
        "type_uid": 99,
        "severity_id": 1,
        "time": chrono::Utc::now().timestamp_millis(),
        "message": if summary.complete { "The export is complete." } else { "The export is not complete." },
        "count": summary.rows,
        "metadata": metadata(None),
        "unmapped": { "connlog": { "export": summary } },
    });
    put(&summary, bytes);
}

fn put(event: &Value, bytes: &mut Vec<u8>) {
    write_line(event, bytes);
    bytes.push(b'\n');
}

fn class(entry: &Entry) -> Class {
    let (activity, activity_name) = if entry.disconnect_time.is_some() { (2, "Close") } else { (1, "Open") };
    match entry.method {
        Method::Ssh => Class { uid: 4007, name: "SSH Activity", activity, activity_name },
        Method::Tunnel => Class { uid: 4014, name: "Tunnel Activity", activity: 1, activity_name: "Open" },
        // The method of the request is not known.
        Method::WorkspaceApp => Class { uid: 4002, name: "HTTP Activity", activity: 0, activity_name: "Unknown" },
        Method::ReconnectingPty | Method::PortForwarding => {
            Class { uid: 4001, name: "Network Activity", activity, activity_name }
        }
    }
}

fn event(entry: &Entry, cursor: &str) -> Value {
    let class = class(entry);
    let mut event = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            event.insert(key.to_owned(), value);
        }
    };
    put("activity_id", json!(class.activity));
    put("activity_name", json!(class.activity_name));
    put("category_uid", json!(CATEGORY));
    put("category_name", json!("Network Activity"));
    put("class_uid", json!(class.uid));
    put("class_name", json!(class.name));
    put("type_uid", json!(class.uid * 100 + class.activity));
    put("type_name", json!(format!("{}: {}", class.name, class.activity_name)));
    put("severity_id", json!(1));
    put("severity", json!("Informational"));
    put("time", json!(millis(entry.disconnect_time.unwrap_or(entry.connect_time))));
    put("start_time", json!(millis(entry.connect_time)));
    put("end_time", json!(entry.disconnect_time.map(millis)));
    put("duration", json!(entry.disconnect_time.map(|end| (end - entry.connect_time).num_milliseconds())));
    let (status_id, status) = status(entry);
    put("status_id", json!(status_id));
    put("status", json!(status));
    put("status_code", json!(entry.code.map(|code| code.to_string())));
    put("status_detail", json!(entry.disconnect_reason));
    put("app_name", json!(entry.app_name));
    put("metadata", metadata(Some(entry)));
    put("src_endpoint", entry.ip.map_or(Value::Null, |ip| json!({ "ip": ip })));
    put("dst_endpoint", workspace(entry));
    put("actor", actor(entry));
    put("traffic", traffic(entry));
    let is_http = entry.method == Method::WorkspaceApp;
    if is_http {
        put("http_request", json!({ "user_agent": entry.user_agent }));
        put("http_response", entry.code.map_or(Value::Null, |code| json!({ "code": code })));
    }
    if entry.method == Method::Tunnel {
        put("tunnel_type_id", json!(0));
        put("tunnel_type", json!("Unknown"));
    }
    put(
        "unmapped",
        json!({ "connlog": {
            "type": entry.connection_type().as_str(),
            "method": entry.method.as_str(),
            "inferred": entry.disconnect_inferred,
            "slug_or_port": entry.slug_or_port,
            "client_session_id": entry.client_session_id,
            "client_ip": entry.client_ip,
            "user_agent": (!is_http && !entry.user_agent.is_empty()).then_some(&entry.user_agent),
            "connect_time": rfc3339(entry.connect_time),
            "cursor": cursor,
        } }),
    );
    Value::Object(event)
}

fn metadata(entry: Option<&Entry>) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "log_name": "connection_log",
        "product": { "name": "connlog", "vendor_name": "connlog", "version": env!("CARGO_PKG_VERSION") },
    });
    if let Some(entry) = entry {
        metadata["uid"] = json!(entry.id);
        metadata["tenant_uid"] = json!(entry.organization.id);
        if let Some(connection_id) = entry.connection_id {
            metadata["correlation_uid"] = json!(connection_id);
        }
        if entry.user.is_some() {
            // Whose attribute the actor is.
            metadata["profiles"] = json!(["host"]);
        }
    }
    metadata
}

fn workspace(entry: &Entry) -> Value {
    let mut endpoint = json!({
        "uid": entry.workspace_id,
        "name": entry.workspace_name,
        "svc_name": entry.agent_name,
        "owner": { "uid": entry.workspace_owner_id, "name": entry.workspace_owner_username },
    });
    if entry.method == Method::PortForwarding
        && let Ok(port) = entry.slug_or_port.parse::<u16>()
    {
        endpoint["port"] = json!(port);
    }
    endpoint
}

fn actor(entry: &Entry) -> Value {
    entry.user.as_ref().map_or(Value::Null, |user| {
        json!({ "user": { "uid": user.id, "name": user.username, "full_name": user.name, "email_addr": user.email } })
    })
}

fn traffic(entry: &Entry) -> Value {
    let total = entry.rx_bytes.unwrap_or(0).saturating_add(entry.tx_bytes.unwrap_or(0));
    if entry.rx_bytes.is_none() && entry.tx_bytes.is_none() {
        return Value::Null;
    }
    json!({ "bytes_in": entry.rx_bytes.unwrap_or(0), "bytes_out": entry.tx_bytes.unwrap_or(0), "bytes": total })
}

fn status(entry: &Entry) -> (u32, &'static str) {
    let failed = if entry.method.is_web() { 400.. } else { 1.. };
    match entry.code {
        None => (0, "Unknown"),
        // A signal is a negative code in some clients.
        Some(code) if failed.contains(&code) || code < 0 => (2, "Failure"),
        Some(_) => (1, "Success"),
    }
}

fn millis(time: Timestamp) -> i64 {
    time.timestamp_millis()
}
