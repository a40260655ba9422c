//! Baselines: one table that is upserted in batches, as most would build it, with and without its keys.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::NaiveDate;
use connlog_model::identity::AgentIdentity;
use tokio_postgres::{Client, Statement};

use crate::sessions::Session;

/// A layout of the one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// What a user would have: a primary key, the unique triple, three foreign keys, four indexes.
    Peer,
    /// The same without the primary key and the foreign keys.
    Plain,
}

impl Layout {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Peer, Self::Plain];

    /// The name of its table.
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Peer => "peer_logs",
            Self::Plain => "plain_logs",
        }
    }

    /// Its constraints and indexes on the table `name`.
    fn constraints(self, name: &str) -> String {
        let keys = match self {
            Self::Plain => "",
            Self::Peer => {
                "ALTER TABLE {name} ADD PRIMARY KEY (id);
                ALTER TABLE {name} ADD FOREIGN KEY (organization_id) REFERENCES organizations (id);
                ALTER TABLE {name} ADD FOREIGN KEY (workspace_owner_id) REFERENCES users (id);
                ALTER TABLE {name} ADD FOREIGN KEY (workspace_id) REFERENCES workspaces (id);"
            }
        };
        let indexes = "
            CREATE UNIQUE INDEX ON {name} (connection_id, workspace_id, agent_name);
            CREATE INDEX ON {name} (connect_time);
            CREATE INDEX ON {name} (organization_id);
            CREATE INDEX ON {name} (workspace_owner_id);
            CREATE INDEX ON {name} (workspace_id);";
        [keys, indexes].concat().replace("{name}", name)
    }
}

/// The rows of history, in the columns of the one table.
const ROWS: &str = "SELECT id, connect_time, disconnect_time, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes, method,
    organization_id, owner_id AS workspace_owner_id, workspace_id, workspace_name, agent_name, connection_id, user_id,
    client_session_id, app_name, ip, user_agent, slug_or_port
FROM connection_logs JOIN targets USING (target)";

/// Makes the tables of both layouts with the rows of history, unless they are there.
pub async fn make(client: &Client) -> Result<()> {
    for layout in Layout::ALL {
        let table = layout.table();
        let exists: bool = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?.get(0);
        if !exists {
            println!("making {table} with the same rows");
            let constraints = layout.constraints(table);
            each(client, &format!("CREATE TABLE {table} AS {ROWS}; {constraints} VACUUM (ANALYZE) {table}")).await?;
        }
    }
    Ok(())
}

/// Copies what history has before `day` into the peer's table, in place of what is there of that time.
pub(crate) async fn copy_before(client: &Client, day: NaiveDate) -> Result<()> {
    let before = "WHERE connect_time < $1::date::timestamp AT TIME ZONE 'UTC'";
    client.execute(&format!("DELETE FROM peer_logs {before}"), &[&day]).await?;
    client.execute(&format!("INSERT INTO peer_logs {ROWS} {before}"), &[&day]).await?;
    Ok(())
}

/// Each statement by itself: a batch is a transaction.
pub(crate) async fn each(client: &Client, statements: &str) -> Result<()> {
    for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// The days that storage is compared over: whole ones that are closed, to which nothing was written by what else is measured.
const SAMPLE: &str = "
INSERT INTO peer_sample SELECT * FROM peer_logs
WHERE connect_time >= date_trunc('day', now(), 'UTC') - interval '10 days' AND connect_time < date_trunc('day', now(), 'UTC') - interval '1 day'
ORDER BY connect_time;
VACUUM (ANALYZE) peer_sample;";

/// Its tables.
const OF_PEER: &str = "SELECT 'peer_sample'::regclass AS oid";
/// The same days of history.
const OF_HISTORY: &str =
    "SELECT day_table((now() AT TIME ZONE 'UTC')::date - n)::regclass AS oid FROM generate_series(2, 10) AS n";

/// Bytes of some tables for each row of the sample: in all, and of each part.
const BYTES: &str = "
WITH tables AS ({tables}), sizes AS (
    SELECT 'all' AS part, pg_total_relation_size(oid) AS size FROM tables
    UNION ALL SELECT 'heap', pg_relation_size(oid) FROM tables
    UNION ALL SELECT substring(pg_get_indexdef(indexrelid) FROM ' USING (.*)'), pg_relation_size(indexrelid)
        FROM tables JOIN pg_index ON indrelid = oid)
SELECT part, sum(size)::float8 / (SELECT count(*) FROM peer_sample) FROM sizes GROUP BY part ORDER BY part <> 'all', 2 DESC";

/// Bytes a row of both layouts, all indexes included: connlog's history, and the one table, of the nine days before
/// yesterday. Both were filled row by row in the order of time, with their indexes: one that is built afterwards is denser than it stays.
pub async fn bytes_per_row(client: &Client) -> Result<(f64, f64)> {
    let exists: bool = client.query_one("SELECT to_regclass('peer_sample') IS NOT NULL", &[]).await?.get(0);
    if !exists {
        let constraints = Layout::Peer.constraints("peer_sample");
        each(client, &format!("CREATE TABLE peer_sample (LIKE peer_logs); {constraints} {SAMPLE}")).await?;
    }
    Ok((bytes(client, "connlog", OF_HISTORY).await?, bytes(client, "the peer", OF_PEER).await?))
}

/// Prints what the bytes of a row consist of, and returns all.
async fn bytes(client: &Client, layout: &str, tables: &str) -> Result<f64> {
    let rows = client.query(&BYTES.replace("{tables}", tables), &[]).await?;
    let parts: Vec<(String, f64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let listed: Vec<String> = parts.iter().map(|(part, bytes)| format!("{part} {bytes:.1}")).collect();
    println!("bytes a row of {layout}: {}", listed.join(", "));
    let (_, all) = parts.first().context("there are no tables")?;
    Ok(*all)
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
INSERT INTO {table} AS p (id, connect_time, disconnect_time, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes,
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
    pub(crate) async fn prepare(client: &Client, layout: Layout) -> Result<Self> {
        Ok(Self(client.prepare(&UPSERT.replace("{table}", layout.table())).await?))
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
