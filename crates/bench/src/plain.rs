//! What one would otherwise have: one table, its keys, and an index for each of the usual filters.

use anyhow::Result;
use tokio_postgres::Client;

const MAKE: &str = "
CREATE TABLE plain_logs AS
SELECT id, connect_time, disconnect_time, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes, method,
    organization_id, workspace_owner_id, workspace_id, workspace_name, agent_name, connection_id, user_id,
    client_session_id, app_name, ip, user_agent, slug_or_port
FROM connection_logs;
ALTER TABLE plain_logs ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON plain_logs (connection_id, workspace_id, agent_name);
CREATE INDEX ON plain_logs (connect_time);
CREATE INDEX ON plain_logs (organization_id);
CREATE INDEX ON plain_logs (workspace_owner_id);
CREATE INDEX ON plain_logs (workspace_id);
VACUUM (ANALYZE) plain_logs;";

/// Makes `plain_logs` with the rows of history, unless it is there.
pub async fn make(client: &Client) -> Result<()> {
    let exists: bool = client.query_one("SELECT to_regclass('plain_logs') IS NOT NULL", &[]).await?.get(0);
    if !exists {
        println!("making the one-table layout with the same rows");
        for statement in MAKE.split(';').filter(|statement| !statement.trim().is_empty()) {
            client.batch_execute(statement).await?;
        }
    }
    Ok(())
}

/// The days that storage is compared over.
const SAMPLE: &str = "
CREATE TABLE plain_sample (LIKE plain_logs);
ALTER TABLE plain_sample ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON plain_sample (connection_id, workspace_id, agent_name);
CREATE INDEX ON plain_sample (connect_time);
CREATE INDEX ON plain_sample (organization_id);
CREATE INDEX ON plain_sample (workspace_owner_id);
CREATE INDEX ON plain_sample (workspace_id);
INSERT INTO plain_sample SELECT * FROM plain_logs
WHERE connect_time >= (SELECT max(day)::timestamp AT TIME ZONE 'UTC' - interval '8 days' FROM days() AS day) ORDER BY connect_time;
VACUUM (ANALYZE) plain_sample;";

/// Bytes a row of both layouts, all indexes included: connlog's history, and the one table, of the last nine days. Both
/// were filled row by row in the order of time, with their indexes: one that is built afterwards is denser than it stays.
pub async fn bytes_per_row(client: &Client) -> Result<(f64, f64)> {
    let exists: bool = client.query_one("SELECT to_regclass('plain_sample') IS NOT NULL", &[]).await?.get(0);
    if !exists {
        for statement in SAMPLE.split(';').filter(|statement| !statement.trim().is_empty()) {
            client.batch_execute(statement).await?;
        }
    }
    let sql = "
SELECT (SELECT sum(pg_total_relation_size(day_table(day)::regclass))::float8
        FROM days() AS day WHERE day >= (SELECT max(day) FROM days() AS day) - 8),
       pg_total_relation_size('plain_sample')::float8, (SELECT count(*) FROM plain_sample)::float8";
    let row = client.query_one(sql, &[]).await?;
    let (ours, plain, rows): (f64, f64, f64) = (row.get(0), row.get(1), row.get(2));
    Ok((ours / rows, plain / rows))
}
