//! What one would otherwise have: one table, its keys, and an index for each of the usual filters.

use std::sync::Arc;

use anyhow::Result;
use connlog_model::identity::AgentIdentity;
use tokio_postgres::{Client, Statement};

use crate::sessions::Session;

const MAKE: &str = "
CREATE TABLE plain_logs AS
SELECT id, connect_time, disconnect_time, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes, method,
    organization_id, workspace_owner_id, workspace_id, workspace_name, agent_name, connection_id, user_id,
    client_session_id, app_name, ip, user_agent, slug_or_port
FROM connection_logs;
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

/// The days that storage is compared over: whole ones, to which nothing was written by what else is measured.
const SAMPLE: &str = "
CREATE TABLE plain_sample (LIKE plain_logs);
CREATE UNIQUE INDEX ON plain_sample (connection_id, workspace_id, agent_name);
CREATE INDEX ON plain_sample (connect_time);
CREATE INDEX ON plain_sample (organization_id);
CREATE INDEX ON plain_sample (workspace_owner_id);
CREATE INDEX ON plain_sample (workspace_id);
INSERT INTO plain_sample SELECT * FROM plain_logs
WHERE connect_time >= date_trunc('day', now(), 'UTC') - interval '9 days' AND connect_time < date_trunc('day', now(), 'UTC')
ORDER BY connect_time;
VACUUM (ANALYZE) plain_sample;";

/// What they consist of.
const PARTS: &str = "
WITH days AS (SELECT day_table((date_trunc('day', now(), 'UTC') AT TIME ZONE 'UTC')::date - n)::regclass AS oid FROM generate_series(1, 9) AS n),
    sizes AS (SELECT 'heap' AS part, pg_relation_size(oid) AS size FROM days
        UNION ALL SELECT replace(substring(pg_get_indexdef(indexrelid) FROM 'USING btree (.*)'), 'uuid_hash_extended', 'hash'), pg_relation_size(indexrelid)
        FROM days JOIN pg_index ON indrelid = oid)
SELECT part, sum(size)::float8 / (SELECT count(*) FROM plain_sample) FROM sizes GROUP BY 1 ORDER BY 2 DESC";
const PLAIN_PARTS: &str = "
WITH sizes AS (SELECT 'heap' AS part, pg_relation_size('plain_sample') AS size
    UNION ALL SELECT substring(pg_get_indexdef(indexrelid) FROM 'USING btree (.*)'), pg_relation_size(indexrelid)
    FROM pg_index WHERE indrelid = 'plain_sample'::regclass)
SELECT part, size::float8 / (SELECT count(*) FROM plain_sample) FROM sizes ORDER BY 2 DESC";

/// Bytes a row of both layouts, all indexes included: connlog's history, and the one table, of the nine days before
/// today. Both were filled row by row in the order of time, with their indexes: one that is built afterwards is denser than it stays.
pub async fn bytes_per_row(client: &Client) -> Result<(f64, f64)> {
    let exists: bool = client.query_one("SELECT to_regclass('plain_sample') IS NOT NULL", &[]).await?.get(0);
    if !exists {
        for statement in SAMPLE.split(';').filter(|statement| !statement.trim().is_empty()) {
            client.batch_execute(statement).await?;
        }
    }
    for (layout, sql) in [("connlog", PARTS), ("the one table", PLAIN_PARTS)] {
        let parts = client.query(sql, &[]).await?;
        let parts: Vec<String> =
            parts.iter().map(|row| format!("{} {:.1}", row.get::<_, String>(0), row.get::<_, f64>(1))).collect();
        println!("bytes a row of {layout}: {}", parts.join(", "));
    }
    let sql = "
SELECT (SELECT sum(pg_total_relation_size(day_table(day)::regclass))::float8
        FROM days() AS day, date_trunc('day', now(), 'UTC') AS today
        WHERE day >= (today AT TIME ZONE 'UTC')::date - 9 AND day < (today AT TIME ZONE 'UTC')::date),
       pg_total_relation_size('plain_sample')::float8, (SELECT count(*) FROM plain_sample)::float8";
    let row = client.query_one(sql, &[]).await?;
    let (ours, plain, rows): (f64, f64, f64) = (row.get(0), row.get(1), row.get(2));
    Ok((ours / rows, plain / rows))
}

/// An event about a session.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) agent: Arc<AgentIdentity>,
    pub(crate) session: Session,
    /// Whether it is the end of it.
    pub(crate) has_ended: bool,
}

/// Events into the one table: what the first one of a session brings is filled in by the second.
const UPSERT: &str = "
INSERT INTO plain_logs AS p (id, connect_time, disconnect_time, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes,
    method, organization_id, workspace_owner_id, workspace_id, workspace_name, agent_name, connection_id, app_name, ip)
SELECT e.id, e.since, e.until, false, e.reason, e.code, e.rx, e.tx, 1, e.organization_id, e.owner_id, e.workspace_id, e.workspace_name,
    e.agent_name, e.id, 'vscode', '10.1.2.3'::inet
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::int[], $6::bigint[], $6::bigint[], $7::uuid[], $8::uuid[],
    $9::uuid[], $10::text[], $11::text[])
    AS e (id, since, until, reason, code, rx, tx, organization_id, owner_id, workspace_id, workspace_name, agent_name)
ON CONFLICT (connection_id, workspace_id, agent_name) DO UPDATE SET
    connect_time = least(p.connect_time, excluded.connect_time),
    disconnect_time = coalesce(p.disconnect_time, excluded.disconnect_time),
    disconnect_reason = coalesce(p.disconnect_reason, excluded.disconnect_reason),
    code = coalesce(p.code, excluded.code),
    rx_bytes = coalesce(p.rx_bytes, excluded.rx_bytes),
    tx_bytes = coalesce(p.tx_bytes, excluded.tx_bytes)";

/// The statement that writes events, prepared.
pub(crate) struct Upsert(Statement);

impl Upsert {
    pub(crate) async fn prepare(client: &Client) -> Result<Self> {
        Ok(Self(client.prepare(UPSERT).await?))
    }

    /// Writes rows, at most one of each session, in a transaction of their own.
    pub(crate) async fn run(&self, client: &Client, rows: &[Row]) -> Result<()> {
        fn column<'a, T>(rows: &'a [Row], value: impl Fn(&'a Row) -> T) -> Vec<T> {
            rows.iter().map(value).collect()
        }
        client
            .execute(
                &self.0,
                &[
                    &column(rows, |row| row.session.id),
                    &column(rows, |row| row.session.since),
                    &column(rows, |row| row.has_ended.then_some(row.session.until)),
                    &column(rows, |row| row.has_ended.then_some("client closed the connection")),
                    &column(rows, |row| row.has_ended.then_some(0)),
                    &column(rows, |row| row.has_ended.then_some(20_000_i64)),
                    &column(rows, |row| row.agent.workspace.organization_id),
                    &column(rows, |row| row.agent.workspace.owner_id),
                    &column(rows, |row| row.agent.workspace.workspace_id),
                    &column(rows, |row| row.agent.workspace.workspace_name.as_str()),
                    &column(rows, |row| row.agent.agent_name.as_str()),
                ],
            )
            .await?;
        Ok(())
    }
}
