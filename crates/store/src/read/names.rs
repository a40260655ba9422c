//! Names of the directory: what menus and completion offer, and what pages are called.

use uuid::Uuid;

use super::filter::Reach;
use crate::session::{begin_read, query};
use crate::{Store, StoreError};

/// What names can be looked up of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOf {
    /// Organizations.
    Organization,
    /// Users; to whoever reaches only some organizations, the owners of their workspaces.
    User,
    /// Workspaces.
    Workspace,
}

/// Something that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: Uuid,
    /// The name by which a search finds it.
    pub name: String,
    /// What else it is called: the name that is shown of an organization or a user, the owner of a workspace. May be empty.
    pub detail: String,
}

const ORGANIZATIONS: &str = "-- names_of_organizations
SELECT id, name, display_name AS detail FROM organizations
WHERE NOT deleted AND ($1::uuid[] IS NULL OR id = ANY($1)) AND starts_with(name_key, $2)
ORDER BY name_key, id LIMIT $3";

const USERS: &str = "-- names_of_users
SELECT id, username AS name, name AS detail FROM users AS u
WHERE NOT deleted AND starts_with(username_key, $2) AND ($1::uuid[] IS NULL OR EXISTS (
    SELECT FROM workspaces AS w WHERE w.owner_id = u.id AND w.organization_id = ANY($1)))
ORDER BY username_key, id LIMIT $3";

const WORKSPACES: &str = "-- names_of_workspaces
SELECT w.id, w.name, coalesce(u.username, '') AS detail FROM workspaces AS w LEFT JOIN users AS u ON u.id = w.owner_id
WHERE NOT w.deleted AND ($1::uuid[] IS NULL OR w.organization_id = ANY($1)) AND starts_with(w.name_key, $2)
ORDER BY w.name_key, w.id LIMIT $3";

const USER: &str = "-- name_of_user
SELECT id, username AS name, name AS detail FROM users AS u
WHERE id = $2 AND ($1::uuid[] IS NULL OR EXISTS (
    SELECT FROM workspaces AS w WHERE w.owner_id = u.id AND w.organization_id = ANY($1)))";

const WORKSPACE: &str = "-- name_of_workspace
SELECT w.id, w.name, coalesce(u.username, '') AS detail FROM workspaces AS w LEFT JOIN users AS u ON u.id = w.owner_id
WHERE w.id = $2 AND ($1::uuid[] IS NULL OR w.organization_id = ANY($1))";

const ORGANIZATION: &str = "-- name_of_organization
SELECT id, name, display_name AS detail FROM organizations WHERE id = $2 AND ($1::uuid[] IS NULL OR id = ANY($1))";

impl Store {
    /// The first `limit` names in `reach` that begin with `prefix`, whatever its case.
    pub async fn names(&self, of: NameOf, prefix: &str, reach: &Reach, limit: i64) -> Result<Vec<Named>, StoreError> {
        let sql = match of {
            NameOf::Organization => ORGANIZATIONS,
            NameOf::User => USERS,
            NameOf::Workspace => WORKSPACES,
        };
        // PostgreSQL cannot even be asked for such a text.
        if prefix.contains('\0') {
            return Ok(Vec::new());
        }
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let rows = query(&transaction, sql, &[&reach.organizations, &prefix.to_lowercase(), &limit]).await?;
        transaction.end();
        rows.iter().map(named).collect()
    }

    /// What `id` is called, if the directory has it and it lies in `reach`.
    pub async fn name(&self, of: NameOf, id: Uuid, reach: &Reach) -> Result<Option<Named>, StoreError> {
        let sql = match of {
            NameOf::Organization => ORGANIZATION,
            NameOf::User => USER,
            NameOf::Workspace => WORKSPACE,
        };
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let rows = query(&transaction, sql, &[&reach.organizations, &id]).await?;
        transaction.end();
        rows.first().map(named).transpose()
    }
}

fn named(row: &tokio_postgres::Row) -> Result<Named, StoreError> {
    Ok(Named { id: row.try_get("id")?, name: row.try_get("name")?, detail: row.try_get("detail")? })
}
