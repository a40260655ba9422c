//! What can go wrong with the database, by what the caller can do about it.

mod blame;

use chrono::NaiveDate;
use deadpool_postgres::PoolError;
use uuid::Uuid;

use self::blame::{Blame, blame};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or is not accepting work: trying again later may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The transaction lost against another one: trying again at once may succeed.
    #[error("the transaction must be retried")]
    Conflict(#[source] tokio_postgres::Error),
    /// A row or an agent that the transaction was about to change is not there any more: trying again at once finds it gone.
    #[error("something changed meanwhile: {0}")]
    Overtaken(String),
    /// The day of a row is not attached to the log. Trying again succeeds once it is.
    #[error("the database refused a statement: day {0} is not attached to connection_logs")]
    Detached(NaiveDate),
    /// Rows were left out without an error: by somebody's trigger, say. Trying again succeeds once it is gone.
    #[error("the database took {came} of {of} rows, and did not say why: a trigger may leave some out")]
    LeftOut {
        /// Rows that were given.
        of: usize,
        /// Rows that were taken.
        came: usize,
    },
    /// A day of the batch has no partition.
    #[error("a day has no partition")]
    MissingDay(#[source] tokio_postgres::Error),
    /// A day that was about to be read has been purged meanwhile: trying again at once finds it gone.
    #[error("a day was purged meanwhile")]
    DayGone(#[source] tokio_postgres::Error),
    /// A lock was not granted within the time that the caller allowed.
    #[error("a lock was not granted in time")]
    LockTimeout(#[source] tokio_postgres::Error),
    /// The database holds what it should not.
    #[error("inconsistent data: {0}")]
    Inconsistent(String),
    /// The schema is not the one that this program knows.
    #[error("the schema is at version {found}, this program knows version {known}; {advice}")]
    UnknownSchema {
        /// Version found in the database, 0 if there is none.
        found: i32,
        /// Version that this program knows.
        known: i32,
        /// What an operator should do.
        advice: &'static str,
    },
    /// A service runs as a role that may do more than a service should.
    #[error("the role {role} {what}, which no service should: use the role of the service")]
    TooPowerful {
        /// The role.
        role: String,
        /// What it owns, or may act as.
        what: String,
    },
    /// The database URL cannot be read. The message does not repeat it: it may hold a password.
    #[error("the database URL cannot be parsed: {0}")]
    Url(String),
    /// What a caller gave cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// An entry of a directory names what is neither in the directory nor among the other entries.
    #[error("entry {entry}: {field} {id} is not in the directory")]
    Unknown {
        /// The entry, from 0.
        entry: usize,
        /// The field that names it.
        field: &'static str,
        /// What it names.
        id: Uuid,
    },
    /// A name that several things have.
    #[error("{what} {name:?} may be {one} or {other}: give the id, or the name with its upper and lower case letters")]
    Ambiguous {
        /// Of what kind they are.
        what: &'static str,
        /// The name.
        name: String,
        /// One of them.
        one: Uuid,
        /// Another one.
        other: Uuid,
    },
    /// The data is at fault: trying again is of no use.
    #[error("the database refused a value: {}", described(.0))]
    Database(#[source] tokio_postgres::Error),
    /// An object refuses: a day, somebody's trigger, a publication. Trying again succeeds once the cause is gone.
    #[error("the database refused a statement: {}", described(.0))]
    Refused(#[source] tokio_postgres::Error),
}

impl StoreError {
    /// Whether the whole transaction may be tried again at once.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::MissingDay(_) | Self::DayGone(_) | Self::Overtaken(_))
    }

    /// Whether the data is at fault, so that trying again is of no use.
    pub fn is_fault_of_data(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Invalid(_))
    }

    /// Whether an object of the database refuses: only what needs that object has to wait.
    pub fn is_refusal(&self) -> bool {
        // What is inconsistent, or missing time and again, is a matter of the database, and of nobody's event.
        matches!(
            self,
            Self::Refused(_) | Self::Detached(_) | Self::LeftOut { .. } | Self::Inconsistent(_) | Self::Overtaken(_)
        )
    }

    /// What went wrong, in one line: of an error of the database its SQLSTATE, message, table and constraint.
    pub fn one_line(&self) -> String {
        match self {
            Self::Unavailable(source) => match source.downcast_ref::<tokio_postgres::Error>() {
                Some(error) => described(error),
                None => source.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// The SQLSTATE, if the database gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        let source = std::error::Error::source(self)?.downcast_ref::<tokio_postgres::Error>()?;
        Some(source.code()?.code())
    }

    /// What it is once all attempts are used up: something stands in the way, and it is not everybody's.
    pub(crate) fn after_all_attempts(self) -> Self {
        match self {
            Self::Conflict(error) | Self::MissingDay(error) | Self::DayGone(error) => Self::Refused(error),
            other => other,
        }
    }

    /// Whether the database could not be reached.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(blame) = error.as_db_error().map(blame) else {
            // Encoding errors have no code either, but they are not a matter of the connection.
            return if error.is_closed() || is_io(&error) {
                Self::Unavailable(error.into())
            } else {
                Self::Database(error)
            };
        };
        match blame {
            Blame::Retry => Self::Conflict(error),
            Blame::MissingDay => Self::MissingDay(error),
            Blame::DayGone => Self::DayGone(error),
            Blame::Lock => Self::LockTimeout(error),
            Blame::Event => Self::Database(error),
            Blame::Object => Self::Refused(error),
            Blame::Everyone => Self::Unavailable(error.into()),
        }
    }
}

/// An error in one line: its SQLSTATE, message, table and constraint, as far as there are any.
pub(crate) fn described(error: &tokio_postgres::Error) -> String {
    let Some(error) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{}: {}", error.code().code(), error.message());
    let objects = [("table", error.table()), ("constraint", error.constraint()), ("hint", error.hint())];
    for (kind, name) in objects.into_iter().filter_map(|(kind, name)| Some((kind, name?))) {
        text.extend(["; ", kind, " ", name]);
    }
    text
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<std::io::Error>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            // Wrong credentials and an unknown database, too: nobody gets through.
            PoolError::Backend(error) => Self::Unavailable(error.into()),
            other => Self::Unavailable(other.into()),
        }
    }
}
