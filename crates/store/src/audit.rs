//! Who read what through the API.

use std::net::IpAddr;

use connlog_model::clock::Timestamp;
use uuid::Uuid;

use crate::session::{begin_write, execute, query};
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
ON CONFLICT (id) DO NOTHING";

const END: &str = "-- end_uses
SELECT end_uses($1, $2, $3)";

impl Store {
    /// Records uses. One that is recorded again, by its id, has its number of rows and its end noted, once: what is noted
    /// stays.
    pub async fn record_audit(&self, records: &[AuditRecord]) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let ids: Vec<Uuid> = records.iter().map(|record| record.id).collect();
        let rows: Vec<Option<i64>> = records.iter().map(|record| record.rows).collect();
        let complete: Vec<Option<bool>> = records.iter().map(|record| record.complete).collect();
        let column = |value: fn(&AuditRecord) -> String| records.iter().map(value).collect::<Vec<_>>();
        execute(
            &transaction,
            INSERT,
            &[
                &ids,
                &records.iter().map(|record| record.at).collect::<Vec<_>>(),
                &records.iter().map(|record| record.token_id).collect::<Vec<_>>(),
                &records.iter().map(|record| record.user_id).collect::<Vec<_>>(),
                &records.iter().map(|record| record.address).collect::<Vec<_>>(),
                &column(|record| record.endpoint.clone()),
                // PostgreSQL cannot store a NUL.
                &column(|record| record.query.replace('\0', "")),
                &records.iter().map(|record| record.format).collect::<Vec<_>>(),
                &records.iter().map(|record| record.status).collect::<Vec<_>>(),
                &rows,
                &complete,
            ],
        )
        .await?;
        query(&transaction, END, &[&ids, &rows, &complete]).await?;
        transaction.commit().await?;
        Ok(())
    }
}
