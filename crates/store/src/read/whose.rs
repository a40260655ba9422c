//! Whose the rows of a page are: the owners and workspaces of their homes, and what the directory knows of organizations and people.
//!
//! Looked up once for each of them, by the snapshot of the rows. Joining them to every row took longer to plan than the page.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;
use uuid::Uuid;

use super::entry::{self, DirectoryUser, Entry, Organization, UNKNOWN_TIME};
use crate::StoreError;
use crate::argument::Argument;
use crate::session::{Transaction, query};

const HOMES: &str = "-- homes_of_page
SELECT home, workspace_owner_id, workspace_id, username
FROM homes LEFT JOIN users ON users.id = workspace_owner_id WHERE home = ANY($1)";

const ORGANIZATIONS: &str = "-- organizations_of_page
SELECT id, name, display_name, icon FROM organizations WHERE id = ANY($1)";

const USERS: &str = "-- users_of_page
SELECT id, username, name, email, avatar_url, created_at, updated_at, last_seen_at, status, login_type
FROM users WHERE id = ANY($1)";

const CONTRADICTIONS: &str = "-- contradictions_of_page
SELECT row_id, count(*) FROM contradictions WHERE row_id = ANY($1) GROUP BY row_id";

/// What there is to say of the rows of a page.
struct Whose {
    homes: HashMap<i64, Home>,
    organizations: HashMap<Uuid, Organization>,
    users: HashMap<Uuid, DirectoryUser>,
    /// How many events contradict a row; none that has none.
    contradictions: HashMap<Uuid, i64>,
}

/// A home, as entries name it.
pub(super) struct Home {
    pub(super) owner_id: Uuid,
    pub(super) workspace_id: Uuid,
    /// Empty if the directory lacks the owner.
    pub(super) owner_username: String,
}

/// The entries that rows of [`columns`](entry::columns) are.
pub(super) async fn entries(transaction: &Transaction<'_>, rows: &[Row]) -> Result<Vec<Entry>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (mut homes, mut organizations, mut users) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(entry::id(row)?);
        homes.insert(entry::home(row)?);
        organizations.insert(entry::organization_id(row)?);
        users.extend(entry::user_id(row)?);
    }
    let whose = Whose::of(transaction, ids, homes, organizations, users).await?;
    rows.iter().map(|row| whose.entry(row)).collect()
}

impl Whose {
    async fn of(
        transaction: &Transaction<'_>,
        ids: Vec<Uuid>,
        homes: BTreeSet<i64>,
        organizations: BTreeSet<Uuid>,
        users: BTreeSet<Uuid>,
    ) -> Result<Self, StoreError> {
        let homes = Vec::from_iter(homes);
        let (organizations, users) = (Vec::from_iter(organizations), Vec::from_iter(users));
        let find = async |sql, wanted: &dyn Argument| query(transaction, sql, &[wanted]).await;
        let of_users = async { if users.is_empty() { Ok(Vec::new()) } else { find(USERS, &users).await } };
        // In one go: none waits for the answer to the one before.
        let (homes, organizations, users, contradictions) = tokio::join!(
            find(HOMES, &homes),
            find(ORGANIZATIONS, &organizations),
            of_users,
            find(CONTRADICTIONS, &ids)
        );
        let homes = homes?.iter().map(home).collect::<Result<_, StoreError>>()?;
        let organizations = organizations?.iter().map(organization).collect::<Result<_, StoreError>>()?;
        let users = users?.iter().map(user).collect::<Result<_, StoreError>>()?;
        let count = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let contradictions = contradictions?.iter().map(count).collect::<Result<_, StoreError>>()?;
        Ok(Self { homes, organizations, users, contradictions })
    }

    fn entry(&self, row: &Row) -> Result<Entry, StoreError> {
        let number = entry::home(row)?;
        let nobodys = Home { owner_id: Uuid::nil(), workspace_id: Uuid::nil(), owner_username: String::new() };
        let home = self.homes.get(&number).unwrap_or_else(|| {
            // The entry is shown all the same: whoever restored rows without their homes would not see anything beside them.
            tracing::error!(home = number, "an entry has a home that the log does not know; homes have to be restored");
            &nobodys
        });
        let id = entry::organization_id(row)?;
        let nameless = || Organization { id, name: String::new(), display_name: String::new(), icon: String::new() };
        let organization = self.organizations.get(&id).cloned().unwrap_or_else(nameless);
        // A user that the directory lacks keeps the id: it is who acted.
        let user = entry::user_id(row)?.map(|id| self.users.get(&id).cloned().unwrap_or_else(|| unknown(id)));
        let contradictions = self.contradictions.get(&entry::id(row)?).copied().unwrap_or(0);
        entry::entry(row, organization, home, user, contradictions)
    }
}

fn home(row: &Row) -> Result<(i64, Home), StoreError> {
    let owner_username = row.try_get::<_, Option<String>>(3)?.unwrap_or_default();
    Ok((row.try_get(0)?, Home { owner_id: row.try_get(1)?, workspace_id: row.try_get(2)?, owner_username }))
}

fn organization(row: &Row) -> Result<(Uuid, Organization), StoreError> {
    let id = row.try_get(0)?;
    let [name, display_name, icon] = [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
    Ok((id, Organization { id, name, display_name, icon }))
}

fn user(row: &Row) -> Result<(Uuid, DirectoryUser), StoreError> {
    let user = DirectoryUser {
        id: row.try_get(0)?,
        username: row.try_get(1)?,
        name: row.try_get(2)?,
        email: row.try_get(3)?,
        avatar_url: row.try_get(4)?,
        created_at: row.try_get(5)?,
        updated_at: row.try_get(6)?,
        last_seen_at: row.try_get(7)?,
        status: row.try_get(8)?,
        login_type: row.try_get(9)?,
    };
    Ok((user.id, user))
}

fn unknown(id: Uuid) -> DirectoryUser {
    DirectoryUser {
        id,
        username: String::new(),
        name: String::new(),
        email: String::new(),
        avatar_url: String::new(),
        created_at: UNKNOWN_TIME,
        updated_at: UNKNOWN_TIME,
        last_seen_at: UNKNOWN_TIME,
        status: String::new(),
        login_type: String::new(),
    }
}
