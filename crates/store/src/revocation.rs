//! Revoking tokens, and telling services that it happened: each asks for a number every few seconds, and looks up again who is
//! connected once it is another one. The change feed would not do: a long write, in another database even, holds it up.

use std::collections::HashSet;

use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::session::{Transaction, begin_write, execute, query};
use crate::{Store, StoreError};

const VERSION: &str = "-- revocations
SELECT version FROM revocations";

const COUNT: &str = "-- count_revocation
UPDATE revocations SET version = version + 1";

const REVOKE_API_TOKEN: &str = "-- revoke_token
UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING true AS was_accepted";

const REVOKE_AGENT_TOKENS: &str = "-- revoke_agent_tokens
UPDATE agent_tokens SET revoked_at = $3
WHERE revoked_at IS NULL AND agent_id IN (SELECT id FROM workspace_agents WHERE id = $1 OR workspace_id = $2)
RETURNING coalesce(expires_at > $3, true) AS was_accepted";

const VALID: &str = "-- valid_tokens
SELECT sha256 FROM agent_tokens WHERE sha256 = ANY($1) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
UNION ALL
SELECT sha256 FROM api_tokens WHERE sha256 = ANY($1) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";

impl Store {
    /// A number that is another one after each revocation.
    pub async fn revocations(&self) -> Result<i64, StoreError> {
        let client = self.client().await?;
        Ok(client.query_one(VERSION, &[]).await?.try_get(0)?)
    }

    /// Revokes an API token. Returns false if there is none of that id, or it was revoked before.
    pub async fn revoke_token(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let revoked = query(&transaction, REVOKE_API_TOKEN, &[&id, &now]).await?;
        counted(transaction, &revoked).await.map(|tokens| tokens > 0)
    }

    /// Revokes all tokens of an agent, or of all agents of a workspace, and returns how many were accepted until then. None is accepted
    /// again, whatever a directory says: those that had expired neither.
    pub async fn revoke_agents(
        &self,
        agent: Option<Uuid>,
        workspace: Option<Uuid>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        let revoked = query(&transaction, REVOKE_AGENT_TOKENS, &[&agent, &workspace, &now]).await?;
        counted(transaction, &revoked).await
    }

    /// Which of some tokens, by their SHA-256, are accepted.
    pub async fn valid_tokens(&self, sha256s: &[Vec<u8>], now: Timestamp) -> Result<HashSet<Vec<u8>>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(VALID, &[&sha256s, &now]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }
}

/// How many were accepted until then.
async fn counted(transaction: Transaction<'_>, revoked: &[Row]) -> Result<usize, StoreError> {
    let accepted = revoked.iter().map(|row| row.try_get(0)).collect::<Result<Vec<bool>, _>>()?;
    if !revoked.is_empty() {
        execute(&transaction, COUNT, &[]).await?;
    }
    transaction.commit().await?;
    Ok(accepted.into_iter().filter(|was_accepted| *was_accepted).count())
}
