//! A filter as SQL: conditions and their numbered parameters. Values never become part of the text.

use connlog_model::app::{ConnectionType, apps_of};
use connlog_model::search::Status;
use tokio_postgres::types::ToSql;

use super::filter::Filter;

/// A value bound to a parameter.
pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// The conditions of a filter on columns that `open_connections` and `connection_logs` share.
#[derive(Default)]
pub(super) struct Conditions {
    sql: Vec<String>,
    parameters: Vec<Parameter>,
    /// Whether open connections can match.
    pub(super) open: bool,
    /// Whether history can match.
    pub(super) history: bool,
}

impl Conditions {
    pub(super) fn of(filter: &Filter) -> Self {
        let mut conditions = Self { open: true, history: true, ..Self::default() };
        conditions.add_identities(filter);
        conditions.add_kinds(filter);
        if let Some(after) = filter.connected_after {
            conditions.add("connect_time >= ?", after);
        }
        if let Some(before) = filter.connected_before {
            conditions.add("connect_time <= ?", before);
        }
        match filter.status {
            None => {}
            Some(Status::Ongoing) => conditions.history = false,
            Some(Status::Completed) => {
                conditions.open = false;
                conditions.sql.push("disconnect_time IS NOT NULL".to_owned());
            }
        }
        conditions
    }

    fn add_identities(&mut self, filter: &Filter) {
        for (column, ids) in [
            ("organization_id", &filter.organizations),
            ("workspace_owner_id", &filter.owners),
            ("user_id", &filter.users),
        ] {
            match ids.as_deref() {
                None => {}
                Some([id]) => self.add(&format!("{column} = ?"), *id),
                Some(ids) => self.add(&format!("{column} = ANY(?)"), ids.to_vec()),
            }
        }
        if let Some(id) = filter.workspace_id {
            self.add("workspace_id = ?", id);
        }
        if let Some(id) = filter.connection_id {
            self.add("connection_id = ?", id);
        }
    }

    /// Method, type and app: columns that the counts have, too.
    pub(super) fn add_kinds(&mut self, filter: &Filter) {
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
        }
    }

    /// Adds a condition; `?` stands for `value`.
    pub(super) fn add(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static) {
        let parameter = self.bind(value);
        self.sql.push(condition.replace('?', &parameter));
    }

    /// Binds a value and returns the name of its parameter.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.parameters.push(Box::new(value));
        format!("${}", self.parameters.len())
    }

    /// The conditions, joined, or `true`.
    pub(super) fn sql(&self) -> String {
        if self.sql.is_empty() { "true".to_owned() } else { self.sql.join(" AND ") }
    }

    /// The parameters, in the order of their numbers.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)).collect()
    }
}
