//! What events said against what is recorded of a connection.

use connlog_model::clock::Timestamp;
use connlog_model::event::Source;
use serde_json::Value;
use uuid::Uuid;

use super::filter::Reach;
use crate::session::{begin_read, query};
use crate::{Store, StoreError};

/// Most contradictions of a connection that are given: the newest.
const MOST: i64 = 1000;

/// An event that contradicts what is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Contradiction {
    /// When the log got it.
    pub received_at: Timestamp,
    /// Who said it.
    pub source: Source,
    /// The fields that differ.
    pub fields: Vec<String>,
    /// The event as it was said.
    pub claim: Value,
}

const CONTRADICTIONS: &str = "-- contradictions_of_entry
SELECT received_at, source, fields, claim FROM contradictions
WHERE row_id = $1 AND ($2::uuid[] IS NULL OR organization_id = ANY($2))
ORDER BY received_at DESC, digest LIMIT $3";

impl Store {
    /// What was said against the entry of that id, in `reach`, newest first.
    pub async fn contradictions(&self, id: Uuid, reach: &Reach) -> Result<Vec<Contradiction>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let rows = query(&transaction, CONTRADICTIONS, &[&id, &reach.organizations, &MOST]).await?;
        transaction.end();
        rows.iter()
            .map(|row| {
                let source: i16 = row.try_get("source")?;
                Ok(Contradiction {
                    received_at: row.try_get("received_at")?,
                    source: Source::from_code(source)
                        .ok_or_else(|| StoreError::Inconsistent(format!("there is the unknown source {source}")))?,
                    fields: row.try_get::<_, &str>("fields")?.split(',').map(str::to_owned).collect(),
                    claim: row.try_get("claim")?,
                })
            })
            .collect()
    }
}
