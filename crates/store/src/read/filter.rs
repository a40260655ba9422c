//! A search, with its names resolved to ids and limited to what the caller may see.

use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::method::Method;
use connlog_model::search::{Search, Status, UserRef};
use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::StoreError;
use crate::session::query;

/// What the caller may see.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The only organizations; none is all.
    pub organizations: Option<Vec<Uuid>>,
    /// Whom `me` means.
    pub user_id: Option<Uuid>,
}

/// The organization that a search names does not exist, or is out of reach; the two look the same on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The organization, as the search names it.
    pub organization: String,
}

/// A search ready to run: every absent part does not filter, an empty list matches nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub(super) organizations: Option<Vec<Uuid>>,
    pub(super) owners: Option<Vec<Uuid>>,
    pub(super) users: Option<Vec<Uuid>>,
    pub(super) connection_type: Option<ConnectionType>,
    pub(super) method: Option<Method>,
    pub(super) app: Option<String>,
    pub(super) connected_after: Option<Timestamp>,
    pub(super) connected_before: Option<Timestamp>,
    pub(super) workspace_id: Option<Uuid>,
    pub(super) connection_id: Option<Uuid>,
    pub(super) status: Option<Status>,
}

const ORGANIZATION: &str = "-- find_organization
SELECT id FROM organizations WHERE (name_key = $1 AND NOT deleted) OR id = $2";

const USERS_BY_NAME: &str = "-- users_by_name
SELECT id FROM users WHERE username_key = $1 AND NOT deleted";

const USERS_BY_EMAIL: &str = "-- users_by_email
SELECT id FROM users WHERE email_key = $1 AND NOT deleted";

impl Filter {
    pub(super) async fn resolve(
        transaction: &Transaction<'_>,
        search: &Search,
        reach: &Reach,
    ) -> Result<Result<Self, Unreachable>, StoreError> {
        let mut organizations = reach.organizations.clone();
        if let Some(name) = &search.organization {
            let id = Uuid::try_parse(name).ok();
            let mut found = ids(transaction, ORGANIZATION, name, &[&id]).await?;
            // What the directory lacks can still be in the log; a token that reaches it may ask for it.
            if let (Some(id), Some(reached)) = (id, &organizations)
                && reached.contains(&id)
            {
                found = vec![id];
            }
            found.retain(|id| organizations.as_ref().is_none_or(|reached| reached.contains(id)));
            if found.is_empty() {
                return Ok(Err(Unreachable { organization: name.clone() }));
            }
            organizations = Some(found);
        }
        let owner = users(transaction, search.workspace_owner.as_ref(), reach).await?;
        let owner_email = users_by_email(transaction, search.workspace_owner_email.as_ref()).await?;
        let user = users(transaction, search.username.as_ref(), reach).await?;
        let user_email = users_by_email(transaction, search.user_email.as_ref()).await?;
        Ok(Ok(Self {
            organizations,
            owners: both(owner, owner_email),
            users: both(user, user_email),
            connection_type: search.connection_type,
            method: search.method,
            app: search.app.clone(),
            connected_after: search.connected_after,
            connected_before: search.connected_before,
            workspace_id: search.workspace_id,
            connection_id: search.connection_id,
            status: search.status,
        }))
    }

    /// Whether the counts by day, organization, method and app answer it.
    pub(super) fn is_broad(&self) -> bool {
        self.owners.is_none()
            && self.users.is_none()
            && self.connected_after.is_none()
            && self.connected_before.is_none()
            && self.workspace_id.is_none()
            && self.connection_id.is_none()
    }
}

async fn users(
    transaction: &Transaction<'_>,
    user: Option<&UserRef>,
    reach: &Reach,
) -> Result<Option<Vec<Uuid>>, StoreError> {
    Ok(match user {
        None => None,
        Some(UserRef::Me) => Some(reach.user_id.into_iter().collect()),
        Some(UserRef::Name(name)) => Some(ids(transaction, USERS_BY_NAME, name, &[]).await?),
    })
}

async fn users_by_email(
    transaction: &Transaction<'_>,
    email: Option<&String>,
) -> Result<Option<Vec<Uuid>>, StoreError> {
    Ok(match email {
        None => None,
        Some(email) => Some(ids(transaction, USERS_BY_EMAIL, email, &[]).await?),
    })
}

/// The ids that a look-up by `name` gives; nothing is called by a name that PostgreSQL cannot store.
async fn ids(
    transaction: &Transaction<'_>,
    sql: &str,
    name: &String,
    further: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Uuid>, StoreError> {
    if name.contains('\0') {
        return Ok(Vec::new());
    }
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![name];
    parameters.extend(further);
    let rows = query(transaction, sql, &parameters).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn both(a: Option<Vec<Uuid>>, b: Option<Vec<Uuid>>) -> Option<Vec<Uuid>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.into_iter().filter(|id| b.contains(id)).collect()),
        (a, b) => a.or(b),
    }
}
