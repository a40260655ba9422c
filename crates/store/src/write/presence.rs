//! Presence rows: locked before any key, by everything that touches both.

use uuid::Uuid;

use super::Stamp;
use crate::StoreError;
use crate::session::{Transaction, query};

/// The rows exist since the Hello of their streams; the insert part only keeps the order in which rows are locked.
const STAMP: &str = "-- stamp_presence
INSERT INTO agent_presence (agent_id, spool_id, boot_id, stream_id, committed_seq, last_seen_at, earlier_boot_seq)
SELECT agent_id, spool_id, stream_id, stream_id, committed_seq, seen_at, 0
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[])
    AS k (agent_id, spool_id, stream_id, committed_seq, seen_at)
ON CONFLICT (agent_id, spool_id) DO UPDATE
SET committed_seq = greatest(agent_presence.committed_seq, excluded.committed_seq),
    last_seen_at = greatest(agent_presence.last_seen_at, excluded.last_seen_at)
WHERE agent_presence.stream_id = excluded.stream_id
RETURNING stream_id";

/// Stamps the streams, and returns those that no longer own their spool.
pub(crate) async fn stamp(transaction: &Transaction<'_>, stamps: &[Stamp]) -> Result<Vec<Uuid>, StoreError> {
    if stamps.is_empty() {
        return Ok(Vec::new());
    }
    let mut sorted: Vec<&Stamp> = stamps.iter().collect();
    sorted
        .sort_by_key(|stamp| (stamp.agent_id, stamp.spool_id, stamp.stream_id, std::cmp::Reverse(stamp.committed_seq)));
    sorted.dedup_by_key(|stamp| (stamp.agent_id, stamp.spool_id, stamp.stream_id));
    let mut displaced: Vec<Uuid> = Vec::new();
    // A statement cannot touch a row twice: of two streams of one spool in one batch the later stamp has its own turn.
    while !sorted.is_empty() {
        let mut turn: Vec<&Stamp> = Vec::with_capacity(sorted.len());
        let mut rest = Vec::new();
        for stamp in sorted {
            let taken =
                turn.last().is_some_and(|last| (last.agent_id, last.spool_id) == (stamp.agent_id, stamp.spool_id));
            if taken { rest.push(stamp) } else { turn.push(stamp) }
        }
        displaced.extend(stamp_turn(transaction, &turn).await?);
        sorted = rest;
    }
    Ok(displaced)
}

async fn stamp_turn(transaction: &Transaction<'_>, turn: &[&Stamp]) -> Result<Vec<Uuid>, StoreError> {
    let agents: Vec<_> = turn.iter().map(|stamp| stamp.agent_id).collect();
    let spools: Vec<_> = turn.iter().map(|stamp| stamp.spool_id).collect();
    let streams: Vec<_> = turn.iter().map(|stamp| stamp.stream_id).collect();
    let seqs: Vec<_> = turn.iter().map(|stamp| stamp.committed_seq).collect();
    let seen: Vec<_> = turn.iter().map(|stamp| stamp.seen_at).collect();
    let rows = query(transaction, STAMP, &[&agents, &spools, &streams, &seqs, &seen]).await?;
    let owners = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, _>>()?;
    Ok(streams.into_iter().filter(|stream| !owners.contains(stream)).collect())
}
