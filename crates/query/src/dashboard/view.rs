//! A list of entries by day, with the gaps of the record where they happened.

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
                let events = counted(gap.events, "event was", "events were");
                format!("{events} not accepted: {} {}", visible(field), visible(reason))
            }
        };
        Self { time, text, workspace: gap.workspace_id }
    }
}

/// The days of a page, newest first.
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

/// The gaps that belong to a page, and what to say of those that are not shown.
#[derive(Debug, Default)]
pub(crate) struct PageGaps {
    pub(crate) gaps: Vec<Gap>,
    pub(crate) note: Option<String>,
}

/// The gaps between the first entry of a page, or the last one of the page before, and its last.
pub(crate) async fn gaps(
    service: &Service,
    viewer: &Viewer,
    search: &Search,
    page: &Page,
    after: Option<Timestamp>,
) -> Result<PageGaps, StoreError> {
    let newest = service.clock.now() + TimeDelta::days(1);
    let to = after.or(search.connected_before).unwrap_or(newest);
    let from = match (page.next, page.entries.last()) {
        (Some((time, _)), _) => time,
        _ => search.connected_after.unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let mut found = service.reads.gaps_between(search, &viewer.reach(), (from, to), MAX_GAPS + 1).await?;
    let most = usize::try_from(MAX_GAPS).unwrap_or(usize::MAX);
    let has_more = found.gaps.len() > most;
    found.gaps.truncate(most);
    let count = if has_more {
        format!("More than {MAX_GAPS} gaps")
    } else {
        counted(found.gaps.len().try_into().unwrap_or(0), "gap", "gaps")
    };
    Ok(match (found.apply, found.gaps.is_empty(), has_more) {
        (_, true, _) => PageGaps::default(),
        (true, false, false) => PageGaps { gaps: found.gaps, note: None },
        (true, false, true) => PageGaps {
            gaps: found.gaps,
            note: Some(format!("{count} of the record lie between these entries; the newest are shown.")),
        },
        (false, false, _) => PageGaps {
            gaps: Vec::new(),
            note: Some(format!("{count} of the record in this span, of which nobody knows whether they would match.")),
        },
    })
}
