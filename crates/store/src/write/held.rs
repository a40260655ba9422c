//! A transaction that changes the log, once it holds its locks.
//!
//! The order of locks is the same everywhere: the log, agents in the order of their numbers, days, then counts. What is
//! read comes in later statements, whose snapshots are younger than the locks.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use tokio_postgres::Row;

use crate::session::{BEGIN_LOG_WRITE, Session, Step, Transaction};
use crate::{Store, StoreError};

/// `FOR NO KEY UPDATE`: nobody waits who merely refers to an agent.
const LOCK_AGENTS: &str = "-- lock_agents
SELECT agent, open_since FROM agents WHERE agent = ANY($1::bigint[]) ORDER BY agent FOR NO KEY UPDATE";

/// The same for who does not wait: an agent that somebody holds is alive.
const LOCK_FREE_AGENTS: &str = "-- lock_free_agents
SELECT agent, open_since FROM agents WHERE agent = ANY($1::bigint[]) ORDER BY agent FOR NO KEY UPDATE SKIP LOCKED";

/// A later statement than the locks: in one, the snapshot would be older than they are, and a batch that waited for a purge would
/// write below the floor that the purge just raised. `-infinity`, the floor before the first purge, is the earliest time that
/// the driver can hold. A day that is being detached is attached no more.
const BOUNDS: &str = "-- read_bounds
SELECT greatest(cutoff, '0001-01-01 00:00:00+00') AS cutoff, closed_before, ARRAY(
    SELECT right(child.relname, 8) FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'connection_logs'::regclass AND NOT inhdetachpending) AS days
FROM floor";

/// Who is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// All agents, as long as it takes.
    ForAll,
    /// Nobody: agents that somebody else holds are left out.
    ForNobody,
}

/// A transaction that holds the log and some agents.
pub(crate) struct Held<'a> {
    pub(crate) transaction: Transaction<'a>,
    /// What lies below is refused.
    pub(crate) floor: Timestamp,
    /// Days that begin before are closed.
    pub(crate) closed_before: Timestamp,
    /// The days that are attached.
    pub(crate) attached: BTreeSet<NaiveDate>,
    /// The agents that are held. What is open of each began at this time or later; none if nothing is open.
    pub(crate) agents: BTreeMap<i64, Option<Timestamp>>,
}

impl Held<'_> {
    /// The attached days that are not closed.
    pub(crate) fn written_days(&self) -> impl Iterator<Item = NaiveDate> {
        self.attached.range(self.closed_before.date_naive()..).copied()
    }

    /// Whether a day is closed.
    pub(crate) fn is_closed(&self, day: NaiveDate) -> bool {
        day < self.closed_before.date_naive()
    }
}

impl Store {
    /// Begins a transaction that holds `agents`, and returns it with the rows of `further` steps, which come after the locks
    /// and in the same exchange.
    pub(crate) async fn hold<'a>(
        &self,
        session: &'a mut Session,
        agents: &[i64],
        wait: Wait,
        further: Vec<Step<'_>>,
    ) -> Result<(Held<'a>, Vec<Vec<Row>>), StoreError> {
        let lock = match wait {
            Wait::ForAll => LOCK_AGENTS,
            Wait::ForNobody => LOCK_FREE_AGENTS,
        };
        let mut steps = vec![Step::Query(lock, vec![&agents]), Step::Query(BOUNDS, vec![])];
        steps.extend(further);
        let transaction = Transaction::of(session);
        let mut rows = transaction.send(Some(BEGIN_LOG_WRITE), &steps).await?.into_iter();
        let locked = rows.next().unwrap_or_default();
        let locked = locked.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let locked = locked.collect::<Result<BTreeMap<i64, Option<Timestamp>>, StoreError>>()?;
        if wait == Wait::ForAll && locked.len() != agents.len() {
            self.forget_numbers();
            return Err(StoreError::Overtaken(format!("{} of {} agents are there", locked.len(), agents.len())));
        }
        let bounds = rows.next().unwrap_or_default();
        let bounds = bounds.first().ok_or_else(|| StoreError::Inconsistent("floor has no row".to_owned()))?;
        let days: Vec<&str> = bounds.try_get("days")?;
        let held = Held {
            transaction,
            floor: bounds.try_get("cutoff")?,
            closed_before: bounds.try_get("closed_before")?,
            attached: days.iter().filter_map(|day| NaiveDate::parse_from_str(day, "%Y%m%d").ok()).collect(),
            agents: locked,
        };
        let mut known = self.days();
        known.attached.clone_from(&held.attached);
        known.closed_before = Some(held.closed_before);
        drop(known);
        Ok((held, rows.collect()))
    }
}
