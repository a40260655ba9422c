//! `/filter`: what the menus choose becomes part of the search, which is where the choice is kept.

use axum::extract::{Query, State};
use axum::response::Redirect;
use connlog_model::app::{ConnectionType, known_apps};
use connlog_model::clock::rfc3339;
use connlog_model::method::Method;
use connlog_model::search::words;
use connlog_store::read::{NameOf, Named};

use super::log::Asked;
use super::page::{PageError, Viewer};
use super::text::{link, visible};
use crate::paging::value;
use crate::serve::Service;

/// Organizations in the menu; completion finds more.
const MAX_ORGANIZATIONS: i64 = 200;
/// Menus and fields whose name is a key of the search.
const KEYS: [&str; 7] = ["organization", "workspace_owner", "workspace", "type", "method", "app", "status"];

/// Ranges of time up to now.
const RANGES: [(&str, &str); 6] = [
    ("", "Any time"),
    ("1h", "Last hour"),
    ("24h", "Last 24 hours"),
    ("7d", "Last 7 days"),
    ("30d", "Last 30 days"),
    ("90d", "Last 90 days"),
];

/// The ranges, and that one if it is another.
pub(super) fn ranges(chosen: &str) -> Vec<(String, String)> {
    let mut ranges: Vec<(String, String)> =
        RANGES.iter().map(|(value, label)| ((*value).to_owned(), (*label).to_owned())).collect();
    if !RANGES.iter().any(|(value, _)| *value == chosen) {
        ranges.push((chosen.to_owned(), format!("Last {}", visible(chosen))));
    }
    ranges
}

/// A search that is often wanted.
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) query: &'static str,
}

pub(super) const PRESETS: [Preset; 6] = [
    Preset { name: "Active SSH sessions", query: "method:ssh status:ongoing" },
    Preset { name: "By others than the owner", query: "other_owner:true" },
    Preset { name: "Failed sessions", query: "status:completed code:!=0" },
    Preset { name: "Failed requests", query: "code:>=400" },
    Preset { name: "Denied tunnels", query: "method:tunnel code:403" },
    Preset { name: "Longer than 8 hours", query: "longer_than:8h" },
];

/// An entry of a menu.
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) label: String,
    pub(super) is_chosen: bool,
}

/// The menus, with what the search has.
pub(super) struct Menus {
    pub(super) organizations: Vec<Choice>,
    pub(super) types: Vec<Choice>,
    pub(super) methods: Vec<Choice>,
    pub(super) apps: Vec<Choice>,
    pub(super) statuses: Vec<Choice>,
    pub(super) workspace_owner: String,
    pub(super) workspace: String,
    /// Bounds of time, as fields have them.
    pub(super) from: String,
    pub(super) to: String,
}

impl Menus {
    pub(super) async fn of(service: &Service, viewer: &Viewer, asked: &Asked) -> Result<Self, PageError> {
        let named = service.reads.names(NameOf::Organization, "", &viewer.reach(), MAX_ORGANIZATIONS).await?;
        let has = |key: &str| words::value(&asked.query, key).unwrap_or_default().to_lowercase();
        let menu = |key: &str, choices: Vec<(String, String)>| {
            let chosen = has(key);
            let choices = choices.into_iter();
            choices.map(|(value, label)| Choice { is_chosen: value.to_lowercase() == chosen, value, label }).collect()
        };
        let organization = |named: Named| {
            let label = if named.detail.is_empty() { &named.name } else { &named.detail };
            let label = visible(label);
            (named.name, label)
        };
        let owned = |value: &str, label: &str| (value.to_owned(), label.to_owned());
        let field = |time: Option<_>| time.map_or_else(String::new, |time| viewer.zone().field(time));
        let has_bound = |key: &str| words::value(&asked.query, key).is_some();
        Ok(Self {
            organizations: menu("organization", named.into_iter().map(organization).collect()),
            types: menu("type", ConnectionType::ALL.map(|family| owned(family.as_str(), family.display_name())).into()),
            methods: menu("method", Method::ALL.map(|method| owned(method.as_str(), method.as_str())).into()),
            apps: menu("app", known_apps().map(|(name, label)| owned(name, label)).collect()),
            statuses: menu("status", vec![owned("ongoing", "Ongoing"), owned("completed", "Completed")]),
            workspace_owner: words::value(&asked.query, "workspace_owner").unwrap_or_default().to_owned(),
            workspace: words::value(&asked.query, "workspace").unwrap_or_default().to_owned(),
            from: field(asked.search.connected_after.filter(|_| has_bound("connected_after"))),
            to: field(asked.search.connected_before.filter(|_| has_bound("connected_before"))),
        })
    }
}

/// Leads to the log, filtered so.
pub(super) async fn filter(
    State(_): State<Service>,
    viewer: Viewer,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Redirect {
    let mut query = value(&parameters, "q").unwrap_or_default().to_owned();
    for key in KEYS {
        if let Some((_, chosen)) = parameters.iter().find(|(name, _)| name == key) {
            query = words::with(&query, key, Some(chosen.trim()));
        }
    }
    let mut range = value(&parameters, "range").unwrap_or_default();
    for (field, key) in [("from", "connected_after"), ("to", "connected_before")] {
        if let Some((_, text)) = parameters.iter().find(|(name, _)| name == field) {
            // What is no time is left for the search to complain about.
            let time = viewer.zone().parse_field(text).map(rfc3339);
            let time = time.as_deref().or(Some(text.as_str()));
            let before = words::value(&query, key).map(str::to_owned);
            // A field has minutes: one that was not touched leaves the finer bound alone.
            let shown = before.as_deref().and_then(|before| before.to_uppercase().parse().ok());
            if shown.is_none_or(|shown| viewer.zone().field(shown) != *text) {
                query = words::with(&query, key, time);
            }
            if !text.is_empty() {
                range = "";
            }
        }
    }
    Redirect::to(&link("/", &[("q", &query), ("range", range)]))
}
