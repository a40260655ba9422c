//! The open set: taking, reading, changing and giving back the keys that serialize all writers of a connection.

use std::collections::HashSet;
use std::sync::LazyLock;

use connlog_model::connection::Connection;
use uuid::Uuid;

use crate::StoreError;
use crate::row::{OPEN_COLUMNS, OpenArrays, open_connection};
use crate::session::{Transaction, execute, query};

const UNNEST: &str = "unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], \
     $8::timestamptz[], $9::smallint[], $10::text[], $11::inet[], $12::uuid[], $13::uuid[], $14::bytea[], $15::uuid[], \
     $16::uuid[])";

/// `DO UPDATE` locks a conflicting row even though its `WHERE` is false, and returns only what it inserted. With
/// `DO NOTHING` the row would stay unlocked, and another writer could complete it behind our back.
static TAKE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- take_keys\nINSERT INTO open_connections ({OPEN_COLUMNS})\nSELECT * FROM {UNNEST}\n\
         ON CONFLICT (id) DO UPDATE SET id = open_connections.id WHERE false\nRETURNING id"
    )
});

static TAKE_ABSENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- take_absent_keys\nINSERT INTO open_connections ({OPEN_COLUMNS})\nSELECT * FROM {UNNEST}\n\
         ON CONFLICT (id) DO NOTHING\nRETURNING id"
    )
});

/// `= ANY`, not a join: on an open set that is empty but bloated the planner would scan all of it.
static REMOVE: LazyLock<String> = LazyLock::new(|| {
    format!("-- remove_keys\nDELETE FROM open_connections WHERE id = ANY($1::uuid[])\nRETURNING {OPEN_COLUMNS}")
});

static READ: LazyLock<String> =
    LazyLock::new(|| format!("-- read_keys\nSELECT {OPEN_COLUMNS} FROM open_connections WHERE id = ANY($1::uuid[])"));

static UPDATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- update_open\nUPDATE open_connections AS o\nSET connect_time = k.connect_time, method = k.method, \
         app_name = k.app_name, ip = k.ip, client_session_id = k.client_session_id, user_id = k.user_id, \
         attribute_ranks = k.attribute_ranks, agent_id = k.agent_id, boot_id = k.boot_id, \
         organization_id = k.organization_id, workspace_owner_id = k.workspace_owner_id, \
         workspace_name = k.workspace_name, changed_xid = pg_current_xact_id()\n\
         FROM {UNNEST} AS k ({OPEN_COLUMNS})\nWHERE o.id = k.id AND o.id = ANY($1::uuid[])"
    )
});

const DROP: &str = "-- drop_keys
DELETE FROM open_connections WHERE id = ANY($1::uuid[])";

fn arrays<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> OpenArrays {
    let mut arrays = OpenArrays::default();
    connections.into_iter().for_each(|connection| arrays.push(connection));
    arrays
}

/// Takes the key of each connection, given in the order of the ids, waiting for whoever holds it. Returns the ids that
/// were not open; these rows are now in the open set as given.
pub(crate) async fn take<'a>(
    transaction: &Transaction<'_>,
    connections: impl IntoIterator<Item = &'a Connection>,
) -> Result<HashSet<Uuid>, StoreError> {
    let rows = query(transaction, &TAKE, &arrays(connections).parameters()).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Takes the keys of those connections, given in the order of the ids, that are not open, and returns their ids.
pub(crate) async fn take_absent(
    transaction: &Transaction<'_>,
    connections: &[Connection],
) -> Result<HashSet<Uuid>, StoreError> {
    let rows = query(transaction, &TAKE_ABSENT, &arrays(connections).parameters()).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Removes open connections and returns them.
pub(crate) async fn remove(transaction: &Transaction<'_>, ids: &[Uuid]) -> Result<Vec<Connection>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query(transaction, &REMOVE, &[&ids]).await?;
    if rows.len() != ids.len() {
        return Err(StoreError::Inconsistent(format!(
            "{} of {} held keys are gone",
            ids.len() - rows.len(),
            ids.len()
        )));
    }
    rows.iter().map(open_connection).collect()
}

/// Reads open connections.
pub(crate) async fn read(transaction: &Transaction<'_>, ids: &[Uuid]) -> Result<Vec<Connection>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    query(transaction, &READ, &[&ids]).await?.iter().map(open_connection).collect()
}

/// Writes open connections back.
pub(crate) async fn update(transaction: &Transaction<'_>, connections: &[Connection]) -> Result<(), StoreError> {
    if connections.is_empty() {
        return Ok(());
    }
    execute(transaction, &UPDATE, &arrays(connections).parameters()).await?;
    Ok(())
}

/// Gives keys back whose connections are not open after all.
pub(crate) async fn drop(transaction: &Transaction<'_>, ids: &[Uuid]) -> Result<(), StoreError> {
    if !ids.is_empty() {
        execute(transaction, DROP, &[&ids]).await?;
    }
    Ok(())
}
