//! A filter as SQL: conditions and their numbered parameters. Values never become part of the text.

use connlog_model::app::{ConnectionType, apps_of};
use connlog_model::clock::{LATE, Timestamp};
use connlog_model::method::Method;
use connlog_model::search::Status;
use uuid::Uuid;

use super::filter::Filter;
use crate::argument::Argument;

/// A value bound to a parameter.
pub(super) type Parameter = Box<dyn Argument + Send>;

/// How history is searched in homes of several organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Homes {
    /// By lists of both: each row is compared with them.
    Listed,
    /// By a join: each home is one look into the index. Lists would make it one for each of their combinations.
    Joined,
}

/// The conditions of a filter, by the tables that they are about.
#[derive(Default)]
pub(super) struct Conditions {
    shared: Vec<String>,
    open_only: Vec<String>,
    history_only: Vec<String>,
    /// What history is joined with, in place of conditions on where it has the matches; may be empty.
    join: String,
    parameters: Vec<Parameter>,
    /// Whether open connections can match.
    pub(super) open: bool,
    /// Whether history can match.
    pub(super) history: bool,
}

impl Conditions {
    pub(super) fn of(filter: &Filter) -> Self {
        Self::on(filter, true, true, Homes::Joined)
    }

    /// The same for a walk in another order: each row that comes is compared.
    pub(super) fn of_walk(filter: &Filter) -> Self {
        Self::on(filter, true, true, Homes::Listed)
    }

    /// The conditions on the open set and, if there is any, on `history`.
    pub(super) fn of_open_and(filter: &Filter, history: bool) -> Self {
        Self::on(filter, true, history, Homes::Joined)
    }

    /// The conditions on history alone: a parameter that a statement does not use has no type.
    pub(super) fn of_history(filter: &Filter) -> Self {
        Self::on(filter, false, true, Homes::Joined)
    }

    /// The conditions on the open set alone.
    pub(super) fn of_open(filter: &Filter) -> Self {
        Self::on(filter, true, false, Homes::Joined)
    }

    /// The conditions on the counts by day, but for the days.
    pub(super) fn of_counts(filter: &Filter) -> Self {
        let mut conditions = Self::default();
        if let Some(ids) = &filter.organizations {
            conditions.add("organization_id = ANY(?)", ids.clone());
        }
        conditions.add_kinds(filter);
        if filter.status == Some(Status::Completed) {
            conditions.add("method = ANY(?)", session_methods());
        }
        conditions
    }

    fn on(filter: &Filter, open: bool, history: bool, homes: Homes) -> Self {
        let mut conditions = Self { open, history, ..Self::default() };
        conditions.choose_tables(filter);
        conditions.add_identities(filter, homes);
        conditions.add_kinds(filter);
        conditions.add_scanned(filter);
        if let Some(after) = filter.connected_after {
            conditions.add("connect_time >= ?", after);
        }
        if let Some(before) = filter.connected_before {
            conditions.add("connect_time <= ?", before);
        }
        conditions
    }

    /// An open connection has no reason, code or inferred end, and is no web event.
    fn choose_tables(&mut self, filter: &Filter) {
        if filter.status == Some(Status::Ongoing) {
            self.history = false;
        }
        let only_ended = filter.status == Some(Status::Completed)
            || filter.reason.is_some()
            || filter.code.is_some()
            || filter.inferred == Some(true)
            || filter.other_owner
            || filter.slug_or_port.is_some()
            || filter.user_agent.is_some()
            || filter.method.is_some_and(Method::is_web)
            || filter.connection_type.is_some_and(|family| family.method().is_web());
        if only_ended {
            self.open = false;
        }
        if filter.status == Some(Status::Completed) {
            self.history_only.push("disconnect_time IS NOT NULL".to_owned());
        }
    }

    fn add_identities(&mut self, filter: &Filter, homes: Homes) {
        self.add_homes(filter, homes);
        if self.open {
            for (column, id) in [("id", filter.id), ("connection_id", filter.connection_id)] {
                let condition = id.map(|id| format!("{column} = {}", self.bind(id)));
                self.open_only.extend(condition);
            }
        }
        if self.history {
            self.add_hashed(filter);
        }
        let users = filter.users.as_ref().map(|ids| self.one_of("user_id", ids.clone()));
        self.shared.extend(users);
        if let Some(name) = &filter.workspace_name {
            self.add("lower(workspace_name) = ?", name.clone());
        }
    }

    /// Where the log has the matches: what the index of history goes by, organization first.
    fn add_homes(&mut self, filter: &Filter, homes: Homes) {
        let Some(found) = &filter.homes else {
            let condition = filter.organizations.as_ref().map(|ids| self.one_of("organization_id", ids.clone()));
            self.shared.extend(condition);
            return;
        };
        let organizations: Vec<Uuid> = found.iter().map(|home| home.organization).collect();
        let numbers: Vec<i64> = found.iter().map(|home| home.number).collect();
        let is_one = organizations.iter().all(|id| Some(id) == organizations.first());
        if homes == Homes::Listed || is_one {
            let listed = [self.one_of("organization_id", organizations), self.one_of("home", numbers)];
            self.shared.extend(listed);
            return;
        }
        if self.open {
            let listed = self.one_of("home", numbers.clone());
            self.open_only.push(listed);
        }
        if self.history {
            self.join = format!(
                " JOIN unnest({}::uuid[], {}::bigint[]) AS wanted (of_organization, of_home)\n\
                 ON organization_id = of_organization AND home = of_home",
                self.bind(organizations),
                self.bind(numbers),
            );
        }
    }

    /// Ids whose indexes have hashes of them.
    fn add_hashed(&mut self, filter: &Filter) {
        let hashed = |column: &str, id: &str| {
            format!("uuid_hash_extended({column}, 0) = uuid_hash_extended({id}, 0) AND {column} = {id}")
        };
        if let Some(id) = filter.id {
            let id = self.bind(id);
            // Connections and web events have an index each.
            let connection = hashed("id", &id);
            self.history_only
                .push(format!("({connection} AND disconnect_time IS NOT NULL OR id = {id} AND method >= 3)"));
        }
        if let Some(id) = filter.connection_id {
            let id = self.bind(id);
            self.history_only.push(hashed("connection_id", &id));
        }
    }

    /// That a column has one of the values, which are bound.
    fn one_of<T>(&mut self, column: &str, mut values: Vec<T>) -> String
    where
        T: Argument + Ord + Copy + Send + 'static,
        Vec<T>: Argument,
    {
        values.sort_unstable();
        values.dedup();
        match values.as_slice() {
            [value] => format!("{column} = {}", self.bind(*value)),
            _ => format!("{column} = ANY({})", self.bind(values)),
        }
    }

    /// Method, type and app: columns that the counts have, too.
    fn add_kinds(&mut self, filter: &Filter) {
        if let Some(method) = filter.method {
            self.add("method = ?", method.code());
        }
        if let Some(family) = filter.connection_type {
            self.add("method = ?", family.method().code());
            match family {
                ConnectionType::Ssh => {
                    let ides: Vec<&str> =
                        apps_of(ConnectionType::Vscode).chain(apps_of(ConnectionType::Jetbrains)).collect();
                    self.add("(app_name IS NULL OR app_name <> ALL(?))", ides);
                }
                ConnectionType::Vscode | ConnectionType::Jetbrains => {
                    self.add("app_name = ANY(?)", apps_of(family).collect::<Vec<_>>());
                }
                _ => {}
            }
        }
        if let Some(app) = &filter.app {
            self.add("app_name = ?", app.clone());
            if filter.method.is_none() && filter.connection_type.is_none() {
                // Web events have no app, and the index begins with the method.
                self.add("method = ANY(?)", session_methods());
            }
        }
    }

    fn add_scanned(&mut self, filter: &Filter) {
        if let Some(name) = &filter.agent_name {
            self.add("lower(agent_name) = ?", name.clone());
        }
        if let Some(range) = filter.ip {
            self.add("ip <<= ?::text::inet", range.to_string());
        }
        if let Some(id) = filter.client_session_id {
            self.add("client_session_id = ?", id);
        }
        if filter.contradicted {
            // The id is that of the row: contradictions have no column of that name.
            self.add_sql("EXISTS (SELECT FROM contradictions WHERE row_id = id)".to_owned());
        }
        if let Some(after) = filter.received_after {
            self.add("received_at >= ?", after);
        }
        if let Some(before) = filter.received_before {
            self.add("received_at <= ?", before);
        }
        if filter.late {
            let late = LATE.num_seconds();
            let of_start = format!("received_at > connect_time + interval '{late} s'");
            let of_end = format!("ended_received_at > disconnect_time + interval '{late} s'");
            self.history_only.push(format!("({of_start} OR {of_end})"));
            self.open_only.push(of_start);
        }
        if self.history {
            self.add_ended(filter);
        }
        for (comparison, duration) in [(">", filter.longer_than), ("<", filter.shorter_than)] {
            let Some(micros) = duration.map(|duration| duration.num_microseconds().unwrap_or(i64::MAX)) else {
                continue;
            };
            let bound = format!("{}::bigint * interval '1 microsecond'", self.bind(micros));
            if self.history {
                self.history_only.push(format!("disconnect_time - connect_time {comparison} {bound}"));
            }
            if self.open {
                let now = self.bind(filter.now);
                self.open_only.push(format!("{now}::timestamptz - connect_time {comparison} {bound}"));
            }
        }
    }

    fn add_ended(&mut self, filter: &Filter) {
        if let Some(part) = &filter.reason {
            let part = self.bind(part.clone());
            self.history_only.push(format!("position({part} IN lower(disconnect_reason)) > 0"));
        }
        if let Some(name) = &filter.slug_or_port {
            let name = self.bind(name.clone());
            self.history_only.push(format!("lower(slug_or_port) = {name}"));
        }
        if let Some(part) = &filter.user_agent {
            let part = self.bind(part.clone());
            self.history_only.push(format!("position({part} IN lower(user_agent)) > 0"));
        }
        if let Some(condition) = filter.code {
            let code = self.bind(condition.code);
            // The operator comes from a closed list of the model.
            let comparison = condition.comparison.as_str().replace("!=", "<>");
            self.history_only.push(format!("code {comparison} {code}"));
        }
        match filter.inferred {
            Some(true) => self.history_only.push("disconnect_inferred".to_owned()),
            Some(false) => self.history_only.push("NOT disconnect_inferred".to_owned()),
            None => {}
        }
        if let Some(time) = filter.open_at {
            let time = self.bind(time);
            // A web event never ended, and is no session.
            self.history_only.push(format!("disconnect_time >= {time}"));
        }
        if filter.other_owner {
            let web = self.bind(web_methods());
            let owner = "(SELECT homes.workspace_owner_id FROM homes WHERE homes.home = log.home)";
            self.history_only.push(format!("method = ANY({web}) AND user_id <> {owner}"));
        }
    }

    /// Only what lies in `[from, to)`.
    pub(super) fn add_span(&mut self, from: Timestamp, to: Timestamp) {
        self.add("connect_time >= ?", from);
        self.add("connect_time < ?", to);
    }

    /// Of open connections, only what lies in `[from, to)`.
    pub(super) fn add_open_span(&mut self, from: Timestamp, to: Timestamp) {
        if self.open {
            let (from, to) = (self.bind(from), self.bind(to));
            self.open_only.push(format!("connect_time >= {from} AND connect_time < {to}"));
        }
    }

    /// Only what comes after (`time`, `id`) in the order of pages.
    pub(super) fn add_after(&mut self, time: Timestamp, id: Uuid) {
        let (time, id) = (self.bind(time), self.bind(id));
        self.add_sql(format!("(connect_time, id) < ({time}, {id})"));
    }

    /// Adds a condition on columns of both tables; `?` stands for `value`.
    pub(super) fn add(&mut self, condition: &str, value: impl Argument + Send + 'static) {
        let parameter = self.bind(value);
        self.shared.push(condition.replace('?', &parameter));
    }

    /// Adds a condition on columns of both tables whose values are bound already.
    pub(super) fn add_sql(&mut self, condition: String) {
        self.shared.push(condition);
    }

    /// Binds a value and returns the name of its parameter.
    pub(super) fn bind(&mut self, value: impl Argument + Send + 'static) -> String {
        self.parameters.push(Box::new(value));
        format!("${}", self.parameters.len())
    }

    /// The conditions on both tables, joined, or `true`.
    pub(super) fn shared_sql(&self) -> String {
        joined(&[&self.shared])
    }

    /// The conditions on `open_connections`, joined, or `true`.
    pub(super) fn open_sql(&self) -> String {
        joined(&[&self.shared, &self.open_only])
    }

    /// `FROM` and `WHERE` on history, or on one `table` of it.
    pub(super) fn on_history(&self, table: &str) -> String {
        format!("FROM {table} AS log{} WHERE {}", self.join, joined(&[&self.shared, &self.history_only]))
    }

    /// The parameters, in the order of their numbers.
    pub(super) fn parameters(&self) -> Vec<&dyn Argument> {
        self.parameters.iter().map(|parameter| &**parameter as &dyn Argument).collect()
    }
}

/// The methods of connections to agents.
fn session_methods() -> Vec<i16> {
    Method::ALL.into_iter().filter(|method| !method.is_web()).map(Method::code).collect()
}

fn web_methods() -> Vec<i16> {
    Method::ALL.into_iter().filter(|method| method.is_web()).map(Method::code).collect()
}

fn joined(conditions: &[&Vec<String>]) -> String {
    let all: Vec<&str> = conditions.iter().flat_map(|part| part.iter()).map(String::as_str).collect();
    if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
}
