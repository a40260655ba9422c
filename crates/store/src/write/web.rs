//! Web events: points in time that go straight to history. Workspace, `event_id` and time make them idempotent.
//!
//! A day has an id of a workspace once. A second event of the day with an id that another one of the workspace has is
//! refused: silence would lose it.

use std::collections::HashSet;
use std::sync::LazyLock;

use connlog_model::clock::Timestamp;
use connlog_model::event::WebEvent;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Refusal;
use super::counts::Deltas;
use super::fold::Folded;
use crate::StoreError;
use crate::partitions::windows;
use crate::row::WebArrays;
use crate::session::{Transaction, plan_for_each, query};

static INSERT: LazyLock<String> = LazyLock::new(|| {
    "-- insert_web
INSERT INTO connection_logs (id, connection_id, organization_id, home, workspace_name, agent_name, connect_time,
    method, app_name, ip, client_session_id, user_id, start_source, method_known, received_at, code, user_agent,
    slug_or_port, disconnect_inferred)
SELECT k.*, false FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[],
    $7::timestamptz[], $8::smallint[], $9::text[], $10::inet[], $11::uuid[], $12::uuid[], $13::smallint[], $14::boolean[],
    $15::timestamptz[], $16::int[], $17::text[], $18::text[]) AS k
ON CONFLICT DO NOTHING
RETURNING id, connect_time"
        .to_owned()
});

const HELD: &str = "-- look_up_web
SELECT id, connect_time FROM connection_logs WHERE id = ANY($1::uuid[]) AND method >= 3 AND connect_time >= $2 AND connect_time < $3";

/// Inserts what is not there yet. An event whose id another one of its day has is added to `folded.refused`.
pub(super) async fn insert(
    transaction: &Transaction<'_>,
    folded: &mut Folded<'_>,
    deltas: &mut Deltas,
) -> Result<(), StoreError> {
    if folded.web.is_empty() {
        return Ok(());
    }
    // In one order for all writers, so that two batches with the same events cannot deadlock.
    folded.web.sort_by_cached_key(|(_, event)| key(event));
    let mut distinct: Vec<_> = folded.web.iter().map(|(_, event)| *event).collect();
    distinct.dedup_by_key(|event| key(event));
    let mut arrays = WebArrays::default();
    for event in &distinct {
        arrays.push(event);
    }
    let inserted = keys(&query(transaction, &INSERT, &arrays.parameters()).await?)?;
    for event in distinct.iter().filter(|event| inserted.contains(&key(event))) {
        deltas.add_web(event);
    }
    let mut absent: Vec<_> = distinct.into_iter().map(key).collect();
    absent.retain(|key| !inserted.contains(key));
    let held = held(transaction, &absent).await?;
    absent.retain(|key| !held.contains(key));
    let taken = folded.web.iter().filter(|(_, event)| absent.contains(&key(event)));
    let taken: Vec<usize> = taken.map(|(index, _)| *index).collect();
    folded.refuse(taken, Refusal::EventIdTaken);
    Ok(())
}

/// What the log has under the ids that are wanted: a replay is there with its time.
async fn held(
    transaction: &Transaction<'_>,
    wanted: &[(Uuid, Timestamp)],
) -> Result<HashSet<(Uuid, Timestamp)>, StoreError> {
    let times = wanted.iter().map(|(_, time)| *time);
    let (Some(earliest), Some(latest)) = (times.clone().min(), times.max()) else {
        return Ok(HashSet::new());
    };
    let ids: Vec<Uuid> = wanted.iter().map(|(id, _)| *id).collect();
    plan_for_each(transaction).await?;
    let mut held = HashSet::new();
    for (from, to) in windows(earliest, latest) {
        held.extend(keys(&query(transaction, HELD, &[&ids, &from, &to]).await?)?);
    }
    Ok(held)
}

/// What makes an event idempotent: the id of its row, which its workspace is part of, and its time.
fn key(event: &WebEvent) -> (Uuid, Timestamp) {
    (event.row_id(), event.time)
}

fn keys(rows: &[Row]) -> Result<HashSet<(Uuid, Timestamp)>, StoreError> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
