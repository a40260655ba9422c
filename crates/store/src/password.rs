//! The password for the database: in the URL, in a file of its own, or in a password file of libpq. Files are read anew for each
//! connection, so a password that is exchanged needs no restart.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use deadpool_postgres::{ConfigConnectImpl, Connect};
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Error};

use crate::tls::DatabaseTls;

/// Names the password file of libpq; else it is [`DEFAULT_PASSFILE`] below the home directory.
const PASSFILE_VARIABLE: &str = "PGPASSFILE";
const DEFAULT_PASSFILE: &str = ".pgpass";
const DEFAULT_PORT: u16 = 5432;
/// Where servers have their socket if nobody says otherwise, Debian's and PostgreSQL's own.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Where the password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Password {
    /// In the URL, or nowhere: the server may not ask for one.
    InUrl,
    /// A file that has nothing but it, and white space around it.
    File(PathBuf),
    /// A file of libpq, with a line for each server.
    /// <https://www.postgresql.org/docs/current/libpq-pgpass.html>
    Passfile(PathBuf),
}

impl Password {
    /// Where it is for a database: in the URL, if that has one. The error is the rest of a sentence about the file.
    pub(crate) fn of(config: &Config, file: Option<&Path>) -> Result<Self, String> {
        if config.get_password().is_some() {
            return Ok(Self::InUrl);
        }
        if let Some(file) = file {
            read_file(file).map_err(|error| format!("{} {error}", file.display()))?;
            return Ok(Self::File(file.to_owned()));
        }
        let passfile = std::env::var_os(PASSFILE_VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from);
        let passfile = passfile.or_else(|| Some(std::env::home_dir()?.join(DEFAULT_PASSFILE)));
        Ok(match passfile {
            Some(file) => Self::Passfile(file),
            None => Self::InUrl,
        })
    }

    /// The password as it is now. What cannot be read is named in the log: the server says whether it wants one.
    fn read(&self, config: &Config) -> Option<String> {
        match self {
            Self::InUrl => None,
            Self::File(file) => read_file(file)
                .inspect_err(|error| tracing::error!("the password file {} {error}", file.display()))
                .ok(),
            Self::Passfile(file) => {
                let unreadable = |error: std::io::Error| {
                    if error.kind() != std::io::ErrorKind::NotFound {
                        tracing::error!(file = %file.display(), %error, "the password file cannot be read");
                    }
                };
                let about = std::fs::metadata(file).map_err(unreadable).ok()?;
                if !about.is_file() {
                    return None;
                }
                if about.permissions().mode() & 0o077 != 0 {
                    tracing::warn!(file = %file.display(), "the password file is not read: others than its owner may read it");
                    return None;
                }
                in_passfile(&std::fs::read_to_string(file).map_err(unreadable).ok()?, config)
            }
        }
    }
}

fn read_file(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let password = text.trim();
    if password.is_empty() { Err("has no password".to_owned()) } else { Ok(password.to_owned()) }
}

/// The password of the first line that is for one of the servers. All servers of a URL have one password here.
fn in_passfile(text: &str, config: &Config) -> Option<String> {
    let of_system = std::env::var("USER").unwrap_or_default();
    let user = config.get_user().unwrap_or(&of_system);
    let database = config.get_dbname().unwrap_or(user);
    let names = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) if SOCKET_FOLDERS.contains(&folder.to_string_lossy().as_ref()) => "localhost".to_owned(),
        Host::Unix(folder) => folder.to_string_lossy().into_owned(),
    });
    let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    let names: Vec<String> = if config.get_hosts().is_empty() { addresses.collect() } else { names.collect() };
    let ports = config.get_ports();
    let port_of = |place: usize| ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    let servers: Vec<(String, u16)> =
        names.into_iter().enumerate().map(|(place, name)| (name, port_of(place))).collect();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(fields);
    lines.into_iter().find_map(|[host, port, name, role, password]| {
        let is = |field: &str, value: &str| field == "*" || field == value;
        let is_for = |(server, number): &(String, u16)| is(&host, server) && is(&port, &number.to_string());
        (servers.iter().any(is_for) && is(&name, database) && is(&role, user)).then_some(password)
    })
}

/// The five fields of a line; a backslash keeps a colon or another backslash from meaning anything.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            // The last field is the rest of the line.
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut()?.extend(characters.next()),
            c => fields.last_mut()?.push(c),
        }
    }
    fields.try_into().ok()
}

/// Connects with the password as it is then.
pub(crate) struct Connector {
    password: Password,
    inner: ConfigConnectImpl<DatabaseTls>,
}

impl Connector {
    pub(crate) fn new(password: Password, tls: DatabaseTls) -> Self {
        Self { password, inner: ConfigConnectImpl { tls } }
    }
}

impl Connect for Connector {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        match self.password.read(config) {
            Some(password) => self.inner.connect(config.clone().password(password)),
            None => self.inner.connect(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_url;

    #[test]
    fn a_passfile_is_read_as_libpq_reads_it() {
        let text = "# a comment:5432:*:*:no\n\
                    db.example:5432:connlog:ingest:first\n\
                    db.example:*:*:ingest:second\n\
                    short:line\n\
                    *:5433:connlog:*:any\\:thing\\\\:else\n\
                    \\:\\:1:*:*:*:six\n\
                    localhost:*:*:*:socket\n\
                    /elsewhere:*:*:*:elsewhere\n\
                    10.0.0.5:5434:*:*:address\n";
        for (url, expected) in [
            ("postgresql://ingest@db.example/connlog", Some("first")),
            ("postgresql://ingest@db.example:5434/connlog", Some("second")),
            ("postgresql://ingest@db.example/other", Some("second")),
            ("postgresql://ingest@other.example,db.example:5432/connlog", Some("first")),
            ("postgresql://query@db.example:5433/connlog", Some("any:thing\\:else")),
            ("postgresql://query@db.example/connlog", None),
            ("postgresql://query@[::1]/connlog", Some("six")),
            ("host=/var/run/postgresql user=query dbname=x", Some("socket")),
            ("host=/elsewhere user=query dbname=x", Some("elsewhere")),
            ("hostaddr=10.0.0.5 port=5434 user=query dbname=x", Some("address")),
            ("host=db.example user=ingest", Some("second")),
        ] {
            let config: Config = url.parse().unwrap();
            assert_eq!(in_passfile(text, &config).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_password_file_is_one_that_can_be_read_and_the_only_place_of_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let (plain, with) = ("postgresql://u@h/d", "postgresql://u:p@h/d");
        let config: Config = plain.parse().unwrap();
        let error = |url: &str| check_url(url, Some(&file)).unwrap_err();
        assert!(error(plain).contains("cannot be read"));
        std::fs::write(&file, " \n").unwrap();
        assert!(error(plain).contains("has no password"));
        std::fs::write(&file, "secret\n").unwrap();
        assert_eq!(Password::of(&config, Some(&file)).unwrap().read(&config).as_deref(), Some("secret"));
        assert!(error(with).contains("goes with a URL that has no password"), "{}", error(with));
    }

    #[test]
    fn a_passfile_that_others_may_read_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgpass");
        std::fs::write(&file, "*:*:*:*:secret\n").unwrap();
        let config: Config = "postgresql://u@h/d".parse().unwrap();
        for (mode, expected) in [(0o600, Some("secret")), (0o640, None), (0o604, None)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Password::Passfile(file.clone()).read(&config).as_deref(), expected, "{mode:o}");
        }
        assert_eq!(Password::Passfile(folder.path().join("nothing")).read(&config), None);
        assert_eq!(Password::Passfile("/dev/null".into()).read(&config), None);
    }
}
