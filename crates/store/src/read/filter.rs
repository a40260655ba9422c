//! A search, with its names resolved to ids and limited to what the caller may see.

use chrono::TimeDelta;
use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::method::Method;
use connlog_model::search::{AddressRange, CodeCondition, Search, Status, UserRef};
use tokio_postgres::Row;
use uuid::Uuid;

use super::windows::Window;
use crate::StoreError;
use crate::argument::Argument;
use crate::session::{Transaction, query};

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
    pub(super) id: Option<Uuid>,
    pub(super) organizations: Option<Vec<Uuid>>,
    pub(super) owners: Option<Vec<Uuid>>,
    pub(super) users: Option<Vec<Uuid>>,
    /// Where the log has what is asked for of owners or workspaces; none if neither is.
    pub(super) homes: Option<Vec<Home>>,
    pub(super) connection_type: Option<ConnectionType>,
    pub(super) method: Option<Method>,
    pub(super) app: Option<String>,
    pub(super) connected_after: Option<Timestamp>,
    pub(super) connected_before: Option<Timestamp>,
    pub(super) workspaces: Option<Vec<Uuid>>,
    pub(super) workspace_name: Option<String>,
    pub(super) connection_id: Option<Uuid>,
    pub(super) status: Option<Status>,
    pub(super) agent_name: Option<String>,
    pub(super) ip: Option<AddressRange>,
    pub(super) reason: Option<String>,
    pub(super) slug_or_port: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) client_session_id: Option<Uuid>,
    pub(super) code: Option<CodeCondition>,
    pub(super) longer_than: Option<TimeDelta>,
    pub(super) shorter_than: Option<TimeDelta>,
    pub(super) inferred: Option<bool>,
    pub(super) other_owner: bool,
    pub(super) contradicted: bool,
    pub(super) late: bool,
    pub(super) received_after: Option<Timestamp>,
    pub(super) received_before: Option<Timestamp>,
    /// Only sessions that were not over then. No search asks for this by itself.
    pub(super) open_at: Option<Timestamp>,
    /// What "now" is to the duration of an open connection.
    pub(super) now: Timestamp,
}

/// What the index of history goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) organization: Uuid,
    pub(super) number: i64,
}

/// What a filter can be answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Only what the counts by day know: they say where the matches are.
    Broad,
    /// Something with an index finds the matches.
    Indexed,
    /// Rows have to be looked at one by one.
    Scanned,
}

/// So many homes are looked up one by one, on each day, whatever a planner would weigh.
const FEW_HOMES: usize = 200;

const ORGANIZATION: &str = "-- find_organization
SELECT id FROM organizations WHERE (name_key = $1 AND NOT deleted) OR id = $2";

/// With whether rows may have it by another name.
const WORKSPACES: &str = "-- find_workspaces
SELECT workspace_id, EXISTS (SELECT FROM workspace_names other WHERE other.workspace_id = named.workspace_id AND other.name_key <> $1)
FROM workspace_names named WHERE name_key = $1";

const HOMES_OF_OWNERS: &str = "-- homes_of_owners
SELECT organization_id, home FROM homes
WHERE workspace_owner_id = ANY($1) AND ($2::uuid[] IS NULL OR organization_id = ANY($2))";

const HOMES_OF_WORKSPACES: &str = "-- homes_of_workspaces
SELECT organization_id, home FROM homes
WHERE workspace_id = ANY($1) AND ($2::uuid[] IS NULL OR organization_id = ANY($2))
    AND ($3::uuid[] IS NULL OR workspace_owner_id = ANY($3))";

const USERS_BY_NAME: &str = "-- users_by_name
SELECT id FROM users WHERE username_key = $1 AND NOT deleted";

const USERS_BY_EMAIL: &str = "-- users_by_email
SELECT id FROM users WHERE email_key = $1 AND NOT deleted";

impl Filter {
    pub(super) async fn resolve(
        transaction: &Transaction<'_>,
        search: &Search,
        reach: &Reach,
        now: Timestamp,
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
        let (mut named, mut workspace_name) = (None, None);
        if let Some(name) = &search.workspace {
            let found = named_workspaces(transaction, name).await?;
            // Only then is the name of a row worth a look.
            workspace_name = found.iter().any(|(_, was_renamed)| *was_renamed).then(|| name.clone());
            named = Some(found.into_iter().map(|(id, _)| id).collect());
        }
        let owner = users(transaction, search.workspace_owner.as_ref(), reach).await?;
        let owner_email = users_by_email(transaction, search.workspace_owner_email.as_ref()).await?;
        let user = users(transaction, search.username.as_ref(), reach).await?;
        let user_email = users_by_email(transaction, search.user_email.as_ref()).await?;
        let owners = both(owner, owner_email);
        let workspaces = both(search.workspace_id.map(|id| vec![id]), named);
        let homes = homes(transaction, organizations.as_deref(), owners.as_deref(), workspaces.as_deref()).await?;
        Ok(Ok(Self {
            id: None,
            organizations,
            owners,
            homes,
            users: both(user, user_email),
            connection_type: search.connection_type,
            method: search.method,
            app: search.app.clone(),
            connected_after: search.connected_after,
            connected_before: search.connected_before,
            workspaces,
            workspace_name,
            connection_id: search.connection_id,
            status: search.status,
            agent_name: search.agent.clone(),
            ip: search.ip,
            reason: search.reason.clone(),
            slug_or_port: search.slug_or_port.clone(),
            user_agent: search.user_agent.clone(),
            client_session_id: search.client_session_id,
            code: search.code,
            longer_than: search.longer_than,
            shorter_than: search.shorter_than,
            inferred: search.inferred,
            other_owner: search.other_owner,
            contradicted: search.contradicted,
            late: search.late,
            received_after: search.received_after,
            received_before: search.received_before,
            open_at: None,
            now,
        }))
    }

    /// The same for rows that lie in `window`: bounds that all of these meet are left out.
    pub(super) fn within(&self, window: Window) -> Self {
        let mut within = self.clone();
        within.connected_after = self.connected_after.filter(|after| *after > window.from);
        within.connected_before =
            self.connected_before.filter(|before| *before < window.to - TimeDelta::microseconds(1));
        within
    }

    /// What it can be answered from.
    pub(super) fn shape(&self) -> Shape {
        let scanned = self.agent_name.is_some()
            || self.ip.is_some()
            || self.reason.is_some()
            || self.slug_or_port.is_some()
            || self.user_agent.is_some()
            || self.client_session_id.is_some()
            || self.code.is_some()
            || self.longer_than.is_some()
            || self.shorter_than.is_some()
            || self.inferred.is_some()
            || self.other_owner
            || self.contradicted
            || self.late
            || self.received_after.is_some()
            || self.received_before.is_some()
            || self.open_at.is_some();
        let indexed =
            self.owners.is_some() || self.users.is_some() || self.workspaces.is_some() || self.connection_id.is_some();
        match (scanned, indexed) {
            (true, _) => Shape::Scanned,
            (false, true) => Shape::Indexed,
            (false, false) => Shape::Broad,
        }
    }

    /// Whether it is about one thing that has an index, so that there is nothing to weigh for a planner.
    pub(super) fn is_one_look_up(&self) -> bool {
        let kinds = self.method.is_some() || self.connection_type.is_some() || self.app.is_some();
        // Of many, it depends on how many rows there are.
        let are_few = self.homes.as_ref().is_none_or(|homes| homes.len() <= FEW_HOMES);
        let has_home = self.organizations.is_some() || self.homes.is_some();
        let keys = [has_home, self.users.is_some(), self.connection_id.is_some(), self.id.is_some()];
        !kinds && are_few && keys.into_iter().filter(|key| *key).count() == 1
    }

    /// Whether a name that nobody has, or two conditions that exclude each other, leave nothing to look for.
    pub(super) fn matches_nothing(&self) -> bool {
        let lists = [&self.organizations, &self.owners, &self.users, &self.workspaces];
        let Self { agent_name, reason, workspace_name, app, slug_or_port, user_agent, .. } = self;
        let texts = [agent_name, reason, workspace_name, app, slug_or_port, user_agent];
        let contradiction = match (self.connection_type, self.method) {
            (Some(family), Some(method)) => family.method() != method,
            _ => false,
        };
        contradiction
            || lists.iter().any(|list| list.as_ref().is_some_and(Vec::is_empty))
            || self.homes.as_ref().is_some_and(Vec::is_empty)
            // PostgreSQL cannot even be asked for such a text.
            || texts.iter().any(|text| text.as_ref().is_some_and(|text| text.contains('\0')))
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
        Some(UserRef::Name(name)) => {
            let mut found = ids(transaction, USERS_BY_NAME, name, &[]).await?;
            // Somebody whom the directory no longer has can still be asked for.
            found.extend(Uuid::try_parse(name).ok().filter(|id| !found.contains(id)));
            Some(found)
        }
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

/// The ids that a look-up by `name` gives.
async fn ids(
    transaction: &Transaction<'_>,
    sql: &str,
    name: &String,
    further: &[&dyn Argument],
) -> Result<Vec<Uuid>, StoreError> {
    let rows = look_up(transaction, sql, name, further).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// What a look-up by `name` gives; nothing is called by a name that PostgreSQL cannot store.
async fn look_up(
    transaction: &Transaction<'_>,
    sql: &str,
    name: &String,
    further: &[&dyn Argument],
) -> Result<Vec<Row>, StoreError> {
    if name.contains('\0') {
        return Ok(Vec::new());
    }
    let mut parameters: Vec<&dyn Argument> = vec![name];
    parameters.extend(further);
    query(transaction, sql, &parameters).await
}

/// The workspaces that have or had a name, each with whether it had others.
async fn named_workspaces(transaction: &Transaction<'_>, name: &String) -> Result<Vec<(Uuid, bool)>, StoreError> {
    let rows = look_up(transaction, WORKSPACES, name, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Where the log has what is asked for.
async fn homes(
    transaction: &Transaction<'_>,
    organizations: Option<&[Uuid]>,
    owners: Option<&[Uuid]>,
    workspaces: Option<&[Uuid]>,
) -> Result<Option<Vec<Home>>, StoreError> {
    let rows = match (owners, workspaces) {
        (None, None) => return Ok(None),
        (Some(owners), None) => query(transaction, HOMES_OF_OWNERS, &[&owners, &organizations]).await?,
        (_, Some(workspaces)) => {
            query(transaction, HOMES_OF_WORKSPACES, &[&workspaces, &organizations, &owners]).await?
        }
    };
    let home = |row: &Row| Ok(Home { organization: row.try_get(0)?, number: row.try_get(1)? });
    rows.iter().map(home).collect::<Result<_, StoreError>>().map(Some)
}

fn both(a: Option<Vec<Uuid>>, b: Option<Vec<Uuid>>) -> Option<Vec<Uuid>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.into_iter().filter(|id| b.contains(id)).collect()),
        (a, b) => a.or(b),
    }
}
