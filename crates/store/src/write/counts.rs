//! Counts of the log by day, organization, method and app, changed with the rows themselves.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use connlog_model::connection::Connection;
use connlog_model::event::WebEvent;
use uuid::Uuid;

use crate::days::day_of;
use crate::row::stored_method;
use crate::session::Step;

const ADD: &str = "-- add_counts
INSERT INTO connection_log_counts (day, organization_id, method, app_name, shard, entries, ended)
SELECT day, organization_id, method, app_name, $7, entries, ended
FROM unnest($1::date[], $2::uuid[], $3::smallint[], $4::text[], $5::bigint[], $6::bigint[])
    AS k (day, organization_id, method, app_name, entries, ended)
ON CONFLICT (day, organization_id, method, app_name, shard) DO UPDATE
SET entries = connection_log_counts.entries + excluded.entries, ended = connection_log_counts.ended + excluded.ended";

/// Rows, and those among them that have an end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Delta {
    entries: i64,
    ended: i64,
}

/// Changes of counts, in the order in which they are written: one order for all writers, so that they cannot deadlock.
#[derive(Debug, Default)]
pub(crate) struct Deltas(BTreeMap<(NaiveDate, Uuid, i16, String), Delta>);

impl Deltas {
    pub(super) fn add(&mut self, connection: &Connection, entries: i64) {
        let app_name = connection.app_name.clone().unwrap_or_default();
        let organization_id = connection.agent.workspace.organization_id;
        let key = (day_of(connection.connect_time), organization_id, stored_method(connection).code(), app_name);
        let delta = self.0.entry(key).or_default();
        delta.entries += entries;
        delta.ended += if connection.end.is_some() { entries } else { 0 };
    }

    pub(super) fn add_web(&mut self, event: &WebEvent) {
        let organization_id = event.agent.workspace.organization_id;
        let key = (day_of(event.time), organization_id, event.method.code(), String::new());
        self.0.entry(key).or_default().entries += 1;
    }
}

/// Changes of counts, one array a column.
pub(super) struct Columns<'a> {
    day: Vec<NaiveDate>,
    organization_id: Vec<Uuid>,
    method: Vec<i16>,
    app_name: Vec<&'a str>,
    entries: Vec<i64>,
    ended: Vec<i64>,
    shard: i16,
}

impl<'a> Columns<'a> {
    pub(super) fn of(deltas: &'a Deltas, shard: i16) -> Self {
        let changes: Vec<_> = deltas.0.iter().filter(|(_, delta)| **delta != Delta::default()).collect();
        Self {
            day: changes.iter().map(|(key, _)| key.0).collect(),
            organization_id: changes.iter().map(|(key, _)| key.1).collect(),
            method: changes.iter().map(|(key, _)| key.2).collect(),
            app_name: changes.iter().map(|(key, _)| key.3.as_str()).collect(),
            entries: changes.iter().map(|(_, delta)| delta.entries).collect(),
            ended: changes.iter().map(|(_, delta)| delta.ended).collect(),
            shard,
        }
    }

    /// The statement that adds them, if there are any.
    pub(super) fn step(&self) -> Option<Step<'_>> {
        let Self { day, organization_id, method, app_name, entries, ended, shard } = self;
        (!day.is_empty()).then(|| Step::Query(ADD, vec![day, organization_id, method, app_name, entries, ended, shard]))
    }
}
