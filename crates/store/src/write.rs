//! The write path: a batch of events becomes rows, exactly, whatever else runs at the same time.
//!
//! `README.md` of this crate has the reasons. In one READ COMMITTED transaction: hold the log and the agents of the batch, look
//! the rows up, tell the events in memory to what was read
//! ([`Connection::hear`](connlog_model::connection::Connection::hear)), and write what changed. From the moment the agents are held
//! nobody else works on their connections.

mod contradictions;
mod counts;
mod fold;
pub(crate) mod held;
pub(crate) mod look_up;
pub(crate) mod save;
pub(crate) mod spools;

use std::collections::HashMap;
use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::event::Event;
use connlog_model::identity::AgentIdentity;
use uuid::Uuid;

pub(crate) use self::contradictions::Contradiction;
use self::fold::{Folded, Told};
use self::held::{Held, Wait};
use self::look_up::{First, MOST_DAYS, Rows, first_steps, look_up_sql};
use self::save::Changes;
use crate::days::day_of;
use crate::numbers::Numbered;
use crate::records::{LostRecord, RejectedRecord, insert_lost, insert_rejected};
use crate::row::{Recorded, RecordedWeb};
use crate::{Store, StoreError, retry};

/// How many shards of counts writers may use, numbered from 1; purge and sweeps count in shard 0.
pub const WRITER_SHARDS: i16 = 15;

/// So often a day may be missing after it was made: then something else stands in its way.
const MOST_MISSING_DAYS: u32 = 3;

/// What is committed together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Accepted events, in any order.
    pub events: Vec<Event>,
    /// How far the spools of the agents that sent them are committed with this batch.
    pub stamps: Vec<Stamp>,
    /// Losses that the agents report or the server found.
    pub lost: Vec<LostRecord>,
    /// Events that were refused before.
    pub rejected: Vec<RejectedRecord>,
}

/// The progress of one stream: a sign of life, and how far its spool is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The agent.
    pub agent: Arc<AgentIdentity>,
    /// The spool that the sequence numbers belong to.
    pub spool_id: Uuid,
    /// The stream that sends it; if it no longer owns the spool, nothing is committed.
    pub stream_id: Uuid,
    /// Everything up to this sequence number is dealt with once the batch is committed; none for a mere sign of life.
    pub committed_seq: Option<i64>,
    /// When the server last heard of it.
    pub seen_at: Timestamp,
}

/// Why the log does not take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It lies below the retention floor.
    BelowFloor,
    /// The id of the web event was used before for another one of the same day, or for the same with other content.
    EventIdTaken,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that are not in the log: their indices, ascending, and why.
    pub refused: Vec<(usize, Refusal)>,
    /// How many events contradict what is recorded, and are kept beside it.
    pub contradicting: usize,
    /// Events whose connection was looked for on each of 45 days: their indices, ascending.
    pub looked_back: Vec<usize>,
    /// Streams of the batch that no longer own their spool. If there are any, nothing of the batch is committed: what
    /// they sent is not acknowledged, and the newer stream may by now have reported it as lost.
    pub displaced: Vec<Uuid>,
}

impl Store {
    /// Commits `batch`, counting in `shard` (1 to [`WRITER_SHARDS`]). Applying the same events again, alone or among
    /// others, here or on another replica, changes nothing.
    pub async fn apply_batch(&self, batch: &Batch, shard: i16, now: Timestamp) -> Result<Applied, StoreError> {
        let mut attempt = 0;
        loop {
            self.attach_days(batch.events.iter().map(|event| day_of(event.start()))).await?;
            match self.apply_once(batch, shard, now).await {
                Ok(applied) => return Ok(applied),
                Err(error) => {
                    if matches!(error, StoreError::MissingDay(_)) && attempt >= MOST_MISSING_DAYS {
                        return Err(error.after_all_attempts());
                    }
                    self.settle(&mut attempt, error).await?;
                }
            }
        }
    }

    async fn apply_once(&self, batch: &Batch, shard: i16, now: Timestamp) -> Result<Applied, StoreError> {
        let mut client = self.client().await?;
        let agents = batch.events.iter().map(Event::agent).chain(batch.stamps.iter().map(|stamp| &stamp.agent));
        let numbered = self.number(&client, agents).await?;
        let mut folded = fold::fold(&batch.events);
        let wanted = folded.wanted(now);
        let ids = wanted.ids();
        let days = {
            let known = self.days();
            known.closed_before.map(|closed_before| wanted.near_days(&known.attached, closed_before, now))
        }
        .filter(|days| days.len() <= MOST_DAYS)
        .unwrap_or_default();
        let sql = look_up_sql(&days);
        let further = if ids.is_empty() { Vec::new() } else { first_steps(&ids, sql.as_deref()) };
        let (held, rows) = self.hold(&mut client, &numbered.agents(), Wait::ForAll, further).await?;
        let mut rows = rows.into_iter();
        let ongoing = rows.next().unwrap_or_default();
        let first = First { days, rows: rows.next().unwrap_or_default(), ongoing };
        let found = if ids.is_empty() { Rows::default() } else { self.look_up(&held, &wanted, first, now).await? };
        let looked_back = folded.first_indices(&found.looked_back);

        let changes = tell(&mut folded, found, &held, &numbered);
        let contradicting = changes.contradictions.len();
        let stamps = spools::Stamps::of(&batch.stamps, &numbered);
        let answers = changes.save(&held, stamps.steps(), shard).await?;
        let displaced = stamps.displaced(&answers)?;
        if !displaced.is_empty() {
            return Ok(Applied { displaced, ..Applied::default() });
        }
        insert_lost(&held.transaction, &batch.lost).await?;
        insert_rejected(&held.transaction, &batch.rejected).await?;
        held.transaction.commit().await?;
        folded.refused.sort_unstable();
        folded.refused.dedup();
        Ok(Applied { refused: folded.refused, contradicting, looked_back, displaced })
    }

    /// Waits before a failed transaction is tried again, or gives the error back if that is hopeless.
    pub(crate) async fn settle(&self, attempts: &mut u32, error: StoreError) -> Result<(), StoreError> {
        // What was believed of days and agents may be what was wrong.
        if error.is_transient() {
            self.forget_days();
        }
        retry::pause(*attempts, error).await.map_err(StoreError::after_all_attempts)?;
        *attempts += 1;
        Ok(())
    }
}

/// Tells the events of a batch to what is recorded. What is not taken is added to `folded.refused`.
fn tell<'a>(folded: &mut Folded<'a>, mut found: Rows, held: &Held<'_>, numbered: &Numbered) -> Changes<'a> {
    let mut changes = Changes::default();
    for (id, entry) in std::mem::take(&mut folded.connections) {
        let Some(agent) = entry.agent() else { continue };
        let before = found.connections.remove(&id);
        let recorded = before.as_ref().map(|before| before.connection.clone());
        let Told { connection, contradictions, below_floor } = entry.tell(recorded, held.floor);
        changes.contradictions.extend(contradictions);
        folded.refuse(below_floor, Refusal::BelowFloor);
        if let Some(connection) = connection {
            let numbers = before.as_ref().map_or_else(|| numbered.of(agent), |before| before.numbers);
            changes.add(held, before, Recorded { numbers, connection });
        }
    }
    tell_web(folded, &found, held, numbered, &mut changes);
    changes
}

/// A day has the id of an event of a workspace once: another event with the id is refused, since silence would lose it.
fn tell_web<'a>(
    folded: &mut Folded<'a>,
    found: &Rows,
    held: &Held<'_>,
    numbered: &Numbered,
    changes: &mut Changes<'a>,
) {
    let mut web = std::mem::take(&mut folded.web);
    // Of two of a batch with one id the earlier one is it, whatever their order.
    web.sort_by_cached_key(|(_, event)| (event.row_id(), event.time));
    let mut taken: HashMap<_, RecordedWeb> = HashMap::new();
    for (index, event) in web {
        if event.time < held.floor {
            folded.refuse([index], Refusal::BelowFloor);
            continue;
        }
        let (id, day) = (event.row_id(), day_of(event.time));
        let said = RecordedWeb::of(event);
        match found.web.get(&(id, day)).or_else(|| taken.get(&(id, day))) {
            Some(recorded) if *recorded == said => {}
            Some(_) => folded.refuse([index], Refusal::EventIdTaken),
            None => {
                taken.insert((id, day), said);
                changes.add_web(event, numbered.of(&event.agent).target);
            }
        }
    }
}
