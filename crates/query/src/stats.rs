//! `GET /api/v2/connectionlog/stats`: counts over time, and who had most, for charts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::extract::{Query, State};
use chrono::{DateTime, TimeDelta};
use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::retention::parse_positive_duration;
use connlog_model::search::{Invalid, Search};
use connlog_store::read::{Stats, StatsRequest, Top};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Auditor;
use crate::error::ApiError;
use crate::list::parse_search;
use crate::paging::value;
use crate::serve::Service;

/// Most buckets of an answer.
const MAX_BUCKETS: i64 = 1000;
/// How far back without a lower bound.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(7);
/// Shortest bucket.
const MIN_BUCKET: TimeDelta = TimeDelta::minutes(1);
/// Longest bucket.
const MAX_BUCKET: TimeDelta = TimeDelta::days(366);
/// Entries of a ranking.
const TOP: usize = 10;

/// Counts of a search.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatsBody {
    /// The first instant that is counted.
    from: String,
    /// The instant after the last.
    to: String,
    /// Length of a bucket, in seconds. Buckets begin at multiples of it since the epoch.
    bucket_seconds: i64,
    /// Buckets that have entries, oldest first.
    buckets: Vec<BucketBody>,
    /// How many entries there are in all.
    count: i64,
    /// By organization, the most first.
    organizations: Vec<Ranked>,
    /// By client app; the empty name stands for entries that have none.
    apps: BTreeMap<String, i64>,
    /// The ten workspaces with the most entries.
    workspaces: Vec<Ranked>,
    /// The ten users who initiated the most, as far as that is known.
    users: Vec<Ranked>,
    /// The ten addresses of clients with the most entries.
    addresses: Vec<RankedAddress>,
    /// Whether everything between `from` and `to` was counted within the time that there was.
    complete: bool,
    /// From when on entries were counted; omitted if all were.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_from: Option<String>,
    /// From when on entries were looked at for `workspaces`, `users` and `addresses`; omitted if all were.
    #[serde(skip_serializing_if = "Option::is_none")]
    ranked_from: Option<String>,
}

/// The entries of a span of time.
#[derive(Debug, Serialize, ToSchema)]
struct BucketBody {
    /// When it begins.
    time: String,
    /// How many entries.
    count: i64,
    /// By method.
    methods: BTreeMap<&'static str, i64>,
    /// By status: `ongoing`, `completed`, or `web` for what is neither.
    statuses: BTreeMap<&'static str, i64>,
    /// By type.
    types: BTreeMap<&'static str, i64>,
}

/// Somebody or something, and how many entries it has.
#[derive(Debug, Serialize, ToSchema)]
struct Ranked {
    id: Uuid,
    /// Its name; empty if the directory lacks it.
    name: String,
    count: i64,
}

/// An address, and how many entries it has.
#[derive(Debug, Serialize, ToSchema)]
struct RankedAddress {
    #[schema(value_type = String)]
    address: IpAddr,
    count: i64,
}

/// Answers the counts.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/stats",
    params(
        ("q" = Option<String>, Query, description = "Search; `connected_after` and `connected_before` bound the span, the last 7 days by default"),
        ("bucket" = Option<String>, Query, description = "Length of a bucket, such as `5m`, `1h` or `1d`; at most 1000 buckets"),
    ),
    responses(
        (status = 200, description = "The counts", body = StatsBody),
    )
)]
pub async fn stats(
    State(service): State<Service>,
    auditor: Auditor,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<StatsBody>, ApiError> {
    let mut search = parse_search(&service, &auditor, &parameters).await?;
    let request = request(&service, &mut search, value(&parameters, "bucket"))?;
    let stats = service.reads.stats(&search, &auditor.reach(), request).await?;
    let stats = stats.map_err(|unreachable| ApiError::out_of_reach(&unreachable))?;
    Ok(Json(body(stats, request)))
}

/// Bounds that lie at the boundaries of whole buckets leave the search, so that the counts by day can answer it.
fn request(service: &Service, search: &mut Search, bucket: Option<&str>) -> Result<StatsRequest, ApiError> {
    let now = service.clock.now();
    let microsecond = TimeDelta::microseconds(1);
    let to = search
        .connected_before
        .map_or(now + TimeDelta::days(1), |before| before.checked_add_signed(microsecond).unwrap_or(before));
    let from =
        search.connected_after.unwrap_or_else(|| to.min(now).checked_sub_signed(DEFAULT_SPAN).unwrap_or(to.min(now)));
    let span = to - from;
    let bucket = match bucket {
        Some(text) => parse_positive_duration(text).map_err(|error| invalid("bucket", &error))?,
        None => default_bucket(span),
    };
    if bucket < MIN_BUCKET || bucket > MAX_BUCKET || bucket.subsec_nanos() != 0 {
        return Err(invalid("bucket", "must be whole seconds, from a minute to 366 days"));
    }
    let buckets = span.num_seconds().max(0) / bucket.num_seconds();
    if buckets > MAX_BUCKETS {
        return Err(invalid("bucket", &format!("gives {buckets} buckets, at most {MAX_BUCKETS} are given")));
    }
    let day = TimeDelta::days(1).num_seconds();
    let (mut from, mut to) = (from, to);
    if bucket.num_seconds() % day == 0 {
        // What no bound cuts is counted by whole days.
        if search.connected_after.is_none() {
            from = start_of_day(from);
        }
        if search.connected_before.is_none() {
            to = start_of_day(to) + TimeDelta::days(1);
        }
        if from == start_of_day(from) {
            search.connected_after = None;
        }
        if to == start_of_day(to) {
            search.connected_before = None;
        }
    }
    Ok(StatsRequest { from, to, bucket, top: TOP, budget: service.limits.scan_budget, now })
}

fn start_of_day(time: Timestamp) -> Timestamp {
    let day = TimeDelta::days(1).num_seconds();
    DateTime::from_timestamp(time.timestamp().div_euclid(day) * day, 0).unwrap_or(time)
}

fn default_bucket(span: TimeDelta) -> TimeDelta {
    let choices = [TimeDelta::minutes(5), TimeDelta::hours(1), TimeDelta::days(1), TimeDelta::days(30)];
    choices.into_iter().find(|bucket| span.num_seconds() / bucket.num_seconds() <= 200).unwrap_or(MAX_BUCKET)
}

fn invalid(field: &str, detail: &str) -> ApiError {
    let detail = format!("Query param {field:?} has invalid value: {detail}");
    ApiError::invalid_parameters(vec![Invalid { field: field.to_owned(), detail }])
}

fn body(stats: Stats, request: StatsRequest) -> StatsBody {
    let buckets: Vec<BucketBody> = stats
        .buckets
        .into_iter()
        .map(|(time, bucket)| BucketBody {
            time: rfc3339(time),
            count: bucket.methods.values().sum(),
            methods: bucket.methods,
            statuses: bucket.statuses,
            types: bucket.types,
        })
        .collect();
    StatsBody {
        from: rfc3339(request.from),
        to: rfc3339(request.to),
        bucket_seconds: request.bucket.num_seconds(),
        count: buckets.iter().map(|bucket| bucket.count).sum(),
        buckets,
        organizations: ranked(stats.organizations),
        apps: stats.apps,
        workspaces: ranked(stats.workspaces),
        users: ranked(stats.users),
        addresses: stats.addresses.into_iter().map(|(address, count)| RankedAddress { address, count }).collect(),
        complete: stats.counted_from.is_none() && stats.ranked_from.is_none(),
        counted_from: stats.counted_from.map(rfc3339),
        ranked_from: stats.ranked_from.map(rfc3339),
    }
}

fn ranked(tops: Vec<Top>) -> Vec<Ranked> {
    tops.into_iter().map(|top| Ranked { id: top.id, name: top.name, count: top.entries }).collect()
}
