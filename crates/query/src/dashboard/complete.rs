//! `/complete`: what the word that is being typed into the search may become.

use axum::Json;
use axum::extract::{Query, State};
use connlog_model::app::{ConnectionType, known_apps};
use connlog_model::method::Method;
use connlog_model::search::{KEYS, words};
use connlog_store::read::NameOf;
use serde::Serialize;

use super::text::visible;
use crate::auth::Auditor;
use crate::error::ApiError;
use crate::paging::value;
use crate::serve::Service;

/// Most suggestions.
const MOST: i64 = 10;

/// What a word may become.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Suggestion {
    /// The word.
    text: String,
    /// The word for people to look at.
    shown: String,
    /// What it means; may be empty.
    detail: String,
}

impl Suggestion {
    /// Of words that no user chose.
    fn plain(text: String, detail: &str) -> Self {
        Self { shown: text.clone(), text, detail: detail.to_owned() }
    }
}

/// Suggests. Only what lies in the reach of whoever asks is suggested.
pub(super) async fn complete(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<Suggestion>>, ApiError> {
    let word = value(&parameters, "word").unwrap_or_default();
    let Some((key, prefix)) = word.split_once(':') else {
        return Ok(Json(keys(word)));
    };
    let (key, prefix) = (key.to_lowercase(), prefix.trim_start_matches('"').trim_end_matches('"'));
    let of = match key.as_str() {
        "organization" => NameOf::Organization,
        "username" | "workspace_owner" => NameOf::User,
        "workspace" => NameOf::Workspace,
        _ => return Ok(Json(values(&key, prefix))),
    };
    let named = service.reads.names(of, prefix, &auditor.reach(), MOST).await?;
    let mut suggestions: Vec<Suggestion> = named
        .into_iter()
        .map(|named| {
            // A query cannot have a double quote in a value; whoever has one in their name is found by their id.
            let by_id = named.name.contains('"').then(|| match of {
                NameOf::Workspace => words::term("workspace_id", &named.id.to_string()),
                NameOf::Organization | NameOf::User => words::term(&key, &named.id.to_string()),
            });
            let shown = visible(&words::term(&key, &named.name));
            let text = by_id.unwrap_or_else(|| words::term(&key, &named.name));
            Suggestion { text, shown, detail: visible(&named.detail) }
        })
        .collect();
    if of == NameOf::User && auditor.reach().user_id.is_some() && "me".starts_with(&prefix.to_lowercase()) {
        suggestions.insert(0, Suggestion::plain(format!("{key}:me"), "whoever this token is of"));
    }
    // Workspaces of several owners share a name.
    suggestions.dedup_by(|a, b| a.text == b.text);
    Ok(Json(suggestions))
}

fn keys(prefix: &str) -> Vec<Suggestion> {
    let prefix = prefix.to_lowercase();
    let keys = KEYS.iter().filter(|key| key.starts_with(&prefix));
    keys.map(|key| Suggestion::plain(format!("{key}:"), hint(key))).collect()
}

/// The values of a key that has a list of them.
fn values(key: &str, prefix: &str) -> Vec<Suggestion> {
    let prefix = prefix.to_lowercase();
    let all: Vec<(&str, &str)> = match key {
        "type" => ConnectionType::ALL.map(|family| (family.as_str(), family.display_name())).into(),
        "method" => Method::ALL.map(|method| (method.as_str(), "")).into(),
        "app" => known_apps().collect(),
        "status" => vec![("ongoing", "not ended yet"), ("completed", "ended")],
        "inferred" => vec![("true", "the end was concluded"), ("false", "the end was reported")],
        "other_owner" => vec![("true", "by others than the owner")],
        "contradicted" => vec![("true", "an event says otherwise")],
        "late" => vec![("true", "the log heard of it late")],
        "code" => vec![("!=0", "failed"), (">=400", "failed requests"), ("403", "denied")],
        "longer_than" | "shorter_than" => vec![("1m", ""), ("1h", ""), ("8h", ""), ("1d", "")],
        _ => Vec::new(),
    };
    let matching = all.into_iter().filter(|(value, label)| {
        value.starts_with(&prefix) || (!prefix.is_empty() && label.to_lowercase().starts_with(&prefix))
    });
    matching.map(|(value, label)| Suggestion::plain(words::term(key, value), label)).collect()
}

fn hint(key: &str) -> &'static str {
    match key {
        "organization" => "name or id",
        "workspace_owner" => "username of the owner, or me",
        "workspace_owner_email" => "email of the owner",
        "type" => "what it looked like: ssh, vscode, tunnel, …",
        "method" => "how it came",
        "app" => "client app, such as cursor",
        "username" => "who initiated it, or me",
        "user_email" => "email of who initiated it",
        "connected_after" | "connected_before" | "received_after" | "received_before" => {
            "a time, such as \"2026-11-24T12:00:00Z\""
        }
        "workspace_id" | "connection_id" | "client_session_id" => "id",
        "status" => "ongoing or completed",
        "workspace" => "name of the workspace",
        "agent" => "name of the agent",
        "ip" => "address, or range such as 10.0.0.0/8",
        "reason" => "part of the reason of the end",
        "code" => "exit or HTTP status, such as >=400",
        "longer_than" | "shorter_than" => "duration, such as 8h",
        "inferred" => "true or false",
        "other_owner" => "true: by others than the owner",
        "contradicted" => "true: an event says otherwise",
        "late" => "true: heard of more than 5 minutes later",
        "slug_or_port" => "slug of the app, or port",
        "user_agent" => "part of the user agent",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_explained() {
        for key in KEYS {
            assert!(!hint(key).is_empty(), "{key}");
        }
        let texts: Vec<_> = keys("WORKSPACE_O").into_iter().map(|suggestion| suggestion.text).collect();
        assert_eq!(texts, ["workspace_owner:", "workspace_owner_email:"]);
    }

    #[test]
    fn values_are_found_by_what_people_call_them() {
        let texts = |key, prefix| values(key, prefix).into_iter().map(|suggestion| suggestion.text).collect::<Vec<_>>();
        assert_eq!(texts("app", "curs"), ["app:cursor"]);
        assert_eq!(texts("app", "intellij idea"), ["app:intellij"]);
        assert_eq!(texts("status", ""), ["status:ongoing", "status:completed"]);
        assert_eq!(texts("reason", "x"), Vec::<String>::new());
    }
}
