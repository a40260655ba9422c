//! Writing what changed: rows, what is ongoing, counts and the change feed, in one exchange, or two with a `COPY`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use connlog_model::event::WebEvent;
use connlog_model::identity::BootNumber;
use tokio_postgres::Row;
use uuid::Uuid;

use super::contradictions::{self, Contradiction};
use super::counts::{self, Deltas};
use super::held::Held;
use crate::StoreError;
use crate::argument::Argument;
use crate::days::{day_of, day_table, start_of};
use crate::row::{COPY, INSERT, Recorded, RowArrays, column, end_sql, update_sql};
use crate::session::{Step, encode_rows};

/// So many rows are inserted; more are copied, which costs half for each, and an exchange more.
const FEW: usize = 20;

const TAKE_UNKNOWN_STARTS: &str = "-- take_unknown_starts
SELECT take_unknown_starts($1, $2)";

const ADD_ONGOING: &str = "-- add_ongoing
INSERT INTO ongoing (id, agent, target, connect_time, boot)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::integer[]) AS k (id, agent, target, connect_time, boot)
ON CONFLICT (id) DO UPDATE SET boot = excluded.boot";

const REMOVE_ONGOING: &str = "-- remove_ongoing
DELETE FROM ongoing WHERE id = ANY($1::uuid[])";

/// Events that come a little out of order do not note it again, each.
const ROOM_IN_ORDER: TimeDelta = TimeDelta::minutes(10);

const OPEN_SINCE: &str = "-- note_open
UPDATE agents AS a SET open_since = least(a.open_since, k.since)
FROM unnest($1::bigint[], $2::timestamptz[]) AS k (agent, since)
WHERE a.agent = ANY($1::bigint[]) AND a.agent = k.agent";

const CHANGED: &str = "-- add_changes
INSERT INTO changes (ids, days) VALUES ($1, $2)";

/// What is to be written.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    /// Connections that have no row yet.
    new: Vec<Recorded>,
    /// Web events that have no row yet, each with the number of its target.
    web: Vec<(&'a WebEvent, i64)>,
    /// Rows that stay where they are.
    changed: Vec<Recorded>,
    /// Those of which only the end is new.
    ended: Vec<Recorded>,
    /// Rows whose beginning was unknown, as they were: they are written anew where they belong, and are among `new`.
    moved: Vec<Recorded>,
    /// What is kept beside the rows.
    pub(crate) contradictions: Vec<Contradiction>,
    counts: Deltas,
    listed: Vec<Recorded>,
    unlisted: Vec<Uuid>,
    /// Agents of which something is open from an earlier time on than was noted.
    opened: BTreeMap<i64, Timestamp>,
}

impl<'a> Changes<'a> {
    /// Adds a web event.
    pub(super) fn add_web(&mut self, event: &'a WebEvent, target: i64) {
        self.counts.add_web(event);
        self.web.push((event, target));
    }

    /// Adds what became of a connection, if it is not as it was.
    pub(crate) fn add(&mut self, held: &Held<'_>, before: Option<Recorded>, after: Recorded) {
        if before.as_ref() == Some(&after) {
            return;
        }
        let is_closed = held.is_closed(day_of(after.connection.connect_time));
        if let Some(before) = &before {
            self.counts.add(&before.connection, -1);
            let stays = after.is_open() && !moves(before, &after);
            if before.is_open() && !stays && held.is_closed(day_of(before.connection.connect_time)) {
                self.unlisted.push(before.connection.id);
            }
        }
        self.counts.add(&after.connection, 1);
        if after.is_open() {
            if is_closed {
                self.listed.push(after.clone());
            }
            let Connection { connect_time, .. } = after.connection;
            let noted = held.agents.get(&after.numbers.agent).copied().flatten();
            if noted.is_none_or(|noted| connect_time < noted) {
                let since = (connect_time - ROOM_IN_ORDER).max(start_of(day_of(connect_time)));
                let earliest = self.opened.entry(after.numbers.agent).or_insert(since);
                *earliest = since.min(*earliest);
            }
        }
        match before {
            None => self.new.push(after),
            Some(before) if moves(&before, &after) => {
                self.moved.push(before);
                self.new.push(after);
            }
            Some(before) if only_ends(&before, &after) => self.ended.push(after),
            Some(_) => self.changed.push(after),
        }
    }

    /// Writes everything, with `further` steps, and returns their rows. A row that is not there as it was read makes the
    /// transaction begin anew.
    pub(crate) async fn save(
        mut self,
        held: &Held<'_>,
        further: Vec<Step<'_>>,
        shard: i16,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        // One order for all writers, that of the index of times.
        self.new.sort_unstable_by_key(|row| (row.connection.connect_time, row.connection.id));
        self.web.sort_unstable_by_key(|(event, _)| (event.time, event.row_id()));
        let updates = Updates::of(&self.changed, update_sql);
        let ends = Updates::of(&self.ended, end_sql);
        let takes = taken(&self.moved);
        let mut rows = RowArrays::default();
        self.new.iter().for_each(|row| rows.push(row));
        self.web.iter().for_each(|(event, target)| rows.push_web(event, *target));
        let listed = Listed::of(&self.listed);
        let (opened, since): (Vec<i64>, Vec<Timestamp>) = self.opened.iter().unzip();
        let contradictions = contradictions::Columns::of(&self.contradictions);
        let counts = counts::Columns::of(&self.counts, shard);
        let feed = self.feed();

        let mut steps = Vec::new();
        steps.extend(updates.iter().map(|update| Step::Query(&update.sql, update.rows.parameters())));
        steps.extend(ends.iter().map(|end| Step::Query(&end.sql, end.rows.end_parameters())));
        steps.extend(takes.iter().map(|(day, ids)| Step::Query(TAKE_UNKNOWN_STARTS, vec![day, ids])));
        let checked = steps.len();
        steps.extend(further);
        let answered = steps.len();
        // One that moves is listed anew, with its day.
        if !self.unlisted.is_empty() {
            steps.push(Step::Query(REMOVE_ONGOING, vec![&self.unlisted]));
        }
        if !self.listed.is_empty() {
            steps.push(Step::Query(ADD_ONGOING, listed.parameters()));
        }
        if !opened.is_empty() {
            steps.push(Step::Query(OPEN_SINCE, vec![&opened, &since]));
        }
        steps.extend(contradictions.step());
        steps.extend(counts.step());
        if !feed.0.is_empty() {
            steps.push(Step::Query(CHANGED, vec![&feed.0, &feed.1]));
        }
        if rows.len() > FEW && !held.transaction.is_pooled() {
            steps.push(Step::Copy(&COPY, encode_rows(&rows)?, rows.len()));
        } else if rows.len() > 0 {
            steps.push(Step::Query(&INSERT, rows.parameters()));
        }
        let is_inserted = matches!(steps.last(), Some(Step::Query(sql, _)) if *sql == INSERT.as_str());
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let mut answers = held.transaction.send(None, &steps).await?;
        let written: usize = answers[..checked].iter().map(Vec::len).sum();
        let expected = self.changed.len() + self.ended.len() + self.moved.len();
        if written != expected {
            return Err(StoreError::Overtaken(format!("{written} of {expected} rows were as they had been read")));
        }
        if let Some(came) = answers.last().map(Vec::len).filter(|came| is_inserted && *came != rows.len()) {
            return Err(StoreError::LeftOut { of: rows.len(), came });
        }
        answers.truncate(answered);
        Ok(answers.split_off(checked))
    }

    /// What the change feed says: rows and days.
    fn feed(&self) -> (Vec<Uuid>, Vec<NaiveDate>) {
        let rows = self.new.iter().chain(&self.changed).chain(&self.ended).chain(&self.moved);
        let rows = rows.map(|row| (row.connection.id, day_of(row.connection.connect_time)));
        let web = self.web.iter().map(|(event, _)| (event.row_id(), day_of(event.time)));
        let (ids, days): (BTreeSet<Uuid>, BTreeSet<NaiveDate>) = rows.chain(web).unzip();
        (ids.into_iter().collect(), days.into_iter().collect())
    }
}

/// Whether a row has to be written anew: nothing else may change when it began.
fn moves(before: &Recorded, after: &Recorded) -> bool {
    let start = |row: &Recorded| (row.connection.connect_time, row.connection.start_source);
    start(before) != start(after)
}

/// Whether nothing but the end, and the boot that goes with it, is new.
fn only_ends(before: &Recorded, after: &Recorded) -> bool {
    let Connection { end, boot, .. } = &after.connection;
    let ended = Connection { end: end.clone(), boot: *boot, ..before.connection.clone() };
    before.numbers == after.numbers && ended == after.connection
}

/// The rows of one day that are updated.
struct Updates<'a> {
    sql: String,
    rows: RowArrays<'a>,
}

impl<'a> Updates<'a> {
    fn of(changed: &'a [Recorded], sql: impl Fn(&str) -> String) -> Vec<Self> {
        let mut days: BTreeMap<NaiveDate, RowArrays<'a>> = BTreeMap::new();
        for row in changed {
            days.entry(day_of(row.connection.connect_time)).or_default().push(row);
        }
        days.into_iter().map(|(day, rows)| Self { sql: sql(&day_table(day)), rows }).collect()
    }
}

/// The rows that are taken out of each day.
fn taken(moved: &[Recorded]) -> Vec<(NaiveDate, Vec<Uuid>)> {
    let mut days: BTreeMap<NaiveDate, Vec<Uuid>> = BTreeMap::new();
    for row in moved {
        days.entry(day_of(row.connection.connect_time)).or_default().push(row.connection.id);
    }
    days.into_iter().collect()
}

/// What becomes ongoing, one array a column.
struct Listed {
    id: Vec<Uuid>,
    agent: Vec<i64>,
    target: Vec<i64>,
    connect_time: Vec<Timestamp>,
    boot: Vec<Option<i32>>,
}

impl Listed {
    fn of(rows: &[Recorded]) -> Self {
        Self {
            id: column(rows, |row| row.connection.id),
            agent: column(rows, |row| row.numbers.agent),
            target: column(rows, |row| row.numbers.target),
            connect_time: column(rows, |row| row.connection.connect_time),
            boot: column(rows, |row| row.connection.boot.map(BootNumber::code)),
        }
    }

    fn parameters(&self) -> Vec<&dyn Argument> {
        vec![&self.id, &self.agent, &self.target, &self.connect_time, &self.boot]
    }
}
