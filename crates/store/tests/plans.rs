//! What the write path reads and writes, by PostgreSQL's own count: nothing but what it looks for, whatever the planner
//! believes, and no index for an end.

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

/// What the server believes of the day that is written: nothing was ever said, it was empty, it was small, it was as full as it will be.
const STATES: [&str; 6] = [
    "",
    "ANALYZE {day}",
    "VACUUM ANALYZE {day}",
    "INSERT INTO {day} SELECT * FROM somebodys LIMIT 10; ANALYZE {day}; DELETE FROM {day}",
    "INSERT INTO {day} SELECT * FROM somebodys; ANALYZE {day}; DELETE FROM {day}",
    "INSERT INTO {day} SELECT * FROM somebodys; ANALYZE {day}",
];

/// A day without autovacuum, and rows of other connections.
const NEW_DAY: &str = "
DO $$
DECLARE day_name text := day_table((now() AT TIME ZONE 'UTC')::date);
BEGIN
    PERFORM attach_day((now() AT TIME ZONE 'UTC')::date);
    EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = off)', day_name);
END
$$;
CREATE TABLE somebodys (LIKE connection_logs INCLUDING DEFAULTS);
INSERT INTO somebodys (id, connect_time, received_at, disconnect_time, method, method_known, target, connection_id)
SELECT gen_random_uuid(), date_trunc('day', now(), 'UTC') + make_interval(secs => n * 0.1), now(), now(), 1, true, n, gen_random_uuid()
FROM generate_series(1, 5000) AS n;";

/// Entries that were read of each index that was used of that day, by the name that it has for all days.
const READ: &str = "
SELECT coalesce((SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = indexrelid), 'ids') AS index, idx_tup_read
FROM pg_stat_user_indexes
WHERE relname = day_table((now() AT TIME ZONE 'UTC')::date) AND idx_scan > 0 ORDER BY 1";

const CONNECTED: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'plans' AND datname = current_database()";

const SCANS: &str =
    "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = day_table((now() AT TIME ZONE 'UTC')::date)";

const UPDATED: &str = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = day_table((now() AT TIME ZONE 'UTC')::date)";

fn batch(first: u128, at: Timestamp, has_ended: bool) -> Batch {
    let site = fixtures::site(1, 1);
    let event = |number: u128| -> Event {
        if has_ended {
            let outcome = Outcome { reason: "closed".to_owned(), code: Some(0), rx_bytes: Some(1), tx_bytes: Some(2) };
            let action = Action::Disconnect { connected_at: Some(at), outcome };
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
async fn a_batch_reads_nothing_but_what_it_looks_for_and_an_end_touches_no_index() {
    for state in STATES {
        let database = TestDatabase::create().await.unwrap();
        let client = database.client().await.unwrap();
        client.batch_execute(NEW_DAY).await.unwrap();
        let day: String =
            client.query_one("SELECT day_table((now() AT TIME ZONE 'UTC')::date)", &[]).await.unwrap().get(0);
        for sql in state.replace("{day}", &day).split(';').filter(|sql| !sql.is_empty()) {
            client.batch_execute(sql).await.unwrap();
        }
        // What making the day has counted is handed in before all begins at nothing.
        for sql in ["SELECT pg_stat_force_next_flush()", "SELECT pg_stat_reset()"] {
            client.batch_execute(sql).await.unwrap();
        }
        let scans_before = one(&client, SCANS).await;

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
        let connections = BATCHES * i64::try_from(CONNECTIONS).unwrap();
        // Each connection once to be looked up, and once to be ended.
        assert_eq!(read, [("ids".to_owned(), 2 * connections)], "after {state:?}");
        assert_eq!(one(&client, SCANS).await, scans_before, "scans of the whole day, after {state:?}");
        let row = client.query_one(UPDATED, &[]).await.unwrap();
        let (updated, hot): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(updated, connections);
        assert!(hot * 100 >= updated * 95, "{hot} of {updated} ends touched no index, after {state:?}");
    }
}

/// Without this, an index on a column of these makes each end touch all indexes.
#[tokio::test]
async fn no_index_has_a_column_that_an_end_sets() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute("SELECT attach_day(current_date)").await.unwrap();
    let indexed = "SELECT DISTINCT attname::text FROM pg_index
        JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = 'pg_class'::regclass AND refobjid = indrelid
        JOIN pg_attribute ON attrelid = indrelid AND attnum = refobjsubid
        JOIN pg_class ON pg_class.oid = indrelid
        WHERE relname LIKE 'connection_logs%' ORDER BY 1";
    let indexed: Vec<String> = client.query(indexed, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(indexed, ["app_name", "connect_time", "connection_id", "id", "method", "target", "user_id"]);
}
