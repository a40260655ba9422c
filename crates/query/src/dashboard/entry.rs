//! `/entries/{id}`: one entry with all its fields, each a way to others that share it.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use connlog_model::clock::Timestamp;
use connlog_model::search::words;
use connlog_store::read::{Contradiction, Entry};
use uuid::Uuid;

use super::page::{Frame, PageError, Viewer, html};
use super::row::{Badge, Part, badges, sentence};
use super::text::{bytes, duration, search_link, visible};
use super::zone::{Moment, Zone};
use crate::audit::Given;
use crate::dto::late;
use crate::error::ApiError;
use crate::serve::Service;

/// A field of an entry.
struct Field {
    name: &'static str,
    value: String,
    /// A time, for programs.
    time: Option<String>,
    /// Whether it is something to copy, such as an id.
    copy: bool,
    /// The search for entries that share it.
    same: Option<String>,
}

/// What an event said against the entry.
struct Contradicting {
    received_at: Moment,
    /// Who said it.
    source: &'static str,
    /// What differs, as it was said.
    said: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage {
    frame: Frame,
    parts: Vec<Part>,
    badges: Vec<Badge>,
    fields: Vec<Field>,
    contradictions: Vec<Contradicting>,
    /// The entry as the API gives it.
    json: String,
    /// The log of the workspace around that time.
    around: String,
}

/// Shows one entry.
pub(super) async fn entry(
    State(service): State<Service>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let id = Uuid::try_parse(&id).map_err(|_| ApiError::not_found())?;
    let entry = service.reads.entry(id, &viewer.reach()).await?.ok_or_else(ApiError::not_found)?;
    let now = service.clock.now();
    let against = match entry.contradictions {
        0 => Vec::new(),
        _ => service.reads.contradictions(id, &viewer.reach()).await?,
    };
    let page = EntryPage {
        contradictions: against.into_iter().map(|one| contradicting(one, viewer.zone())).collect(),
        parts: sentence(&entry, now),
        badges: badges(&entry),
        fields: fields(&entry, viewer.zone(), now),
        json: format!("/api/v2/connectionlog/{id}"),
        around: around(&entry),
        frame: viewer.frame,
    };
    Ok((Extension(Given(1)), html(&page)).into_response())
}

/// Fields of a claim that have another name than the column.
fn claimed<'a>(claim: &'a serde_json::Value, field: &str) -> &'a serde_json::Value {
    match field {
        "connect_time" if claim["action"] == "connect" => &claim["time"],
        "connect_time" => &claim["connected_at"],
        "disconnect_time" => &claim["time"],
        field => &claim[field],
    }
}

fn contradicting(found: Contradiction, zone: Zone) -> Contradicting {
    let said = |field: String| {
        let value = claimed(&found.claim, &field);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (field.replace('_', " "), visible(&text))
    };
    Contradicting {
        received_at: Moment::full(zone, found.received_at),
        source: found.source.as_str(),
        said: found.fields.into_iter().map(said).collect(),
    }
}

fn around(entry: &Entry) -> String {
    let hour = chrono::TimeDelta::hours(1);
    let workspace = words::term("workspace_id", &entry.workspace_id.to_string());
    let from = connlog_model::clock::rfc3339(entry.connect_time - hour);
    let to = connlog_model::clock::rfc3339(entry.connect_time + hour);
    let query = words::with(&workspace, "connected_after", Some(&from));
    search_link(&words::with(&query, "connected_before", Some(&to)))
}

/// What is known, in the order in which one asks.
fn fields(entry: &Entry, zone: Zone, now: Timestamp) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut put = |name, value: Option<String>, copy, key: Option<&str>| {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return };
        // A query cannot have a double quote in a value; the ids lead on.
        let same = key.filter(|_| !value.contains('"')).map(|key| search_link(&words::term(key, &value)));
        fields.push(Field { name, value: visible(&value), time: None, copy, same });
    };
    let text = |text: &str| Some(text.to_owned());
    let id = |id: Uuid| Some(id.to_string());
    put("Type", text(entry.connection_type().as_str()), false, Some("type"));
    put("Method", text(entry.method.as_str()), false, Some("method"));
    put("App", entry.app_name.clone(), false, Some("app"));
    put("User", entry.user.as_ref().map(|user| user.username.clone()), false, Some("username"));
    put("User’s email", entry.user.as_ref().map(|user| user.email.clone()), true, Some("user_email"));
    put("User id", entry.user.as_ref().map(|user| user.id.to_string()), true, Some("username"));
    put("Workspace", text(&entry.workspace_name), false, Some("workspace"));
    put("Workspace id", id(entry.workspace_id), true, Some("workspace_id"));
    put("Owner", text(&entry.workspace_owner_username), false, Some("workspace_owner"));
    put("Owner id", id(entry.workspace_owner_id), true, Some("workspace_owner"));
    put("Agent", text(&entry.agent_name), false, Some("agent"));
    put("Organization", text(&entry.organization.name), false, Some("organization"));
    put("Organization id", id(entry.organization.id), true, Some("organization"));
    put("Address", entry.ip.map(|ip| ip.to_string()), true, Some("ip"));
    put("Public address", entry.client_ip.map(|ip| ip.to_string()), true, Some("ip"));
    put("App’s slug, or port", text(&entry.slug_or_port), false, Some("slug_or_port"));
    put("User agent", text(&entry.user_agent), true, Some("user_agent"));
    let code = entry.code.map(|code| code.to_string());
    put(if entry.method.is_web() { "HTTP status" } else { "Exit status" }, code, false, Some("code"));
    put("Reason of the end", entry.disconnect_reason.clone(), false, Some("reason"));
    put("Connection id", entry.connection_id.map(|id| id.to_string()), true, Some("connection_id"));
    put("Session id of the client", entry.client_session_id.map(|id| id.to_string()), true, Some("client_session_id"));
    let sizes = |size: Option<i64>| size.map(|size| format!("{} ({size} bytes)", bytes(size)));
    put("Received", sizes(entry.rx_bytes), false, None);
    put("Sent", sizes(entry.tx_bytes), false, None);
    put("Entry id", id(entry.id), true, None);

    let time = |name, time| {
        let moment = Moment::full(zone, time);
        Field { name, value: moment.text, time: Some(moment.iso), copy: false, same: None }
    };
    let plain = |name, value: String| Field { name, value, time: None, copy: false, same: None };
    let mut first = vec![time(if entry.method.is_web() { "Time" } else { "Connected" }, entry.connect_time)];
    first.extend(
        late(Some(entry.received_at), Some(entry.connect_time)).map(|received| time("Heard of, later", received)),
    );
    if !entry.method.is_web() {
        match entry.disconnect_time {
            Some(end) => {
                first.push(time("Disconnected", end));
                let received = late(entry.ended_received_at, Some(end));
                first.extend(received.map(|received| time("End heard of, later", received)));
                first.push(plain("Duration", duration(end - entry.connect_time)));
                let how = if entry.disconnect_inferred { "inferred: nobody reported it" } else { "reported" };
                first.push(plain("End", how.to_owned()));
            }
            None => first.push(plain("Duration", format!("{}, ongoing", duration(now - entry.connect_time)))),
        }
    }
    first.extend(fields);
    first
}
