//! Migrations of a database that is in use.

use connlog_store::schema;
use connlog_testkit::database::{TestDatabase, connect};
use refinery::{Runner, Target, load_sql_migrations};

/// Two events of one day with one id, which version 2 allowed, and one of another day.
const SHARED_ID: &str = "
SELECT attach_day(day::date) FROM generate_series(current_date - 1, current_date, interval '1 day') AS day;
INSERT INTO connection_logs (id, connect_time, method, disconnect_inferred, organization_id, workspace_owner_id, workspace_id,
    workspace_name, agent_name)
SELECT '11111111-1111-4111-8111-111111111111', time, 3, false, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'w', 'main'
FROM unnest(ARRAY[current_date - interval '9 hours', current_date + interval '5 minutes', current_date + interval '1 minute']) AS time;";

#[tokio::test]
async fn version_3_keeps_events_that_share_an_id_on_one_day() {
    let database = TestDatabase::create_empty().await.unwrap();
    let mut client = connect(database.url()).await.unwrap();
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let migrations = load_sql_migrations("../../migrations").unwrap();
    let to_2 = Runner::new(&migrations).set_target(Target::Version(2));
    to_2.run_async(&mut client).await.unwrap();
    client.batch_execute(SHARED_ID).await.unwrap();

    let applied = schema::migrate(&database.store().unwrap()).await.unwrap();
    assert_eq!(applied.first(), Some(&3));
    let sql = "SELECT id = '11111111-1111-4111-8111-111111111111' FROM connection_logs ORDER BY connect_time";
    let kept: Vec<bool> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, [true, true, false], "the earliest of a day keeps its id");
}
