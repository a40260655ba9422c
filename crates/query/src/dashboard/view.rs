//! A list of entries by day, with the gaps of the record where they happened.

use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::search::Search;
use connlog_store::StoreError;
use connlog_store::read::{Gap, GapKind, Page};
use uuid::Uuid;

use super::page::Viewer;
use super::row::Row;
use super::text::{counted, visible};
use super::zone::{Moment, Zone, day_label};
use crate::serve::Service;

/// Most gaps among the entries of a page; the page of the record has all.
const MAX_GAPS: i64 = 20;

/// The entries of a day.
#[derive(Debug)]
pub(crate) struct Day {
    /// `2026-11-24`.
    pub(crate) date: String,
    pub(crate) label: String,
    pub(crate) items: Vec<Item>,
}

/// What a day has.
#[derive(Debug)]
pub(crate) enum Item {
    Entry(Box<Row>),
    Gap(GapRow),
}

/// A gap in a list.
#[derive(Debug)]
pub(crate) struct GapRow {
    pub(crate) time: Moment,
    pub(crate) text: String,
    pub(crate) workspace: Option<Uuid>,
}

impl GapRow {
    pub(crate) fn of(gap: &Gap, time: Moment) -> Self {
        let text = match &gap.kind {
            GapKind::Lost { cause, .. } => {
                format!("{} lost: {}", counted(gap.events, "event was", "events were"), visible(cause))
            }
            GapKind::Rejected { field, reason, .. } => {
                format!("An event was not accepted: {} {}", visible(field), visible(reason))
            }
        };
        Self { time, text, workspace: gap.workspace_id }
    }
}

/// The days of a page. `is_first` and `is_last` say whether newer and older entries follow.
pub(crate) fn days(page: &Page, gaps: &[Gap], zone: Zone, now: Timestamp) -> Vec<Day> {
    let mut items: Vec<(Timestamp, Item)> = page
        .entries
        .iter()
        .map(|entry| (entry.connect_time, Item::Entry(Box::new(Row::of(entry, zone, now)))))
        .collect();
    items.extend(gaps.iter().map(|gap| (gap.time(), Item::Gap(GapRow::of(gap, Moment::clock(zone, gap.time()))))));
    // Stable: entries of one time keep the order of the log.
    items.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let mut days: Vec<Day> = Vec::new();
    for (time, item) in items {
        let date = zone.date(time);
        let name = date.to_string();
        match days.last_mut().filter(|day| day.date == name) {
            Some(day) => day.items.push(item),
            None => days.push(Day { date: name, label: day_label(date), items: vec![item] }),
        }
    }
    days
}

/// The gaps among the entries of a page, if its search is one that gaps belong to: of everything, an organization or a
/// workspace.
pub(crate) async fn gaps(
    service: &Service,
    viewer: &Viewer,
    search: &Search,
    page: &Page,
    is_first: bool,
) -> Result<Arc<[Gap]>, StoreError> {
    let only_where = Search {
        organization: None,
        workspace_id: None,
        connected_after: None,
        connected_before: None,
        ..search.clone()
    };
    // The gaps of one organization are told apart by the reach only.
    if only_where != Search::default() || search.organization.is_some() {
        return Ok(Arc::default());
    }
    let a_day = TimeDelta::days(1);
    let to = match page.entries.first() {
        Some(newest) if !is_first => newest.connect_time,
        _ => search.connected_before.unwrap_or(service.clock.now() + a_day),
    };
    let from = match (page.next, page.entries.last()) {
        (Some(_), Some(oldest)) => oldest.connect_time,
        _ => search.connected_after.unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let found = service.reads.gaps_between(&viewer.reach(), search.workspace_id, from, to, MAX_GAPS).await?;
    Ok(found.into())
}
