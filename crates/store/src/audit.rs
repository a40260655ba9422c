//! Who read what through the API.

use std::net::IpAddr;

use connlog_model::clock::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError};

/// A use of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the table, commented in migrations/")]
pub struct AuditRecord {
    pub id: Uuid,
    pub at: Timestamp,
    pub token_id: Uuid,
    pub user_id: Option<Uuid>,
    pub address: Option<IpAddr>,
    pub endpoint: String,
    pub query: String,
    pub format: Option<&'static str>,
    pub status: i16,
    pub rows: Option<i64>,
    pub complete: Option<bool>,
}

const INSERT: &str = "-- insert_audit
INSERT INTO api_audit (id, at, token_id, user_id, address, endpoint, query, format, status, rows, complete)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::inet[], $6::text[], $7::text[], $8::text[],
    $9::smallint[], $10::bigint[], $11::boolean[])
ON CONFLICT (id) DO UPDATE SET rows = excluded.rows, complete = excluded.complete";

impl Store {
    /// Records uses. One that is recorded again, by its id, has its number of rows and its end changed.
    pub async fn record_audit(&self, records: &[AuditRecord]) -> Result<(), StoreError> {
        let client = self.client().await?;
        let column = |value: fn(&AuditRecord) -> String| records.iter().map(value).collect::<Vec<_>>();
        client
            .execute(
                INSERT,
                &[
                    &records.iter().map(|record| record.id).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.at).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.token_id).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.user_id).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.address).collect::<Vec<_>>(),
                    &column(|record| record.endpoint.clone()),
                    // PostgreSQL cannot store a NUL.
                    &column(|record| record.query.replace('\0', "")),
                    &records.iter().map(|record| record.format).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.status).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.rows).collect::<Vec<_>>(),
                    &records.iter().map(|record| record.complete).collect::<Vec<_>>(),
                ],
            )
            .await?;
        Ok(())
    }
}
