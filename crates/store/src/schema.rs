//! Migrations, and the check that a service knows the schema it meets.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use self::embedded::migrations;
use crate::error::described;
use crate::{Store, StoreError, roles};

// Generated, so in a private module of its own.
mod embedded {
    refinery::embed_migrations!("../../migrations");
}

/// Applies what is missing. Returns the versions applied, oldest first. Callers at the same time get in each other's way, and each
/// begins anew until all is applied. On a database with [`roles`], what is made belongs to the owner, and the services get
/// their rights to it.
pub async fn migrate(store: &Store) -> Result<Vec<i32>, StoreError> {
    if is_before_release(store).await? {
        return Err(StoreError::UnknownSchema { found: version(store).await?, known: known_version(), advice: ANEW });
    }
    let mut client = store.client().await?;
    let encoding: String = client.query_one("-- encoding\nSHOW server_encoding", &[]).await?.try_get(0)?;
    if encoding != "UTF8" {
        let advice = "make it with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'";
        return Err(StoreError::Invalid(format!("the encoding of the database is {encoding}: {advice}")));
    }
    // A bound on statements is for those who wait for an answer.
    client.batch_execute("-- take_time\nSET statement_timeout = 0").await?;
    let outcome = apply(&mut client).await;
    // Why a migration failed says more than that the connection is gone.
    let reset = client.batch_execute("-- become_oneself\nRESET ROLE; RESET statement_timeout").await;
    let applied = outcome?;
    reset?;
    Ok(applied)
}

/// What to do about a schema from before the first release, which no migration leads from.
const ANEW: &str = "it is from before the first release: make the database anew";

/// How often a migration is begun anew that waited for a reader who waited for it, or met another one.
const ATTEMPTS: u32 = 10;
/// The pause before it is.
const PAUSE: Duration = Duration::from_millis(200);

async fn apply(client: &mut tokio_postgres::Client) -> Result<Vec<i32>, StoreError> {
    let owned = roles::become_owner(client).await?;
    let versions = |report: &refinery::Report| -> Vec<i32> {
        report.applied_migrations().iter().map(refinery::Migration::version).collect()
    };
    let (mut applied, mut attempt) = (Vec::new(), 1);
    loop {
        match migrations::runner().run_async(client).await {
            Ok(report) => {
                applied.extend(versions(&report));
                break;
            }
            Err(error) if is_passing(&error) && attempt < ATTEMPTS => {
                applied.extend(error.report().map(versions).unwrap_or_default());
                tracing::info!("a migration met a statement or another migration; it is begun anew");
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(StoreError::Invalid(format!("a migration failed: {}", explained(&error)))),
        }
    }
    if owned {
        roles::grant(client).await?;
    }
    Ok(applied)
}

/// What the database says, and what to do about it.
fn explained(error: &refinery::Error) -> String {
    let Some(source) = of_database(error) else { return error.to_string() };
    let advice = match source.code() {
        Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
            "; migrate as a role that may create in the schema public: the owner of the database, or GRANT CREATE ON SCHEMA public TO it"
        }
        Some(state) if *state == SqlState::READ_ONLY_SQL_TRANSACTION => {
            "; it is a standby, or default_transaction_read_only is on: migrate on the primary, as a role that may write"
        }
        _ => "",
    };
    format!("{}{advice}", described(source))
}

fn of_database(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    error.source()?.downcast_ref()
}

/// A deadlock, or an object that another migration has just made.
fn is_passing(error: &refinery::Error) -> bool {
    let source = of_database(error);
    let passing = [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_FUNCTION,
    ];
    source.and_then(tokio_postgres::Error::code).is_some_and(|state| passing.contains(state))
}

/// Whether the database has what only a version before the first release made.
async fn is_before_release(store: &Store) -> Result<bool, StoreError> {
    let client = store.client().await?;
    let sql = "-- is_before_release\nSELECT to_regclass('open_connections') IS NOT NULL";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

/// The newest version that this program knows.
pub fn known_version() -> i32 {
    let newest = migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
    newest.unwrap_or(0)
}

/// Refuses a schema that is older or newer than the one this program knows.
pub async fn check(store: &Store) -> Result<(), StoreError> {
    let (found, known) = (version(store).await?, known_version());
    if is_before_release(store).await? {
        return Err(StoreError::UnknownSchema { found, known, advice: ANEW });
    }
    let advice = match found.cmp(&known) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => "run `connlogctl migrate`",
        std::cmp::Ordering::Greater => "run a newer version of this program",
    };
    Err(StoreError::UnknownSchema { found, known, advice })
}

/// The same for a service, which also runs as a role that owns nothing, see [`roles`].
pub async fn check_for_service(store: &Store) -> Result<(), StoreError> {
    check(store).await?;
    roles::check_service(store).await
}

/// Whether a program that runs may go on: the database answers, and its schema is not older. A migration that runs ahead
/// of the replacement of the services does not take them all out at once.
pub async fn check_running(store: &Store) -> Result<(), StoreError> {
    let (found, known) = (version(store).await?, known_version());
    if found >= known {
        return Ok(());
    }
    Err(StoreError::UnknownSchema { found, known, advice: "run `connlogctl migrate`" })
}

async fn version(store: &Store) -> Result<i32, StoreError> {
    let client = store.client().await?;
    let exists = client
        .query_one("-- schema_exists\nSELECT to_regclass('refinery_schema_history') IS NOT NULL", &[])
        .await?
        .get::<_, bool>(0);
    if !exists {
        return Ok(0);
    }
    let sql = "-- schema_version\nSELECT coalesce(max(version), 0)::int FROM refinery_schema_history";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}
