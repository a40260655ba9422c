//! The directory: organizations, users, workspaces and agents, as a control plane tells them.
//!
//! Entries are upserted by id, in the transaction of a [`Import`]; nothing is ever removed, only marked deleted.

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::argument::Argument;
use crate::session::{Session, Transaction, begin_write, execute, query};
use crate::{Store, StoreError};

/// How long the token of a deleted agent, or one that was replaced, is still accepted.
pub const TOKEN_GRACE: TimeDelta = TimeDelta::hours(24);

/// One entry, in the form of a directory file: an object a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of the file format, documented in crates/ctl/README.md")]
pub enum DirectoryEntry {
    Organization {
        id: Uuid,
        name: String,
        #[serde(default)]
        display_name: String,
        #[serde(default)]
        icon: String,
        #[serde(default)]
        deleted: bool,
    },
    User {
        id: Uuid,
        username: String,
        #[serde(default)]
        email: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        avatar_url: String,
        #[serde(default)]
        status: String,
        #[serde(default)]
        login_type: String,
        #[serde(default)]
        deleted: bool,
    },
    Workspace {
        id: Uuid,
        organization_id: Uuid,
        owner_id: Uuid,
        name: String,
        #[serde(default)]
        deleted: bool,
    },
    Agent {
        id: Uuid,
        workspace_id: Uuid,
        name: String,
        #[serde(default)]
        token: String,
        #[serde(default)]
        deleted: bool,
    },
}

const UPSERT_ORGANIZATION: &str = "-- upsert_organization
INSERT INTO organizations (id, name, display_name, icon, deleted, name_key) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, name_key = excluded.name_key, display_name = excluded.display_name, icon = excluded.icon,
    deleted = excluded.deleted";

const UPSERT_USER: &str = "-- upsert_user
INSERT INTO users (id, username, email, name, avatar_url, status, login_type, deleted, created_at, updated_at, last_seen_at,
    username_key, email_key)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET username = excluded.username, username_key = excluded.username_key,
    email = excluded.email, email_key = excluded.email_key, name = excluded.name,
    avatar_url = excluded.avatar_url, status = excluded.status, login_type = excluded.login_type,
    deleted = excluded.deleted, updated_at = excluded.updated_at";

const UPSERT_WORKSPACE: &str = "-- upsert_workspace
INSERT INTO workspaces (id, organization_id, owner_id, name, deleted, deleted_at, name_key)
VALUES ($1, $2, $3, $4, $5, CASE WHEN $5 THEN $6::timestamptz END, $7)
ON CONFLICT (id) DO UPDATE SET organization_id = excluded.organization_id, owner_id = excluded.owner_id,
    name = excluded.name, name_key = excluded.name_key, deleted = excluded.deleted,
    deleted_at = CASE WHEN excluded.deleted THEN coalesce(workspaces.deleted_at, excluded.deleted_at) END";

const UPSERT_AGENT: &str = "-- upsert_agent
INSERT INTO workspace_agents (id, workspace_id, name, deleted, deleted_at)
VALUES ($1, $2, $3, $4, CASE WHEN $4 THEN $5::timestamptz END)
ON CONFLICT (id) DO UPDATE SET workspace_id = excluded.workspace_id, name = excluded.name, deleted = excluded.deleted,
    deleted_at = CASE WHEN excluded.deleted THEN coalesce(workspace_agents.deleted_at, excluded.deleted_at) END";

const ADD_AGENT_TOKEN: &str = "-- add_agent_token
INSERT INTO agent_tokens (sha256, agent_id) VALUES ($1, $2)
ON CONFLICT (sha256) DO UPDATE SET expires_at = NULL WHERE agent_tokens.agent_id = excluded.agent_id
RETURNING sha256";

/// Every other token of the agent.
const EXPIRE_AGENT_TOKENS: &str = "-- expire_agent_tokens
UPDATE agent_tokens SET expires_at = $3 WHERE agent_id = $1 AND expires_at IS NULL AND sha256 <> $2";

/// A function of what is deleted, not of the order in which it was told.
const EXPIRE_TOKENS_OF_DELETED: &str = "-- expire_tokens_of_deleted
UPDATE agent_tokens t
SET expires_at = least(a.deleted_at, w.deleted_at) + make_interval(hours => $1)
FROM workspace_agents a JOIN workspaces w ON w.id = a.workspace_id
WHERE t.agent_id = a.id AND (a.deleted OR w.deleted)
    AND (t.expires_at IS NULL OR t.expires_at > least(a.deleted_at, w.deleted_at) + make_interval(hours => $1))";

/// A directory import in progress: nothing is seen before [`commit`](Import::commit).
pub struct Import<'a> {
    transaction: Transaction<'a>,
    now: Timestamp,
}

impl Store {
    /// A connection for an import.
    pub async fn import_connection(&self) -> Result<Session, StoreError> {
        self.client().await
    }

    /// The id of the user of that name, in any case; deleted users do not match.
    pub async fn user_id(&self, username: &str) -> Result<Option<Uuid>, StoreError> {
        let client = self.client().await?;
        let sql = "-- user_id\nSELECT id FROM users WHERE username_key = $1 AND NOT deleted ORDER BY id LIMIT 1";
        Ok(client.query_opt(sql, &[&username.to_lowercase()]).await?.map(|row| row.try_get(0)).transpose()?)
    }

    /// The id of the organization of that name, in any case, or with that id; a deleted one only by id.
    pub async fn organization_id(&self, name: &str) -> Result<Option<Uuid>, StoreError> {
        let client = self.client().await?;
        let sql = "-- organization_id\nSELECT id FROM organizations WHERE (name_key = $1 AND NOT deleted) OR id = $2 ORDER BY id LIMIT 1";
        Ok(client
            .query_opt(sql, &[&name.to_lowercase(), &Uuid::try_parse(name).ok()])
            .await?
            .map(|row| row.try_get(0))
            .transpose()?)
    }
}

impl<'a> Import<'a> {
    /// Begins an import.
    pub async fn begin(connection: &'a mut Session, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self { transaction: begin_write(connection).await?, now })
    }

    /// Adds or changes one entry.
    pub async fn apply(&self, entry: &DirectoryEntry) -> Result<(), StoreError> {
        let (transaction, now) = (&self.transaction, &self.now);
        check_text(entry)?;
        match entry {
            DirectoryEntry::Organization { id, name, display_name, icon, deleted } => {
                execute(
                    transaction,
                    UPSERT_ORGANIZATION,
                    &[id, name, display_name, icon, deleted, &name.to_lowercase()],
                )
                .await?;
            }
            DirectoryEntry::User { id, username, email, name, avatar_url, status, login_type, deleted } => {
                let (username_key, email_key) = (username.to_lowercase(), email.to_lowercase());
                let parameters: [&dyn Argument; 11] = [
                    id,
                    username,
                    email,
                    name,
                    avatar_url,
                    status,
                    login_type,
                    deleted,
                    now,
                    &username_key,
                    &email_key,
                ];
                execute(transaction, UPSERT_USER, &parameters).await?;
            }
            DirectoryEntry::Workspace { id, organization_id, owner_id, name, deleted } => {
                let key = name.to_lowercase();
                let parameters: [&dyn Argument; 7] = [id, organization_id, owner_id, name, deleted, now, &key];
                execute(transaction, UPSERT_WORKSPACE, &parameters).await?;
            }
            DirectoryEntry::Agent { id, workspace_id, name, token, deleted } => {
                execute(transaction, UPSERT_AGENT, &[id, workspace_id, name, deleted, now]).await?;
                self.set_agent_token(*id, token).await?;
            }
        }
        Ok(())
    }

    async fn set_agent_token(&self, agent_id: Uuid, token: &str) -> Result<(), StoreError> {
        if token.is_empty() {
            return Ok(());
        }
        let sha256 = crate::tokens::digest(token);
        if query(&self.transaction, ADD_AGENT_TOKEN, &[&sha256, &agent_id]).await?.is_empty() {
            return Err(StoreError::Invalid("the token already belongs to another agent".to_owned()));
        }
        execute(&self.transaction, EXPIRE_AGENT_TOKENS, &[&agent_id, &sha256, &(self.now + TOKEN_GRACE)]).await?;
        Ok(())
    }

    /// Makes the import visible.
    pub async fn commit(self) -> Result<(), StoreError> {
        let hours = i32::try_from(TOKEN_GRACE.num_hours()).unwrap_or(i32::MAX);
        execute(&self.transaction, EXPIRE_TOKENS_OF_DELETED, &[&hours]).await?;
        Ok(self.transaction.commit().await?)
    }
}

/// Names are needed, and PostgreSQL cannot store NUL.
fn check_text(entry: &DirectoryEntry) -> Result<(), StoreError> {
    let (required, name): (&str, &String) = match entry {
        DirectoryEntry::Organization { name, .. }
        | DirectoryEntry::Workspace { name, .. }
        | DirectoryEntry::Agent { name, .. } => ("name", name),
        DirectoryEntry::User { username, .. } => ("username", username),
    };
    if name.is_empty() {
        return Err(StoreError::Invalid(format!("{required} is empty")));
    }
    let texts: Vec<&String> = match entry {
        DirectoryEntry::Organization { name, display_name, icon, .. } => vec![name, display_name, icon],
        DirectoryEntry::User { username, email, name, avatar_url, status, login_type, .. } => {
            vec![username, email, name, avatar_url, status, login_type]
        }
        DirectoryEntry::Workspace { name, .. } | DirectoryEntry::Agent { name, .. } => vec![name],
    };
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(StoreError::Invalid("a text contains NUL".to_owned()));
    }
    Ok(())
}
