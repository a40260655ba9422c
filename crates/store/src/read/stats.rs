//! Counts over time, and who had most: what charts show.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::method::Method;
use connlog_model::search::{Search, Status};
use tokio_postgres::types::FromSqlOwned;
use uuid::Uuid;

use super::Budget;
use super::conditions::{By, Conditions};
use super::filter::{Filter, Reach, Shape, Unreachable};
use super::windows::{Calendar, Scan, Window};
use crate::days::start_of;
use crate::session::{Transaction, begin_read, query, query_composed};
use crate::{Store, StoreError};

/// What is to be counted.
#[derive(Debug, Clone, Copy)]
pub struct StatsRequest {
    /// The first instant.
    pub from: Timestamp,
    /// The instant after the last.
    pub to: Timestamp,
    /// How long a bucket is; buckets begin at multiples of it since the epoch.
    pub bucket: TimeDelta,
    /// How many of the workspaces and users that have most; for none, no row is looked at because of them.
    pub top: usize,
    /// How long looking at rows may take.
    pub budget: Duration,
    /// What "now" is to the duration of an open connection.
    pub now: Timestamp,
}

/// The entries of a span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// By method.
    pub methods: BTreeMap<&'static str, i64>,
    /// By status: `ongoing`, `completed`, or `web` for what is neither.
    pub statuses: BTreeMap<&'static str, i64>,
    /// By type.
    pub types: BTreeMap<&'static str, i64>,
}

/// Somebody or something that has many entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Its id.
    pub id: Uuid,
    /// Its name, empty if the directory lacks it.
    pub name: String,
    /// How many entries.
    pub entries: i64,
}

/// Counts of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The buckets that have entries, by their beginning.
    pub buckets: BTreeMap<Timestamp, Bucket>,
    /// By organization, the most first.
    pub organizations: Vec<Top>,
    /// By client app, by normalized name; empty for those that have none.
    pub apps: BTreeMap<String, i64>,
    /// Workspaces, the most first.
    pub workspaces: Vec<Top>,
    /// Who initiated connections, the most first, as far as that is known.
    pub users: Vec<Top>,
    /// Addresses of clients, the most first.
    pub addresses: Vec<(IpAddr, i64)>,
    /// Before this time nothing was counted, because the budget was used up; none if everything was.
    pub counted_from: Option<Timestamp>,
    /// The same for `workspaces`, `users` and `addresses`, which need a look at every row.
    pub ranked_from: Option<Timestamp>,
}

/// A count of some rows.
struct Group {
    bucket: Timestamp,
    organization_id: Uuid,
    method: Method,
    app_name: String,
    is_open: bool,
    entries: i64,
}

const DAY: TimeDelta = TimeDelta::days(1);

impl Store {
    /// Counts what matches `search` and lies in `reach`, of one snapshot.
    pub async fn stats(
        &self,
        search: &Search,
        reach: &Reach,
        request: StatsRequest,
    ) -> Result<Result<Stats, Unreachable>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let filter = match Filter::resolve(&transaction, search, reach, request.now).await? {
            Ok(filter) => filter,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        let mut stats = Stats::default();
        if filter.matches_nothing() {
            return Ok(Ok(stats));
        }
        // Half of it for each: rankings of what was counted, rather than counts alone.
        let budget = Budget::new(request.budget / 2);
        let whole = Calendar::of(&transaction).await?.window(&filter);
        let whole = whole.map(|whole| Window { from: whole.from.max(request.from), to: whole.to.min(request.to) });
        let whole = whole.filter(|whole| whole.from < whole.to);
        let by_days = filter.shape() == Shape::Broad
            && filter.connected_after.is_none()
            && filter.connected_before.is_none()
            && request.bucket.num_seconds() % DAY.num_seconds() == 0
            && start_of(request.from.date_naive()) == request.from
            && start_of(request.to.date_naive()) == request.to;
        let mut organizations = HashMap::new();
        let groups = if by_days {
            from_counts(&transaction, &filter, request).await?
        } else {
            let (groups, stopped_at) = from_rows(&transaction, &filter, whole, request, budget).await?;
            stats.counted_from = stopped_at;
            groups
        };
        for group in groups {
            *organizations.entry(group.organization_id).or_default() += group.entries;
            stats.add(group);
        }
        let (mut workspaces, mut users, mut addresses) = (HashMap::new(), HashMap::new(), HashMap::new());
        let budget = Budget::new(request.budget / 2);
        let mut scan = Scan::of(whole.filter(|_| request.top > 0));
        while let Some(window) = scan.window() {
            if budget.is_used_up() {
                stats.ranked_from = Some(window.to);
                break;
            }
            let began = Instant::now();
            rank(&transaction, &filter, window, WORKSPACE, &mut workspaces).await?;
            rank(&transaction, &filter, window, USER, &mut users).await?;
            rank(&transaction, &filter, window, ADDRESS, &mut addresses).await?;
            scan.done(window.from, began.elapsed());
        }
        let all = organizations.len();
        stats.organizations = named(&transaction, "organizations", "name", organizations, all).await?;
        stats.workspaces = named(&transaction, "workspaces", "name", workspaces, request.top).await?;
        stats.users = named(&transaction, "users", "username", users, request.top).await?;
        stats.addresses = most(addresses, request.top);
        transaction.end();
        Ok(Ok(stats))
    }
}

impl Stats {
    fn add(&mut self, group: Group) {
        let bucket = self.buckets.entry(group.bucket).or_default();
        let status = match (group.is_open, group.method.is_web()) {
            (true, _) => "ongoing",
            (false, true) => "web",
            (false, false) => "completed",
        };
        *bucket.methods.entry(group.method.as_str()).or_default() += group.entries;
        let app = Some(group.app_name.as_str()).filter(|name| !name.is_empty());
        *bucket.types.entry(ConnectionType::of(group.method, app).as_str()).or_default() += group.entries;
        *bucket.statuses.entry(status).or_default() += group.entries;
        *self.apps.entry(group.app_name).or_default() += group.entries;
    }
}

/// Whole days, from the counts.
async fn from_counts(
    transaction: &Transaction<'_>,
    filter: &Filter,
    request: StatsRequest,
) -> Result<Vec<Group>, StoreError> {
    let mut conditions = Conditions::of_counts(filter);
    conditions.add("day >= ?", request.from.date_naive());
    conditions.add("day < ?", request.to.date_naive());
    let bucket = bucket_of(&mut conditions, "day::timestamp AT TIME ZONE 'UTC'", request.bucket);
    let condition = conditions.sql();
    let part = |is_open: bool, entries: &str| {
        format!(
            "SELECT {bucket} AS bucket, organization_id, method, app_name, {is_open} AS is_open, sum({entries})::bigint AS entries\n\
             FROM connection_log_counts WHERE {condition} GROUP BY 1, 2, 3, 4"
        )
    };
    // Web events have no end, and are not open.
    let (ended, open) = (
        part(false, "CASE WHEN method <= 2 THEN ended ELSE entries END"),
        part(true, "CASE WHEN method <= 2 THEN entries - ended END"),
    );
    let parts = match filter.status {
        Some(Status::Completed) => ended,
        Some(Status::Ongoing) => open,
        None => format!("{ended}\nUNION ALL\n{open}"),
    };
    let mut groups = read(
        transaction,
        &format!("-- stats_of_days\nSELECT * FROM (\n{parts}\n) AS parts WHERE entries > 0"),
        &conditions,
    )
    .await?;
    groups.retain(|group| group.entries > 0);
    Ok(groups)
}

/// Row by row, newest first, as far as the budget goes.
async fn from_rows(
    transaction: &Transaction<'_>,
    filter: &Filter,
    whole: Option<Window>,
    request: StatsRequest,
    budget: Budget,
) -> Result<(Vec<Group>, Option<Timestamp>), StoreError> {
    let mut groups = Vec::new();
    let mut scan = Scan::of(whole);
    while let Some(window) = scan.window() {
        if budget.is_used_up() {
            return Ok((groups, Some(window.to)));
        }
        let began = Instant::now();
        let mut conditions = Conditions::of(filter, By::Row);
        conditions.add_span(window.from, window.to);
        let bucket = bucket_of(&mut conditions, "connect_time", request.bucket);
        let sql = format!(
            "-- stats_of_rows\nSELECT bucket, t.organization_id, method, app_name, is_open, sum(entries)::bigint AS entries FROM (\n\
             SELECT {bucket} AS bucket, target, method, coalesce(app_name, '') AS app_name,\n\
             disconnect_time IS NULL AND method <= 2 AS is_open, count(*) AS entries {} GROUP BY 1, 2, 3, 4, 5\n\
             ) AS counted JOIN targets AS t USING (target) GROUP BY 1, 2, 3, 4, 5",
            conditions.on("connection_logs")
        );
        groups.extend(read(transaction, &sql, &conditions).await?);
        scan.done(window.from, began.elapsed());
    }
    Ok((groups, None))
}

fn bucket_of(conditions: &mut Conditions, time: &str, bucket: TimeDelta) -> String {
    let seconds = conditions.bind(bucket.as_seconds_f64());
    format!("date_bin(make_interval(secs => {seconds}), {time}, 'epoch'::timestamptz)")
}

async fn read(transaction: &Transaction<'_>, sql: &str, conditions: &Conditions) -> Result<Vec<Group>, StoreError> {
    let rows = query_composed(transaction, sql, &conditions.parameters()).await?;
    rows.iter()
        .map(|row| {
            let method: i16 = row.try_get("method")?;
            Ok(Group {
                bucket: row.try_get("bucket")?,
                organization_id: row.try_get("organization_id")?,
                method: Method::from_code(method)
                    .ok_or_else(|| StoreError::Inconsistent(format!("there is the unknown method {method}")))?,
                app_name: row.try_get("app_name")?,
                is_open: row.try_get("is_open")?,
                entries: row.try_get("entries")?,
            })
        })
        .collect()
}

/// What entries are ranked by.
#[derive(Clone, Copy)]
struct Rank {
    /// The column that rows have of it.
    column: &'static str,
    /// What it is over counts by that column, and with what these are joined for it.
    is: &'static str,
    join: &'static str,
}

const WORKSPACE: Rank = Rank { column: "target", is: "workspace_id", join: "JOIN targets USING (target)" };
const USER: Rank = Rank { column: "user_id", is: "user_id", join: "" };
const ADDRESS: Rank = Rank { column: "ip", is: "ip", join: "" };

async fn rank<K: FromSqlOwned + Eq + Hash>(
    transaction: &Transaction<'_>,
    filter: &Filter,
    window: Window,
    Rank { column, is, join }: Rank,
    totals: &mut HashMap<K, i64>,
) -> Result<(), StoreError> {
    let mut conditions = Conditions::of(filter, By::Row);
    conditions.add_span(window.from, window.to);
    let sql = format!(
        "-- rank\nSELECT {is} AS id, sum(entries)::bigint AS entries FROM (\n\
         SELECT {column}, count(*) AS entries {} AND {column} IS NOT NULL GROUP BY 1\n\
         ) AS counted {join} GROUP BY 1",
        conditions.on("connection_logs")
    );
    for row in query_composed(transaction, &sql, &conditions.parameters()).await? {
        *totals.entry(row.try_get("id")?).or_default() += row.try_get::<_, i64>("entries")?;
    }
    Ok(())
}

/// Those that have most.
fn most<K: Ord + Copy>(totals: HashMap<K, i64>, top: usize) -> Vec<(K, i64)> {
    let mut ranked: Vec<(K, i64)> = totals.into_iter().collect();
    ranked.sort_by_key(|(key, entries)| (std::cmp::Reverse(*entries), *key));
    ranked.truncate(top);
    ranked
}

/// Those that have most, with their names.
async fn named(
    transaction: &Transaction<'_>,
    table: &str,
    column: &str,
    totals: HashMap<Uuid, i64>,
    top: usize,
) -> Result<Vec<Top>, StoreError> {
    let ranked = most(totals, top);
    let ids: Vec<Uuid> = ranked.iter().map(|(id, _)| *id).collect();
    let sql = format!("-- names\nSELECT id, {column} AS name FROM {table} WHERE id = ANY($1)");
    let mut names: HashMap<Uuid, String> = HashMap::new();
    for row in query(transaction, &sql, &[&ids]).await? {
        names.insert(row.try_get("id")?, row.try_get("name")?);
    }
    Ok(ranked
        .into_iter()
        .map(|(id, entries)| Top { id, name: names.remove(&id).unwrap_or_default(), entries })
        .collect())
}
