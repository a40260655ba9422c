//! The registry of client apps: normalized names, display names, and the type family that the API shows.

use std::fmt;

use crate::limits::MAX_APP_NAME_CHARS;
use crate::method::Method;

/// The `type` of an entry in the API: the family of its app, or its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionType {
    /// SSH, and every client without a family of its own.
    Ssh,
    /// VS Code and its relatives.
    Vscode,
    /// The IDEs of JetBrains and Android Studio.
    Jetbrains,
    /// A web terminal.
    ReconnectingPty,
    /// A workspace app.
    WorkspaceApp,
    /// A forwarded port.
    PortForwarding,
    /// A tunnel.
    Tunnel,
}

use ConnectionType::{Jetbrains, Ssh, Vscode};

/// Family, normalized name, display name.
const APPS: [(ConnectionType, &str, &str); 35] = [
    (Vscode, "vscode", "VS Code"),
    (Vscode, "vscode_insiders", "VS Code Insiders"),
    (Vscode, "vscode_web", "VS Code Web"),
    (Vscode, "code_server", "code-server"),
    (Vscode, "cursor", "Cursor"),
    (Vscode, "windsurf", "Windsurf"),
    (Vscode, "positron", "Positron"),
    (Vscode, "vscodium", "VSCodium"),
    (Vscode, "codium", "VSCodium"),
    (Vscode, "vscodium_insiders", "VSCodium Insiders"),
    (Vscode, "code_oss", "Code - OSS"),
    (Vscode, "antigravity", "Antigravity"),
    (Vscode, "trae", "Trae"),
    (Vscode, "trae_cn", "Trae CN"),
    (Vscode, "kiro", "Kiro"),
    (Vscode, "devin", "Devin"),
    (Vscode, "devin_next", "Devin Next"),
    (Jetbrains, "jetbrains", "JetBrains"),
    (Jetbrains, "intellij", "IntelliJ IDEA"),
    (Jetbrains, "pycharm", "PyCharm"),
    (Jetbrains, "goland", "GoLand"),
    (Jetbrains, "webstorm", "WebStorm"),
    (Jetbrains, "phpstorm", "PhpStorm"),
    (Jetbrains, "rubymine", "RubyMine"),
    (Jetbrains, "clion", "CLion"),
    (Jetbrains, "rider", "Rider"),
    (Jetbrains, "rustrover", "RustRover"),
    (Jetbrains, "datagrip", "DataGrip"),
    (Jetbrains, "dataspell", "DataSpell"),
    (Jetbrains, "mps", "MPS"),
    (Jetbrains, "android_studio", "Android Studio"),
    (Ssh, "ssh", "SSH"),
    (Ssh, "zed", "Zed"),
    (Ssh, "sftp", "SFTP"),
    (ConnectionType::ReconnectingPty, "reconnecting_pty", "Web Terminal"),
];

/// The name that stands for "no identity": it is never stored.
pub const UNKNOWN_APP: &str = "unknown";

impl ConnectionType {
    /// All types, in the order in which the API lists them.
    pub const ALL: [Self; 7] = [
        Self::Ssh,
        Self::Vscode,
        Self::Jetbrains,
        Self::ReconnectingPty,
        Self::WorkspaceApp,
        Self::PortForwarding,
        Self::Tunnel,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Vscode => "vscode",
            Self::Jetbrains => "jetbrains",
            Self::ReconnectingPty => "reconnecting_pty",
            Self::WorkspaceApp => "workspace_app",
            Self::PortForwarding => "port_forwarding",
            Self::Tunnel => "tunnel",
        }
    }

    /// The type of that name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == name)
    }

    /// The name shown to people.
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Ssh => "SSH",
            Self::Vscode => "VS Code",
            Self::Jetbrains => "JetBrains",
            Self::ReconnectingPty => "Web Terminal",
            Self::WorkspaceApp => "Workspace App",
            Self::PortForwarding => "Port Forwarding",
            Self::Tunnel => "Tunnel",
        }
    }

    /// The type of a connection that came by `method` from the client `app_name`.
    pub fn of(method: Method, app_name: Option<&str>) -> Self {
        match method {
            Method::ReconnectingPty => Self::ReconnectingPty,
            Method::WorkspaceApp => Self::WorkspaceApp,
            Method::PortForwarding => Self::PortForwarding,
            Method::Tunnel => Self::Tunnel,
            Method::Ssh => match app_name.and_then(family) {
                Some(family @ (Self::Vscode | Self::Jetbrains)) => family,
                _ => Self::Ssh,
            },
        }
    }

    /// The method that every entry of this type came by.
    pub fn method(self) -> Method {
        match self {
            Self::Ssh | Self::Vscode | Self::Jetbrains => Method::Ssh,
            Self::ReconnectingPty => Method::ReconnectingPty,
            Self::WorkspaceApp => Method::WorkspaceApp,
            Self::PortForwarding => Method::PortForwarding,
            Self::Tunnel => Method::Tunnel,
        }
    }
}

impl fmt::Display for ConnectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The registered apps whose family is `family`, by normalized name.
pub fn apps_of(family: ConnectionType) -> impl Iterator<Item = &'static str> {
    APPS.iter().filter(move |app| app.0 == family).map(|app| app.1)
}

/// The normalized names of all registered client apps.
pub fn registered_apps() -> impl Iterator<Item = &'static str> {
    APPS.iter().map(|app| app.1)
}

fn family(app_name: &str) -> Option<ConnectionType> {
    APPS.iter().find(|app| app.1 == app_name).map(|app| app.0)
}

/// The name of an app as shown to people; an unregistered app keeps its normalized name.
pub fn display_name(app_name: &str) -> &str {
    APPS.iter().find(|app| app.1 == app_name).map_or(app_name, |app| app.2)
}

/// The registered apps: normalized name and the one shown to people, in the order of the registry.
pub fn known_apps() -> impl Iterator<Item = (&'static str, &'static str)> {
    APPS.iter().map(|app| (app.1, app.2))
}

/// Normalizes the name of an app: control characters dropped, trimmed, cut to 64 characters, trimmed, empty becomes
/// `unknown`, lowercase, `-` becomes `_`.
pub fn normalize(name: &str) -> String {
    let printable: String = name.chars().filter(|c| !c.is_control()).collect();
    let cut: String = printable.trim().chars().take(MAX_APP_NAME_CHARS).collect();
    match cut.trim() {
        "" => UNKNOWN_APP.to_owned(),
        name => name.to_lowercase().replace('-', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized_in_the_documented_order() {
        for (raw, normal) in [
            ("Cursor", "cursor"),
            (" Code-OSS\u{7} ", "code_oss"),
            ("", "unknown"),
            ("\u{0}\n", "unknown"),
            ("VSCODE-insiders", "vscode_insiders"),
        ] {
            assert_eq!(normalize(raw), normal, "{raw:?}");
        }
        let long = format!("{} x", "a".repeat(63));
        assert_eq!(normalize(&long), "a".repeat(63), "the space at the cut is trimmed");
        assert_eq!(normalize(&"é".repeat(80)).chars().count(), 64);
    }

    #[test]
    fn the_type_is_the_family_of_the_app_if_that_is_an_ide() {
        for (method, app, expected) in [
            (Method::Ssh, Some("cursor"), Vscode),
            (Method::Ssh, Some("goland"), Jetbrains),
            (Method::Ssh, Some("zed"), Ssh),
            (Method::Ssh, Some("reconnecting_pty"), Ssh),
            (Method::Ssh, Some("home_made"), Ssh),
            (Method::Ssh, None, Ssh),
            (Method::ReconnectingPty, Some("cursor"), ConnectionType::ReconnectingPty),
            (Method::Tunnel, None, ConnectionType::Tunnel),
        ] {
            assert_eq!(ConnectionType::of(method, app), expected, "{method} {app:?}");
        }
    }

    #[test]
    fn an_unregistered_app_is_shown_by_its_normalized_name() {
        assert_eq!(display_name("code_oss"), "Code - OSS");
        assert_eq!(display_name("home_made"), "home_made");
    }
}
