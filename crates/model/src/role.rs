//! What a bearer of an API token may do.

use std::fmt;
use std::str::FromStr;

/// The role of an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the log.
    Auditor,
    /// Writes events on behalf of a control plane, proxy or bastion.
    Reporter,
    /// Does both, and keeps the directory.
    Admin,
}

impl Role {
    /// The name used on the command line and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Reporter => "reporter",
            Self::Admin => "admin",
        }
    }

    /// Whether the log may be read.
    pub fn may_read(self) -> bool {
        matches!(self, Self::Auditor | Self::Admin)
    }

    /// Whether events may be reported.
    pub fn may_report(self) -> bool {
        matches!(self, Self::Reporter | Self::Admin)
    }

    /// Whether the directory may be changed.
    pub fn may_keep_directory(self) -> bool {
        matches!(self, Self::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A role name that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a role; one of: auditor, reporter, admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Auditor, Self::Reporter, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}
