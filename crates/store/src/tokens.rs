//! API tokens: made, recognized, listed, revoked. Only the SHA-256 of a token is stored.

use std::str::FromStr;

use connlog_model::clock::Timestamp;
use connlog_model::role::Role;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Store, StoreError};

/// Begins every token that connlog makes, so that scanners for leaked secrets can find it.
const TOKEN_PREFIX: &str = "connlog_";

/// An API token, as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Names the token without being it.
    pub id: Uuid,
    /// What its bearer may do.
    pub role: Role,
    /// Whom it stands for.
    pub user_id: Option<Uuid>,
    /// The only organizations it reaches; none is all.
    pub organizations: Option<Vec<Uuid>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being accepted.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The SHA-256 of a token.
pub fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Makes a new token.
pub fn generate() -> String {
    format!("{TOKEN_PREFIX}{}", secret())
}

/// 256 random bits, as hexadecimal digits.
pub fn secret() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

const COLUMNS: &str = "id, role, user_id, organizations, created_at, expires_at, revoked_at";

impl Store {
    /// Stores a token.
    pub async fn create_token(&self, token: &ApiToken, sha256: &[u8]) -> Result<(), StoreError> {
        let client = self.client().await?;
        client
            .execute(
                "-- create_token
INSERT INTO api_tokens (id, sha256, role, user_id, organizations, created_at, expires_at, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[
                    &token.id,
                    &sha256,
                    &token.role.as_str(),
                    &token.user_id,
                    &token.organizations,
                    &token.created_at,
                    &token.expires_at,
                    &token.revoked_at,
                ],
            )
            .await?;
        Ok(())
    }

    /// The token with this SHA-256, unless it has expired or was revoked.
    pub async fn api_token(&self, sha256: &[u8], now: Timestamp) -> Result<Option<ApiToken>, StoreError> {
        let client = self.client().await?;
        let sql = format!(
            "-- api_token\nSELECT {COLUMNS} FROM api_tokens\nWHERE sha256 = $1 AND revoked_at IS NULL \
             AND (expires_at IS NULL OR expires_at > $2)"
        );
        client.query(&sql, &[&sha256, &now]).await?.first().map(api_token).transpose()
    }

    /// All tokens, oldest first.
    pub async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        let client = self.client().await?;
        let sql = format!("-- api_tokens\nSELECT {COLUMNS} FROM api_tokens ORDER BY created_at, id");
        client.query(&sql, &[]).await?.iter().map(api_token).collect()
    }
}

pub(crate) fn api_token(row: &Row) -> Result<ApiToken, StoreError> {
    let role: &str = row.try_get("role")?;
    Ok(ApiToken {
        id: row.try_get("id")?,
        role: Role::from_str(role).map_err(|error| StoreError::Inconsistent(error.to_string()))?,
        user_id: row.try_get("user_id")?,
        organizations: row.try_get("organizations")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}
