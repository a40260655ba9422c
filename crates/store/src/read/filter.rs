//! A search, with its names resolved to ids and limited to what the caller may see.

use chrono::TimeDelta;
use connlog_model::app::ConnectionType;
use connlog_model::clock::Timestamp;
use connlog_model::limits::{
    MAX_APP_NAME_CHARS, MAX_NAME_BYTES, MAX_REASON_BYTES, MAX_SLUG_OR_PORT_BYTES, MAX_USER_AGENT_BYTES,
};
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
    /// The numbers of the targets of owners or workspaces that are asked for; none if neither is.
    pub(super) targets: Option<Vec<i64>>,
    pub(super) connection_type: Option<ConnectionType>,
    pub(super) method: Option<Method>,
    pub(super) app: Option<String>,
    pub(super) connected_after: Option<Timestamp>,
    pub(super) connected_before: Option<Timestamp>,
    pub(super) workspaces: Option<Vec<Uuid>>,
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
    /// Days that begin before are closed; known if only what is open is asked for.
    pub(super) closed_before: Option<Timestamp>,
    /// How many rows have the method, type or app that is asked for, if that was counted.
    pub(super) of_kind: Option<i64>,
    /// What "now" is to the duration of an open connection.
    pub(super) now: Timestamp,
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

/// So many targets are looked up one by one, on each day, whatever a planner would weigh.
const FEW_TARGETS: usize = 200;
/// A kind with so many rows is rare: its index may have fewer to look at than that of targets.
const RARE: i64 = 20_000;

const ORGANIZATION: &str = "-- find_organization
SELECT id FROM organizations WHERE (name_key = $1 AND NOT deleted) OR id = $2";

/// By everything that is asked for of them.
const TARGETS: &str = "-- find_targets
SELECT target FROM targets
WHERE ($1::uuid[] IS NULL OR owner_id = ANY($1)) AND ($2::uuid[] IS NULL OR workspace_id = ANY($2))
    AND ($3::text IS NULL OR workspace_name_key = $3) AND ($4::uuid[] IS NULL OR organization_id = ANY($4))";

/// Those of agents that may have something open, and since when.
const OPEN_TARGETS: &str = "-- targets_with_open
SELECT target, open_since FROM targets JOIN agents USING (agent)
WHERE open_since IS NOT NULL AND ($1::uuid[] IS NULL OR organization_id = ANY($1)) LIMIT $2";

const CLOSED_BEFORE: &str = "-- closed_before
SELECT closed_before FROM floor";

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
        let owner = users(transaction, search.workspace_owner.as_ref(), reach).await?;
        let owner_email = users_by_email(transaction, search.workspace_owner_email.as_ref()).await?;
        let user = users(transaction, search.username.as_ref(), reach).await?;
        let user_email = users_by_email(transaction, search.user_email.as_ref()).await?;
        let owners = both(owner, owner_email);
        let workspaces = search.workspace_id.map(|id| vec![id]);
        let workspace_name = search.workspace.as_deref();
        let targets = if owners.is_none() && workspaces.is_none() && workspace_name.is_none() {
            None
        } else {
            let (owners, workspaces) = (owners.as_deref(), workspaces.as_deref());
            Some(targets(transaction, owners, workspaces, workspace_name, organizations.as_deref()).await?)
        };
        let closed_before = match search.status {
            Some(Status::Ongoing) => Some(closed_before(transaction).await?),
            Some(Status::Completed) | None => None,
        };
        Ok(Ok(Self {
            id: None,
            organizations,
            owners,
            targets,
            users: both(user, user_email),
            connection_type: search.connection_type,
            method: search.method,
            app: search.app.clone(),
            connected_after: search.connected_after,
            connected_before: search.connected_before,
            workspaces,
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
            closed_before,
            of_kind: None,
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

    /// The same by the targets that may have something open, if they are few: what is open is found among their rows, and not
    /// among all of a day.
    pub(super) async fn by_open_targets(&self, transaction: &Transaction<'_>) -> Result<Option<Self>, StoreError> {
        let most = i64::try_from(FEW_TARGETS).unwrap_or(i64::MAX);
        let rows = query(transaction, OPEN_TARGETS, &[&self.organizations, &(most + 1)]).await?;
        if self.targets.is_some() || rows.len() > FEW_TARGETS {
            return Ok(None);
        }
        let (mut targets, mut connected_after) = (Vec::with_capacity(rows.len()), None::<Timestamp>);
        for row in &rows {
            let open_since = row.try_get(1)?;
            targets.push(row.try_get(0)?);
            connected_after = Some(connected_after.map_or(open_since, |earliest| earliest.min(open_since)));
        }
        let connected_after = connected_after.max(self.connected_after);
        Ok(Some(Self { targets: Some(targets), connected_after, ..self.clone() }))
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
        let indexed = self.targets.is_some() || self.users.is_some() || self.connection_id.is_some();
        match (scanned, indexed) {
            (true, _) => Shape::Scanned,
            (false, true) => Shape::Indexed,
            (false, false) => Shape::Broad,
        }
    }

    /// Whether it asks for a method, a type or an app.
    pub(super) fn has_kinds(&self) -> bool {
        self.method.is_some() || self.connection_type.is_some() || self.app.is_some()
    }

    /// Whether it is about one thing that has an index, so that there is nothing to weigh for a planner.
    pub(super) fn is_one_look_up(&self) -> bool {
        // The index of targets has the kinds, too; another one would be weighed against that of kinds.
        let is_frequent = self.of_kind.is_none_or(|rows| rows > RARE);
        let are_covered = !self.has_kinds() || self.targets.is_some() && is_frequent;
        // Of many, it depends on how many rows there are.
        let are_few = self.targets.as_ref().is_none_or(|targets| targets.len() <= FEW_TARGETS);
        let keys = [self.targets.is_some(), self.users.is_some(), self.connection_id.is_some(), self.id.is_some()];
        are_covered && are_few && keys.into_iter().filter(|key| *key).count() == 1
    }

    /// Whether a name that nobody has, or two conditions that exclude each other, leave nothing to look for.
    pub(super) fn matches_nothing(&self) -> bool {
        let lists = [&self.organizations, &self.owners, &self.users, &self.workspaces];
        let Self { agent_name, reason, app, slug_or_port, user_agent, .. } = self;
        // Each with how many characters what is stored has at most.
        let texts = [
            (agent_name, MAX_NAME_BYTES),
            (reason, MAX_REASON_BYTES),
            (app, MAX_APP_NAME_CHARS),
            (slug_or_port, MAX_SLUG_OR_PORT_BYTES),
            (user_agent, MAX_USER_AGENT_BYTES),
        ];
        let is_impossible = |text: &str, most: usize| text.contains('\0') || text.chars().count() > most;
        let contradiction = match (self.connection_type, self.method) {
            (Some(family), Some(method)) => family.method() != method,
            _ => false,
        };
        contradiction
            || lists.iter().any(|list| list.as_ref().is_some_and(Vec::is_empty))
            || self.targets.as_ref().is_some_and(Vec::is_empty)
            // PostgreSQL cannot even be asked for some of these.
            || texts.into_iter().any(|(text, most)| text.as_ref().is_some_and(|text| is_impossible(text, most)))
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

/// The targets of owners, workspaces and a name that a workspace has or had.
async fn targets(
    transaction: &Transaction<'_>,
    owners: Option<&[Uuid]>,
    workspaces: Option<&[Uuid]>,
    workspace_name: Option<&str>,
    organizations: Option<&[Uuid]>,
) -> Result<Vec<i64>, StoreError> {
    if workspace_name.is_some_and(|name| name.contains('\0')) {
        return Ok(Vec::new());
    }
    let rows = query(transaction, TARGETS, &[&owners, &workspaces, &workspace_name, &organizations]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Days that begin before are closed.
pub(super) async fn closed_before(transaction: &Transaction<'_>) -> Result<Timestamp, StoreError> {
    let rows = query(transaction, CLOSED_BEFORE, &[]).await?;
    let row = rows.first().ok_or_else(|| StoreError::Inconsistent("floor has no row".to_owned()))?;
    Ok(row.try_get(0)?)
}

fn both(a: Option<Vec<Uuid>>, b: Option<Vec<Uuid>>) -> Option<Vec<Uuid>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.into_iter().filter(|id| b.contains(id)).collect()),
        (a, b) => a.or(b),
    }
}
