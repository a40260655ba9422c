//! What the write path reads, by PostgreSQL's own count: nothing but what it looks for, whatever the planner believes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use chrono::{TimeDelta, Utc};
use connlog_model::clock::Timestamp;
use connlog_model::event::{Action, Event, Outcome};
use connlog_store::write::Batch;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::wait::until;
use tokio_postgres::Client;

/// Connections of a batch.
const CONNECTIONS: u128 = 2000;
/// Batches of connects, each followed by one of disconnects.
const BATCHES: i64 = 4;

/// A day that began since the last look of the server at its tables, so that it takes it for nearly empty.
const NEW_DAY: &str = "
DO $$
DECLARE day_name text := day_table((now() AT TIME ZONE 'UTC')::date);
BEGIN
    PERFORM attach_day((now() AT TIME ZONE 'UTC')::date);
    EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = off)', day_name);
END
$$;
INSERT INTO connection_logs (id, connect_time, disconnect_time, method, disconnect_inferred, organization_id, home,
    workspace_name, agent_name, connection_id)
SELECT gen_random_uuid(), date_trunc('day', now(), 'UTC') + make_interval(secs => n * 0.1), now(), 1, false, gen_random_uuid(),
    n, 'dev', 'main', gen_random_uuid()
FROM generate_series(1, 300) AS n;
INSERT INTO homes SELECT n, gen_random_uuid(), gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 5000) AS n;
ANALYZE homes;";

/// Entries that were read of each index that was used of that day, by the name that it has for all days, of the open set and of the homes.
const READ: &str = "
SELECT coalesce((SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = indexrelid), indexrelname) AS index, idx_tup_read
FROM pg_stat_user_indexes
WHERE relname IN ('open_connections', 'homes', day_table((now() AT TIME ZONE 'UTC')::date)) AND idx_scan > 0 ORDER BY 1";

const CONNECTED: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'plans' AND datname = current_database()";

const SCANS_OF_OPEN: &str = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'open_connections'";

fn batch(first: u128, at: Timestamp, has_ended: bool) -> Batch {
    let site = fixtures::site(1, 1);
    let event = |number: u128| -> Event {
        if has_ended {
            let action = Action::Disconnect { connected_at: Some(at), outcome: Outcome::default() };
            return fixtures::agent_event(&site.agent, first + number, at + TimeDelta::seconds(1), action);
        }
        fixtures::connect(&site.agent, first + number, at)
    };
    Batch { events: (0..CONNECTIONS).map(event).collect(), ..Batch::default() }
}

async fn one(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_batch_reads_nothing_but_what_it_looks_for() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute(NEW_DAY).await.unwrap();
    // Empty at the server's last look, too, and full of what has ended since.
    client
        .batch_execute("ALTER TABLE open_connections SET (autovacuum_enabled = off); ANALYZE open_connections")
        .await
        .unwrap();
    let scans_before = one(&client, SCANS_OF_OPEN).await;

    let config = StoreConfig { by_key: true, ..StoreConfig::new(database.url(), "plans", 1) };
    let store = Store::new(&config).unwrap();
    let at = Utc::now();
    for number in 1..=BATCHES {
        let first = u128::try_from(number).unwrap() * 10_000;
        for has_ended in [false, true] {
            store.apply_batch(&batch(first, at, has_ended), 1, at).await.unwrap();
        }
    }
    // A connection hands in what it counted at its end.
    drop(store);
    until("the connection ends", async || one(&client, CONNECTED).await == 0).await;
    let rows = client.query(READ, &[]).await.unwrap();
    let read: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // Each connection once to be locked and once to be removed, and none in history.
    let of_keys = 2 * BATCHES * i64::try_from(CONNECTIONS).unwrap();
    // What was locked has its home once each; noting the one home of all looks for it, too.
    let expected =
        [("connection_logs_session_id", 0), ("homes_pkey", of_keys / 2 + 1), ("open_connections_pkey", of_keys)];
    assert_eq!(read, expected.map(|(index, entries)| (index.to_owned(), entries)));
    assert_eq!(one(&client, SCANS_OF_OPEN).await, scans_before, "scans of the whole open set");
}
