//! Connections as rows: columns out, columns in.
//!
//! A batch goes to the database as one array a column, which PostgreSQL unnests.

use std::net::IpAddr;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, End};
use connlog_model::event::{Outcome, Source, WebEvent};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_model::method::Method;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::argument::Argument;

/// A [`Connection`] as `open_connections` has it. The first columns are those of [`HISTORY_COLUMNS`].
pub(crate) const OPEN_COLUMNS: &str = "id, connection_id, organization_id, home, workspace_name, agent_name, \
     connect_time, method, app_name, ip, client_session_id, user_id, start_source, method_known, received_at, \
     agent_id, boot_id";

/// A [`Connection`] as `connection_logs` has it.
pub(crate) const HISTORY_COLUMNS: &str = "id, connection_id, organization_id, home, workspace_name, agent_name, \
     connect_time, method, app_name, ip, client_session_id, user_id, start_source, method_known, received_at, \
     disconnect_time, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes, ended_received_at";

/// [`OPEN_COLUMNS`] as they are read, [`AT_HOME`].
pub(crate) static OPEN_READ: LazyLock<String> = LazyLock::new(|| read(OPEN_COLUMNS));

/// [`HISTORY_COLUMNS`] as they are read, [`AT_HOME`]. By their place: finding values by name took longer than reading them.
pub(crate) static HISTORY_READ: LazyLock<String> = LazyLock::new(|| read(HISTORY_COLUMNS));

/// What rows are joined with to be read. One whose home is unknown must not be passed over: it would be taken for absent.
pub(crate) const AT_HOME: &str = "LEFT JOIN homes USING (home, organization_id)";

fn read(columns: &str) -> String {
    columns.replace("home", "workspace_owner_id, workspace_id")
}

/// Columns that both tables share, as they are read.
const COMMON: usize = 16;

/// The method that a row of a connection has.
pub(crate) fn stored_method(connection: &Connection) -> Method {
    connection.method.unwrap_or(Method::UNSAID)
}

/// Rows of a table, as one array a column.
pub(crate) trait Columns {
    /// How many rows there are.
    fn len(&self) -> usize;

    /// The arrays, as parameters of a statement that unnests them.
    fn parameters(&self) -> Vec<&dyn Argument>;

    /// The values of one row.
    fn row(&self, index: usize) -> Vec<&dyn Argument>;
}

/// The columns that both tables share, one array each.
#[derive(Default)]
pub(crate) struct CommonColumns<'a> {
    id: Vec<Uuid>,
    connection_id: Vec<Option<Uuid>>,
    organization_id: Vec<Uuid>,
    home: Vec<i64>,
    workspace_name: Vec<&'a str>,
    agent_name: Vec<&'a str>,
    connect_time: Vec<Timestamp>,
    method: Vec<i16>,
    app_name: Vec<Option<&'a str>>,
    ip: Vec<Option<IpAddr>>,
    client_session_id: Vec<Option<Uuid>>,
    user_id: Vec<Option<Uuid>>,
    start_source: Vec<Option<i16>>,
    method_known: Vec<bool>,
    received_at: Vec<Timestamp>,
}

impl<'a> CommonColumns<'a> {
    fn push(&mut self, connection: &'a Connection) {
        let workspace = &connection.agent.workspace;
        self.id.push(connection.id);
        self.connection_id.push(Some(connection.connection_id));
        self.push_workspace(workspace, &connection.agent.agent_name);
        self.connect_time.push(connection.connect_time);
        self.method.push(stored_method(connection).code());
        self.app_name.push(connection.app_name.as_deref());
        self.ip.push(connection.ip);
        self.client_session_id.push(connection.client_session_id);
        self.user_id.push(connection.user_id);
        self.start_source.push(connection.start_source.map(Source::code));
        self.method_known.push(connection.method.is_some());
        self.received_at.push(connection.received_at);
    }

    fn push_web(&mut self, event: &'a WebEvent) {
        self.id.push(event.row_id());
        self.connection_id.push(event.connection_id);
        self.push_workspace(&event.workspace, &event.agent_name);
        self.connect_time.push(event.time);
        self.method.push(event.method.code());
        self.app_name.push(None);
        self.ip.push(event.ip);
        self.client_session_id.push(None);
        self.user_id.push(event.user_id);
        self.start_source.push(Some(Source::Reporter.code()));
        self.method_known.push(true);
        self.received_at.push(event.received_at);
    }

    fn push_workspace(&mut self, workspace: &'a Workspace, agent_name: &'a str) {
        self.organization_id.push(workspace.organization_id);
        self.home.push(workspace.home());
        self.workspace_name.push(&workspace.workspace_name);
        self.agent_name.push(agent_name);
    }

    fn parameters(&self) -> Vec<&dyn Argument> {
        vec![
            &self.id,
            &self.connection_id,
            &self.organization_id,
            &self.home,
            &self.workspace_name,
            &self.agent_name,
            &self.connect_time,
            &self.method,
            &self.app_name,
            &self.ip,
            &self.client_session_id,
            &self.user_id,
            &self.start_source,
            &self.method_known,
            &self.received_at,
        ]
    }

    fn row(&self, index: usize) -> Vec<&dyn Argument> {
        vec![
            &self.id[index],
            &self.connection_id[index],
            &self.organization_id[index],
            &self.home[index],
            &self.workspace_name[index],
            &self.agent_name[index],
            &self.connect_time[index],
            &self.method[index],
            &self.app_name[index],
            &self.ip[index],
            &self.client_session_id[index],
            &self.user_id[index],
            &self.start_source[index],
            &self.method_known[index],
            &self.received_at[index],
        ]
    }
}

/// Rows of `open_connections`, one array a column, in the order of [`OPEN_COLUMNS`].
#[derive(Default)]
pub(crate) struct OpenArrays<'a> {
    common: CommonColumns<'a>,
    agent_id: Vec<Option<Uuid>>,
    boot_id: Vec<Option<Uuid>>,
}

impl<'a> OpenArrays<'a> {
    pub(crate) fn push(&mut self, connection: &'a Connection) {
        self.common.push(connection);
        self.agent_id.push(connection.agent.agent_id);
        self.boot_id.push(connection.boot_id);
    }
}

impl Columns for OpenArrays<'_> {
    fn len(&self) -> usize {
        self.agent_id.len()
    }

    fn parameters(&self) -> Vec<&dyn Argument> {
        let mut parameters = self.common.parameters();
        parameters.extend([&self.agent_id as &dyn Argument, &self.boot_id]);
        parameters
    }

    fn row(&self, index: usize) -> Vec<&dyn Argument> {
        let mut row = self.common.row(index);
        row.extend([&self.agent_id[index] as &dyn Argument, &self.boot_id[index]]);
        row
    }
}

/// Rows of `connection_logs` that are connections, one array a column, in the order of [`HISTORY_COLUMNS`].
#[derive(Default)]
pub(crate) struct HistoryArrays<'a> {
    common: CommonColumns<'a>,
    disconnect_time: Vec<Option<Timestamp>>,
    disconnect_inferred: Vec<bool>,
    disconnect_reason: Vec<Option<&'a str>>,
    code: Vec<Option<i32>>,
    rx_bytes: Vec<Option<i64>>,
    tx_bytes: Vec<Option<i64>>,
    ended_received_at: Vec<Option<Timestamp>>,
}

impl<'a> HistoryArrays<'a> {
    pub(crate) fn push(&mut self, connection: &'a Connection) {
        self.common.push(connection);
        self.disconnect_time.push(connection.end.as_ref().map(|end| end.time().max(connection.connect_time)));
        let (inferred, reason, outcome, received_at) = match &connection.end {
            Some(End::Real { outcome, received_at, .. }) => (false, &outcome.reason, Some(outcome), Some(*received_at)),
            Some(End::Inferred { reason, .. }) => (true, reason, None, None),
            None => unreachable!("only a completed connection goes to history"),
        };
        self.disconnect_inferred.push(inferred);
        self.disconnect_reason.push((!reason.is_empty()).then_some(reason.as_str()));
        self.ended_received_at.push(received_at);
        self.code.push(outcome.and_then(|outcome| outcome.code));
        self.rx_bytes.push(outcome.and_then(|outcome| outcome.rx_bytes));
        self.tx_bytes.push(outcome.and_then(|outcome| outcome.tx_bytes));
    }
}

impl Columns for HistoryArrays<'_> {
    fn len(&self) -> usize {
        self.disconnect_time.len()
    }

    fn parameters(&self) -> Vec<&dyn Argument> {
        let mut parameters = self.common.parameters();
        parameters.extend([
            &self.disconnect_time as &dyn Argument,
            &self.disconnect_inferred,
            &self.disconnect_reason,
            &self.code,
            &self.rx_bytes,
            &self.tx_bytes,
            &self.ended_received_at,
        ]);
        parameters
    }

    fn row(&self, index: usize) -> Vec<&dyn Argument> {
        let mut row = self.common.row(index);
        row.extend([
            &self.disconnect_time[index] as &dyn Argument,
            &self.disconnect_inferred[index],
            &self.disconnect_reason[index],
            &self.code[index],
            &self.rx_bytes[index],
            &self.tx_bytes[index],
            &self.ended_received_at[index],
        ]);
        row
    }
}

/// Rows of `connection_logs` that are web events, one array a column.
#[derive(Default)]
pub(crate) struct WebArrays<'a> {
    common: CommonColumns<'a>,
    code: Vec<i32>,
    user_agent: Vec<&'a str>,
    slug_or_port: Vec<&'a str>,
}

impl<'a> WebArrays<'a> {
    pub(crate) fn push(&mut self, event: &'a WebEvent) {
        self.common.push_web(event);
        self.code.push(event.status_code);
        self.user_agent.push(&event.user_agent);
        self.slug_or_port.push(&event.slug_or_port);
    }

    pub(crate) fn parameters(&self) -> Vec<&dyn Argument> {
        let mut parameters = self.common.parameters();
        parameters.extend([&self.code as &dyn Argument, &self.user_agent, &self.slug_or_port]);
        parameters
    }
}

/// Reads a row of [`OPEN_READ`].
pub(crate) fn open_connection(row: &Row) -> Result<Connection, StoreError> {
    let mut connection = common(row)?;
    connection.agent.agent_id = row.try_get(COMMON)?;
    connection.boot_id = row.try_get(COMMON + 1)?;
    Ok(connection)
}

/// Reads a row of [`HISTORY_READ`].
pub(crate) fn completed_connection(row: &Row) -> Result<Connection, StoreError> {
    let mut connection = common(row)?;
    let time: Option<DateTime<Utc>> = row.try_get(COMMON)?;
    let reason = row.try_get::<_, Option<String>>(COMMON + 2)?.unwrap_or_default();
    let time = time.ok_or_else(|| StoreError::Inconsistent(format!("connection {} has no end", connection.id)))?;
    connection.end = Some(if row.try_get(COMMON + 1)? {
        End::Inferred { time, reason }
    } else {
        let code = row.try_get(COMMON + 3)?;
        let outcome = Outcome { reason, code, rx_bytes: row.try_get(COMMON + 4)?, tx_bytes: row.try_get(COMMON + 5)? };
        let received_at = row.try_get::<_, Option<Timestamp>>(COMMON + 6)?.unwrap_or(time);
        End::Real { time, outcome, received_at }
    });
    Ok(connection)
}

fn common(row: &Row) -> Result<Connection, StoreError> {
    let id: Uuid = row.try_get(0)?;
    let (Some(owner_id), Some(workspace_id)) = (row.try_get(3)?, row.try_get(4)?) else {
        return Err(StoreError::Inconsistent(format!("the home of connection {id} is unknown")));
    };
    let connect_time: DateTime<Utc> = row.try_get(7)?;
    let method: i16 = row.try_get(8)?;
    let method = Method::from_code(method)
        .ok_or_else(|| StoreError::Inconsistent(format!("connection {id} has the unknown method {method}")))?;
    let start_source = match row.try_get::<_, Option<i16>>(13)? {
        Some(code) => Some(Source::from_code(code).ok_or_else(|| {
            StoreError::Inconsistent(format!("connection {id} began by the word of the unknown source {code}"))
        })?),
        None => None,
    };
    let is_method_known: bool = row.try_get(14)?;
    Ok(Connection {
        id,
        connection_id: row.try_get(1)?,
        agent: AgentIdentity {
            agent_id: None,
            agent_name: row.try_get(6)?,
            workspace: Workspace {
                organization_id: row.try_get(2)?,
                owner_id,
                workspace_id,
                workspace_name: row.try_get(5)?,
            },
        },
        boot_id: None,
        connect_time,
        start_source,
        method: Some(method).filter(|_| is_method_known),
        app_name: row.try_get(9)?,
        ip: row.try_get(10)?,
        client_session_id: row.try_get(11)?,
        user_id: row.try_get(12)?,
        received_at: row.try_get::<_, Option<Timestamp>>(15)?.unwrap_or(connect_time),
        end: None,
    })
}
