//! Sessions as bars along the time, a lane for each workspace or user, and how many there were at once.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_store::read::{Entry, Sessions};

use super::chart::{Tick, place, ratio, ticks, units};
use super::row;
use super::text::{duration, number, visible};
use super::zone::{Moment, Zone};

/// Height of a lane, and of the bar in it.
const LANE: f64 = 24.0;
const BAR: f64 = 14.0;
/// Height of the picture of how many there were at once.
const CURVE: f64 = 80.0;
/// A bar is at least so wide, to be seen and hit.
const THINNEST: f64 = 3.0;

/// What a lane stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneOf {
    Workspace,
    User,
}

/// Lanes of sessions.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) rows: Vec<Lane>,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) height: String,
    /// What the picture is called, on a page that may have several.
    pub(crate) name: &'static str,
    /// From and to when it is.
    pub(crate) label: String,
    pub(crate) concurrency: Option<Concurrency>,
    /// How many are drawn, if they are not all.
    pub(crate) cut: Option<String>,
}

/// The sessions of somebody, or to something.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) href: Option<String>,
    pub(crate) line_y: String,
    pub(crate) bars: Vec<LaneBar>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct LaneBar {
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) width: String,
    pub(crate) kind: &'static str,
    /// How it ended: `open`, `inferred`, `failed` or nothing.
    pub(crate) end: &'static str,
    pub(crate) href: String,
    pub(crate) title: String,
    pub(crate) began: Moment,
    pub(crate) lasted: String,
}

/// How many sessions there were at once.
#[derive(Debug)]
pub(crate) struct Concurrency {
    /// The corners of the curve.
    pub(crate) points: String,
    pub(crate) most: String,
    /// When there were most.
    pub(crate) peak: Moment,
}

impl Lanes {
    /// Draws what of `sessions` lies between `from` and `to`; nothing if nothing does.
    pub(crate) fn draw(
        name: &'static str,
        sessions: &Sessions,
        of: LaneOf,
        (from, to): (Timestamp, Timestamp),
        zone: Zone,
        now: Timestamp,
    ) -> Option<Self> {
        let span = to - from;
        let ended = |entry: &Entry| match entry.disconnect_time {
            Some(end) => end,
            None if entry.method.is_web() => entry.connect_time,
            None => now,
        };
        let mut inside: Vec<&Entry> =
            sessions.entries.iter().filter(|entry| entry.connect_time < to && ended(entry) >= from).collect();
        inside.sort_by_key(|entry| (entry.connect_time, entry.id));
        let mut groups: BTreeMap<(String, Option<String>), Vec<&Entry>> = BTreeMap::new();
        for entry in &inside {
            groups.entry(lane_of(entry, of)).or_default().push(entry);
        }
        let mut lanes = Vec::new();
        for (number, ((name, href), entries)) in (0_u32..).zip(groups) {
            let top = f64::from(number) * LANE;
            let bars = entries.into_iter().map(|entry| {
                let end = ended(entry);
                let left = place(entry.connect_time, from, span);
                let sentence: String = row::sentence(entry, now).into_iter().map(|part| part.text).collect();
                LaneBar {
                    x: units(left),
                    y: units(top + (LANE - BAR) / 2.0),
                    width: units((place(end, from, span) - left).max(THINNEST)),
                    kind: entry.connection_type().as_str(),
                    end: how_it_ended(entry),
                    href: format!("/entries/{}", entry.id),
                    title: sentence,
                    began: Moment::full(zone, entry.connect_time),
                    lasted: if entry.method.is_web() { String::new() } else { duration(end - entry.connect_time) },
                }
            });
            lanes.push(Lane { bars: bars.collect(), name, href, line_y: units(top + LANE) });
        }
        if lanes.is_empty() {
            return None;
        }
        let count = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
        Some(Self {
            rows: lanes,
            ticks: ticks(zone, from, to),
            name,
            height: units(f64::from(count) * LANE),
            label: format!("{} to {}", zone.full(from), zone.full(to)),
            // Of a part of them it would be too few.
            concurrency: if sessions.complete { Concurrency::draw(&inside, (from, to), zone, ended) } else { None },
            cut: (!sessions.complete).then(|| number(count_of(inside.len()))),
        })
    }
}

fn count_of(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn lane_of(entry: &Entry, of: LaneOf) -> (String, Option<String>) {
    match (of, &entry.user) {
        (LaneOf::Workspace, _) => {
            let owner = &entry.workspace_owner_username;
            let name = if owner.is_empty() {
                entry.workspace_name.clone()
            } else {
                format!("{owner}/{}", entry.workspace_name)
            };
            (visible(&name), Some(format!("/workspaces/{}", entry.workspace_id)))
        }
        (LaneOf::User, Some(user)) if !user.username.is_empty() => {
            (visible(&user.username), Some(format!("/users/{}", user.id)))
        }
        (LaneOf::User, Some(user)) => (user.id.to_string(), Some(format!("/users/{}", user.id))),
        (LaneOf::User, None) => ("user not known".to_owned(), None),
    }
}

fn how_it_ended(entry: &Entry) -> &'static str {
    match (entry.disconnect_time, entry.code) {
        (None, Some(code)) if entry.method.is_web() && code >= 400 => "failed",
        (None, _) if entry.method.is_web() => "",
        (None, _) => "open",
        (Some(_), _) if entry.disconnect_inferred => "inferred",
        (Some(_), Some(code)) if code != 0 => "failed",
        _ => "",
    }
}

impl Concurrency {
    /// Web events are points in time: they are never at once with anything.
    fn draw(
        entries: &[&Entry],
        (from, to): (Timestamp, Timestamp),
        zone: Zone,
        ended: impl Fn(&Entry) -> Timestamp,
    ) -> Option<Self> {
        let mut changes: BTreeMap<Timestamp, i64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| !entry.method.is_web()) {
            *changes.entry(entry.connect_time.max(from)).or_default() += 1;
            let end = ended(entry);
            if end < to {
                *changes.entry(end).or_default() -= 1;
            }
        }
        let (mut level, mut most, mut peak) = (0, 0, from);
        let mut levels = Vec::new();
        for (time, change) in changes {
            level += change;
            levels.push((time, level));
            if level > most {
                (most, peak) = (level, time);
            }
        }
        if most == 0 {
            return None;
        }
        let span: TimeDelta = to - from;
        let y = |level: i64| units(CURVE - ratio(level, most) * CURVE);
        let mut points = vec![format!("{},{}", units(place(from, from, span)), y(0))];
        let mut before = 0;
        for (time, level) in levels {
            let x = units(place(time, from, span));
            points.push(format!("{x},{}", y(before)));
            points.push(format!("{x},{}", y(level)));
            before = level;
        }
        let right = units(place(to, from, span));
        points.push(format!("{right},{}", y(before)));
        points.push(format!("{right},{}", y(0)));
        Some(Self { points: points.join(" "), most: number(most), peak: Moment::full(zone, peak) })
    }
}
