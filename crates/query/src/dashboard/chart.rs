//! How many entries there were over time, as stacked bars: an SVG that reads in black and white, and a table.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use connlog_model::app::ConnectionType;
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::search::{Search, words};
use connlog_store::read::{Stats, StatsRequest};

use super::log::{Asked, RECENT};
use super::page::{PageError, Viewer};
use super::text::{number, search_link};
use super::zone::{Moment, Zone};
use crate::error::ApiError;
use crate::serve::Service;

/// Where the bars are, in the units of the drawing.
const LEFT: f64 = 52.0;
const TOP: f64 = 8.0;
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 120.0;
/// How long counting for the picture on the page of the log may take: the entries do not wait longer for it.
const BUDGET: Duration = Duration::from_millis(200);
/// About so many labels along the time.
const TICKS: i64 = 8;
/// Lengths of buckets to choose from, and about so many of them at most.
const BUCKETS: [TimeDelta; 8] = [
    TimeDelta::minutes(1),
    TimeDelta::minutes(5),
    TimeDelta::minutes(15),
    TimeDelta::hours(1),
    TimeDelta::days(1),
    TimeDelta::days(7),
    TimeDelta::days(30),
    TimeDelta::days(365),
];
const MOST_BUCKETS: i64 = 100;

/// A picture of counts over time.
#[derive(Debug)]
pub(crate) struct Histogram {
    pub(crate) bars: Vec<Bar>,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) legend: Vec<Legend>,
    /// The largest bar, which the scale ends with.
    pub(crate) most: String,
    /// From and to when, in seconds since the epoch, for whoever draws a range.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) label: String,
    /// What the picture lacks.
    pub(crate) note: Option<String>,
}

/// A bucket that has entries.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) x: String,
    pub(crate) width: String,
    pub(crate) segments: Vec<Segment>,
    /// The log of the bucket.
    pub(crate) href: String,
    pub(crate) time: Moment,
    pub(crate) total: String,
    /// Of each type of the legend, for the table.
    pub(crate) counts: Vec<String>,
}

/// The part of a bar that is of one type.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) kind: &'static str,
    pub(crate) y: String,
    pub(crate) height: String,
}

/// A label of an axis.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) x: String,
    pub(crate) text: String,
}

/// A type that is there.
#[derive(Debug)]
pub(crate) struct Legend {
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    pub(crate) total: String,
}

impl Histogram {
    /// Counts what was asked for, as far as there is time.
    pub(super) async fn read(
        service: &Service,
        viewer: &Viewer,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Self, PageError> {
        let (search, request) = request(&asked.search, now, 0, BUDGET);
        let stats = service.reads.stats(&search, &viewer.reach(), request).await?;
        let stats = stats.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
        Ok(Self::draw(&stats, request, asked, viewer.zone()))
    }

    /// Draws counts of what was asked for, which a bar narrows down.
    pub(super) fn draw(stats: &Stats, request: StatsRequest, asked: &Asked, zone: Zone) -> Self {
        let span = request.to - request.from;
        let (query, bounds) = (&asked.query, &asked.search);
        let x = |time: Timestamp| LEFT + share(time - request.from, span) * WIDTH;
        let totals: Vec<i64> = stats.buckets.values().map(|bucket| bucket.types.values().sum()).collect();
        let most = totals.iter().copied().max().unwrap_or(0);
        let mut by_type: BTreeMap<&str, i64> = BTreeMap::new();
        for (kind, count) in stats.buckets.values().flat_map(|bucket| &bucket.types) {
            *by_type.entry(kind).or_default() += count;
        }
        let types: Vec<ConnectionType> =
            ConnectionType::ALL.into_iter().filter(|family| by_type.contains_key(family.as_str())).collect();
        let mut bars = Vec::new();
        for ((time, bucket), total) in stats.buckets.iter().zip(&totals) {
            let end = *time + request.bucket;
            let (left, right) = (x(*time), x(end));
            let mut bottom = TOP + HEIGHT;
            let mut segments = Vec::new();
            for family in &types {
                let count = bucket.types.get(family.as_str()).copied().unwrap_or(0);
                if count > 0 {
                    let height = ratio(count, most) * HEIGHT;
                    bottom -= height;
                    segments.push(Segment { kind: family.as_str(), y: units(bottom), height: units(height) });
                }
            }
            let after = bounds.connected_after.map_or(*time, |after| after.max(*time));
            let last = end - TimeDelta::microseconds(1);
            let before = rfc3339(bounds.connected_before.map_or(last, |before| before.min(last)));
            let after = words::with(query, "connected_after", Some(&rfc3339(after)));
            let count = |family: &ConnectionType| bucket.types.get(family.as_str()).copied().unwrap_or(0);
            bars.push(Bar {
                x: units(left),
                width: units((right - left - 1.0).max(1.0)),
                segments,
                href: search_link(&words::with(&after, "connected_before", Some(&before))),
                time: Moment { iso: rfc3339(*time), text: bucket_label(zone, *time, request.bucket) },
                total: number(*total),
                counts: types.iter().map(|family| number(count(family))).collect(),
            });
        }
        Self {
            bars,
            ticks: ticks(zone, request.from, request.to),
            legend: types
                .iter()
                .map(|family| Legend {
                    kind: family.as_str(),
                    name: family.display_name(),
                    total: number(by_type.get(family.as_str()).copied().unwrap_or(0)),
                })
                .collect(),
            most: number(most),
            from: request.from.timestamp(),
            to: request.to.timestamp(),
            label: format!("{} to {}", zone.full(request.from), zone.full(request.to)),
            note: match stats.counted_from {
                Some(from) => {
                    Some(format!("Counted from {} on: there was no time for what is older.", zone.full(from)))
                }
                None if request.bucket >= TimeDelta::days(1) => Some("Whole days, of UTC.".to_owned()),
                None => None,
            },
        }
    }
}

/// What to count for a picture of `search`. From two days on it is whole days, whose counts are known; bounds that fall away so leave the search.
pub(super) fn request(search: &Search, now: Timestamp, top: usize, budget: Duration) -> (Search, StatsRequest) {
    let mut search = search.clone();
    let microsecond = TimeDelta::microseconds(1);
    let before = search.connected_before.and_then(|before| before.checked_add_signed(microsecond));
    let mut to = before.unwrap_or(now);
    let mut from = search.connected_after.unwrap_or_else(|| to.checked_sub_signed(RECENT).unwrap_or(to));
    if from >= to {
        to = from + TimeDelta::minutes(1);
    }
    let span = to - from;
    let bucket = BUCKETS.into_iter().find(|bucket| span.num_seconds() / bucket.num_seconds() <= MOST_BUCKETS);
    let bucket = bucket.unwrap_or(TimeDelta::days(365));
    // Whole buckets: the last one is not thinner than the others because it is not over.
    let step = bucket.min(TimeDelta::days(1));
    (from, to) = (start_of(step, from), start_of(step, to - microsecond) + step);
    if bucket >= TimeDelta::days(1) {
        (search.connected_after, search.connected_before) = (None, None);
    }
    (search, StatsRequest { from, to, bucket, top, budget, now })
}

fn start_of(step: TimeDelta, time: Timestamp) -> Timestamp {
    let step = step.num_seconds();
    DateTime::from_timestamp(time.timestamp().div_euclid(step) * step, 0).unwrap_or(time)
}

/// What a bucket is called: days are days of UTC, whatever the zone.
fn bucket_label(zone: Zone, time: Timestamp, bucket: TimeDelta) -> String {
    if bucket >= TimeDelta::days(1) { time.format("%a %-d %b %Y").to_string() } else { zone.short(time) }
}

/// Labels along the time from `from` to `to`.
pub(super) fn ticks(zone: Zone, from: Timestamp, to: Timestamp) -> Vec<Tick> {
    let span = to - from;
    let steps = [300, 900, 3_600, 3 * 3_600, 6 * 3_600, 86_400, 2 * 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400];
    let step = steps.into_iter().find(|step| span.num_seconds() / step <= TICKS).unwrap_or(span.num_seconds().max(1));
    let mut at = (from.timestamp().div_euclid(step) + 1) * step;
    let mut ticks = Vec::new();
    while at < to.timestamp() {
        let Some(time) = DateTime::from_timestamp(at, 0) else { break };
        let text = if step >= 86_400 { time.format("%-d %b").to_string() } else { zone.short(time) };
        ticks.push(Tick { x: units(LEFT + share(time - from, span) * WIDTH), text });
        at += step;
    }
    ticks
}

/// A part of a span, from 0 to 1.
pub(super) fn share(part: TimeDelta, whole: TimeDelta) -> f64 {
    (part.as_seconds_f64() / whole.as_seconds_f64().max(1.0)).clamp(0.0, 1.0)
}

/// The place of a time in a drawing that begins at `from` and is `span` long.
pub(super) fn place(time: Timestamp, from: Timestamp, span: TimeDelta) -> f64 {
    LEFT + share(time - from, span) * WIDTH
}

#[expect(clippy::cast_precision_loss, reason = "a drawing has a thousand units")]
pub(super) fn ratio(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A length in the drawing.
pub(super) fn units(length: f64) -> String {
    format!("{length:.1}")
}

#[cfg(test)]
mod tests {
    use connlog_store::read::Bucket;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn long_spans_are_whole_days_and_short_ones_as_asked() {
        let now = at("2026-11-24T10:30:15Z");
        let budget = Duration::from_secs(1);
        let month = Search { connected_after: Some(at("2026-11-01T05:00:00Z")), ..Search::default() };
        let (search, counted) = request(&month, now, 0, budget);
        assert_eq!((counted.from, counted.to), (at("2026-11-01T00:00:00Z"), at("2026-11-25T00:00:00Z")));
        assert_eq!((search.connected_after, counted.bucket), (None, TimeDelta::days(1)));
        let hour = Search { connected_after: Some(at("2026-11-24T09:30:20Z")), ..Search::default() };
        let (search, counted) = request(&hour, now, 0, budget);
        assert_eq!(
            (counted.from, counted.to, counted.bucket),
            (at("2026-11-24T09:30:00Z"), at("2026-11-24T10:31:00Z"), TimeDelta::minutes(1))
        );
        assert_eq!(search, hour);
        let backwards = Search {
            connected_after: Some(now),
            connected_before: Some(at("2026-11-01T00:00:00Z")),
            ..Search::default()
        };
        let (_, counted) = request(&backwards, now, 0, budget);
        assert!(counted.from < counted.to);
    }

    #[test]
    fn bars_stack_to_the_height_of_their_count_and_lead_to_their_bucket() {
        let (from, to) = (at("2026-11-24T00:00:00Z"), at("2026-11-24T10:00:00Z"));
        let request = StatsRequest { from, to, bucket: TimeDelta::hours(1), top: 0, budget: Duration::ZERO, now: to };
        let bucket = |ssh, tunnel| Bucket { types: [("ssh", ssh), ("tunnel", tunnel)].into(), ..Bucket::default() };
        let stats = Stats {
            buckets: [(from, bucket(3, 1)), (from + TimeDelta::hours(5), bucket(1, 1))].into(),
            ..Stats::default()
        };
        let (asked, _) = Asked::read(&[("q".to_owned(), "app:cursor".to_owned())], to);
        let drawn = Histogram::draw(&stats, request, &asked, Zone::UTC);
        let heights: Vec<Vec<&str>> =
            drawn.bars.iter().map(|bar| bar.segments.iter().map(|segment| segment.height.as_str()).collect()).collect();
        assert_eq!(heights, [["90.0", "30.0"], ["30.0", "30.0"]]);
        assert_eq!(
            (drawn.bars[0].x.as_str(), drawn.bars[1].x.as_str(), drawn.bars[1].width.as_str()),
            ("52.0", "502.0", "89.0")
        );
        assert!(
            drawn.bars[1].href.starts_with("/?q=app%3Acursor%20connected%5Fafter%3A%222026%2D11%2D24T05"),
            "{}",
            drawn.bars[1].href
        );
        let legend: Vec<_> = drawn.legend.iter().map(|legend| (legend.kind, legend.total.as_str())).collect();
        assert_eq!(legend, [("ssh", "4"), ("tunnel", "2")]);
        assert_eq!(drawn.most, "4");
    }
}
