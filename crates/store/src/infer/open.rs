//! What agents have open, under their locks, and ending it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, End};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::days::{day_of, day_table};
use crate::row::{ALL_COLUMNS, Found, Recorded, found, target_of};
use crate::session::Step;
use crate::write::held::Held;
use crate::write::save::Changes;
use crate::{Store, StoreError};

const ONGOING: &str = "-- ongoing_of_agents
SELECT id, connect_time FROM ongoing WHERE agent = ANY($1::bigint[])";

const TARGETS: &str = "-- targets_of_agents
SELECT target FROM targets WHERE agent = ANY($1::bigint[])";

const NOTHING_OPEN: &str = "-- note_nothing_open
UPDATE agents SET has_open = false WHERE agent = ANY($1::bigint[])";

/// Notes that agents have nothing open.
pub(super) fn nothing_open<'a>(agents: &'a &'a [i64]) -> Step<'a> {
    Step::Query(NOTHING_OPEN, vec![agents])
}

/// Whether something is listed on a day that is not attached: nobody can say then what is open.
pub(super) fn is_unseen(held: &Held<'_>, answers: &[Vec<Row>]) -> Result<bool, StoreError> {
    for row in answers.first().map(Vec::as_slice).unwrap_or_default() {
        let connect_time: Timestamp = row.try_get(1)?;
        if !held.attached.contains(&day_of(connect_time)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The steps that come with the locks of agents whose open connections are wanted.
pub(super) fn steps<'a>(agents: &'a &'a [i64]) -> Vec<Step<'a>> {
    vec![Step::Query(ONGOING, vec![agents]), Step::Query(TARGETS, vec![agents])]
}

/// The open connections of the agents that are held, by the answers to [`steps`]. Those that are listed on a day that is not
/// attached are passed over: the rest of the agent is not held up by them.
pub(super) async fn open(store: &Store, held: &Held<'_>, answers: &[Vec<Row>]) -> Result<Vec<Recorded>, StoreError> {
    // Without this, each sign of life of an agent that has nothing open reads all that it had in the last days.
    if !held.agents.values().any(|has_open| *has_open) {
        return Ok(Vec::new());
    }
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
        .map(|day| {
            format!("SELECT {} FROM {} WHERE target = ANY($1::bigint[]) AND {is_open}", *ALL_COLUMNS, day_table(day))
        })
        .collect();
    let of_written = format!("-- open_of_agents\n{}", written.join("\nUNION ALL "));
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
    if !written.is_empty() {
        steps.push(Step::Query(&of_written, vec![&targets]));
    }
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
