//! History by the million: pseudo-random, the same for the same numbers, made by the database itself.

use std::sync::Arc;

use anyhow::Result;
use chrono::{Days, NaiveDate};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_store::{Store, StoreConfig, schema};
use connlog_testkit::database::connect;
use tokio_postgres::Client;

/// Organizations, users and workspaces of the directory; `history.sql` knows the two latter.
const ORGANIZATIONS: i64 = 10;
const USERS: i64 = 2000;
const WORKSPACES: i64 = 6000;
/// Connections that write days side by side.
const WRITERS: usize = 2;

/// Each workspace has an owner, each owner an organization; half of the organizations share a tenth of the users.
const DIRECTORY: &str = "
INSERT INTO organizations (id, name, name_key, display_name, icon, deleted)
SELECT ('a0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'org-' || n, 'org-' || n, 'Organization ' || n, '', false
FROM generate_series(0, {organizations} - 1) AS n;
INSERT INTO users (id, username, username_key, email, email_key, name, avatar_url, status, login_type, deleted,
    created_at, updated_at, last_seen_at)
SELECT ('b0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'user-' || n, 'user-' || n,
    'user-' || n || '@example.com', 'user-' || n || '@example.com', 'User ' || n, '', 'active', 'oidc', false,
    '2026-01-01Z', '2026-01-01Z', '2026-01-01Z'
FROM generate_series(0, {users} - 1) AS n;
INSERT INTO workspaces (id, organization_id, owner_id, name, name_key, deleted)
SELECT ('c0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid,
    ('a0000000-0000-0000-0000-' || lpad((CASE WHEN n % {users} % 10 = 0 THEN n % {users} / 10 % {organizations} ELSE n % 5 END)::text, 12, '0'))::uuid,
    ('b0000000-0000-0000-0000-' || lpad((n % {users})::text, 12, '0'))::uuid, 'workspace-' || n, 'workspace-' || n, false
FROM generate_series(0, {workspaces} - 1) AS n;";

const COUNT_DAY: &str = "-- count_day
INSERT INTO connection_log_counts (day, organization_id, method, app_name, shard, entries, ended)
SELECT $1::date, organization_id, method, coalesce(app_name, ''), 1 + $2::smallint, count(*), count(disconnect_time)
FROM connection_logs JOIN targets USING (target)
WHERE connect_time >= $1::date::timestamp AT TIME ZONE 'UTC' AND connect_time < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
GROUP BY organization_id, method, app_name";

/// Makes the schema, a directory and `rows` rows over the `days` that end with `last`, and vacuums.
pub async fn generate(url: &str, rows: i64, days: u32, last: NaiveDate) -> Result<()> {
    let store = Store::new(&StoreConfig::new(url, "connlog-bench", 2))?;
    schema::migrate(&store).await?;
    let client = connect(url).await?;
    let directory = DIRECTORY
        .replace("{organizations}", &ORGANIZATIONS.to_string())
        .replace("{users}", &USERS.to_string())
        .replace("{workspaces}", &WORKSPACES.to_string());
    client.batch_execute(&directory).await?;
    register(&store, &client).await?;
    client.batch_execute("ANALYZE organizations, users, workspaces, agents, targets").await?;
    let per_day = rows / i64::from(days);
    let writers = (0..WRITERS).map(|writer| {
        let (url, store) = (url.to_owned(), store.clone());
        tokio::spawn(async move {
            let client = connect(&url).await?;
            for number in (0..days).filter(|number| *number as usize % WRITERS == writer) {
                let day = last - Days::new(u64::from(days - 1 - number));
                store.attach_days([day]).await?;
                write_day(&client, day, per_day, i64::from(number) * per_day, i16::try_from(writer)?).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    client.batch_execute("VACUUM (ANALYZE) connection_logs").await?;
    client.batch_execute("VACUUM (ANALYZE) connection_log_counts").await?;
    Ok(())
}

/// Gives each workspace its agent of history, as an event of it would.
async fn register(store: &Store, client: &Client) -> Result<()> {
    let rows = client.query("SELECT organization_id, owner_id, id, name FROM workspaces ORDER BY id", &[]).await?;
    let agents: Vec<Arc<AgentIdentity>> = rows
        .iter()
        .map(|row| {
            let workspace = Workspace {
                organization_id: row.get(0),
                owner_id: row.get(1),
                workspace_id: row.get(2),
                workspace_name: row.get(3),
            };
            Arc::new(AgentIdentity { agent_id: None, agent_name: "main".to_owned(), workspace })
        })
        .collect();
    store.register(&agents).await?;
    Ok(())
}

/// Fills a day up to `rows` rows, with some that no other day has.
pub(crate) async fn fill_day(url: &str, day: NaiveDate, rows: i64) -> Result<()> {
    let client = connect(url).await?;
    let sql = "WITH gone AS (DELETE FROM connection_log_counts WHERE day = $1 RETURNING entries) SELECT coalesce(sum(entries), 0)::bigint FROM gone";
    let present: i64 = client.query_one(sql, &[&day]).await?.get(0);
    write_day(&client, day, rows - present, FIRST_OF_ADDED, 0).await
}

/// Numbers from here on are of no generated day.
const FIRST_OF_ADDED: i64 = 1 << 40;

async fn write_day(client: &Client, day: NaiveDate, rows: i64, first: i64, writer: i16) -> Result<()> {
    client.execute(include_str!("history.sql"), &[&day, &rows, &first]).await?;
    client.execute(COUNT_DAY, &[&day, &writer]).await?;
    Ok(())
}
