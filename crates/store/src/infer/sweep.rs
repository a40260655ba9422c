//! The sweep: ends what silent and deleted agents had open, and the attendance that tells silence from an outage.

use chrono::{NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, REASON_AGENT_LOST, REASON_WORKSPACE_DELETED};
use std::collections::HashMap;
use uuid::Uuid;

use super::{SHARD, close};
use crate::session::{begin_write, query};
use crate::write::{counts, hold_floor};
use crate::{Store, StoreError, retry};

/// Most agents whose connections end in one transaction.
const AGENTS_PER_TRANSACTION: usize = 200;
/// Most connections that end in one transaction because of a deletion.
const CONNECTIONS_PER_TRANSACTION: i64 = 5_000;

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepOutcome {
    /// Another replica was sweeping, so nothing was done.
    pub busy: bool,
    /// Connections that were ended.
    pub closed: Vec<Connection>,
}

/// If nobody attended for longer than `$2`, the time that agents could be heard begins anew.
const ATTEND: &str = "-- attend
INSERT INTO ingest_attendance (heard_since, attended_at) VALUES ($1, $1)
ON CONFLICT (one) DO UPDATE
SET heard_since = CASE WHEN ingest_attendance.attended_at < $2 THEN excluded.heard_since ELSE ingest_attendance.heard_since END,
    attended_at = greatest(ingest_attendance.attended_at, excluded.attended_at)
RETURNING heard_since";

const TRY_SWEEP: &str = "-- try_sweep
SELECT pg_try_advisory_xact_lock(x'636f6e6e'::int, 4)";

/// Agents with a spool that is silent and something open under its boot, or of which every spool is.
const SILENT: &str = "-- silent_agents
SELECT DISTINCT p.agent_id FROM agent_presence p
WHERE p.last_seen_at < $1 AND EXISTS (
    SELECT FROM open_connections o WHERE o.agent_id = p.agent_id AND (o.boot_id = p.boot_id OR NOT EXISTS (
        SELECT FROM agent_presence q WHERE q.agent_id = p.agent_id AND q.last_seen_at >= $1)))
ORDER BY p.agent_id";

/// Only agents all of whose presence rows could be locked at once: a row that is held belongs to someone alive.
const LOCK_SILENT: &str = "-- lock_silent
SELECT agent_id, boot_id, last_seen_at, (SELECT count(*) FROM agent_presence q WHERE q.agent_id = p.agent_id) AS spools
FROM agent_presence p WHERE agent_id = ANY($1::uuid[]) ORDER BY agent_id, spool_id FOR UPDATE SKIP LOCKED";

const LOCK_THEIRS: &str = "-- lock_open_of_silent
SELECT id, agent_id, boot_id FROM open_connections WHERE agent_id = ANY($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED";

const DELETED: &str = "-- open_of_deleted
SELECT o.id, least(w.deleted_at, a.deleted_at) AS deleted_at
FROM open_connections o
LEFT JOIN homes USING (home, organization_id)
LEFT JOIN workspaces w ON w.id = homes.workspace_id AND w.deleted
LEFT JOIN workspace_agents a ON a.id = o.agent_id AND a.deleted
WHERE (w.id IS NOT NULL OR a.id IS NOT NULL) AND ($2::uuid IS NULL OR o.id = $2)
ORDER BY o.id LIMIT $1";

const LOCK_IDS: &str = "-- lock_open_of_deleted
SELECT id FROM open_connections WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED";

/// The last signs of life of an agent.
#[derive(Default)]
struct Signs {
    spools: i64,
    boots: Vec<(Uuid, Timestamp)>,
}

impl Signs {
    /// Of the boot that a connection is open under; of the agent, if no spool has that boot any more.
    fn last_of(&self, boot_id: Option<Uuid>) -> Option<Timestamp> {
        let of_boot = self.boots.iter().filter(|(boot, _)| Some(*boot) == boot_id).map(|(_, seen)| *seen).max();
        of_boot.or_else(|| self.boots.iter().map(|(_, seen)| *seen).max())
    }
}

impl SweepOutcome {
    fn add(&mut self, part: Self) {
        self.closed.extend(part.closed);
        self.busy |= part.busy;
    }
}

impl Store {
    /// Notes that an ingest is listening and can write. A pause of more than `longest_pause` before this call was an
    /// outage: silence is counted from `now` on.
    pub async fn attend(&self, now: Timestamp, longest_pause: TimeDelta) -> Result<Timestamp, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(ATTEND, &[&now, &(now - longest_pause)]).await?.try_get(0)?)
    }

    /// Ends what agents had open that were silent for longer than `lost_after`, at their last sign of life. Time during
    /// which nobody could have heard them, before `heard_since`, does not count as silence.
    pub async fn sweep_silent(
        &self,
        now: Timestamp,
        heard_since: Timestamp,
        lost_after: TimeDelta,
    ) -> Result<SweepOutcome, StoreError> {
        let cutoff = now - lost_after;
        if heard_since > cutoff {
            return Ok(SweepOutcome::default());
        }
        let client = self.client().await?;
        let silent = close::first_column(&client.query(SILENT, &[&cutoff]).await?)?;
        drop(client);
        let mut outcome = SweepOutcome::default();
        for agents in silent.chunks(AGENTS_PER_TRANSACTION) {
            match self.close_silent(agents, cutoff).await {
                Ok(part) => outcome.add(part),
                Err(error) if error.is_refusal() && agents.len() > 1 => {
                    for agent in agents {
                        outcome.add(self.close_one_silent(*agent, cutoff).await?);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }

    async fn close_silent(&self, agents: &[Uuid], cutoff: Timestamp) -> Result<SweepOutcome, StoreError> {
        let mut attempts = 0;
        loop {
            match self.close_silent_once(agents, cutoff).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    /// The same of one agent; if the database refuses, it is left for the next round, and holds up nobody else.
    async fn close_one_silent(&self, agent: Uuid, cutoff: Timestamp) -> Result<SweepOutcome, StoreError> {
        match self.close_silent(&[agent], cutoff).await {
            Err(error) if error.is_refusal() => {
                let cause = error.one_line();
                tracing::error!(agent_id = %agent, cause, "what a lost agent had open cannot be ended for now");
                Ok(SweepOutcome::default())
            }
            outcome => outcome,
        }
    }

    async fn close_silent_once(&self, agents: &[Uuid], cutoff: Timestamp) -> Result<SweepOutcome, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        if !query(&transaction, TRY_SWEEP, &[]).await?.iter().any(|row| row.get(0)) {
            return Ok(SweepOutcome { busy: true, ..SweepOutcome::default() });
        }
        let floor = hold_floor(&transaction).await?;
        let mut signs: HashMap<Uuid, Signs> = HashMap::new();
        for row in query(&transaction, LOCK_SILENT, &[&agents]).await? {
            let sign = (row.try_get("boot_id")?, row.try_get("last_seen_at")?);
            let of_agent = signs.entry(row.try_get("agent_id")?).or_default();
            of_agent.spools = row.try_get("spools")?;
            of_agent.boots.push(sign);
        }
        signs.retain(|_, signs| i64::try_from(signs.boots.len()) == Ok(signs.spools));
        let agents: Vec<Uuid> = signs.keys().copied().collect();
        let mut ends: HashMap<Uuid, Timestamp> = HashMap::new();
        for row in query(&transaction, LOCK_THEIRS, &[&agents]).await? {
            let seen = signs.get(&row.try_get("agent_id")?).and_then(|signs| signs.last_of(row.get("boot_id")));
            if let Some(seen) = seen.filter(|seen| *seen < cutoff) {
                ends.insert(row.try_get("id")?, seen);
            }
        }
        let mut ids: Vec<Uuid> = ends.keys().copied().collect();
        ids.sort_unstable();
        let end_of = |connection: &Connection| ends.get(&connection.id).copied().unwrap_or(connection.connect_time);
        let mut deltas = counts::Deltas::default();
        let closed = close::close(&transaction, &ids, floor, REASON_AGENT_LOST, end_of, &mut deltas).await?;
        counts::add(&transaction, &deltas, SHARD).await?;
        transaction.commit().await?;
        Ok(SweepOutcome { busy: false, closed })
    }

    /// Ends what deleted agents and the agents of deleted workspaces had open, when they were deleted.
    pub async fn sweep_deleted(&self) -> Result<SweepOutcome, StoreError> {
        match self.close_deleted(None).await {
            Err(error) if error.is_refusal() => self.close_deleted_one_by_one().await,
            outcome => outcome,
        }
    }

    /// The same, so that what the database refuses to end holds up nothing else.
    async fn close_deleted_one_by_one(&self) -> Result<SweepOutcome, StoreError> {
        let client = self.client().await?;
        let all = close::first_column(&client.query(DELETED, &[&i64::MAX, &None::<Uuid>]).await?)?;
        drop(client);
        let mut outcome = SweepOutcome::default();
        for id in all {
            match self.close_deleted(Some(id)).await {
                Ok(part) => outcome.add(part),
                Err(error) if error.is_refusal() => {
                    let cause = error.one_line();
                    tracing::error!(%id, cause, "a connection of what was deleted cannot be ended for now");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }

    /// Ends them, or one of them.
    async fn close_deleted(&self, only: Option<Uuid>) -> Result<SweepOutcome, StoreError> {
        let mut attempts = 0;
        loop {
            match self.close_deleted_once(only).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn close_deleted_once(&self, only: Option<Uuid>) -> Result<SweepOutcome, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        if !query(&transaction, TRY_SWEEP, &[]).await?.iter().any(|row| row.get(0)) {
            return Ok(SweepOutcome { busy: true, ..SweepOutcome::default() });
        }
        let floor = hold_floor(&transaction).await?;
        let mut deleted_at: HashMap<Uuid, Option<Timestamp>> = HashMap::new();
        for row in query(&transaction, DELETED, &[&CONNECTIONS_PER_TRANSACTION, &only]).await? {
            deleted_at.insert(row.try_get("id")?, row.try_get("deleted_at")?);
        }
        let ids: Vec<Uuid> = deleted_at.keys().copied().collect();
        let ids = close::first_column(&query(&transaction, LOCK_IDS, &[&ids]).await?)?;
        let end_of = |connection: &Connection| {
            deleted_at.get(&connection.id).copied().flatten().unwrap_or(connection.connect_time)
        };
        let mut deltas = counts::Deltas::default();
        let closed = close::close(&transaction, &ids, floor, REASON_WORKSPACE_DELETED, end_of, &mut deltas).await?;
        counts::add(&transaction, &deltas, SHARD).await?;
        transaction.commit().await?;
        Ok(SweepOutcome { busy: false, closed })
    }

    /// Waits before a failed transaction of this module is tried again, or gives the error back if that is hopeless.
    /// Makes the days of open connections that have none: purge may have dropped the day of one that a live agent kept.
    pub(super) async fn settle(&self, attempts: &mut u32, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::MissingDay(_)) {
            self.forget_days();
            self.attach_days_of_open().await?;
        }
        retry::pause(*attempts, error).await.map_err(StoreError::after_all_attempts)?;
        *attempts += 1;
        Ok(())
    }

    /// Makes the days of open connections that have none.
    pub(crate) async fn attach_days_of_open(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        let rows = client
            .query(
                "-- days_of_open\nSELECT DISTINCT (connect_time AT TIME ZONE 'UTC')::date FROM open_connections",
                &[],
            )
            .await?;
        drop(client);
        for row in rows {
            match self.attach_days([row.get::<_, NaiveDate>(0)]).await {
                // What stands in the way of that day holds up those who write to it.
                Err(error) if error.is_refusal() => {}
                attached => attached?,
            }
        }
        Ok(())
    }
}
