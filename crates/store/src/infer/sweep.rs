//! The sweep: ends what silent and deleted agents had open, and the attendance that tells silence from an outage.

use std::collections::{BTreeMap, HashMap};

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, REASON_AGENT_LOST, REASON_NO_END_CAME, REASON_WORKSPACE_DELETED};
use connlog_model::identity::BootNumber;
use tokio_postgres::Row;
use uuid::Uuid;

use super::SHARD;
use super::open::{self, Noted};
use crate::row::Recorded;
use crate::session::Step;
use crate::write::held::Wait;
use crate::write::save::Changes;
use crate::{Store, StoreError};

/// Most agents whose connections end in one transaction.
const AGENTS_PER_TRANSACTION: usize = 200;

/// If nobody attended for longer than `$2`, the time that agents could be heard begins anew.
const ATTEND: &str = "-- attend
INSERT INTO ingest_attendance (heard_since, attended_at) VALUES ($1, $1)
ON CONFLICT (one) DO UPDATE
SET heard_since = CASE WHEN ingest_attendance.attended_at < $2 THEN excluded.heard_since ELSE ingest_attendance.heard_since END,
    attended_at = greatest(ingest_attendance.attended_at, excluded.attended_at)
RETURNING heard_since";

/// Agents that may have something open and have a spool that is silent: something may be open under its boot.
const SILENT: &str = "-- silent_agents
SELECT DISTINCT agent FROM agent_spools JOIN agents USING (agent) WHERE open_since IS NOT NULL AND last_seen_at < $1 ORDER BY agent";

const SPOOLS: &str = "-- spools_of_agents
SELECT agent, boot_id, last_seen_at FROM agent_spools WHERE agent = ANY($1::bigint[])";

/// Agents that may have something open, whose workspace is deleted, or whom the directory has only as deleted: a workspace that is
/// built anew has an agent of the same name.
const DELETED: &str = "-- deleted_agents
SELECT agents.agent, least(w.deleted_at, CASE WHEN named.are_deleted THEN named.deleted_at END) AS deleted_at
FROM agents
LEFT JOIN workspaces AS w ON w.id = agents.workspace_id AND w.deleted
LEFT JOIN LATERAL (
    SELECT bool_and(a.deleted) AS are_deleted, max(a.deleted_at) AS deleted_at FROM workspace_agents AS a
    WHERE a.workspace_id = agents.workspace_id AND a.name = agents.agent_name) AS named ON true
WHERE open_since IS NOT NULL AND (w.id IS NOT NULL OR named.are_deleted) ORDER BY agents.agent";

/// Agents with a connection without a boot that is open since before `$1`, on closed days: only what is open of these is listed.
const WITHOUT_BOOT: &str = "-- agents_without_boot
SELECT DISTINCT agent FROM ongoing WHERE boot IS NULL AND connect_time < $1 ORDER BY agent";

/// Why and when connections of agents end.
enum Cause {
    /// Silence: before this time they should have been heard.
    Silence(Timestamp),
    /// When each was deleted.
    Deletion(BTreeMap<i64, Timestamp>),
    /// No end came of what is open without a boot, and began before this time.
    NoEnd(Timestamp),
}

/// The last signs of life of the boots of an agent.
#[derive(Default)]
struct Signs(Vec<(BootNumber, Timestamp)>);

impl Signs {
    /// Of the boot that a connection is open under; of the agent, if no spool has that boot any more.
    fn last_of(&self, boot: Option<BootNumber>) -> Option<Timestamp> {
        let of_boot = self.0.iter().filter(|(known, _)| Some(*known) == boot).map(|(_, seen)| *seen).max();
        of_boot.or_else(|| self.0.iter().map(|(_, seen)| *seen).max())
    }
}

impl Store {
    /// Notes that an ingest is listening and can write. A pause of more than `longest_pause` before this call was an
    /// outage: silence is counted from `now` on.
    pub async fn attend(&self, now: Timestamp, longest_pause: TimeDelta) -> Result<Timestamp, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(ATTEND, &[&now, &(now - longest_pause)]).await?.try_get(0)?)
    }

    /// Ends what agents had open that were silent for longer than `lost_after`, at their last sign of life, and returns it. Time
    /// during which nobody could have heard them, before `heard_since`, does not count as silence.
    pub async fn sweep_silent(
        &self,
        now: Timestamp,
        heard_since: Timestamp,
        lost_after: TimeDelta,
    ) -> Result<Vec<Connection>, StoreError> {
        let cutoff = now - lost_after;
        if heard_since > cutoff {
            return Ok(Vec::new());
        }
        let client = self.client().await?;
        let silent = client.query(SILENT, &[&cutoff]).await?;
        drop(client);
        let silent = silent.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        self.sweep(&silent, &Cause::Silence(cutoff)).await
    }

    /// Ends what deleted agents and the agents of deleted workspaces had open, when they were deleted, and returns it.
    pub async fn sweep_deleted(&self) -> Result<Vec<Connection>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(DELETED, &[]).await?;
        drop(client);
        let mut deleted = BTreeMap::new();
        for row in &rows {
            let deleted_at: Option<Timestamp> = row.try_get("deleted_at")?;
            deleted.insert(row.try_get("agent")?, deleted_at.unwrap_or(Timestamp::MIN_UTC));
        }
        let agents: Vec<i64> = deleted.keys().copied().collect();
        self.sweep(&agents, &Cause::Deletion(deleted)).await
    }

    /// Ends connections without a boot that began before `cutoff` and are open, and returns them. Each ends when it began: that is
    /// the last sign of life of an agent that only makes single calls. Only closed days are looked at.
    pub async fn sweep_without_boot(&self, cutoff: Timestamp) -> Result<Vec<Connection>, StoreError> {
        let client = self.client().await?;
        let agents = client.query(WITHOUT_BOOT, &[&cutoff]).await?;
        drop(client);
        let agents = agents.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        self.sweep(&agents, &Cause::NoEnd(cutoff)).await
    }

    /// Some agents at a time; if that fails, one by one, so that one whose rows cannot be changed holds up nobody else.
    async fn sweep(&self, agents: &[i64], cause: &Cause) -> Result<Vec<Connection>, StoreError> {
        let mut closed = Vec::new();
        for some in agents.chunks(AGENTS_PER_TRANSACTION) {
            match self.end_all(some, cause).await {
                Ok(ended) => closed.extend(ended),
                Err(error) if !error.is_unavailable() => {
                    for agent in some {
                        closed.extend(self.end_all_of_one(*agent, cause).await?);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(closed)
    }

    /// Of one agent; if that fails, it is left for the next round.
    async fn end_all_of_one(&self, agent: i64, cause: &Cause) -> Result<Vec<Connection>, StoreError> {
        match self.end_all(&[agent], cause).await {
            Err(error) if !error.is_unavailable() => {
                let cause = error.one_line();
                tracing::error!(agent, cause, "what a lost agent had open cannot be ended for now");
                Ok(Vec::new())
            }
            outcome => outcome,
        }
    }

    async fn end_all(&self, agents: &[i64], cause: &Cause) -> Result<Vec<Connection>, StoreError> {
        let mut attempts = 0;
        loop {
            match self.end_all_once(agents, cause).await {
                Ok(closed) => return Ok(closed),
                Err(error) => self.settle(&mut attempts, error).await?,
            }
        }
    }

    async fn end_all_once(&self, agents: &[i64], cause: &Cause) -> Result<Vec<Connection>, StoreError> {
        let mut client = self.client().await?;
        let mut further = open::steps(&agents);
        further.push(Step::Query(SPOOLS, vec![&agents]));
        let (held, mut rows) = self.hold(&mut client, agents, Wait::ForNobody, further).await?;
        let signs = signs(&rows.pop().unwrap_or_default())?;
        let (mut changes, mut closed, mut kept) = (Changes::default(), Vec::new(), Vec::new());
        for recorded in open::open(self, &held, &rows).await? {
            match cause.end(&recorded, &signs) {
                Some((time, reason)) => closed.push(open::end(&mut changes, &held, recorded, time, reason)),
                None => kept.push(recorded),
            }
        }
        let noted = Noted::of(&held, &rows, &kept)?;
        changes.save(&held, noted.steps(), SHARD).await?;
        held.transaction.commit().await?;
        Ok(closed)
    }
}

impl Cause {
    /// When and why a connection ends; none if it does not.
    fn end(&self, recorded: &Recorded, signs: &HashMap<i64, Signs>) -> Option<(Timestamp, &'static str)> {
        let agent = recorded.numbers.agent;
        match self {
            Self::Silence(cutoff) => {
                let seen = signs.get(&agent)?.last_of(recorded.connection.boot)?;
                (seen < *cutoff).then_some((seen, REASON_AGENT_LOST))
            }
            Self::Deletion(deleted) => Some((*deleted.get(&agent)?, REASON_WORKSPACE_DELETED)),
            Self::NoEnd(cutoff) => {
                let Connection { connect_time, boot, .. } = recorded.connection;
                (boot.is_none() && connect_time < *cutoff).then_some((connect_time, REASON_NO_END_CAME))
            }
        }
    }
}

fn signs(rows: &[Row]) -> Result<HashMap<i64, Signs>, StoreError> {
    let mut signs: HashMap<i64, Signs> = HashMap::new();
    for row in rows {
        let boot_id: Uuid = row.try_get("boot_id")?;
        let sign = (BootNumber::of(boot_id), row.try_get("last_seen_at")?);
        signs.entry(row.try_get("agent")?).or_default().0.push(sign);
    }
    Ok(signs)
}
