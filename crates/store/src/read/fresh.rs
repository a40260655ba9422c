//! How far a read replica is.

use connlog_model::clock::Timestamp;

use crate::{Store, StoreError};

/// A replica that has replayed all it received is as fresh as its connection; one that is behind is as old as the last
/// transaction that it replayed.
const FRESH: &str = "-- fresh_as_of
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN $1::timestamptz
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
        AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN $1::timestamptz
    ELSE pg_last_xact_replay_timestamp()
END AS as_of";

impl Store {
    /// Up to when everything committed is here, if that is known; `now` for a primary.
    pub async fn fresh_as_of(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(FRESH, &[&now]).await?.try_get("as_of")?)
    }
}
