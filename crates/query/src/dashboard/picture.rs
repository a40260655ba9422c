//! `/picture`: what was asked for as pictures: counts over time, sessions as lanes and at once, and who has most.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use connlog_model::app::display_name;
use connlog_model::clock::Timestamp;
use connlog_model::search::{Search, words};
use connlog_store::read::{Sessions, SessionsRequest, Stats, Top};

use super::chart::{self, Histogram};
use super::export::back_to_search;
use super::filter::ranges;
use super::lanes::{LaneOf, Lanes};
use super::log::Asked;
use super::page::{Frame, PageError, Viewer, html};
use super::text::{link, number, search_link, visible};
use super::zone::Moment;
use crate::audit::Given;
use crate::error::ApiError;
use crate::paging::value;
use crate::serve::Service;

/// Sessions that are drawn.
const SESSIONS: i64 = 500;
/// Entries of a ranking.
const TOP: usize = 10;
/// How long counting may take.
const BUDGET: Duration = Duration::from_secs(2);
/// How long looking for sessions may take.
const SESSIONS_BUDGET: Duration = Duration::from_millis(700);

/// A line of a ranking.
pub(super) struct Ranked {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) count: String,
}

#[derive(Template)]
#[template(path = "picture.html")]
struct PicturePage {
    frame: Frame,
    query: String,
    range: String,
    ranges: Vec<(String, String)>,
    log: String,
    histogram: Histogram,
    tops: Vec<(&'static str, Vec<Ranked>)>,
    ranking_note: Option<Moment>,
    lanes: Option<Lanes>,
}

/// Shows the pictures.
pub(super) async fn picture(
    State(service): State<Service>,
    viewer: Viewer,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let now = service.clock.now();
    let (asked, invalid) = Asked::read(&parameters, now);
    if !invalid.is_empty() {
        return Ok(back_to_search(&asked));
    }
    let (search, request) = chart::request(&asked.search, now, TOP, BUDGET);
    let reach = viewer.reach();
    let stats = service.reads.stats(&search, &reach, request).await?;
    let stats = stats.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
    let to = asked.search.connected_before.unwrap_or(now);
    let from = asked.search.connected_after.unwrap_or(request.from);
    let found = sessions(&service, &viewer, &asked.search, (from, to), now).await?;
    let lanes = Lanes::draw("Sessions", &found, LaneOf::Workspace, (from, to), viewer.zone(), now);
    let zone = viewer.zone();
    let page = PicturePage {
        histogram: Histogram::draw(&stats, request, &asked, zone),
        tops: tops(&stats, &asked.query),
        ranking_note: stats.ranked_from.map(|from| Moment::full(zone, from)),
        lanes,
        log: link("/", &[("q", &asked.query), ("range", value(&parameters, "range").unwrap_or_default())]),
        frame: viewer.frame,
        query: asked.query,
        ranges: ranges(&asked.range),
        range: asked.range,
    };
    Ok((Extension(Given(found.entries.len())), html(&page)).into_response())
}

/// The newest sessions of a span, and whether they are all.
pub(super) async fn sessions(
    service: &Service,
    viewer: &Viewer,
    search: &Search,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<Sessions, PageError> {
    let request = SessionsRequest { from, to, limit: SESSIONS, budget: SESSIONS_BUDGET, now };
    let found = service.reads.sessions(search, &viewer.reach(), request).await?;
    Ok(found.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?)
}

fn tops(stats: &Stats, query: &str) -> Vec<(&'static str, Vec<Ranked>)> {
    let mut apps: Vec<(&String, &i64)> = stats.apps.iter().filter(|(name, _)| !name.is_empty()).collect();
    apps.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let apps = apps.into_iter().take(TOP).map(|(name, count)| Ranked {
        name: visible(display_name(name)),
        href: search_link(&words::with(query, "app", Some(name))),
        count: number(*count),
    });
    let addresses = stats.addresses.iter().map(|(address, count)| Ranked {
        name: address.to_string(),
        href: search_link(&words::with(query, "ip", Some(&address.to_string()))),
        count: number(*count),
    });
    vec![
        ("Workspaces", ranked(&stats.workspaces, "/workspaces")),
        ("Users", ranked(&stats.users, "/users")),
        ("Apps", apps.collect()),
        ("Addresses", addresses.collect()),
    ]
}

pub(super) fn ranked(tops: &[Top], path: &str) -> Vec<Ranked> {
    tops.iter()
        .map(|top| Ranked {
            name: if top.name.is_empty() { top.id.to_string() } else { visible(&top.name) },
            href: format!("{path}/{}", top.id),
            count: number(top.entries),
        })
        .collect()
}
