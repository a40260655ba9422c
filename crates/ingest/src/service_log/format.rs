//! The two formats of an entry, to the character: JSON, and one for people.
//!
//! Both are those of the structured logger that Coder's control plane uses, so that existing parsers read them.

use std::fmt::Write as _;
use std::net::IpAddr;

use chrono::Local;
use connlog_model::app::ConnectionType;
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::connection::{Connection, End};
use connlog_model::event::{Action, AgentEvent, Event, WebEvent};
use connlog_model::identity::Workspace;
use connlog_model::method::Method;
use connlog_model::quote::quote;
use connlog_store::{LostRecord, RejectedRecord};
use serde_json::{Value, json};
use uuid::Uuid;

/// A format of the service log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One line of `key=value` pairs.
    Human,
}

/// An entry of the service log.
pub struct Entry<'a> {
    /// When it is logged.
    pub logged_at: Timestamp,
    /// File and line that log it.
    pub caller: &'static str,
    /// Function that logs it.
    pub func: &'static str,
    /// The stream, call or round that it came by.
    pub request_id: Uuid,
    /// What it is about.
    pub subject: Subject<'a>,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// An event, as it was accepted.
    Event(&'a Event),
    /// A connection that was taken for ended. Has one field more, `Inferred`.
    Inferred(&'a Connection),
    /// A connection that had been taken for ended and is open. Has one field more, `Reopened`.
    Reopened(&'a Connection),
    /// Events that never came: `connection_log_lost`.
    Lost(&'a LostRecord),
    /// An event that is kept as a dead letter: `connection_log_rejected`.
    Rejected(&'a RejectedRecord),
}

/// The fields of an entry, in the order of the JSON.
type Fields = Vec<(&'static str, Value)>;

/// What an entry about a connection or a web event shows.
struct Shown<'a> {
    id: Uuid,
    workspace: &'a Workspace,
    agent_name: &'a str,
    connection_type: ConnectionType,
    code: Option<i32>,
    ip: Option<IpAddr>,
    user_agent: &'a str,
    user_id: Option<Uuid>,
    slug_or_port: &'a str,
    connection_id: Option<Uuid>,
    disconnect_reason: &'a str,
    time: Timestamp,
    status: &'static str,
}

impl Entry<'_> {
    /// Appends the entry as one line.
    pub fn write(&self, format: Format, line: &mut String) {
        let mut fields = vec![("request_id", json!(self.request_id))];
        fields.extend(self.subject.fields());
        match format {
            Format::Json => self.write_json(&fields, line),
            Format::Human => self.write_human(fields, line),
        }
        line.push('\n');
    }

    /// The keys are written one by one: their order is part of the format, and a map would sort them.
    fn write_json(&self, fields: &Fields, line: &mut String) {
        let body: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let (message, level) = self.subject.message();
        write!(
            line,
            r#"{{"ts":"{}","level":"{level}","msg":"{message}","caller":"{}","func":"{}","logger_names":["connlog"],"fields":{{{}}}}}"#,
            rfc3339(self.logged_at),
            self.caller,
            self.func,
            body.join(",")
        )
        .expect("writing to a string cannot fail");
    }

    fn write_human(&self, mut fields: Fields, line: &mut String) {
        // The time comes third here, and is quoted though it need not be.
        if let Some(index) = fields.iter().position(|(key, _)| *key == "Time") {
            let time = fields.remove(index);
            fields.insert(2, time);
        }
        let (message, level) = self.subject.message();
        let local = self.logged_at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f");
        write!(line, "{local} [{}]  connlog: {message}", level.to_lowercase())
            .expect("writing to a string cannot fail");
        for (key, value) in fields {
            let value = match value {
                Value::Null => "<nil>".to_owned(),
                Value::String(text) if key == "Time" => quote(&text),
                Value::String(text) => quoted(&text),
                other => other.to_string(),
            };
            write!(line, "  {key}={value}").expect("writing to a string cannot fail");
        }
    }
}

impl Subject<'_> {
    fn message(&self) -> (&'static str, &'static str) {
        match self {
            Self::Event(_) | Self::Inferred(_) | Self::Reopened(_) => ("connection_log", "INFO"),
            Self::Lost(_) => ("connection_log_lost", "WARN"),
            Self::Rejected(_) => ("connection_log_rejected", "WARN"),
        }
    }

    fn fields(&self) -> Fields {
        match self {
            Self::Event(Event::Agent(event)) => shown_agent(event).fields(),
            Self::Event(Event::Web(event)) => shown_web(event).fields(),
            Self::Inferred(connection) => {
                let mut fields = shown_connection(connection, "disconnected").fields();
                fields.push(("Inferred", json!(true)));
                fields
            }
            Self::Reopened(connection) => {
                let mut fields = shown_connection(connection, "connected").fields();
                fields.push(("Reopened", json!(true)));
                fields
            }
            Self::Lost(record) => lost_fields(record),
            Self::Rejected(record) => vec![
                ("ID", json!(record.id)),
                ("OrganizationID", json!(record.organization_id)),
                ("WorkspaceID", json!(record.workspace_id)),
                ("AgentID", json!(record.agent_id)),
                ("SpoolID", json!(record.position.map(|(spool_id, _)| spool_id))),
                ("Seq", json!(record.position.map(|(_, seq)| seq))),
                ("Field", json!(record.field)),
                ("Reason", json!(record.reason)),
                ("Time", json!(rfc3339(record.received_at))),
            ],
        }
    }
}

impl Shown<'_> {
    fn fields(&self) -> Fields {
        vec![
            ("ID", json!(self.id)),
            ("OrganizationID", json!(self.workspace.organization_id)),
            ("WorkspaceOwnerID", json!(self.workspace.owner_id)),
            ("WorkspaceID", json!(self.workspace.workspace_id)),
            ("WorkspaceName", json!(self.workspace.workspace_name)),
            ("AgentName", json!(self.agent_name)),
            ("Type", json!(self.connection_type.as_str())),
            ("Code", json!(self.code)),
            ("Ip", json!(self.ip.map_or_else(|| "<nil>".to_owned(), |ip| ip.to_string()))),
            ("UserAgent", json!(self.user_agent)),
            ("UserID", json!(self.user_id)),
            ("SlugOrPort", json!(self.slug_or_port)),
            ("ConnectionID", json!(self.connection_id)),
            ("DisconnectReason", json!(self.disconnect_reason)),
            ("Time", json!(rfc3339(self.time))),
            ("ConnectionStatus", json!(self.status)),
        ]
    }
}

fn shown_agent(event: &AgentEvent) -> Shown<'_> {
    let (status, disconnect_reason, code) = match &event.action {
        Action::Connect => ("connected", "", None),
        Action::Disconnect { outcome, .. } => ("disconnected", outcome.reason.as_str(), outcome.code),
    };
    Shown {
        id: event.row_id(),
        workspace: &event.agent.workspace,
        agent_name: &event.agent.agent_name,
        connection_type: ConnectionType::of(
            event.client.method.unwrap_or(Method::UNSAID),
            event.client.app_name.as_deref(),
        ),
        code,
        ip: event.client.ip,
        user_agent: "",
        user_id: event.client.user_id,
        slug_or_port: "",
        connection_id: Some(event.connection_id),
        disconnect_reason,
        time: event.time,
        status,
    }
}

fn shown_web(event: &WebEvent) -> Shown<'_> {
    Shown {
        id: event.row_id(),
        workspace: &event.agent.workspace,
        agent_name: &event.agent.agent_name,
        connection_type: ConnectionType::of(event.method, None),
        code: Some(event.status_code),
        ip: event.ip,
        user_agent: &event.user_agent,
        user_id: event.user_id,
        slug_or_port: &event.slug_or_port,
        connection_id: event.connection_id,
        disconnect_reason: "",
        time: event.time,
        status: "connected",
    }
}

fn shown_connection<'a>(connection: &'a Connection, status: &'static str) -> Shown<'a> {
    let (time, disconnect_reason) = match &connection.end {
        Some(End::Inferred { time, reason }) => (*time, reason.as_str()),
        _ => (connection.connect_time, ""),
    };
    let app_name = connection.app_name.as_deref();
    Shown {
        id: connection.id,
        workspace: &connection.agent.workspace,
        agent_name: &connection.agent.agent_name,
        connection_type: ConnectionType::of(connection.method.unwrap_or(Method::UNSAID), app_name),
        code: None,
        ip: connection.ip,
        user_agent: "",
        user_id: connection.user_id,
        slug_or_port: "",
        connection_id: Some(connection.connection_id),
        disconnect_reason,
        time,
        status,
    }
}

fn lost_fields(record: &LostRecord) -> Fields {
    vec![
        ("ID", json!(record.id)),
        ("OrganizationID", json!(record.organization_id)),
        ("WorkspaceID", json!(record.workspace_id)),
        ("AgentID", json!(record.agent_id)),
        ("SpoolID", json!(record.hole.map(|hole| hole.spool_id))),
        ("FirstSeq", json!(record.hole.map(|hole| hole.first_seq))),
        ("LastSeq", json!(record.hole.map(|hole| hole.last_seq))),
        ("Events", json!(record.events)),
        ("Since", json!(record.since.map(rfc3339))),
        ("Until", json!(record.until.map(rfc3339))),
        ("Cause", json!(record.cause)),
        ("Time", json!(rfc3339(record.recorded_at))),
    ]
}

/// Quoted where it is empty, or has white space or anything that needs an escape: a line must stay one line.
fn quoted(text: &str) -> String {
    let quoted = quote(text);
    let plain = !text.is_empty() && !text.contains(' ') && quoted.len() == text.len() + 2;
    if plain { text.to_owned() } else { quoted }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{DateTime, NaiveDateTime, TimeZone};
    use connlog_model::event::{Client, Outcome};
    use connlog_model::identity::AgentIdentity;
    use connlog_model::method::Method;

    use super::*;

    fn time(text: &str) -> Timestamp {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn workspace() -> Workspace {
        Workspace {
            organization_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(2),
            workspace_id: Uuid::from_u128(3),
            workspace_name: "dev".to_owned(),
        }
    }

    fn agent() -> Arc<AgentIdentity> {
        Arc::new(AgentIdentity { agent_id: None, agent_name: "main".to_owned(), workspace: workspace() })
    }

    fn agent_event(action: Action) -> Event {
        Event::Agent(AgentEvent {
            agent: agent(),
            connection_id: Uuid::from_u128(4),
            boot: None,
            time: time("2025-07-10T10:14:38.942776Z"),
            time_is_receipt: false,
            source: connlog_model::event::Source::Agent,
            received_at: DateTime::UNIX_EPOCH,
            client: Client {
                method: Some(Method::Ssh),
                app_name: Some("ssh".to_owned()),
                ip: Some("fd7a:115c:a1e0:4b86:9046:80e:6c70:33b7".parse().unwrap()),
                ..Client::default()
            },
            action,
        })
    }

    fn web_event() -> Event {
        Event::Web(WebEvent {
            event_id: Uuid::from_u128(5),
            agent: agent(),
            user_id: Some(Uuid::from_u128(6)),
            method: Method::WorkspaceApp,
            time: time("2025-07-03T06:57:16.144719Z"),
            received_at: DateTime::UNIX_EPOCH,
            ip: Some("127.0.0.1".parse().unwrap()),
            user_agent: "Mozilla/5.0 (X11; Linux x86_64)".to_owned(),
            slug_or_port: "code-server".to_owned(),
            status_code: 200,
            connection_id: None,
        })
    }

    fn line(event: &Event, format: Format) -> String {
        // The line for people is in the local zone, whatever that is here.
        let local = NaiveDateTime::parse_from_str("2025-07-03 06:57:16.157", "%Y-%m-%d %H:%M:%S%.3f").unwrap();
        let entry = Entry {
            logged_at: match format {
                Format::Human => Local.from_local_datetime(&local).unwrap().to_utc(),
                Format::Json => time("2025-07-03T05:09:41.929840747Z"),
            },
            caller: "crates/ingest/src/service_log.rs:38",
            func: "connlog_ingest::service_log::emit",
            request_id: Uuid::from_u128(7),
            subject: Subject::Event(event),
        };
        let mut line = String::new();
        entry.write(format, &mut line);
        line
    }

    const ORGANIZATION: &str = "00000000-0000-0000-0000-000000000001";
    const OWNER: &str = "00000000-0000-0000-0000-000000000002";
    const WORKSPACE: &str = "00000000-0000-0000-0000-000000000003";
    const CONNECTION: &str = "00000000-0000-0000-0000-000000000004";
    const REQUEST: &str = "00000000-0000-0000-0000-000000000007";

    #[test]
    fn json_of_a_connect() {
        let event = agent_event(Action::Connect);
        let expected = format!(
            concat!(
                r#"{{"ts":"2025-07-03T05:09:41.929840747Z","level":"INFO","msg":"connection_log","#,
                r#""caller":"crates/ingest/src/service_log.rs:38","func":"connlog_ingest::service_log::emit","#,
                r#""logger_names":["connlog"],"fields":{{"request_id":"{}","ID":"{}","OrganizationID":"{}","#,
                r#""WorkspaceOwnerID":"{}","WorkspaceID":"{}","WorkspaceName":"dev","AgentName":"main","Type":"ssh","#,
                r#""Code":null,"Ip":"fd7a:115c:a1e0:4b86:9046:80e:6c70:33b7","UserAgent":"","UserID":null,"#,
                r#""SlugOrPort":"","ConnectionID":"{}","DisconnectReason":"","Time":"2025-07-10T10:14:38.942776Z","#,
                r#""ConnectionStatus":"connected"}}}}"#,
                "\n"
            ),
            REQUEST,
            event.row_id(),
            ORGANIZATION,
            OWNER,
            WORKSPACE,
            CONNECTION
        );
        assert_eq!(line(&event, Format::Json), expected);
    }

    #[test]
    fn a_disconnect_has_its_reason_and_code() {
        let outcome =
            Outcome { reason: "process \"exited\"\nbadly".to_owned(), code: Some(255), rx_bytes: None, tx_bytes: None };
        let event = agent_event(Action::Disconnect { connected_at: None, outcome });
        let json = line(&event, Format::Json);
        assert!(json.contains(r#""Code":255,"#), "{json}");
        assert!(json.contains(r#""DisconnectReason":"process \"exited\"\nbadly","#), "{json}");
        assert!(json.ends_with("\"ConnectionStatus\":\"disconnected\"}}\n"), "{json}");
        let human = line(&event, Format::Human);
        assert!(
            human.contains(r#"  DisconnectReason="process \"exited\"\nbadly"  ConnectionStatus=disconnected"#),
            "{human}"
        );
        assert_eq!(human.lines().count(), 1);
    }

    #[test]
    fn a_web_event_for_people() {
        let expected = format!(
            "2025-07-03 06:57:16.157 [info]  connlog: connection_log  request_id={REQUEST}  \
             ID={}  Time=\"2025-07-03T06:57:16.144719Z\"  OrganizationID={ORGANIZATION}  \
             WorkspaceOwnerID={OWNER}  WorkspaceID={WORKSPACE}  WorkspaceName=dev  AgentName=main  Type=workspace_app  \
             Code=200  Ip=127.0.0.1  UserAgent=\"Mozilla/5.0 (X11; Linux x86_64)\"  \
             UserID=00000000-0000-0000-0000-000000000006  SlugOrPort=code-server  ConnectionID=<nil>  \
             DisconnectReason=\"\"  ConnectionStatus=connected\n",
            web_event().row_id()
        );
        assert_eq!(line(&web_event(), Format::Human), expected);
    }

    #[test]
    fn an_absent_address_is_shown_as_nil() {
        let Event::Web(mut event) = web_event() else { unreachable!() };
        event.ip = None;
        let event = Event::Web(event);
        assert!(line(&event, Format::Json).contains(r#""Ip":"<nil>","#));
        assert!(line(&event, Format::Human).contains("  Ip=<nil>  "));
    }
}
