//! `/workspaces/{id}` and `/users/{id}`: everything about one of them.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use connlog_model::search::{Search, words};
use connlog_store::read::{Entry, NameOf, Named, PageRequest, StatsRequest};
use uuid::Uuid;

use super::lanes::{LaneOf, Lanes};
use super::page::{Frame, PageError, Viewer, html};
use super::picture::{Ranked, ranked, sessions};
use super::text::{counted, number, search_link, visible};
use super::view::{self, Day, Item};
use super::zone::{Moment, Zone};
use crate::audit::Given;
use crate::error::ApiError;
use crate::serve::Service;

/// Entries in the list; the log has all.
const ENTRIES: i64 = 25;
/// How long counting may take.
const BUDGET: Duration = Duration::from_secs(2);
/// How far back the picture of sessions goes.
const DRAWN: TimeDelta = TimeDelta::days(7);
const TOP: usize = 10;

#[derive(Template)]
#[template(path = "subject.html")]
struct SubjectPage {
    frame: Frame,
    what: &'static str,
    name: String,
    detail: String,
    id: Uuid,
    sections: Vec<Section>,
}

/// One way to look at the subject.
struct Section {
    title: &'static str,
    count: String,
    totals: Vec<(&'static str, String)>,
    first_seen: Option<Moment>,
    last_seen: Option<Moment>,
    /// What was not counted.
    note: Option<Moment>,
    others: (&'static str, Vec<Ranked>),
    lanes: Option<Lanes>,
    days: Vec<Day>,
    log: String,
}

/// Shows a workspace.
pub(super) async fn workspace(
    State(service): State<Service>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let id = Uuid::try_parse(&id).map_err(|_| ApiError::not_found())?;
    let query = words::term("workspace_id", &id.to_string());
    let section = Box::pin(section(&service, &viewer, "Sessions and requests", &query, LaneOf::User)).await?;
    let named = service.reads.name(NameOf::Workspace, id, &viewer.reach()).await?;
    show("Workspace", named, id, viewer, vec![section])
}

/// Shows a user.
pub(super) async fn user(
    State(service): State<Service>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let id = Uuid::try_parse(&id).map_err(|_| ApiError::not_found())?;
    let by = words::term("username", &id.to_string());
    let to = words::term("workspace_owner", &id.to_string());
    let sections = vec![
        Box::pin(section(&service, &viewer, "What they did", &by, LaneOf::Workspace)).await?,
        Box::pin(section(&service, &viewer, "In the workspaces that they own", &to, LaneOf::Workspace)).await?,
    ];
    let named = service.reads.name(NameOf::User, id, &viewer.reach()).await?;
    show("User", named, id, viewer, sections)
}

fn show(
    what: &'static str,
    named: Option<Named>,
    id: Uuid,
    viewer: Viewer,
    sections: Vec<(Section, Vec<Entry>)>,
) -> Result<Response, PageError> {
    let given = sections.iter().map(|(_, entries)| entries.len()).sum();
    // Whom the directory does not tell of, the entries may.
    let entries = || sections.iter().flat_map(|(_, entries)| entries);
    let named = named.or_else(|| entries().find_map(|entry| named_in(entry, id)));
    // What neither the directory nor the log has is not there.
    if named.is_none() && given == 0 {
        return Err(ApiError::not_found().into());
    }
    let (name, detail) = named.map(|named| (named.name, named.detail)).unwrap_or_default();
    let name = if name.is_empty() { id.to_string() } else { visible(&name) };
    let sections = sections.into_iter().map(|(section, _)| section).collect();
    let page = SubjectPage { frame: viewer.frame, what, name, detail: visible(&detail), id, sections };
    Ok((Extension(Given(given)), html(&page)).into_response())
}

/// What an entry calls the workspace or user of that id.
fn named_in(entry: &Entry, id: Uuid) -> Option<Named> {
    let named = |name: &str| Some(Named { id, name: name.to_owned(), detail: String::new() });
    match &entry.user {
        Some(user) if user.id == id => named(&user.username),
        _ if entry.workspace_owner_id == id => named(&entry.workspace_owner_username),
        _ if entry.workspace_id == id => named(&entry.workspace_name),
        _ => None,
    }
}

async fn section(
    service: &Service,
    viewer: &Viewer,
    title: &'static str,
    query: &str,
    lanes: LaneOf,
) -> Result<(Section, Vec<Entry>), PageError> {
    let now = service.clock.now();
    let reach = viewer.reach();
    let search = Search::parse(query).map_err(ApiError::invalid_search)?;
    let request = PageRequest {
        count_cap: service.limits.count_cap,
        count_budget: service.limits.count_budget,
        scan_budget: service.limits.scan_budget,
        ..PageRequest::first(ENTRIES, now)
    };
    let counted_in = StatsRequest {
        from: chrono::DateTime::UNIX_EPOCH,
        to: now + TimeDelta::days(1),
        bucket: TimeDelta::days(1),
        top: TOP,
        budget: BUDGET,
        now,
    };
    let (page, stats, drawn) = tokio::join!(
        service.reads.page(&search, &reach, request),
        service.reads.stats(&search, &reach, counted_in),
        sessions(service, viewer, &search, (now - DRAWN, now), now),
    );
    let page = page?.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
    let stats = stats?.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
    let drawn = drawn?;
    let gaps = view::gaps(service, viewer, &search, &page, None).await?;
    let total = |status: &str| -> i64 { stats.buckets.values().filter_map(|bucket| bucket.statuses.get(status)).sum() };
    let all: i64 = stats.buckets.values().flat_map(|bucket| bucket.statuses.values()).sum();
    let others = match lanes {
        LaneOf::User => ("Who connected", ranked(&stats.users, "/users")),
        LaneOf::Workspace => ("Workspaces", ranked(&stats.workspaces, "/workspaces")),
    };
    let zone = viewer.zone();
    let section = Section {
        title,
        count: counted(all, "entry", "entries"),
        totals: vec![
            ("ongoing", number(total("ongoing"))),
            ("completed", number(total("completed"))),
            ("web requests", number(total("web"))),
        ],
        first_seen: stats.buckets.keys().next().filter(|_| stats.counted_from.is_none()).map(|day| Moment {
            iso: connlog_model::clock::rfc3339(*day),
            text: super::zone::day_label(Zone::UTC.date(*day)),
        }),
        last_seen: page.entries.first().map(|entry| Moment::full(zone, entry.connect_time)),
        note: stats.counted_from.or(stats.ranked_from).map(|from| Moment::full(zone, from)),
        others,
        lanes: Lanes::draw(title, &drawn, lanes, (now - DRAWN, now), zone, now),
        days: view::days(&page, &gaps.gaps, zone, now),
        log: search_link(query),
    };
    Ok((section, page.entries))
}
