//! Whose the rows of a page are: where they went, and what the directory knows of organizations and people.
//!
//! Looked up once for each of them, by the snapshot of the rows. Joining them to every row took longer to plan than the page.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;
use uuid::Uuid;

use super::entry::{self, DirectoryUser, Entry, Organization, UNKNOWN_TIME};
use crate::StoreError;
use crate::session::{Step, Transaction};

const TARGETS: &str = "-- targets_of_page
SELECT t.target, t.organization_id, o.name, o.display_name, o.icon, t.owner_id, u.username, t.workspace_id, t.workspace_name, t.agent_name
FROM targets AS t LEFT JOIN organizations AS o ON o.id = t.organization_id LEFT JOIN users AS u ON u.id = t.owner_id
WHERE t.target = ANY($1)";

const USERS: &str = "-- users_of_page
SELECT id, username, name, email, avatar_url, created_at, updated_at, last_seen_at, status, login_type
FROM users WHERE id = ANY($1)";

const CONTRADICTIONS: &str = "-- contradictions_of_page
SELECT row_id, count(*) FROM contradictions WHERE row_id = ANY($1) GROUP BY row_id";

/// Where rows went: a target, and what the directory knows of it. What it lacks is empty.
#[derive(Default, Clone)]
pub(super) struct Place {
    pub(super) organization: Organization,
    pub(super) owner_id: Uuid,
    pub(super) owner_username: String,
    pub(super) workspace_id: Uuid,
    pub(super) workspace_name: String,
    pub(super) agent_name: String,
}

/// The entries that rows of [`COLUMNS`](entry::COLUMNS) are.
pub(super) async fn entries(transaction: &Transaction<'_>, rows: &[Row]) -> Result<Vec<Entry>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (mut targets, mut users) = (BTreeSet::new(), BTreeSet::new());
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(entry::id(row)?);
        targets.insert(entry::target(row)?);
        users.extend(entry::user_id(row)?);
    }
    let (targets, users): (Vec<i64>, Vec<Uuid>) = (targets.into_iter().collect(), users.into_iter().collect());
    let mut steps = vec![Step::Query(TARGETS, vec![&targets]), Step::Query(CONTRADICTIONS, vec![&ids])];
    if !users.is_empty() {
        steps.push(Step::Query(USERS, vec![&users]));
    }
    let mut answers = transaction.send(None, &steps).await?.into_iter();
    let places = answers.next().unwrap_or_default();
    let places = places.iter().map(place).collect::<Result<HashMap<i64, Place>, StoreError>>()?;
    let contradictions = answers.next().unwrap_or_default();
    let contradictions = contradictions.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let contradictions = contradictions.collect::<Result<HashMap<Uuid, i64>, StoreError>>()?;
    let people = answers.next().unwrap_or_default();
    let people = people.iter().map(user).collect::<Result<HashMap<Uuid, DirectoryUser>, StoreError>>()?;
    let nowhere = Place::default();
    let entry = |row: &Row| {
        let target = entry::target(row)?;
        let place = places.get(&target).unwrap_or_else(|| {
            // The entry is shown all the same: whoever restored rows without their targets would not see anything beside them.
            tracing::error!(target, "an entry has a target that the log does not know; targets have to be restored");
            &nowhere
        });
        // A user that the directory lacks keeps the id: it is who acted.
        let user = entry::user_id(row)?.map(|id| people.get(&id).cloned().unwrap_or_else(|| unknown(id)));
        let contradictions = contradictions.get(&entry::id(row)?).copied().unwrap_or(0);
        entry::entry(row, place, user, contradictions)
    };
    rows.iter().map(entry).collect()
}

fn place(row: &Row) -> Result<(i64, Place), StoreError> {
    let text = |column: usize| Ok::<_, StoreError>(row.try_get::<_, Option<String>>(column)?.unwrap_or_default());
    let organization = Organization { id: row.try_get(1)?, name: text(2)?, display_name: text(3)?, icon: text(4)? };
    let place = Place {
        organization,
        owner_id: row.try_get(5)?,
        owner_username: text(6)?,
        workspace_id: row.try_get(7)?,
        workspace_name: text(8)?,
        agent_name: text(9)?,
    };
    Ok((row.try_get(0)?, place))
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
