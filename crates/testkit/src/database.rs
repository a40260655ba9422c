//! A database for each test: a copy of a migrated template on a server that the whole process shares.

use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use connlog_store::{Store, StoreConfig, roles, schema};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::postgres::{Options, PostgresServer};

/// Names an existing server (as a superuser's URL) that tests use instead of starting their own.
pub const SERVER_VARIABLE: &str = "CONNLOG_TEST_DATABASE_URL";

/// A database of its own.
pub struct TestDatabase {
    url: String,
}

impl TestDatabase {
    /// Copies the migrated template.
    pub async fn create() -> Result<Self> {
        let server = shared_server()?;
        Self::create_on(&server).await
    }

    /// Copies the migrated template on the server of `url`, making it first if need be.
    pub async fn create_on(server_url: &str) -> Result<Self> {
        static TEMPLATE: Mutex<()> = Mutex::const_new(());
        let template = format!("connlog_template_{}", schema::known_version());
        let admin = connect(server_url).await?;
        {
            let _one_at_a_time = TEMPLATE.lock().await;
            admin.execute("SELECT pg_advisory_lock(4711)", &[]).await?;
            make_template(&admin, server_url, &template).await?;
            admin.execute("SELECT pg_advisory_unlock(4711)", &[]).await?;
        }
        let name = format!("test_{}", Uuid::new_v4().simple());
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")).await?;
        Ok(Self { url: with_database(server_url, &name)? })
    }

    /// An empty database, without a schema.
    pub async fn create_empty() -> Result<Self> {
        Self::create_with("STRATEGY file_copy").await
    }

    /// The same with options of `CREATE DATABASE`: a locale, say.
    pub async fn create_with(options: &str) -> Result<Self> {
        let server = shared_server()?;
        let name = format!("test_{}", Uuid::new_v4().simple());
        connect(&server).await?.batch_execute(&format!("CREATE DATABASE {name} {options}")).await?;
        Ok(Self { url: with_database(&server, &name)? })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL for a service: what it does, it does with the rights of `role`.
    pub fn url_as(&self, role: &str) -> String {
        as_role(&self.url, role)
    }

    /// A store on it.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::new(&StoreConfig::new(&self.url, "test", 16))?)
    }

    /// A plain connection to it, for looking at what is really there.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.url).await
    }
}

/// `url` for a connection with the rights of `role`, whoever it logs in as.
pub fn as_role(url: &str, role: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20role%3D{role}")
}

/// Makes a migrated database called `name` on `server_url`, unless there is one.
async fn make_template(admin: &Client, server_url: &str, name: &str) -> Result<()> {
    if admin.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await?.is_some() {
        return Ok(());
    }
    let building = format!("{name}_building");
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {building}")).await?;
    admin.batch_execute(&format!("CREATE DATABASE {building} STRATEGY file_copy")).await?;
    let store = Store::new(&StoreConfig::new(with_database(server_url, &building)?, "template", 1))?;
    schema::migrate(&store).await?;
    roles::set_up(&store).await?;
    drop(store);
    // The pool closes its connection in the background; a database in use cannot be renamed.
    admin
        .execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", &[&building])
        .await?;
    admin.batch_execute(&format!("ALTER DATABASE {building} RENAME TO {name}")).await?;
    Ok(())
}

/// Connects, and drives the connection in the background.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to the test server")?;
    tokio::spawn(async move {
        // Tests stop servers on purpose; the client reports what it notices.
        let _ended = connection.await;
    });
    Ok(client)
}

fn with_database(server_url: &str, name: &str) -> Result<String> {
    tokio_postgres::Config::from_str(server_url)?;
    let (base, query) =
        server_url.split_once('?').map_or((server_url, String::new()), |(base, query)| (base, format!("?{query}")));
    let authority =
        base.rfind('/').filter(|at| *at > base.find("//").map_or(0, |start| start + 1)).unwrap_or(base.len());
    Ok(format!("{}/{name}{query}", &base[..authority]))
}

fn shared_server() -> Result<String> {
    static SERVER: OnceLock<Result<std::sync::Mutex<PostgresServer>, String>> = OnceLock::new();
    if let Ok(url) = std::env::var(SERVER_VARIABLE) {
        return Ok(url);
    }
    let server = SERVER.get_or_init(|| start_server().map_err(|error| format!("{error:#}")));
    match server {
        Ok(server) => Ok(server.lock().expect("no one panics while holding the server").url("postgres")),
        Err(error) => anyhow::bail!("{error}"),
    }
}

fn start_server() -> Result<std::sync::Mutex<PostgresServer>> {
    Ok(std::sync::Mutex::new(PostgresServer::start(Options::for_tests())?))
}
