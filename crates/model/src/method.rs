//! How a connection came: the five connection methods.

use std::fmt;

/// A connection method, with the number that stands for it in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum Method {
    /// An SSH session to an agent, whichever client opened it.
    Ssh = 1,
    /// A web terminal.
    ReconnectingPty = 2,
    /// A workspace app in a browser.
    WorkspaceApp = 3,
    /// A forwarded port in a browser.
    PortForwarding = 4,
    /// A tunnel through the control plane.
    Tunnel = 5,
}

impl Method {
    /// All methods, in the order in which the API lists them.
    pub const ALL: [Self; 5] =
        [Self::Ssh, Self::ReconnectingPty, Self::WorkspaceApp, Self::PortForwarding, Self::Tunnel];

    /// What is stored and shown of a connection until an event says how it came.
    pub const UNSAID: Self = Self::Ssh;

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::ReconnectingPty => "reconnecting_pty",
            Self::WorkspaceApp => "workspace_app",
            Self::PortForwarding => "port_forwarding",
            Self::Tunnel => "tunnel",
        }
    }

    /// The method of that name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// The number in the database.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The method with that number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.code() == code)
    }

    /// Whether its entries are points in time rather than sessions with a beginning and an end.
    pub fn is_web(self) -> bool {
        matches!(self, Self::WorkspaceApp | Self::PortForwarding | Self::Tunnel)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
