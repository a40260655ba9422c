//! Migrations of a database that is in use.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use connlog_model::search::Search;
use connlog_store::read::{PageRequest, Reach};
use connlog_store::schema;
use connlog_testkit::database::{TestDatabase, connect};
use connlog_testkit::wait::until;
use refinery::{Runner, Target, load_sql_migrations};
use tokio_postgres::Client;

/// A database as an earlier version of the programs had it, and a connection to it.
async fn at_version(version: i32) -> (TestDatabase, Client) {
    let database = TestDatabase::create_empty().await.unwrap();
    let mut client = connect(database.url()).await.unwrap();
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let migrations = load_sql_migrations("../../migrations").unwrap();
    Runner::new(&migrations).set_target(Target::Version(version)).run_async(&mut client).await.unwrap();
    (database, client)
}

/// Two events of one day with one id, which version 2 allowed, and one of another day.
const SHARED_ID: &str = "
SELECT attach_day(day::date) FROM generate_series(current_date - 1, current_date, interval '1 day') AS day;
INSERT INTO connection_logs (id, connect_time, method, disconnect_inferred, organization_id, workspace_owner_id, workspace_id,
    workspace_name, agent_name)
SELECT '11111111-1111-4111-8111-111111111111', time, 3, false, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'w', 'main'
FROM unnest(ARRAY[current_date - interval '9 hours', current_date + interval '5 minutes', current_date + interval '1 minute']) AS time;";

#[tokio::test]
async fn version_3_keeps_events_that_share_an_id_on_one_day() {
    let (database, client) = at_version(2).await;
    client.batch_execute(SHARED_ID).await.unwrap();

    let applied = schema::migrate(&database.store().unwrap()).await.unwrap();
    assert_eq!(applied.first(), Some(&3));
    let sql = "SELECT id = '11111111-1111-4111-8111-111111111111' FROM connection_logs ORDER BY connect_time";
    let kept: Vec<bool> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, [true, true, false], "the earliest of a day keeps its id");
}

/// A workspace that had another owner, another organization and another name than the directory has by now.
const MOVED: &str = "
SELECT attach_day(current_date);
INSERT INTO workspaces (id, organization_id, owner_id, name, name_key, deleted)
VALUES ('c0000000-0000-4000-8000-000000000001', gen_random_uuid(), gen_random_uuid(), 'new', 'new', false);
INSERT INTO workspace_names (name_key, workspace_id) VALUES ('new', 'c0000000-0000-4000-8000-000000000001');
INSERT INTO connection_logs (id, connect_time, disconnect_time, method, disconnect_inferred, organization_id, workspace_owner_id,
    workspace_id, workspace_name, agent_name, connection_id)
SELECT gen_random_uuid(), current_date + interval '1 minute', current_date + interval '2 minutes', 1, false, gen_random_uuid(),
    'b0000000-0000-4000-8000-000000000001', 'c0000000-0000-4000-8000-000000000001', 'Old', 'main', gen_random_uuid();
INSERT INTO open_connections (id, connect_time, method, organization_id, workspace_owner_id, workspace_id, workspace_name, agent_name,
    connection_id)
SELECT gen_random_uuid(), current_date + interval '1 minute', 1, gen_random_uuid(), 'b0000000-0000-4000-8000-000000000002',
    'c0000000-0000-4000-8000-000000000001', 'Older', 'main', gen_random_uuid();";

#[tokio::test]
async fn version_5_finds_what_was_there_before_it() {
    let (database, client) = at_version(4).await;
    client.batch_execute(MOVED).await.unwrap();

    let store = database.store().unwrap();
    assert_eq!(schema::migrate(&store).await.unwrap(), [5, 6, 7, 8, 9, 10, 11, 12, 13]);
    for (query, entries) in [
        ("workspace_id:c0000000-0000-4000-8000-000000000001", 2),
        ("workspace_owner:b0000000-0000-4000-8000-000000000001", 1),
        ("workspace_owner:b0000000-0000-4000-8000-000000000002", 1),
        ("workspace:old", 1),
        ("workspace:older", 1),
        ("workspace:new", 0),
    ] {
        let request = PageRequest::first(10, chrono::Utc::now());
        let page = store.page(&Search::parse(query).unwrap(), &Reach::default(), request).await.unwrap().unwrap();
        assert_eq!((page.entries.len(), page.count.entries), (entries, entries.try_into().unwrap()), "{query}");
    }
}

#[tokio::test]
async fn version_6_is_begun_anew_if_a_reader_and_it_wait_for_each_other() {
    let (database, client) = at_version(5).await;
    client.batch_execute("SELECT attach_day(current_date - 1), attach_day(current_date)").await.unwrap();
    let names = "SELECT day_table(current_date - 1), day_table(current_date)";
    let row = client.query_one(names, &[]).await.unwrap();
    let (old, new): (String, String) = (row.get(0), row.get(1));

    // A reader goes from new days to old ones, and will not be the one whom the server stops.
    let reader = connect(database.url()).await.unwrap();
    reader.batch_execute(&format!("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM {new} LIMIT 1")).await.unwrap();
    let store = database.store().unwrap();
    let migrating = tokio::spawn(async move { schema::migrate(&store).await });
    let waits =
        "SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = $1::text::regclass";
    until("the migration waits for the reader", async || {
        assert!(!migrating.is_finished(), "it does not wait for the reader");
        !client.query(waits, &[&new]).await.unwrap().is_empty()
    })
    .await;
    reader.batch_execute(&format!("SELECT FROM {old} LIMIT 1; COMMIT")).await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), [6, 7, 8, 9, 10, 11, 12, 13]);
}

#[tokio::test]
async fn version_9_waits_for_readers_before_it_keeps_anybody_from_the_log() {
    let (database, client) = at_version(8).await;
    // A search for an owner looks for homes, then at the log.
    let reader = connect(database.url()).await.unwrap();
    reader.batch_execute("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM workspace_owners").await.unwrap();
    let store = database.store().unwrap();
    let migrating = tokio::spawn(async move { schema::migrate(&store).await });
    let waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'workspace_owners'::regclass";
    until("the migration waits for the reader", async || {
        assert!(!migrating.is_finished(), "it does not wait for the reader");
        !client.query(waits, &[]).await.unwrap().is_empty()
    })
    .await;
    let holds = "SELECT FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation IN ('connection_logs'::regclass, 'open_connections'::regclass)";
    assert!(client.query(holds, &[]).await.unwrap().is_empty(), "the reader would wait for it");
    reader.batch_execute("SELECT FROM connection_logs, open_connections; COMMIT").await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), [9, 10, 11, 12, 13]);
}
