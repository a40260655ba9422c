//! The write path: a batch of events becomes rows, exactly, whatever else runs at the same time.
//!
//! The order of the statements is everything; `README.md` of this crate has the reasons. In one READ COMMITTED
//! transaction: hold the retention floor, stamp the presence of the senders, take the keys of all connections of the
//! batch, look the fresh ones up in history, remove the keys of what is not open, complete, change, count. From the moment
//! the keys are taken nobody else can work on these connections, so the events are told in memory to what was read
//! ([`Connection::hear`](connlog_model::connection::Connection::hear)), which is written back.

mod connections;
mod contradictions;
pub(crate) mod counts;
mod floor;
mod fold;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod presence;
mod web;

use connlog_model::clock::Timestamp;
use connlog_model::event::Event;
use uuid::Uuid;

pub(crate) use self::connections::NEVER;
pub(crate) use self::floor::hold as hold_floor;
use crate::partitions::day_of;
use crate::records::{LostRecord, RejectedRecord, insert_lost, insert_rejected};
use crate::session::begin_write;
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
    pub agent_id: Uuid,
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
    /// The id of the web event was used before for another one of the same day.
    EventIdTaken,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that are not in the log: their indices, ascending, and why.
    pub refused: Vec<(usize, Refusal)>,
    /// How many events contradict what is recorded, and are kept beside it.
    pub contradicting: usize,
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
                    if matches!(error, StoreError::MissingDay(_)) {
                        if attempt >= MOST_MISSING_DAYS {
                            return Err(error.after_all_attempts());
                        }
                        // The day of an event, or that of an open row that the batch completes: purge may have dropped it.
                        self.forget_days();
                        self.attach_days_of_open().await?;
                    }
                    retry::pause(attempt, error).await.map_err(StoreError::after_all_attempts)?;
                    attempt += 1;
                }
            }
        }
    }

    async fn apply_once(&self, batch: &Batch, shard: i16, now: Timestamp) -> Result<Applied, StoreError> {
        let mut client = self.client().await?;
        self.note_homes(&client, batch.events.iter().map(Event::workspace)).await?;
        let transaction = begin_write(&mut client).await?;
        let floor = floor::hold(&transaction).await?;
        let displaced = presence::stamp(&transaction, &batch.stamps).await?;
        if !displaced.is_empty() {
            return Ok(Applied { displaced, ..Applied::default() });
        }
        let mut folded = fold::fold(&batch.events, floor);
        let mut deltas = counts::Deltas::default();
        let contradicting = connections::apply(&transaction, &mut folded, floor, now, &mut deltas).await?;
        contradictions::insert(&transaction, &contradicting).await?;
        web::insert(&transaction, &mut folded, &mut deltas).await?;
        insert_lost(&transaction, &batch.lost).await?;
        insert_rejected(&transaction, &batch.rejected).await?;
        counts::add(&transaction, &deltas, shard).await?;
        transaction.commit().await?;
        folded.refused.sort_unstable();
        folded.refused.dedup();
        Ok(Applied { refused: folded.refused, contradicting: contradicting.len(), displaced })
    }
}
