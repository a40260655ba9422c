//! Web events: points in time that go straight to history. `event_id` and time together make them idempotent.

use std::collections::HashSet;
use std::sync::LazyLock;

use connlog_model::clock::Timestamp;
use connlog_model::event::WebEvent;
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::counts::Deltas;
use crate::StoreError;
use crate::row::WebArrays;
use crate::session::query;

static INSERT: LazyLock<String> = LazyLock::new(|| {
    "-- insert_web
INSERT INTO connection_logs (id, connection_id, organization_id, workspace_owner_id, workspace_id, workspace_name,
    agent_name, connect_time, method, app_name, ip, client_session_id, user_id, attribute_ranks, code, user_agent,
    slug_or_port, disconnect_inferred)
SELECT k.*, false FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
    $8::timestamptz[], $9::smallint[], $10::text[], $11::inet[], $12::uuid[], $13::uuid[], $14::bytea[], $15::int[],
    $16::text[], $17::text[]) AS k
ON CONFLICT (id, connect_time) DO NOTHING
RETURNING id, connect_time"
        .to_owned()
});

/// Inserts what is not there yet.
pub(super) async fn insert(
    transaction: &Transaction<'_>,
    events: &[&WebEvent],
    deltas: &mut Deltas,
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    // In one order for all writers, so that two batches with the same events cannot deadlock.
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|event| (event.event_id, event.time));
    sorted.dedup_by_key(|event| (event.event_id, event.time));
    let mut arrays = WebArrays::default();
    for event in &sorted {
        arrays.push(event);
    }
    let mut inserted: HashSet<(Uuid, Timestamp)> = HashSet::with_capacity(sorted.len());
    for row in query(transaction, &INSERT, &arrays.parameters()).await? {
        inserted.insert((row.try_get(0)?, row.try_get(1)?));
    }
    for event in sorted.into_iter().filter(|event| inserted.contains(&(event.event_id, event.time))) {
        deltas.add_web(event);
    }
    Ok(())
}
