//! Counts of history by day, organization, method and app, changed with the rows themselves.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use connlog_model::connection::Connection;
use connlog_model::event::WebEvent;
use uuid::Uuid;

use crate::StoreError;
use crate::partitions::day_of;
use crate::row::stored_method;
use crate::session::{Transaction, execute};

const ADD: &str = "-- add_counts
INSERT INTO connection_log_counts (day, organization_id, method, app_name, shard, entries)
SELECT day, organization_id, method, app_name, $6, entries
FROM unnest($1::date[], $2::uuid[], $3::smallint[], $4::text[], $5::bigint[]) AS k (day, organization_id, method, app_name, entries)
ON CONFLICT (day, organization_id, method, app_name, shard) DO UPDATE
SET entries = connection_log_counts.entries + excluded.entries";

/// Changes of counts, in the order in which they are written: one order for all writers, so that they cannot deadlock.
#[derive(Debug, Default)]
pub(crate) struct Deltas(BTreeMap<(NaiveDate, Uuid, i16, String), i64>);

impl Deltas {
    pub(crate) fn add(&mut self, connection: &Connection, entries: i64) {
        let app_name = connection.app_name.clone().unwrap_or_default();
        let organization_id = connection.agent.workspace.organization_id;
        let key = (day_of(connection.connect_time), organization_id, stored_method(connection).code(), app_name);
        *self.0.entry(key).or_default() += entries;
    }

    pub(super) fn add_web(&mut self, event: &WebEvent) {
        let key = (day_of(event.time), event.workspace.organization_id, event.method.code(), String::new());
        *self.0.entry(key).or_default() += 1;
    }
}

/// Adds `deltas` to the counts, in `shard`.
pub(crate) async fn add(transaction: &Transaction<'_>, deltas: &Deltas, shard: i16) -> Result<(), StoreError> {
    let changes: Vec<_> = deltas.0.iter().filter(|(_, entries)| **entries != 0).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let days: Vec<NaiveDate> = changes.iter().map(|(key, _)| key.0).collect();
    let organizations: Vec<Uuid> = changes.iter().map(|(key, _)| key.1).collect();
    let methods: Vec<i16> = changes.iter().map(|(key, _)| key.2).collect();
    let apps: Vec<&str> = changes.iter().map(|(key, _)| key.3.as_str()).collect();
    let entries: Vec<i64> = changes.iter().map(|(_, entries)| **entries).collect();
    execute(transaction, ADD, &[&days, &organizations, &methods, &apps, &entries, &shard]).await?;
    Ok(())
}
