//! What can go wrong with the database, by what the caller can do about it.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or is not accepting work: trying again later may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The transaction lost against another one: trying again at once may succeed.
    #[error("the transaction must be retried")]
    Conflict(#[source] tokio_postgres::Error),
    /// A row that the transaction was about to change has been purged meanwhile: trying again at once finds it gone.
    #[error("a row was purged meanwhile: {0}")]
    Purged(String),
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
    /// The database URL cannot be read. The message does not repeat it: it may hold a password.
    #[error("the database URL cannot be parsed: {0}")]
    Url(String),
    /// What a caller gave cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// Any other refusal of the database.
    #[error("the database refused a statement")]
    Database(#[source] tokio_postgres::Error),
}

impl StoreError {
    /// Whether the whole transaction may be tried again at once.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::MissingDay(_) | Self::DayGone(_) | Self::Purged(_))
    }

    /// Whether the statement's data is at fault, so that trying again is of no use: class 22 (data exception), class 23
    /// (integrity), a limit of the program (54), or a value that cannot be encoded. Everything else is the database's
    /// condition and may pass.
    pub fn is_fault_of_data(&self) -> bool {
        match self {
            // A row that is missing time and again was not purged.
            Self::Inconsistent(_) | Self::Invalid(_) | Self::Purged(_) => true,
            Self::Database(error) => error.code().is_none_or(|code| {
                let code = code.code();
                code.starts_with("22") || code.starts_with("23") || code.starts_with("54")
            }),
            _ => false,
        }
    }

    /// Whether the database could not be reached.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            // Encoding errors have no code either, but they are not a matter of the connection.
            return if error.is_closed() || is_io(&error) {
                Self::Unavailable(error.into())
            } else {
                Self::Database(error)
            };
        };
        match code {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(error),
            // Somebody else opened a connection of the batch after those that were open had been locked.
            &SqlState::UNIQUE_VIOLATION if constraint(&error) == Some("open_connections_pkey") => Self::Conflict(error),
            &SqlState::CHECK_VIOLATION => Self::MissingDay(error),
            &SqlState::UNDEFINED_TABLE => Self::DayGone(error),
            &SqlState::LOCK_NOT_AVAILABLE => Self::LockTimeout(error),
            code if is_outage(code) => Self::Unavailable(error.into()),
            _ => Self::Database(error),
        }
    }
}

fn constraint(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error()?.constraint()
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

/// Connection exceptions (08), insufficient resources (53), operator intervention (57P), and a standby in recovery.
fn is_outage(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("08") || code.starts_with("53") || code.starts_with("57P") || code == "25006" || code == "57014"
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::from_connecting(error),
            other => Self::Unavailable(other.into()),
        }
    }
}

impl StoreError {
    /// An error met while connecting: wrong credentials are a refusal, everything else an outage.
    fn from_connecting(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if code.code().starts_with("28") || code.code().starts_with("3D") => Self::Database(error),
            _ => Self::Unavailable(error.into()),
        }
    }
}
