//! Rows of the log: columns out, columns in.
//!
//! Rows go to the database as one array a column, which PostgreSQL unnests, or as a binary `COPY`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use connlog_model::clock::Timestamp;
use connlog_model::connection::{Connection, End};
use connlog_model::event::{Outcome, Source, WebEvent};
use connlog_model::identity::BootNumber;
use connlog_model::method::Method;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::argument::{Argument, Typed};
use crate::numbers::{Numbers, Target};

/// A connection as it is recorded, and what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) numbers: Numbers,
    pub(crate) connection: Connection,
}

impl Recorded {
    pub(crate) fn is_open(&self) -> bool {
        self.connection.end.is_none()
    }
}

/// The method that a row of a connection has.
pub(crate) fn stored_method(connection: &Connection) -> Method {
    connection.method.unwrap_or(Method::UNSAID)
}

macro_rules! columns {
    ($($name:ident: $kind:ty, $cast:literal;)*) => {
        /// Rows of `connection_logs`, one array a column.
        #[derive(Default)]
        pub(crate) struct RowArrays<'a> {
            $($name: Vec<$kind>,)*
        }

        /// The columns of a row, in the order in which they are written and read.
        const COLUMNS: &[(&str, &str)] = &[$((stringify!($name), $cast),)*];

        impl RowArrays<'_> {
            /// The arrays, as parameters of a statement that unnests them.
            pub(crate) fn parameters(&self) -> Vec<&dyn Argument> {
                vec![$(&self.$name,)*]
            }

            /// The arrays that an end needs: [`end_sql`] has them in this order.
            pub(crate) fn end_parameters(&self) -> Vec<&dyn Argument> {
                let all = self.parameters();
                std::iter::once(all[0]).chain(all[ENDING].iter().copied()).collect()
            }

            /// The values of one row.
            pub(crate) fn row(&self, index: usize) -> Vec<&dyn Argument> {
                vec![$(&self.$name[index] as &dyn Argument,)*]
            }
        }
    };
}

columns! {
    id: Uuid, "uuid";
    connection_id: Option<Uuid>, "uuid";
    target: i64, "bigint";
    connect_time: Timestamp, "timestamptz";
    start_source: Option<i16>, "smallint";
    received_at: Timestamp, "timestamptz";
    method: i16, "smallint";
    method_known: bool, "boolean";
    app_name: Option<&'a str>, "text";
    ip: Option<IpAddr>, "inet";
    client_ip: Option<IpAddr>, "inet";
    client_session_id: Option<Uuid>, "uuid";
    user_id: Option<Uuid>, "uuid";
    boot: Option<i32>, "integer";
    disconnect_time: Option<Timestamp>, "timestamptz";
    disconnect_inferred: bool, "boolean";
    disconnect_reason: Option<&'a str>, "text";
    code: Option<i32>, "integer";
    rx_bytes: Option<i64>, "bigint";
    tx_bytes: Option<i64>, "bigint";
    ended_received_at: Option<Timestamp>, "timestamptz";
    user_agent: Option<&'a str>, "text";
    slug_or_port: Option<&'a str>, "text";
}

/// Those that may change once they are written.
const CHANGING: Range<usize> = 6..21;
/// Those of them that an end changes.
const ENDING: Range<usize> = 13..21;

fn joined(separator: &str, of: &[(&str, &str)], text: impl Fn(usize, &str, &str) -> String) -> String {
    let all: Vec<String> = of.iter().enumerate().map(|(index, (name, kind))| text(index + 1, name, kind)).collect();
    all.join(separator)
}

/// All columns.
pub(crate) static ALL_COLUMNS: LazyLock<String> = LazyLock::new(|| joined(", ", COLUMNS, |_, name, _| name.to_owned()));

/// The parameters of a statement that inserts or updates rows, unnested: `unnest(…) AS k (…)`.
static UNNESTED: LazyLock<String> = LazyLock::new(|| unnested(COLUMNS));

fn unnested(columns: &[(&str, &str)]) -> String {
    let arrays = joined(", ", columns, |number, _, kind| format!("${number}::{kind}[]"));
    format!("unnest({arrays}) AS k ({})", joined(", ", columns, |_, name, _| name.to_owned()))
}

/// Half of what [`INSERT`] costs.
pub(crate) static COPY: LazyLock<String> =
    LazyLock::new(|| format!("-- copy_rows\nCOPY connection_logs ({}) FROM STDIN (FORMAT binary)", *ALL_COLUMNS));

/// The same for few rows, which needs one exchange less, and through a pooler, where the driver would give a `COPY` a name.
pub(crate) static INSERT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- insert_rows\nINSERT INTO connection_logs ({0})\nSELECT {0} FROM {1}\nRETURNING id",
        *ALL_COLUMNS, *UNNESTED
    )
});

/// Writes rows of one day back, by the day's own name. What they were read as is still there: that is what the locks of their
/// agents are for, and what the condition on the end makes sure of.
///
/// This form is planned right on a day that is empty, loaded or analyzed: with exact times and a range the planner multiplied
/// range and rows. `tests/plans.rs` pins it.
pub(crate) fn update_sql(table: &str) -> String {
    changed("update_rows", table, CHANGING, &UNNESTED)
}

/// The same for rows of which only the end is new: nearly all. It has a third of the arrays.
pub(crate) fn end_sql(table: &str) -> String {
    static UNNESTED: LazyLock<String> = LazyLock::new(|| unnested(&[&COLUMNS[..1], &COLUMNS[ENDING]].concat()));
    changed("end_rows", table, ENDING, &UNNESTED)
}

fn changed(name: &str, table: &str, columns: Range<usize>, unnested: &str) -> String {
    let set = joined(", ", &COLUMNS[columns], |_, name, _| format!("{name} = k.{name}"));
    format!(
        "-- {name}\nUPDATE {table} AS h SET {set}\nFROM {unnested}\nWHERE h.id = ANY($1::uuid[]) AND h.id = k.id\n\
         AND (h.disconnect_time IS NULL OR h.disconnect_inferred OR h.disconnect_time = k.disconnect_time)\nRETURNING h.id"
    )
}

impl<'a> RowArrays<'a> {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.id.len()
    }

    pub(crate) fn push(&mut self, recorded: &'a Recorded) {
        let connection = &recorded.connection;
        self.id.push(connection.id);
        self.connection_id.push(Some(connection.connection_id));
        self.target.push(recorded.numbers.target);
        self.connect_time.push(connection.connect_time);
        self.start_source.push(connection.start_source.map(Source::code));
        self.received_at.push(connection.received_at);
        self.method.push(stored_method(connection).code());
        self.method_known.push(connection.method.is_some());
        self.app_name.push(connection.app_name.as_deref());
        self.ip.push(connection.ip);
        self.client_ip.push(connection.client_ip);
        self.client_session_id.push(connection.client_session_id);
        self.user_id.push(connection.user_id);
        self.boot.push(connection.boot.map(BootNumber::code));
        self.disconnect_time.push(connection.end.as_ref().map(|end| end.time().max(connection.connect_time)));
        let (inferred, reason, outcome, received_at) = match &connection.end {
            Some(End::Real { outcome, received_at, .. }) => {
                (false, outcome.reason.as_str(), Some(outcome), Some(*received_at))
            }
            Some(End::Inferred { reason, .. }) => (true, reason.as_str(), None, None),
            None => (false, "", None, None),
        };
        self.disconnect_inferred.push(inferred);
        self.disconnect_reason.push((!reason.is_empty()).then_some(reason));
        self.code.push(outcome.and_then(|outcome| outcome.code));
        self.rx_bytes.push(outcome.and_then(|outcome| outcome.rx_bytes));
        self.tx_bytes.push(outcome.and_then(|outcome| outcome.tx_bytes));
        self.ended_received_at.push(received_at);
        self.user_agent.push(None);
        self.slug_or_port.push(None);
    }

    pub(crate) fn push_web(&mut self, event: &'a WebEvent, target: i64) {
        self.id.push(event.row_id());
        self.connection_id.push(event.connection_id);
        self.target.push(target);
        self.connect_time.push(event.time);
        self.start_source.push(Some(Source::Reporter.code()));
        self.received_at.push(event.received_at);
        self.method.push(event.method.code());
        self.method_known.push(true);
        self.app_name.push(None);
        self.ip.push(event.ip);
        self.client_ip.push(None);
        self.client_session_id.push(None);
        self.user_id.push(event.user_id);
        self.boot.push(None);
        self.disconnect_time.push(None);
        self.disconnect_inferred.push(false);
        self.disconnect_reason.push(None);
        self.code.push(Some(event.status_code));
        self.rx_bytes.push(None);
        self.tx_bytes.push(None);
        self.ended_received_at.push(None);
        self.user_agent.push(Some(&event.user_agent));
        self.slug_or_port.push(Some(&event.slug_or_port));
    }
}

/// A row that was found by its id.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// A connection.
    Connection(Box<Recorded>),
    /// A web event.
    Web(Box<RecordedWeb>),
}

/// A web event as it is recorded: all that an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordedWeb {
    pub(crate) time: Timestamp,
    method: Method,
    connection_id: Option<Uuid>,
    user_id: Option<Uuid>,
    ip: Option<IpAddr>,
    code: Option<i32>,
    user_agent: String,
    slug_or_port: String,
}

impl RecordedWeb {
    /// As it will be recorded.
    pub(crate) fn of(event: &WebEvent) -> Self {
        Self {
            time: event.time,
            method: event.method,
            connection_id: event.connection_id,
            user_id: event.user_id,
            ip: event.ip,
            code: Some(event.status_code),
            user_agent: event.user_agent.clone(),
            slug_or_port: event.slug_or_port.clone(),
        }
    }
}

/// The number of the target of a row of [`ALL_COLUMNS`].
pub(crate) fn target_of(row: &Row) -> Result<i64, StoreError> {
    Ok(row.try_get(2)?)
}

/// The id of a row of [`ALL_COLUMNS`].
pub(crate) fn id_of(row: &Row) -> Result<Uuid, StoreError> {
    Ok(row.try_get(0)?)
}

/// Reads a row of [`ALL_COLUMNS`]. By the place of columns: finding values by name took longer than reading them.
pub(crate) fn found(row: &Row, targets: &HashMap<i64, Target>) -> Result<Found, StoreError> {
    let id = id_of(row)?;
    let number = target_of(row)?;
    let connect_time: Timestamp = row.try_get(3)?;
    let method: i16 = row.try_get(6)?;
    let method = Method::from_code(method)
        .ok_or_else(|| StoreError::Inconsistent(format!("row {id} has the unknown method {method}")))?;
    if method.is_web() {
        let text = |index| Ok::<_, StoreError>(row.try_get::<_, Option<String>>(index)?.unwrap_or_default());
        return Ok(Found::Web(Box::new(RecordedWeb {
            time: connect_time,
            method,
            connection_id: row.try_get(1)?,
            user_id: row.try_get(12)?,
            ip: row.try_get(9)?,
            code: row.try_get(17)?,
            user_agent: text(21)?,
            slug_or_port: text(22)?,
        })));
    }
    // One whose target is unknown must not be passed over: it would be taken for absent.
    let target = targets
        .get(&number)
        .ok_or_else(|| StoreError::Inconsistent(format!("the target of connection {id} is unknown")))?;
    let start_source = match row.try_get::<_, Option<i16>>(4)? {
        Some(code) => Some(Source::from_code(code).ok_or_else(|| {
            StoreError::Inconsistent(format!("connection {id} began by the word of the unknown source {code}"))
        })?),
        None => None,
    };
    let is_method_known: bool = row.try_get(7)?;
    let connection = Connection {
        id,
        connection_id: row.try_get(1)?,
        agent: Arc::clone(&target.identity),
        boot: row.try_get::<_, Option<i32>>(13)?.map(BootNumber::from_code),
        connect_time,
        start_source,
        method: Some(method).filter(|_| is_method_known),
        app_name: row.try_get(8)?,
        ip: row.try_get(9)?,
        client_ip: row.try_get(10)?,
        client_session_id: row.try_get(11)?,
        user_id: row.try_get(12)?,
        received_at: row.try_get(5)?,
        end: end(row)?,
    };
    let numbers = Numbers { agent: target.agent, target: number };
    Ok(Found::Connection(Box::new(Recorded { numbers, connection })))
}

fn end(row: &Row) -> Result<Option<End>, StoreError> {
    let Some(time) = row.try_get::<_, Option<Timestamp>>(14)? else { return Ok(None) };
    let reason = row.try_get::<_, Option<String>>(16)?.unwrap_or_default();
    if row.try_get(15)? {
        return Ok(Some(End::Inferred { time, reason }));
    }
    let outcome = Outcome { reason, code: row.try_get(17)?, rx_bytes: row.try_get(18)?, tx_bytes: row.try_get(19)? };
    let received_at = row.try_get::<_, Option<Timestamp>>(20)?.unwrap_or(time);
    Ok(Some(End::Real { time, outcome, received_at }))
}

/// The values of a list as a column.
pub(crate) fn column<'a, E, T>(all: &'a [E], value: impl Fn(&'a E) -> T) -> Vec<T>
where
    Vec<T>: Typed,
{
    all.iter().map(value).collect()
}
