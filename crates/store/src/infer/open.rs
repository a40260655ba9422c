//! What agents have open, under their locks, and ending it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, End};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::days::{day_of, day_table};
use crate::row::{ALL_COLUMNS, Found, Recorded, found, target_of};
use crate::session::Step;
use crate::write::held::Held;
use crate::write::look_up::MOST_DAYS;
use crate::write::save::Changes;
use crate::{Store, StoreError};

const ONGOING: &str = "-- ongoing_of_agents
SELECT id, connect_time FROM ongoing WHERE agent = ANY($1::bigint[])";

const TARGETS: &str = "-- targets_of_agents
SELECT target FROM targets WHERE agent = ANY($1::bigint[])";

/// A time that is later by less is not worth being noted.
const WORTH_NOTING: TimeDelta = TimeDelta::hours(1);

const NOTE: &str = "-- note_what_is_open
UPDATE agents AS a SET open_since = k.since FROM unnest($1::bigint[], $2::timestamptz[]) AS k (agent, since)
WHERE a.agent = ANY($1::bigint[]) AND a.agent = k.agent AND NOT EXISTS (SELECT FROM unattached_days())";

/// Since when something is open of agents, now that all of it was looked at: without this, each look begins at what once was open.
/// While somebody keeps a day detached, nobody can have looked at all.
#[derive(Default)]
pub(super) struct Noted {
    agents: Vec<i64>,
    since: Vec<Option<Timestamp>>,
}

impl Noted {
    /// Of the agents that are held, whose open connections are `kept`, by the answers to [`steps`].
    pub(super) fn of<'a>(
        held: &Held<'_>,
        answers: &[Vec<Row>],
        kept: impl IntoIterator<Item = &'a Recorded>,
    ) -> Result<Self, StoreError> {
        let mut noted = Self::default();
        // What is listed on a day that is not attached, nobody can look at.
        for row in answers.first().map(Vec::as_slice).unwrap_or_default() {
            if !held.attached.contains(&day_of(row.try_get(1)?)) {
                return Ok(noted);
            }
        }
        let mut earliest: BTreeMap<i64, Timestamp> = BTreeMap::new();
        for Recorded { numbers, connection } in kept {
            let since = earliest.entry(numbers.agent).or_insert(connection.connect_time);
            *since = connection.connect_time.min(*since);
        }
        for (agent, before) in &held.agents {
            let Some(before) = before else { continue };
            let since = earliest.get(agent).copied();
            if since.is_none_or(|since| since >= *before + WORTH_NOTING) {
                noted.agents.push(*agent);
                noted.since.push(since);
            }
        }
        Ok(noted)
    }

    /// Notes it.
    pub(super) fn steps(&self) -> Vec<Step<'_>> {
        let step = || Step::Query(NOTE, vec![&self.agents, &self.since]);
        (!self.agents.is_empty()).then(step).into_iter().collect()
    }
}

/// The steps that come with the locks of agents whose open connections are wanted.
pub(super) fn steps<'a>(agents: &'a &'a [i64]) -> Vec<Step<'a>> {
    vec![Step::Query(ONGOING, vec![agents]), Step::Query(TARGETS, vec![agents])]
}

/// The open connections of the agents that are held, by the answers to [`steps`]. Those that are listed on a day that is not
/// attached are passed over: the rest of the agent is not held up by them.
pub(super) async fn open(store: &Store, held: &Held<'_>, answers: &[Vec<Row>]) -> Result<Vec<Recorded>, StoreError> {
    // Without this, each sign of life of an agent reads all that it had in the last days.
    let Some(since) = held.agents.values().flatten().min() else { return Ok(Vec::new()) };
    let [ongoing, targets] = answers else {
        return Err(StoreError::Inconsistent("two statements have two answers".to_owned()));
    };
    let targets = targets.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let mut listed: BTreeMap<NaiveDate, Vec<Uuid>> = BTreeMap::new();
    for row in ongoing {
        let day = day_of(row.try_get(1)?);
        if held.attached.contains(&day) {
            listed.entry(day).or_default().push(row.try_get(0)?);
        }
    }
    let is_open = "disconnect_time IS NULL AND method <= 2";
    let written: Vec<String> = held
        .written_days()
        .filter(|day| *day >= day_of(*since))
        .map(|day| {
            format!(
                "SELECT {} FROM {} WHERE target = ANY($1::bigint[]) AND connect_time >= $2 AND {is_open}",
                *ALL_COLUMNS,
                day_table(day)
            )
        })
        .collect();
    let of_written: Vec<String> =
        written.chunks(MOST_DAYS).map(|some| format!("-- open_of_agents\n{}", some.join("\nUNION ALL "))).collect();
    let of_closed: Vec<(String, Vec<Uuid>)> = listed
        .into_iter()
        .map(|(day, ids)| {
            let sql = format!(
                "-- open_of_closed\nSELECT {} FROM {} WHERE id = ANY($1::uuid[]) AND {is_open}",
                *ALL_COLUMNS,
                day_table(day)
            );
            (sql, ids)
        })
        .collect();
    let mut steps: Vec<Step<'_>> = of_closed.iter().map(|(sql, ids)| Step::Query(sql, vec![ids])).collect();
    steps.extend(of_written.iter().map(|sql| Step::Query(sql, vec![&targets, since])));
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = held.transaction.send(None, &steps).await?.into_iter().flatten().collect();
    let numbers = rows.iter().map(target_of).collect::<Result<BTreeSet<i64>, _>>()?;
    let targets = store.targets(&held.transaction, numbers).await?;
    let mut open = Vec::with_capacity(rows.len());
    for row in &rows {
        // Another agent's, if a name was given twice to one workspace: its lock is not held.
        if let Found::Connection(recorded) = found(row, &targets)?
            && held.agents.contains_key(&recorded.numbers.agent)
        {
            open.push(*recorded);
        }
    }
    open.sort_unstable_by_key(|recorded| recorded.connection.id);
    Ok(open)
}

/// Ends a connection at `time`, but not before it began, because of `reason`. Returns it as it is then.
pub(super) fn end(
    changes: &mut Changes<'_>,
    held: &Held<'_>,
    recorded: Recorded,
    time: Timestamp,
    reason: &str,
) -> Connection {
    let mut after = recorded.clone();
    let time = time.max(after.connection.connect_time);
    after.connection.end = Some(End::Inferred { time, reason: reason.to_owned() });
    after.connection.boot = None;
    let ended = after.connection.clone();
    changes.add(held, Some(recorded), after);
    ended
}
