//! An entry as a sentence, with what stands out as badges.

use connlog_model::app::{ConnectionType, display_name};
use connlog_model::clock::Timestamp;
use connlog_model::method::Method;
use connlog_model::search::words;
use connlog_store::read::Entry;
use uuid::Uuid;

use super::text::{duration, search_link, visible};
use super::zone::{Moment, Zone};

/// HTTP statuses that say no.
const DENIALS: [i32; 2] = [401, 403];
/// The first HTTP status of an error.
const FIRST_ERROR: i32 = 400;

/// A piece of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: String,
    /// Where it leads; what users chose leads somewhere, and is set apart.
    pub(crate) href: Option<String>,
}

/// What stands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Badge {
    pub(crate) text: String,
    /// How it looks: `good`, `bad`, `live`, `odd` or `plain`.
    pub(crate) kind: &'static str,
    /// What it means, in full.
    pub(crate) title: &'static str,
}

/// An entry in a list.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) time: Moment,
    pub(crate) kind: &'static str,
    pub(crate) parts: Vec<Part>,
    pub(crate) badges: Vec<Badge>,
    pub(crate) address: Option<Part>,
}

impl Row {
    pub(crate) fn of(entry: &Entry, zone: Zone, now: Timestamp) -> Self {
        let address = entry.ip.map(|ip| {
            let text = ip.to_string();
            let href = search_link(&words::term("ip", &text));
            Part { text, href: Some(href) }
        });
        Self {
            id: entry.id,
            time: Moment::clock(zone, entry.connect_time),
            kind: entry.connection_type().as_str(),
            parts: sentence(entry, now),
            badges: badges(entry),
            address,
        }
    }
}

fn plain(text: impl Into<String>) -> Part {
    Part { text: text.into(), href: None }
}

fn linked(text: &str, href: String) -> Part {
    Part { text: visible(text), href: Some(href) }
}

/// Who did what, in one sentence.
pub(crate) fn sentence(entry: &Entry, now: Timestamp) -> Vec<Part> {
    let code = entry.code.unwrap_or_default();
    let denied = DENIALS.contains(&code);
    let mut parts = Vec::new();
    match entry.method {
        Method::WorkspaceApp | Method::PortForwarding | Method::Tunnel => {
            parts.push(actor(entry).unwrap_or_else(|| plain("An unknown user")));
            let (thing, preposition) = match entry.method {
                Method::WorkspaceApp => (visible(&entry.slug_or_port), "in"),
                Method::PortForwarding => (format!("port {}", visible(&entry.slug_or_port)), "of"),
                _ => ("a tunnel".to_owned(), "to"),
            };
            parts.push(plain(match code {
                _ if denied => " was denied ",
                FIRST_ERROR.. => " failed to open ",
                _ => " opened ",
            }));
            parts.push(plain(thing));
            parts.push(plain(format!(" {preposition} ")));
        }
        Method::Ssh | Method::ReconnectingPty => {
            if let Some(actor) = actor(entry) {
                parts.extend([actor, plain("’s ")]);
            }
            parts.push(plain(format!("{} session to ", app(entry))));
        }
    }
    parts.push(owner(entry));
    parts.push(plain("’s workspace "));
    parts.push(linked(&entry.workspace_name, format!("/workspaces/{}", entry.workspace_id)));
    if !entry.method.is_web() {
        parts.push(plain(match (entry.disconnect_time, entry.code) {
            (None, _) => format!(", ongoing for {}", duration(now - entry.connect_time)),
            (Some(end), Some(code)) if !entry.disconnect_inferred => {
                format!(", {}, exit {code}", duration(end - entry.connect_time))
            }
            (Some(end), _) => format!(", {}", duration(end - entry.connect_time)),
        }));
    }
    parts
}

/// What an agent connection came from.
pub(crate) fn app(entry: &Entry) -> String {
    let name = entry.app_name.as_deref().map(display_name);
    visible(name.unwrap_or_else(|| entry.connection_type().display_name()))
}

fn actor(entry: &Entry) -> Option<Part> {
    let user = entry.user.as_ref()?;
    let href = format!("/users/{}", user.id);
    // Whom the directory lacks has an id.
    Some(if user.username.is_empty() { linked(&user.id.to_string(), href) } else { linked(&user.username, href) })
}

fn owner(entry: &Entry) -> Part {
    let href = format!("/users/{}", entry.workspace_owner_id);
    if entry.workspace_owner_username.is_empty() {
        return linked(&entry.workspace_owner_id.to_string(), href);
    }
    linked(&entry.workspace_owner_username, href)
}

/// The type, and what stands out of the end.
pub(crate) fn badges(entry: &Entry) -> Vec<Badge> {
    let family = entry.connection_type();
    let mut badges = vec![Badge { text: family.display_name().to_owned(), kind: "plain", title: "Type" }];
    if entry.method.is_web() {
        let code = entry.code.unwrap_or_default();
        let kind = if code >= FIRST_ERROR { "bad" } else { "good" };
        let title = if family == ConnectionType::Tunnel { "Answer to the request for a tunnel" } else { "HTTP status" };
        badges.push(Badge { text: code.to_string(), kind, title });
        return badges;
    }
    match (entry.disconnect_time, entry.disconnect_inferred) {
        (None, _) => badges.push(Badge { text: "ongoing".to_owned(), kind: "live", title: "Not ended yet" }),
        (Some(_), true) => badges.push(Badge {
            text: "inferred end".to_owned(),
            kind: "odd",
            title: "Nobody reported the end; it was concluded from what else is known",
        }),
        (Some(_), false) => match entry.code {
            Some(0) => badges.push(Badge { text: "exit 0".to_owned(), kind: "good", title: "Exit status" }),
            Some(code) => badges.push(Badge { text: format!("exit {code}"), kind: "bad", title: "Exit status" }),
            None => {
                badges.push(Badge { text: "ended".to_owned(), kind: "plain", title: "Ended without an exit status" });
            }
        },
    }
    badges
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use connlog_store::read::{DirectoryUser, Organization};

    use super::*;

    fn time(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(seconds, 0).expect("in range")
    }

    fn user(name: &str) -> DirectoryUser {
        let never = time(0);
        DirectoryUser {
            id: Uuid::from_u128(9),
            username: name.to_owned(),
            name: String::new(),
            email: String::new(),
            avatar_url: String::new(),
            created_at: never,
            updated_at: never,
            last_seen_at: never,
            status: String::new(),
            login_type: String::new(),
        }
    }

    fn entry(method: Method) -> Entry {
        Entry {
            id: Uuid::from_u128(1),
            connect_time: time(1_000),
            organization: Organization {
                id: Uuid::from_u128(2),
                name: String::new(),
                display_name: String::new(),
                icon: String::new(),
            },
            workspace_owner_id: Uuid::from_u128(3),
            workspace_owner_username: "ada".to_owned(),
            workspace_id: Uuid::from_u128(4),
            workspace_name: "dev".to_owned(),
            agent_name: "main".to_owned(),
            ip: None,
            client_ip: None,
            method,
            app_name: None,
            connection_id: None,
            user: None,
            disconnect_time: None,
            disconnect_reason: None,
            disconnect_inferred: false,
            code: None,
            user_agent: String::new(),
            slug_or_port: String::new(),
            client_session_id: None,
            rx_bytes: None,
            tx_bytes: None,
            received_at: time(1_000),
            ended_received_at: None,
            contradictions: 0,
            position: None,
        }
    }

    fn said(entry: &Entry) -> String {
        sentence(entry, time(1_000) + TimeDelta::hours(2)).into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn every_kind_of_entry_reads_as_a_sentence() {
        let app = Entry {
            user: Some(user("bo")),
            slug_or_port: "code-server".to_owned(),
            code: Some(200),
            ..entry(Method::WorkspaceApp)
        };
        assert_eq!(said(&app), "bo opened code-server in ada’s workspace dev");
        let port = Entry { slug_or_port: "8080".to_owned(), code: Some(502), ..entry(Method::PortForwarding) };
        assert_eq!(said(&port), "An unknown user failed to open port 8080 of ada’s workspace dev");
        let tunnel = Entry { user: Some(user("bo")), code: Some(403), ..entry(Method::Tunnel) };
        assert_eq!(said(&tunnel), "bo was denied a tunnel to ada’s workspace dev");
        assert_eq!(said(&Entry { code: Some(101), ..tunnel }), "bo opened a tunnel to ada’s workspace dev");
        let session = Entry {
            app_name: Some("cursor".to_owned()),
            disconnect_time: Some(time(1_000 + 8_040)),
            code: Some(0),
            ..entry(Method::Ssh)
        };
        assert_eq!(said(&session), "Cursor session to ada’s workspace dev, 2 h 14 m, exit 0");
        let inferred = Entry { disconnect_inferred: true, code: None, ..session.clone() };
        assert_eq!(said(&inferred), "Cursor session to ada’s workspace dev, 2 h 14 m");
        let open = Entry { disconnect_time: None, user: Some(user("bo")), ..session };
        assert_eq!(said(&open), "bo’s Cursor session to ada’s workspace dev, ongoing for 2 h");
        assert_eq!(
            said(&entry(Method::ReconnectingPty)),
            "Web Terminal session to ada’s workspace dev, ongoing for 2 h"
        );
    }

    #[test]
    fn what_turns_text_around_is_shown_and_not_obeyed() {
        let planted = Entry { workspace_name: "a\u{202e}b\u{7}".to_owned(), ..entry(Method::ReconnectingPty) };
        assert!(said(&planted).contains(r"a\u202eb\a"), "{}", said(&planted));
    }

    #[test]
    fn badges_tell_ends_apart() {
        let texts = |entry: &Entry| badges(entry).into_iter().map(|badge| badge.text).collect::<Vec<_>>();
        let open = entry(Method::Ssh);
        assert_eq!(texts(&open), ["SSH", "ongoing"]);
        let ended = Entry { disconnect_time: Some(time(2_000)), code: Some(255), ..open };
        assert_eq!(texts(&ended), ["SSH", "exit 255"]);
        assert_eq!(texts(&Entry { code: None, ..ended.clone() }), ["SSH", "ended"]);
        assert_eq!(texts(&Entry { disconnect_inferred: true, ..ended }), ["SSH", "inferred end"]);
    }
}
