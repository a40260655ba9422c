//! The retention floor: what lies below it has been purged and must not come back.

use connlog_model::clock::Timestamp;

use crate::StoreError;
use crate::session::{Transaction, query};

const LOCK: &str = "-- share_floor
SELECT pg_advisory_xact_lock_shared(x'636f6e6e'::int, 1)";

/// `-infinity`, the floor before the first purge, is the earliest time that the driver can hold.
const READ: &str = "-- read_floor
SELECT greatest(cutoff, '0001-01-01 00:00:00+00') FROM retention_floor";

/// Keeps the floor where it is until the transaction ends, and returns it. Two statements: in one, the snapshot would be
/// older than the lock, and a batch that waited for purge would write below the floor that purge just raised.
pub(crate) async fn hold(transaction: &Transaction<'_>) -> Result<Timestamp, StoreError> {
    query(transaction, LOCK, &[]).await?;
    let rows = query(transaction, READ, &[]).await?;
    let row = rows.first().ok_or_else(|| StoreError::Inconsistent("retention_floor has no row".to_owned()))?;
    Ok(row.try_get(0)?)
}
