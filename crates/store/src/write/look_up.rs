//! Finding the rows of a batch by their ids, under the locks.
//!
//! Days are named, so that each is one look into its own index of ids, whatever the planner believes of them. Most batches are about
//! the days that are being written, which are looked up together with the locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{Days, NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::held::Held;
use crate::argument::Argument;
use crate::days::{MAX_DAYS_PER_STATEMENT, day_of, day_table, windows};
use crate::row::{ALL_COLUMNS, Found, Recorded, RecordedWeb, found, id_of, target_of};
use crate::session::{Step, query};
use crate::{Store, StoreError};

/// How far before a start that is said a row is looked for: clocks of one connection's events differ.
const KNOWN_START_MARGIN: TimeDelta = TimeDelta::days(1);
/// How far back a row is looked for if the events do not say when it began. Documented in `proto/README.md`.
pub(crate) const LOOK_BACK: TimeDelta = connlog_model::connection::REACH;
/// Rows from later than this many days ago share one look-up; older ones are rare and have their own.
const NEAR: TimeDelta = TimeDelta::days(8);
/// [`MAX_DAYS_PER_STATEMENT`], as a number of elements.
#[expect(clippy::cast_possible_truncation, reason = "it is a small constant")]
pub(crate) const MOST_DAYS: usize = MAX_DAYS_PER_STATEMENT as usize;
/// How far in the future a row can lie: events are accepted up to a day ahead.
const HORIZON: Days = Days::new(2);

/// Closed days are looked at only for what is listed here, unless the events say when it began.
pub(crate) const ONGOING: &str = "-- ongoing_by_id
SELECT id, connect_time FROM ongoing WHERE id = ANY($1::uuid[])";

/// What is looked for, and since when it can be there.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// All of it.
    ids: Vec<Uuid>,
    /// Of those whose beginning is said: not earlier than this.
    known: Vec<(Uuid, Timestamp)>,
    /// Those whose beginning nobody says, and the earliest time of an event: found anywhere.
    unknown: Vec<(Uuid, Timestamp)>,
}

impl Wanted {
    /// Looks for `id`, whose events say that it began at `start`, or say nothing, the earliest being from `earliest`.
    pub(crate) fn add(&mut self, id: Uuid, start: Option<Timestamp>, earliest: Timestamp) {
        self.ids.push(id);
        match start {
            Some(start) => self.known.push((id, start - KNOWN_START_MARGIN)),
            None => self.unknown.push((id, earliest)),
        }
    }

    /// Looks for the web event `id`, on its own day.
    pub(crate) fn add_web(&mut self, id: Uuid, time: Timestamp) {
        self.ids.push(id);
        self.known.push((id, time));
    }

    /// All ids.
    pub(crate) fn ids(&self) -> &[Uuid] {
        &self.ids
    }

    /// The first day that all ids are looked for on, and the ids that are looked for from earlier days on, each with its first. The days
    /// that are being written are among those of all: another source may have put the beginning on another one.
    fn split(&self, closed_before: Timestamp, now: Timestamp) -> (Option<NaiveDate>, Vec<(Uuid, Timestamp)>) {
        let (near, far): (Vec<_>, Vec<_>) = self.known.iter().partition(|(_, bound)| *bound >= now - NEAR);
        let written = (!self.ids.is_empty()).then_some(closed_before);
        (near.into_iter().map(|(_, bound)| bound).chain(written).min().map(day_of), far)
    }

    /// The days among `attached` that all ids are looked for on.
    pub(crate) fn near_days(
        &self,
        attached: &BTreeSet<NaiveDate>,
        closed_before: Timestamp,
        now: Timestamp,
    ) -> Vec<NaiveDate> {
        let (first, _) = self.split(closed_before, now);
        first.map(|first| attached.range(first..).copied().collect()).unwrap_or_default()
    }
}

/// The look-up of ids in some days; none in no days.
pub(crate) fn look_up_sql(days: &[NaiveDate]) -> Option<String> {
    let of_day =
        |day: &NaiveDate| format!("SELECT {} FROM {} WHERE id = ANY($1::uuid[])", *ALL_COLUMNS, day_table(*day));
    let selects: Vec<String> = days.iter().map(of_day).collect();
    (!days.is_empty()).then(|| format!("-- look_up\n{}", selects.join("\nUNION ALL ")))
}

/// Rows that were found.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Connections, by row id.
    pub(crate) connections: HashMap<Uuid, Recorded>,
    /// Web events, by row id and day: other days may have the id, too.
    pub(crate) web: HashMap<(Uuid, NaiveDate), RecordedWeb>,
    /// Connections that were found nowhere near, and looked for as far back as any are.
    pub(crate) looked_back: Vec<Uuid>,
}

/// What was found with the locks: the days that were looked at, their rows, and the rows of [`ONGOING`].
pub(crate) struct First {
    pub(crate) days: Vec<NaiveDate>,
    pub(crate) rows: Vec<Row>,
    pub(crate) ongoing: Vec<Row>,
}

impl Store {
    /// The rows of what is wanted.
    pub(crate) async fn look_up(
        &self,
        held: &Held<'_>,
        wanted: &Wanted,
        first: First,
        now: Timestamp,
    ) -> Result<Rows, StoreError> {
        let mut search = Search { store: self, held, found: Rows::default() };
        let days = wanted.near_days(&held.attached, held.closed_before, now);
        // What was guessed is right, but for days that came, were closed or went meanwhile.
        let is_right =
            days.iter().all(|day| first.days.contains(day)) && first.days.iter().all(|day| held.attached.contains(day));
        if is_right {
            search.note(&first.rows).await?;
        } else {
            search.look(&days, &wanted.ids).await?;
        }
        let (_, far) = wanted.split(held.closed_before, now);
        let latest = now + HORIZON;
        if let Some(earliest) = far.iter().map(|(_, bound)| *bound).min() {
            let ids: Vec<Uuid> = far.iter().map(|(id, _)| *id).collect();
            search.look_windows(&ids, earliest, latest).await?;
        }
        let mut listed: BTreeMap<NaiveDate, Vec<Uuid>> = BTreeMap::new();
        for row in &first.ongoing {
            let (id, connect_time): (Uuid, Timestamp) = (row.try_get(0)?, row.try_get(1)?);
            let day = day_of(connect_time);
            if !held.attached.contains(&day) {
                return Err(StoreError::Detached(day));
            }
            if !search.found.connections.contains_key(&id) {
                listed.entry(day).or_default().push(id);
            }
        }
        for (day, ids) in listed {
            search.look(&[day], &ids).await?;
        }
        let lost: Vec<_> = wanted.unknown.iter().filter(|(id, _)| !search.found.connections.contains_key(id)).collect();
        if let Some(earliest) = lost.iter().map(|(_, earliest)| *earliest).min() {
            let ids: Vec<Uuid> = lost.iter().map(|(id, _)| *id).collect();
            search.look_windows(&ids, earliest - LOOK_BACK, held.closed_before.max(earliest - LOOK_BACK)).await?;
            search.found.looked_back = ids;
        }
        Ok(search.found)
    }
}

struct Search<'a> {
    store: &'a Store,
    held: &'a Held<'a>,
    found: Rows,
}

impl Search<'_> {
    async fn look(&mut self, days: &[NaiveDate], ids: &[Uuid]) -> Result<(), StoreError> {
        for some in days.chunks(MOST_DAYS) {
            let Some(sql) = look_up_sql(some) else { continue };
            let rows = query(&self.held.transaction, &sql, &[&ids as &dyn Argument]).await?;
            self.note(&rows).await?;
        }
        Ok(())
    }

    /// Looks at the attached days in a span, a few at a time.
    async fn look_windows(&mut self, ids: &[Uuid], earliest: Timestamp, latest: Timestamp) -> Result<(), StoreError> {
        for (from, to) in windows(earliest, latest) {
            let days: Vec<NaiveDate> = self.held.attached.range(day_of(from)..day_of(to)).copied().collect();
            self.look(&days, ids).await?;
        }
        Ok(())
    }

    async fn note(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let numbers = rows.iter().map(target_of).collect::<Result<BTreeSet<i64>, _>>()?;
        let targets = self.store.targets(&self.held.transaction, numbers).await?;
        for row in rows {
            match found(row, &targets)? {
                Found::Connection(recorded) => {
                    self.found.connections.entry(recorded.connection.id).or_insert(*recorded);
                }
                Found::Web(event) => {
                    self.found.web.insert((id_of(row)?, day_of(event.time)), *event);
                }
            }
        }
        Ok(())
    }
}

/// The steps that look up what is wanted together with the locks: in the days that are believed to be attached.
pub(crate) fn first_steps<'a>(ids: &'a &'a [Uuid], look_up: Option<&'a str>) -> Vec<Step<'a>> {
    let mut steps = vec![Step::Query(ONGOING, vec![ids])];
    steps.extend(look_up.map(|sql| Step::Query(sql, vec![ids])));
    steps
}
