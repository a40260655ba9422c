//! The open set: taking, changing and giving back the keys that serialize all writers of a connection.
//!
//! A batch takes its keys in two steps, each in the order of the ids: it locks those that are there, then inserts the
//! others. The second step never waits for a row that merely is locked, so writers cannot deadlock (README.md).

use std::collections::HashSet;
use std::sync::LazyLock;

use connlog_model::connection::Connection;
use uuid::Uuid;

use crate::StoreError;
use crate::row::{AT_HOME, Columns as _, OPEN_COLUMNS, OPEN_READ, OpenArrays, open_connection};
use crate::session::{Transaction, execute, insert_rows, query};

const UNNEST: &str = "unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], \
     $7::timestamptz[], $8::smallint[], $9::text[], $10::inet[], $11::uuid[], $12::uuid[], $13::smallint[], \
     $14::boolean[], $15::timestamptz[], $16::uuid[], $17::uuid[])";

/// In the order of the ids, in which all writers lock. `= ANY`, and homes only to what was locked: on an open set that is empty but
/// bloated the planner would scan all of it to join, or begin with the homes.
static LOCK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- lock_keys\nSELECT {} FROM (\n\
         SELECT {OPEN_COLUMNS} FROM open_connections WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE\n\
         ) AS held {AT_HOME} ORDER BY id",
        *OPEN_READ
    )
});

/// A key that somebody else is inserting is waited for, and is an error if it stays.
static INSERT: LazyLock<String> =
    LazyLock::new(|| format!("-- insert_keys\nCOPY open_connections ({OPEN_COLUMNS}) FROM STDIN (FORMAT binary)"));

/// The same through a pooler.
static INSERT_UNNESTED: LazyLock<String> =
    LazyLock::new(|| format!("-- insert_keys\nINSERT INTO open_connections ({OPEN_COLUMNS})\nSELECT * FROM {UNNEST}"));

static TAKE_ABSENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- take_absent_keys\nINSERT INTO open_connections ({OPEN_COLUMNS})\nSELECT * FROM {UNNEST}\n\
         ON CONFLICT (id) DO NOTHING\nRETURNING id"
    )
});

static UPDATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- update_open\nUPDATE open_connections AS o\nSET connect_time = k.connect_time, method = k.method, \
         app_name = k.app_name, ip = k.ip, client_session_id = k.client_session_id, user_id = k.user_id, \
         start_source = k.start_source, method_known = k.method_known, received_at = k.received_at, \
         agent_id = k.agent_id, boot_id = k.boot_id, \
         organization_id = k.organization_id, home = k.home, \
         workspace_name = k.workspace_name, changed_xid = pg_current_xact_id()\n\
         FROM {UNNEST} AS k ({OPEN_COLUMNS})\nWHERE o.id = k.id AND o.id = ANY($1::uuid[])"
    )
});

const REMOVE: &str = "-- remove_keys
DELETE FROM open_connections WHERE id = ANY($1::uuid[])";

fn arrays<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> OpenArrays<'a> {
    let mut arrays = OpenArrays::default();
    connections.into_iter().for_each(|connection| arrays.push(connection));
    arrays
}

/// Locks those of the connections that are open, waiting for whoever holds them, and returns them in the order of the ids.
pub(crate) async fn lock(transaction: &Transaction<'_>, ids: &[Uuid]) -> Result<Vec<Connection>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    query(transaction, &LOCK, &[&ids]).await?.iter().map(open_connection).collect()
}

/// Takes the keys of connections that [`lock`] did not find, given in the order of the ids. They are now in the open set
/// as given. If somebody else opened one meanwhile, the transaction has to begin anew.
pub(super) async fn insert<'a>(
    transaction: &Transaction<'_>,
    connections: impl IntoIterator<Item = &'a Connection>,
) -> Result<(), StoreError> {
    insert_rows(transaction, &INSERT, &INSERT_UNNESTED, &arrays(connections)).await
}

/// Takes the keys of those connections, given in the order of the ids, that are not open, and returns their ids.
pub(crate) async fn take_absent(
    transaction: &Transaction<'_>,
    connections: &[Connection],
) -> Result<HashSet<Uuid>, StoreError> {
    let rows = query(transaction, &TAKE_ABSENT, &arrays(connections).parameters()).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Writes open connections back.
pub(crate) async fn update(transaction: &Transaction<'_>, connections: &[Connection]) -> Result<(), StoreError> {
    if connections.is_empty() {
        return Ok(());
    }
    execute(transaction, &UPDATE, &arrays(connections).parameters()).await?;
    Ok(())
}

/// Gives held keys back: their connections are not open, or no longer.
pub(crate) async fn remove(transaction: &Transaction<'_>, ids: &[Uuid]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let removed = execute(transaction, REMOVE, &[&ids]).await?;
    if usize::try_from(removed).ok() != Some(ids.len()) {
        return Err(StoreError::Inconsistent(format!("of {} held keys {removed} were there", ids.len())));
    }
    Ok(())
}
