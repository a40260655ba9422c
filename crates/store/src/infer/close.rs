//! Moving held keys to history with an inferred end.

use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, End};
use uuid::Uuid;

use crate::StoreError;
use crate::session::Transaction;
use crate::write::counts::Deltas;
use crate::write::{history, keys};

/// Ends the connections `ids`, whose keys this transaction holds, each at the time that `end_of` gives but not before
/// it began. What lies below the floor is removed without a trace, as purge would.
pub(super) async fn close(
    transaction: &Transaction<'_>,
    ids: &[Uuid],
    floor: Timestamp,
    reason: &str,
    end_of: impl Fn(&Connection) -> Timestamp,
    deltas: &mut Deltas,
) -> Result<Vec<Connection>, StoreError> {
    let mut closed = keys::lock(transaction, ids).await?;
    keys::remove(transaction, ids).await?;
    closed.retain(|connection| connection.connect_time >= floor);
    for connection in &mut closed {
        let time = end_of(connection).max(connection.connect_time);
        connection.end = Some(End::Inferred { time, reason: reason.to_owned() });
        deltas.add(connection, 1);
    }
    history::insert(transaction, &closed).await?;
    Ok(closed)
}

/// The ids in the first column.
pub(super) fn first_column(rows: &[tokio_postgres::Row]) -> Result<Vec<Uuid>, StoreError> {
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
