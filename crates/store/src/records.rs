//! Records of what did not become a row: dead letters and losses.

use connlog_model::clock::Timestamp;
use uuid::Uuid;

use crate::session::{Transaction, begin_write, execute};
use crate::{Store, StoreError};

/// A dead letter: an event that could not be accepted, as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Names the letter: a replay has the same id.
    pub id: Uuid,
    /// When it was received.
    pub received_at: Timestamp,
    /// Organization of the workspace, if that is known.
    pub organization_id: Option<Uuid>,
    /// Workspace that it was about, if that is known.
    pub workspace_id: Option<Uuid>,
    /// Agent that sent it; none for a reporter.
    pub agent_id: Option<Uuid>,
    /// Token of the reporter that sent it; none for an agent.
    pub token_id: Option<Uuid>,
    /// Spool and sequence number, if it was streamed.
    pub position: Option<(Uuid, i64)>,
    /// Full name of the protobuf message.
    pub message_type: &'static str,
    /// The protobuf message.
    pub message: Vec<u8>,
    /// Which field is at fault.
    pub field: String,
    /// Why it cannot be accepted.
    pub reason: String,
    /// How many events it stands for.
    pub events: i64,
    /// Whether it is one record for all of its cause: it is the first of them, and further ones are only counted.
    pub is_merged: bool,
}

/// Sequence numbers of a spool that never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The spool whose numbers these are.
    pub spool_id: Uuid,
    /// The first that is missing.
    pub first_seq: i64,
    /// The last that is missing.
    pub last_seq: i64,
}

/// Events that the log never got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecord {
    /// Names the record: a replay has the same id.
    pub id: Uuid,
    /// When the loss was recorded.
    pub recorded_at: Timestamp,
    /// Organization of the workspace.
    pub organization_id: Uuid,
    /// Workspace of the agent.
    pub workspace_id: Uuid,
    /// Agent whose events are lost, if the directory knows it.
    pub agent_id: Option<Uuid>,
    /// Where they are missing in a spool, if they were to come from one.
    pub hole: Option<Hole>,
    /// How many events.
    pub events: i64,
    /// Time of the first lost event, if known.
    pub since: Option<Timestamp>,
    /// Time of the last lost event, if known.
    pub until: Option<Timestamp>,
    /// Why they are lost.
    pub cause: String,
}

const INSERT_REJECTED: &str = "-- insert_rejected
INSERT INTO rejected_events AS letter (id, received_at, organization_id, workspace_id, agent_id, token_id, spool_id, seq,
    message_type, message, field, reason, events, is_merged)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (id) DO UPDATE SET events = letter.events + excluded.events, spool_id = excluded.spool_id, seq = excluded.seq
-- A sender that got no answer sends again what is already counted: the number is about right.
WHERE letter.is_merged";

const INSERT_LOST: &str = "-- insert_lost
INSERT INTO lost_events (id, recorded_at, organization_id, workspace_id, agent_id, spool_id, first_seq, last_seq, events,
    since, until, cause)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (id) DO UPDATE SET first_seq = excluded.first_seq, events = excluded.events, since = excluded.since
WHERE lost_events.events < excluded.events";

impl Store {
    /// Records dead letters. Recording the same ones again changes nothing, but that merged ones count again.
    pub async fn record_rejected(&self, letters: &[RejectedRecord]) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        insert_rejected(&transaction, letters).await?;
        Ok(transaction.commit().await?)
    }
}

pub(crate) async fn insert_rejected(
    transaction: &Transaction<'_>,
    letters: &[RejectedRecord],
) -> Result<(), StoreError> {
    // In the order of the ids, so that two replays of the same letters cannot deadlock.
    let mut letters: Vec<&RejectedRecord> = letters.iter().collect();
    letters.sort_by_key(|letter| letter.id);
    for letter in letters {
        let (spool_id, seq) = letter.position.unzip();
        execute(
            transaction,
            INSERT_REJECTED,
            &[
                &letter.id,
                &letter.received_at,
                &letter.organization_id,
                &letter.workspace_id,
                &letter.agent_id,
                &letter.token_id,
                &spool_id,
                &seq,
                &letter.message_type,
                &letter.message,
                &letter.field,
                &letter.reason,
                &letter.events,
                &letter.is_merged,
            ],
        )
        .await?;
    }
    Ok(())
}

pub(crate) async fn insert_lost(transaction: &Transaction<'_>, records: &[LostRecord]) -> Result<(), StoreError> {
    let mut records: Vec<&LostRecord> = records.iter().collect();
    records.sort_by_key(|record| record.id);
    for record in records {
        let spool_id = record.hole.map(|hole| hole.spool_id);
        let first_seq = record.hole.map(|hole| hole.first_seq);
        let last_seq = record.hole.map(|hole| hole.last_seq);
        execute(
            transaction,
            INSERT_LOST,
            &[
                &record.id,
                &record.recorded_at,
                &record.organization_id,
                &record.workspace_id,
                &record.agent_id,
                &spool_id,
                &first_seq,
                &last_seq,
                &record.events,
                &record.since,
                &record.until,
                &record.cause,
            ],
        )
        .await?;
    }
    Ok(())
}
