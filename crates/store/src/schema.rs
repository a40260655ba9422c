//! Migrations, and the check that a service knows the schema it meets.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use self::embedded::migrations;
use crate::{Store, StoreError, roles};

// Generated, so in a private module of its own.
mod embedded {
    refinery::embed_migrations!("../../migrations");
}

/// Applies what is missing. Returns the versions applied, oldest first. Concurrent callers wait for each other. On a
/// database with [`roles`], what is made belongs to the owner, and the services get their rights to it.
pub async fn migrate(store: &Store) -> Result<Vec<i32>, StoreError> {
    let mut client = store.client().await?;
    // Key 5 of connlog's advisory locks, see migrations/V1__initial.sql.
    client.batch_execute("-- lock_migrations\nSELECT pg_advisory_lock(x'636f6e6e'::int, 5)").await?;
    let outcome = apply(&mut client).await;
    client.batch_execute("-- unlock_migrations\nSELECT pg_advisory_unlock(x'636f6e6e'::int, 5)").await?;
    client.batch_execute("-- become_oneself\nRESET ROLE").await?;
    outcome
}

/// How often a migration is begun anew that waited for a reader who waited for it.
const ATTEMPTS: u32 = 10;

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
            Err(error) if is_deadlock(&error) && attempt < ATTEMPTS => {
                applied.extend(error.report().map(versions).unwrap_or_default());
                tracing::info!("a migration and a statement waited for each other; it is begun anew");
                attempt += 1;
            }
            Err(error) => return Err(StoreError::Invalid(format!("a migration failed: {error}"))),
        }
    }
    if owned {
        roles::grant(client).await?;
    }
    Ok(applied)
}

fn is_deadlock(error: &refinery::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
    source.and_then(tokio_postgres::Error::code) == Some(&SqlState::T_R_DEADLOCK_DETECTED)
}

/// The newest version that this program knows.
pub fn known_version() -> i32 {
    let newest = migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
    newest.unwrap_or(0)
}

/// Refuses a schema that is older or newer than the one this program knows.
pub async fn check(store: &Store) -> Result<(), StoreError> {
    let (found, known) = (version(store).await?, known_version());
    let advice = match found.cmp(&known) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => "run `connlogctl migrate`",
        std::cmp::Ordering::Greater => "run a newer version of this program",
    };
    Err(StoreError::UnknownSchema { found, known, advice })
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
