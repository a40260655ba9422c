//! The directory: organizations, users, workspaces and agents, as a control plane tells them.
//!
//! Entries are upserted by id, in the transaction of a [`Import`]; nothing is ever removed, only marked deleted.

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use serde::Deserialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::argument::Argument;
use crate::session::{Session, Transaction, begin_write, execute, query};
use crate::{Store, StoreError};

/// How long the token of a deleted agent, or one that was replaced, is still accepted.
pub const TOKEN_GRACE: TimeDelta = TimeDelta::hours(24);
/// Fewest characters of an agent's token.
pub const MIN_TOKEN_CHARS: usize = 16;

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

const UNKNOWN_ORGANIZATION: &str = "-- unknown_organization
SELECT k.entry, k.id FROM unnest($1::bigint[], $2::uuid[]) AS k (entry, id)
WHERE NOT EXISTS (SELECT FROM organizations AS o WHERE o.id = k.id) ORDER BY k.entry LIMIT 1";

const UNKNOWN_USER: &str = "-- unknown_user
SELECT k.entry, k.id FROM unnest($1::bigint[], $2::uuid[]) AS k (entry, id)
WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.id = k.id) ORDER BY k.entry LIMIT 1";

const UNKNOWN_WORKSPACE: &str = "-- unknown_workspace
SELECT k.entry, k.id FROM unnest($1::bigint[], $2::uuid[]) AS k (entry, id)
WHERE NOT EXISTS (SELECT FROM workspaces AS w WHERE w.id = k.id) ORDER BY k.entry LIMIT 1";

/// A directory import in progress: nothing is seen before [`commit`](Import::commit).
pub struct Import<'a> {
    transaction: Transaction<'a>,
    now: Timestamp,
    /// Entries so far.
    entries: usize,
    /// What they name: it may come after them.
    organizations: Named,
    owners: Named,
    workspaces: Named,
}

/// What entries name, each with the number of the entry.
#[derive(Default)]
struct Named {
    entries: Vec<i64>,
    ids: Vec<Uuid>,
}

impl Named {
    fn add(&mut self, entry: usize, id: Uuid) {
        self.entries.push(i64::try_from(entry).unwrap_or(i64::MAX));
        self.ids.push(id);
    }

    /// The first of them that is not there, by `sql`, as an error about `field`.
    async fn unknown(
        &self,
        transaction: &Transaction<'_>,
        sql: &str,
        field: &'static str,
    ) -> Result<Option<(usize, StoreError)>, StoreError> {
        let rows = query(transaction, sql, &[&self.entries, &self.ids]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let entry = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(usize::MAX);
        Ok(Some((entry, StoreError::Unknown { entry, field, id: row.try_get(1)? })))
    }
}

/// The one that a name means: what has it in exactly these letters, or else the only one that has it in others.
fn meant(what: &'static str, name: &str, rows: &[Row]) -> Result<Option<Uuid>, StoreError> {
    let (mut exactly, mut otherwise) = (Vec::new(), Vec::new());
    for row in rows {
        let id: Uuid = row.try_get(0)?;
        let is_exact = row.try_get::<_, &str>(1)? == name || Uuid::try_parse(name).is_ok_and(|named| named == id);
        if is_exact { exactly.push(id) } else { otherwise.push(id) }
    }
    let found = if exactly.is_empty() { otherwise } else { exactly };
    match found[..] {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        [one, other, ..] => Err(StoreError::Ambiguous { what, name: name.to_owned(), one, other }),
    }
}

impl Store {
    /// A connection for an import.
    pub async fn import_connection(&self) -> Result<Session, StoreError> {
        self.client().await
    }

    /// The id of the user of that name, or with that id; deleted users do not match. The name in other letters' case will do, if
    /// nobody else has it.
    pub async fn user_id(&self, username: &str) -> Result<Option<Uuid>, StoreError> {
        let client = self.client().await?;
        let sql = "-- user_id\nSELECT id, username FROM users WHERE (username_key = $1 OR id = $2) AND NOT deleted ORDER BY id";
        let rows = client.query(sql, &[&username.to_lowercase(), &Uuid::try_parse(username).ok()]).await?;
        meant("user", username, &rows)
    }

    /// The id of the organization of that name, or with that id; a deleted one only by id. The name in other letters' case will
    /// do, if no other one has it.
    pub async fn organization_id(&self, name: &str) -> Result<Option<Uuid>, StoreError> {
        let client = self.client().await?;
        let sql = "-- organization_id\nSELECT id, name FROM organizations WHERE (name_key = $1 AND NOT deleted) OR id = $2 ORDER BY id";
        let rows = client.query(sql, &[&name.to_lowercase(), &Uuid::try_parse(name).ok()]).await?;
        meant("organization", name, &rows)
    }
}

impl<'a> Import<'a> {
    /// Begins an import.
    pub async fn begin(connection: &'a mut Session, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            transaction: begin_write(connection).await?,
            now,
            entries: 0,
            organizations: Named::default(),
            owners: Named::default(),
            workspaces: Named::default(),
        })
    }

    /// Adds or changes one entry. What it names has to be there by the time of the commit.
    pub async fn apply(&mut self, entry: &DirectoryEntry) -> Result<(), StoreError> {
        check_text(entry)?;
        match entry {
            DirectoryEntry::Workspace { organization_id, owner_id, .. } => {
                self.organizations.add(self.entries, *organization_id);
                self.owners.add(self.entries, *owner_id);
            }
            DirectoryEntry::Agent { workspace_id, .. } => self.workspaces.add(self.entries, *workspace_id),
            DirectoryEntry::Organization { .. } | DirectoryEntry::User { .. } => {}
        }
        self.entries += 1;
        let (transaction, now) = (&self.transaction, &self.now);
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
        let chars = token.chars().count();
        if chars < MIN_TOKEN_CHARS {
            let reason = format!("the token has {chars} characters, and needs {MIN_TOKEN_CHARS}");
            return Err(StoreError::Invalid(reason));
        }
        let sha256 = crate::tokens::digest(token);
        if query(&self.transaction, ADD_AGENT_TOKEN, &[&sha256, &agent_id]).await?.is_empty() {
            return Err(StoreError::Invalid("the token already belongs to another agent".to_owned()));
        }
        execute(&self.transaction, EXPIRE_AGENT_TOKENS, &[&agent_id, &sha256, &(self.now + TOKEN_GRACE)]).await?;
        Ok(())
    }

    /// Makes the import visible, unless an entry names what is not there: an error names the first of those.
    pub async fn commit(self) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        for (named, sql, field) in [
            (&self.organizations, UNKNOWN_ORGANIZATION, "organization_id"),
            (&self.owners, UNKNOWN_USER, "owner_id"),
            (&self.workspaces, UNKNOWN_WORKSPACE, "workspace_id"),
        ] {
            unknown.extend(named.unknown(&self.transaction, sql, field).await?);
        }
        if let Some((_, error)) = unknown.into_iter().min_by_key(|(entry, _)| *entry) {
            return Err(error);
        }
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
