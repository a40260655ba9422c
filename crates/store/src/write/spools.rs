//! Spools: how far each is committed, under the lock of its agent.

use std::cmp::Reverse;

use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Stamp;
use crate::StoreError;
use crate::numbers::Numbered;
use crate::session::Step;

/// The rows exist since the Hello of their streams. Of two streams of one spool only the owner finds its own.
const STAMP: &str = "-- stamp_spools
UPDATE agent_spools AS s SET committed_seq = greatest(s.committed_seq, k.committed_seq), last_seen_at = greatest(s.last_seen_at, k.seen_at)
FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[])
    AS k (agent, spool_id, stream_id, committed_seq, seen_at)
WHERE s.agent = ANY($1::bigint[]) AND s.agent = k.agent AND s.spool_id = k.spool_id AND s.stream_id = k.stream_id
RETURNING s.stream_id";

/// Stamps of a transaction, one array a column.
pub(crate) struct Stamps {
    agent: Vec<i64>,
    spool_id: Vec<Uuid>,
    stream_id: Vec<Uuid>,
    committed_seq: Vec<Option<i64>>,
    seen_at: Vec<Timestamp>,
}

impl Stamps {
    /// The newest stamp of each stream.
    pub(crate) fn of(stamps: &[Stamp], numbered: &Numbered) -> Self {
        let mut sorted: Vec<(i64, &Stamp)> =
            stamps.iter().map(|stamp| (numbered.of(&stamp.agent).agent, stamp)).collect();
        let key = |(agent, stamp): &(i64, &Stamp)| (*agent, stamp.spool_id, stamp.stream_id);
        sorted.sort_by_key(|stamp| (key(stamp), Reverse((stamp.1.committed_seq, stamp.1.seen_at))));
        sorted.dedup_by_key(|stamp| key(stamp));
        Self {
            agent: sorted.iter().map(|(agent, _)| *agent).collect(),
            spool_id: sorted.iter().map(|(_, stamp)| stamp.spool_id).collect(),
            stream_id: sorted.iter().map(|(_, stamp)| stamp.stream_id).collect(),
            committed_seq: sorted.iter().map(|(_, stamp)| stamp.committed_seq).collect(),
            seen_at: sorted.iter().map(|(_, stamp)| stamp.seen_at).collect(),
        }
    }

    /// The statement that makes them, if there are any.
    pub(crate) fn steps(&self) -> Vec<Step<'_>> {
        if self.agent.is_empty() {
            return Vec::new();
        }
        let Self { agent, spool_id, stream_id, committed_seq, seen_at } = self;
        vec![Step::Query(STAMP, vec![agent, spool_id, stream_id, committed_seq, seen_at])]
    }

    /// The streams that no longer own their spool, by the answers to [`steps`](Self::steps).
    pub(crate) fn displaced(&self, answers: &[Vec<Row>]) -> Result<Vec<Uuid>, StoreError> {
        let owners = answers.first().map(Vec::as_slice).unwrap_or_default();
        let owners = owners.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, _>>()?;
        Ok(self.stream_id.iter().filter(|stream| !owners.contains(stream)).copied().collect())
    }
}
