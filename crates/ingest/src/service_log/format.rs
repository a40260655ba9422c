//! The two formats of an entry, to the character: JSON, and one for people.
//!
//! Both are those of the structured logger that Coder's control plane uses, so that existing parsers read them.

use std::fmt::Write as _;
use std::net::IpAddr;

use chrono::Local;
use connlog_model::app::ConnectionType;
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::event::{Action, Event};
use connlog_model::identity::Workspace;
use connlog_model::quote::quote;
use serde_json::json;
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
    /// The stream or call that the event came by.
    pub request_id: Uuid,
    /// The event.
    pub event: &'a Event,
}

/// The fields of an entry, as both formats show them.
struct Fields<'a> {
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
        let fields = self.fields();
        match format {
            Format::Json => self.write_json(&fields, line),
            Format::Human => self.write_human(&fields, line),
        }
        line.push('\n');
    }

    fn fields(&self) -> Fields<'_> {
        match self.event {
            Event::Agent(event) => {
                let (status, reason, code) = match &event.action {
                    Action::Connect => ("connected", "", None),
                    Action::Disconnect { outcome, .. } => ("disconnected", outcome.reason.as_str(), Some(outcome.code)),
                };
                Fields {
                    id: event.row_id(),
                    workspace: &event.agent.workspace,
                    agent_name: &event.agent.agent_name,
                    connection_type: ConnectionType::of(event.client.method, event.client.app_name.as_deref()),
                    code,
                    ip: event.client.ip,
                    user_agent: "",
                    user_id: event.client.user_id,
                    slug_or_port: "",
                    connection_id: Some(event.connection_id),
                    disconnect_reason: reason,
                    time: event.time,
                    status,
                }
            }
            Event::Web(event) => Fields {
                id: event.event_id,
                workspace: &event.workspace,
                agent_name: &event.agent_name,
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
            },
        }
    }

    /// The keys are written one by one: their order is part of the format, and a map would sort them.
    fn write_json(&self, fields: &Fields<'_>, line: &mut String) {
        let pairs = [
            ("request_id", json!(self.request_id)),
            ("ID", json!(fields.id)),
            ("OrganizationID", json!(fields.workspace.organization_id)),
            ("WorkspaceOwnerID", json!(fields.workspace.owner_id)),
            ("WorkspaceID", json!(fields.workspace.workspace_id)),
            ("WorkspaceName", json!(fields.workspace.workspace_name)),
            ("AgentName", json!(fields.agent_name)),
            ("Type", json!(fields.connection_type.as_str())),
            ("Code", json!(fields.code)),
            ("Ip", json!(ip_text(fields.ip))),
            ("UserAgent", json!(fields.user_agent)),
            ("UserID", json!(fields.user_id)),
            ("SlugOrPort", json!(fields.slug_or_port)),
            ("ConnectionID", json!(fields.connection_id)),
            ("DisconnectReason", json!(fields.disconnect_reason)),
            ("Time", json!(rfc3339(fields.time))),
            ("ConnectionStatus", json!(fields.status)),
        ];
        let body: Vec<String> = pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        write!(
            line,
            r#"{{"ts":"{}","level":"INFO","msg":"connection_log","caller":"{}","func":"{}","logger_names":["connlog"],"fields":{{{}}}}}"#,
            rfc3339(self.logged_at),
            self.caller,
            self.func,
            body.join(",")
        )
        .expect("writing to a string cannot fail");
    }

    fn write_human(&self, fields: &Fields<'_>, line: &mut String) {
        let or_nil = |value: Option<String>| value.unwrap_or_else(|| "<nil>".to_owned());
        let pairs = [
            ("request_id", self.request_id.to_string()),
            ("ID", fields.id.to_string()),
            ("Time", format!("\"{}\"", rfc3339(fields.time))),
            ("OrganizationID", fields.workspace.organization_id.to_string()),
            ("WorkspaceOwnerID", fields.workspace.owner_id.to_string()),
            ("WorkspaceID", fields.workspace.workspace_id.to_string()),
            ("WorkspaceName", quoted(&fields.workspace.workspace_name)),
            ("AgentName", quoted(fields.agent_name)),
            ("Type", fields.connection_type.to_string()),
            ("Code", or_nil(fields.code.map(|code| code.to_string()))),
            ("Ip", ip_text(fields.ip)),
            ("UserAgent", quoted(fields.user_agent)),
            ("UserID", or_nil(fields.user_id.map(|id| id.to_string()))),
            ("SlugOrPort", quoted(fields.slug_or_port)),
            ("ConnectionID", or_nil(fields.connection_id.map(|id| id.to_string()))),
            ("DisconnectReason", quoted(fields.disconnect_reason)),
            ("ConnectionStatus", fields.status.to_owned()),
        ];
        let local = self.logged_at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f");
        write!(line, "{local} [info]  connlog: connection_log").expect("writing to a string cannot fail");
        for (key, value) in pairs {
            write!(line, "  {key}={value}").expect("writing to a string cannot fail");
        }
    }
}

fn ip_text(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "<nil>".to_owned(), |ip| ip.to_string())
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
    use connlog_model::event::{AgentEvent, Client, Outcome, WebEvent};
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

    fn agent_event(action: Action) -> Event {
        let agent = AgentIdentity { agent_id: None, agent_name: "main".to_owned(), workspace: workspace() };
        Event::Agent(AgentEvent {
            agent: Arc::new(agent),
            connection_id: Uuid::from_u128(4),
            boot_id: None,
            time: time("2025-07-10T10:14:38.942776Z"),
            time_is_receipt: false,
            client: Client {
                method: Method::Ssh,
                app_name: Some("ssh".to_owned()),
                ip: Some("fd7a:115c:a1e0:4b86:9046:80e:6c70:33b7".parse().unwrap()),
                session_id: None,
                user_id: None,
            },
            action,
        })
    }

    fn web_event() -> Event {
        Event::Web(WebEvent {
            event_id: Uuid::from_u128(5),
            workspace: Arc::new(workspace()),
            agent_name: "main".to_owned(),
            user_id: Some(Uuid::from_u128(6)),
            method: Method::WorkspaceApp,
            time: time("2025-07-03T06:57:16.144719Z"),
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
            event,
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
            Outcome { reason: "process \"exited\"\nbadly".to_owned(), code: 255, rx_bytes: None, tx_bytes: None };
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
             ID=00000000-0000-0000-0000-000000000005  Time=\"2025-07-03T06:57:16.144719Z\"  OrganizationID={ORGANIZATION}  \
             WorkspaceOwnerID={OWNER}  WorkspaceID={WORKSPACE}  WorkspaceName=dev  AgentName=main  Type=workspace_app  \
             Code=200  Ip=127.0.0.1  UserAgent=\"Mozilla/5.0 (X11; Linux x86_64)\"  \
             UserID=00000000-0000-0000-0000-000000000006  SlugOrPort=code-server  ConnectionID=<nil>  \
             DisconnectReason=\"\"  ConnectionStatus=connected\n"
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
