//! `/`: the log, newest first. Its address is its state: search, range of time, place.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::cursor::Cursor;
use connlog_model::retention::parse_positive_duration;
use connlog_model::search::{Invalid, Search, words};
use connlog_store::read::{Count, PageRequest};

use super::chart::Histogram;
use super::filter::{Menus, PRESETS, Preset, ranges};
use super::page::{Frame, PageError, Viewer, html};
use super::text::{counted, link};
use super::view::{self, Day, Item};
use crate::audit::Given;
use crate::error::{ApiError, out_of_reach};
use crate::paging;
use crate::serve::Service;

/// Entries of a page.
const ENTRIES: i64 = 25;
/// How many pages one can go back to without the browser's help; their places are in the address.
const MAX_TRAIL: usize = 20;
/// Stands for the first page in a trail.
const FIRST: &str = "first";

/// A search as a page has it: as it is written, and as it is meant.
pub(crate) struct Asked {
    /// As it is written.
    pub(crate) query: String,
    /// A range up to now, such as `24h`; empty if there is none.
    pub(crate) range: String,
    /// Both of them.
    pub(crate) search: Search,
}

impl Asked {
    /// Reads `q` and `range`. What is wrong with them is the error, along with what was written.
    pub(crate) fn read(parameters: &[(String, String)], now: Timestamp) -> (Self, Vec<Invalid>) {
        let query = paging::value(parameters, "q").unwrap_or_default().to_owned();
        let range = paging::value(parameters, "range").unwrap_or_default().to_owned();
        let mut query = query;
        if !range.is_empty() {
            // A range is chosen instead of bounds.
            for key in ["connected_after", "connected_before"] {
                if words::value(&query, key).is_some() {
                    query = words::with(&query, key, None);
                }
            }
        }
        let (mut search, mut invalid) = match Search::read(&query) {
            Ok(read) => read,
            Err(invalid) => (Search::default(), vec![invalid]),
        };
        if !range.is_empty() {
            match parse_positive_duration(&range) {
                Ok(length) => search.connected_after = now.checked_sub_signed(length),
                Err(error) => {
                    invalid.push(Invalid { field: "range".to_owned(), detail: format!("The range of time {error}") });
                }
            }
        }
        (Self { query, range, search }, invalid)
    }

    /// The same as a query alone, which means the same later.
    pub(crate) fn fixed(&self) -> String {
        match self.search.connected_after {
            Some(after) if !self.range.is_empty() => words::with(&self.query, "connected_after", Some(&rfc3339(after))),
            _ => self.query.clone(),
        }
    }
}

/// A word of the query, and what is wrong with it.
struct JudgedWord {
    text: String,
    errors: Vec<String>,
}

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    frame: Frame,
    title: String,
    query: String,
    range: String,
    judged: Vec<JudgedWord>,
    menus: Menus,
    presets: &'static [Preset],
    ranges: Vec<(String, String)>,
    found: Option<Found>,
}

/// What a search found.
struct Found {
    count: String,
    incomplete: bool,
    days: Vec<Day>,
    /// What is to be said of gaps.
    gaps: Option<String>,
    newer: Option<(String, &'static str)>,
    older: Option<String>,
    histogram: Option<Histogram>,
    /// Where the tail of the same search is; nothing beyond the first page.
    live: Option<String>,
    export: String,
    picture: String,
}

/// Shows the log.
pub(super) async fn log(
    State(service): State<Service>,
    viewer: Viewer,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let now = service.clock.now();
    let (asked, mut invalid) = Asked::read(&parameters, now);
    if invalid.iter().all(|invalid| invalid.field != "q") {
        let unreachable = service.reads.unreachable(&asked.search, &viewer.reach()).await?;
        invalid.splice(0..0, unreachable.as_ref().map(out_of_reach));
    }
    let found = if invalid.is_empty() {
        Some(Box::pin(found(&service, &viewer, &asked, &parameters, now)).await?)
    } else {
        None
    };
    let given = found.as_ref().map_or(0, |(_, given)| *given);
    let page = LogPage {
        judged: judged(&asked.query, &invalid),
        menus: Menus::of(&service, &viewer, &asked).await?,
        frame: viewer.frame,
        title: if asked.query.is_empty() { "Connection Log".to_owned() } else { super::text::visible(&asked.query) },
        query: asked.query,
        ranges: ranges(&asked.range),
        range: asked.range,
        presets: &PRESETS,
        found: found.map(|(found, _)| found),
    };
    let status = if invalid.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok((status, Extension(Given(given)), html(&page)).into_response())
}

async fn found(
    service: &Service,
    viewer: &Viewer,
    asked: &Asked,
    parameters: &[(String, String)],
    now: Timestamp,
) -> Result<(Found, usize), PageError> {
    let search = &asked.search;
    let cursor = paging::cursor(parameters, search)?;
    let request = PageRequest {
        limit: ENTRIES,
        offset: 0,
        after: cursor.map(|cursor| (cursor.time, cursor.id)),
        count_cap: service.limits.count_cap,
        count_budget: service.limits.count_budget,
        scan_budget: service.limits.scan_budget,
        now,
    };
    let is_first = cursor.is_none();
    let reach = viewer.reach();
    // Before the page is read: what is committed while it is looked at comes live.
    let position = service.reads.feed_end().await?.encode();
    let (page, histogram) = tokio::join!(service.reads.page(search, &reach, request), async {
        if is_first { Histogram::read(service, viewer, asked, now).await.map(Some) } else { Ok(None) }
    });
    let page = page?.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
    let gaps = view::gaps(service, viewer, search, &page, cursor.map(|cursor| cursor.time)).await?;
    // What comes next is asked for as of now: a range that moves would be another search.
    let fixed = asked.fixed();
    let fixed_search = Search::parse(&fixed).unwrap_or_else(|_| search.clone());
    let next = page.next.map(|(time, id)| Cursor { time, id, began_at: None }.encode(fixed_search.fingerprint()));
    let here = paging::value(parameters, "after").unwrap_or(FIRST);
    let trail = paging::value(parameters, "trail").unwrap_or_default();
    let found = Found {
        count: count_text(page.count),
        incomplete: page.incomplete,
        days: view::days(&page, &gaps.gaps, viewer.zone(), now),
        gaps: gaps.note,
        newer: (!is_first).then(|| (newer(&fixed, trail), if trail.is_empty() { "← Newest" } else { "← Newer" })),
        older: next.map(|next| link("/", &[("q", &fixed), ("after", &next), ("trail", &longer(trail, here))])),
        histogram: histogram?,
        live: (is_first && search.connected_before.is_none())
            .then(|| link("/live", &[("q", &fixed), ("since", &position)])),
        export: link("/export", &[("q", &fixed)]),
        picture: link("/picture", &[("q", &asked.query), ("range", &asked.range)]),
    };
    Ok((found, page.entries.len()))
}

/// The trail of the page after one: where one came from, newest last.
fn longer(trail: &str, here: &str) -> String {
    let mut places: Vec<&str> = trail.split('.').filter(|place| !place.is_empty()).collect();
    places.push(here);
    let forgotten = places.len().saturating_sub(MAX_TRAIL);
    places[forgotten..].join(".")
}

/// Where the page before is, as far as the trail remembers it.
fn newer(query: &str, trail: &str) -> String {
    let (before, place) = trail.rsplit_once('.').unwrap_or(("", trail));
    let place = if place == FIRST { "" } else { place };
    link("/", &[("q", query), ("after", place), ("trail", before)])
}

fn count_text(count: Count) -> String {
    if count.exact {
        counted(count.entries, "entry", "entries")
    } else if count.entries > 0 {
        format!("more than {}", counted(count.entries, "entry", "entries"))
    } else {
        "not counted: there was no time".to_owned()
    }
}

/// Each error below the word that it is about; what is about none comes last.
fn judged(query: &str, invalid: &[Invalid]) -> Vec<JudgedWord> {
    if invalid.is_empty() {
        return Vec::new();
    }
    let mut left: Vec<&Invalid> = invalid.iter().collect();
    let mut judged: Vec<JudgedWord> = Vec::new();
    for word in words::of(query) {
        let mut errors = Vec::new();
        left.retain(|invalid| {
            let is_its = match &word.key {
                Some(key) => *key == invalid.field,
                None => invalid.field == "search",
            } || (invalid.field == "q"
                && invalid
                    .detail
                    .to_lowercase()
                    .contains(&format!("element {}", connlog_model::quote::quote(&word.text.to_lowercase()))));
            if is_its {
                errors.push(invalid.detail.clone());
            }
            !is_its
        });
        judged.push(JudgedWord { text: super::text::visible(word.text), errors });
    }
    judged.extend(
        left.into_iter().map(|invalid| JudgedWord { text: String::new(), errors: vec![invalid.detail.clone()] }),
    );
    judged
}

/// A day before now, for a picture of what has no bounds.
pub(crate) const RECENT: TimeDelta = TimeDelta::days(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_leads_back_the_way_that_one_came() {
        let second = longer("", FIRST);
        let third = longer(&second, "c1");
        assert_eq!((second.as_str(), third.as_str()), ("first", "first.c1"));
        assert_eq!(newer("", &third), "/?after=c1&trail=first");
        assert_eq!(newer("", &second), "/");
        let long = (0..50).fold(String::new(), |trail, number| longer(&trail, &format!("c{number}")));
        assert_eq!(long.split('.').count(), MAX_TRAIL);
        assert_eq!(newer("x:y", ""), "/?q=x%3Ay", "a trail that is over leads to the first page");
    }

    #[test]
    fn an_error_stands_under_its_word() {
        let query = "type:ssh tipe:x foo";
        let invalid = Search::parse(query).expect_err("two of these are no terms");
        let judged = judged(query, &invalid);
        let errors: Vec<usize> = judged.iter().map(|word| word.errors.len()).collect();
        assert_eq!(errors, [0, 1, 1], "{:?}", judged.iter().map(|word| &word.errors).collect::<Vec<_>>());
        assert!(judged[1].errors[0].contains("Did you mean"), "{}", judged[1].errors[0]);
        let broken = Search::parse("a:b:c").expect_err("it has two colons");
        assert_eq!(super::judged("type:ssh a:b:c", &broken)[1].errors.len(), 1);
    }
}
