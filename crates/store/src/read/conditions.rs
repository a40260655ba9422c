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

/// How rows of some organizations are recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Each row is compared: for a walk by another index.
    Row,
    /// The targets of the organizations are looked up in the index of targets: for few matches.
    Target,
}

/// The conditions of a filter.
#[derive(Default)]
pub(super) struct Conditions {
    all: Vec<String>,
    parameters: Vec<Parameter>,
    /// Days that begin before are closed, if only what is open is asked for: it is listed there.
    closed_before: Option<Timestamp>,
}

impl Conditions {
    pub(super) fn of(filter: &Filter, by: By) -> Self {
        let mut conditions = Self { closed_before: filter.closed_before, ..Self::default() };
        match filter.status {
            Some(Status::Ongoing) => conditions.add_sql("disconnect_time IS NULL AND method <= 2".to_owned()),
            Some(Status::Completed) => conditions.add_sql("disconnect_time IS NOT NULL".to_owned()),
            None => {}
        }
        conditions.add_places(filter, by);
        for (column, id) in [("id", filter.id), ("connection_id", filter.connection_id)] {
            if let Some(id) = id {
                conditions.add(&format!("{column} = ?"), id);
            }
        }
        if let Some(users) = &filter.users {
            conditions.add_one_of("user_id", users.clone());
        }
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

    /// The conditions on the counts by day, but for the days.
    pub(super) fn of_counts(filter: &Filter) -> Self {
        let mut conditions = Self::default();
        if let Some(ids) = &filter.organizations {
            conditions.add("organization_id = ANY(?)", ids.clone());
        }
        conditions.add_kinds(filter);
        if filter.status.is_some() {
            conditions.add("method = ANY(?)", session_methods());
        }
        conditions
    }

    /// Where the matches went. A row has the number of its target, and the target has the rest.
    fn add_places(&mut self, filter: &Filter, by: By) {
        match (&filter.targets, &filter.organizations, by) {
            // They lie in the organizations already.
            (Some(targets), _, _) => self.add_one_of("target", targets.clone()),
            (None, None, _) => {}
            (None, Some(ids), By::Row) => {
                let sql = "(SELECT t.organization_id FROM targets AS t WHERE t.target = log.target) = ANY(?)";
                self.add(sql, ids.clone());
            }
            (None, Some(ids), By::Target) => {
                self.add(
                    "target = ANY(ARRAY(SELECT t.target FROM targets AS t WHERE t.organization_id = ANY(?)))",
                    ids.clone(),
                );
            }
        }
    }

    /// That a column has one of the values.
    fn add_one_of<T>(&mut self, column: &str, values: Vec<T>)
    where
        T: Argument + Ord + Copy + Send + 'static,
        Vec<T>: Argument,
    {
        let condition = self.one_of(column, values);
        self.add_sql(condition);
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
            let sql = "(SELECT t.agent_name FROM targets AS t WHERE t.target = log.target) ~ ?";
            self.add(sql, format!("^{}$", in_any_case(name)));
        }
        if let Some(range) = filter.ip {
            self.add("(ip <<= ?::text::inet OR client_ip <<= ?::text::inet)", range.to_string());
        }
        if let Some(id) = filter.client_session_id {
            self.add("client_session_id = ?", id);
        }
        if filter.contradicted {
            self.add_sql("EXISTS (SELECT FROM contradictions AS c WHERE c.row_id = log.id)".to_owned());
        }
        if let Some(after) = filter.received_after {
            self.add("received_at >= ?", after);
        }
        if let Some(before) = filter.received_before {
            self.add("received_at <= ?", before);
        }
        if filter.late {
            let late = LATE.num_seconds();
            self.add_sql(format!(
                "(received_at > connect_time + interval '{late} s' OR ended_received_at > disconnect_time + interval '{late} s')"
            ));
        }
        for (comparison, duration) in [(">", filter.longer_than), ("<", filter.shorter_than)] {
            let Some(micros) = duration.map(|duration| duration.num_microseconds().unwrap_or(i64::MAX)) else {
                continue;
            };
            let (bound, now) = (self.bind(micros), self.bind(filter.now));
            self.add_sql(format!(
                "coalesce(disconnect_time, CASE WHEN method <= 2 THEN {now}::timestamptz END) - connect_time {comparison} \
                 {bound}::bigint * interval '1 microsecond'"
            ));
        }
        self.add_ended(filter);
    }

    fn add_ended(&mut self, filter: &Filter) {
        if let Some(part) = &filter.reason {
            self.add("disconnect_reason ~ ?", in_any_case(part));
        }
        if let Some(name) = &filter.slug_or_port {
            self.add("slug_or_port ~ ?", format!("^{}$", in_any_case(name)));
        }
        if let Some(part) = &filter.user_agent {
            self.add("user_agent ~ ?", in_any_case(part));
        }
        if let Some(condition) = filter.code {
            // The operator comes from a closed list of the model.
            let comparison = condition.comparison.as_str().replace("!=", "<>");
            self.add(&format!("code {comparison} ?"), condition.code);
        }
        match filter.inferred {
            Some(true) => self.add_sql("disconnect_inferred".to_owned()),
            Some(false) => self.add_sql("NOT disconnect_inferred".to_owned()),
            None => {}
        }
        if let Some(time) = filter.open_at {
            // A web event never ended, and is no session.
            self.add("(disconnect_time >= ? OR disconnect_time IS NULL AND method <= 2)", time);
        }
        if filter.other_owner {
            let owner = "(SELECT t.owner_id FROM targets AS t WHERE t.target = log.target)";
            self.add(&format!("method = ANY(?) AND user_id <> {owner}"), web_methods());
        }
    }

    /// Only what lies in `[from, to)`.
    pub(super) fn add_span(&mut self, from: Timestamp, to: Timestamp) {
        let (from_bound, to_bound) = (self.bind(from), self.bind(to));
        self.add_sql(format!("connect_time >= {from_bound} AND connect_time < {to_bound}"));
        self.add_listed(from, to);
    }

    /// What is open of closed days is listed: nothing else has to be looked at.
    pub(super) fn add_listed(&mut self, from: Timestamp, to: Timestamp) {
        if self.closed_before.is_some_and(|closed_before| to <= closed_before) {
            let (from, to) = (self.bind(from), self.bind(to));
            self.add_sql(format!(
                "id = ANY(ARRAY(SELECT o.id FROM ongoing AS o WHERE o.connect_time >= {from} AND o.connect_time < {to}))"
            ));
        }
    }

    /// Only what comes after (`time`, `id`) in the order of pages.
    pub(super) fn add_after(&mut self, time: Timestamp, id: Uuid) {
        let (time, id) = (self.bind(time), self.bind(id));
        self.add_sql(format!("(connect_time, id) < ({time}, {id})"));
    }

    /// Adds a condition; `?` stands for `value`.
    pub(super) fn add(&mut self, condition: &str, value: impl Argument + Send + 'static) {
        let parameter = self.bind(value);
        self.all.push(condition.replace('?', &parameter));
    }

    /// Adds a condition whose values are bound already.
    pub(super) fn add_sql(&mut self, condition: String) {
        self.all.push(condition);
    }

    /// Binds a value and returns the name of its parameter.
    pub(super) fn bind(&mut self, value: impl Argument + Send + 'static) -> String {
        self.parameters.push(Box::new(value));
        format!("${}", self.parameters.len())
    }

    /// The conditions, joined, or `true`.
    pub(super) fn sql(&self) -> String {
        if self.all.is_empty() { "true".to_owned() } else { self.all.join(" AND ") }
    }

    /// `FROM` and `WHERE` on the log, or on one `table` of it.
    pub(super) fn on(&self, table: &str) -> String {
        format!("FROM {table} AS log WHERE {}", self.sql())
    }

    /// The parameters, in the order of their numbers.
    pub(super) fn parameters(&self) -> Vec<&dyn Argument> {
        self.parameters.iter().map(|parameter| &**parameter as &dyn Argument).collect()
    }
}

/// A regular expression (the PostgreSQL documentation, "Pattern Matching") for a text in any case. What `lower` makes of a letter
/// depends on the locale of the database: in the locale C an Ä stays an Ä.
fn in_any_case(text: &str) -> String {
    let mut pattern = String::with_capacity(4 * text.len());
    for letter in text.chars() {
        let others = [one(letter.to_lowercase()), one(letter.to_uppercase())];
        let others: Vec<char> = others.into_iter().flatten().filter(|other| *other != letter).collect();
        match others[..] {
            [] if letter.is_ascii_punctuation() => pattern.extend(['\\', letter]),
            [] => pattern.push(letter),
            _ => {
                pattern.extend(['[', letter]);
                pattern.extend(others);
                pattern.push(']');
            }
        }
    }
    pattern
}

/// The only one of some letters.
fn one(mut letters: impl Iterator<Item = char>) -> Option<char> {
    letters.next().filter(|_| letters.next().is_none())
}

/// The methods of connections to agents.
fn session_methods() -> Vec<i16> {
    Method::ALL.into_iter().filter(|method| !method.is_web()).map(Method::code).collect()
}

fn web_methods() -> Vec<i16> {
    Method::ALL.into_iter().filter(|method| method.is_web()).map(Method::code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_any_case_is_each_letter_in_both_and_nothing_else_has_a_meaning() {
        assert_eq!(in_any_case("äRger 1"), "[äÄ][Rr][gG][eE][rR] 1");
        assert_eq!(in_any_case("(.*)^[a]\\d"), r"\(\.\*\)\^\[[aA]\]\\[dD]");
        assert_eq!(in_any_case("straße"), "[sS][tT][rR][aA]ß[eE]");
        assert_eq!(in_any_case("日本"), "日本");
    }
}
