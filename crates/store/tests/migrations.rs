//! Making the schema: once, and as it is committed.

use std::fs;
use std::path::Path;
use std::process::Command;

use connlog_store::{Store, StoreConfig, StoreError, schema};
use connlog_testkit::database::TestDatabase;

/// What `pg_dump` of PostgreSQL 15 says of a database that was just made.
const DUMP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/schema.sql");

#[tokio::test]
async fn two_migrations_at_once_make_one_schema() {
    let database = TestDatabase::create_empty().await.unwrap();
    let (one, two) = (database.store().unwrap(), database.store().unwrap());
    let (one, two) = tokio::join!(schema::migrate(&one), schema::migrate(&two));
    let applied: Vec<i32> = [one.unwrap(), two.unwrap()].concat();
    assert_eq!(applied, [schema::known_version()]);
    schema::check(&database.store().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_database_from_before_the_first_release_is_left_alone_and_says_what_to_do() {
    let database = TestDatabase::create_empty().await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute("CREATE TABLE open_connections ()").await.unwrap();
    let store = database.store().unwrap();
    for refused in [schema::migrate(&store).await.map(|_| ()), schema::check(&store).await] {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::UnknownSchema { .. }), "{error:?}");
        assert!(error.to_string().contains("make the database anew"), "{error}");
    }
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    assert_eq!(client.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// Without this, each of these says no more than "db error", or makes a second set of tables elsewhere.
#[tokio::test]
async fn a_database_that_cannot_be_migrated_says_why_and_what_to_do() {
    let role = format!("somebody_{}", uuid::Uuid::new_v4().simple());
    let wanted = [
        ("", "ALTER DATABASE {db} SET statement_timeout = 1", None),
        ("", "CREATE SCHEMA {role} AUTHORIZATION {role}; ALTER DATABASE {db} OWNER TO {role}", None),
        (
            "",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            Some("42501: permission denied for schema public; migrate as a role"),
        ),
        ("", "ALTER DATABASE {db} SET default_transaction_read_only = on", Some("25006: cannot execute CREATE TABLE")),
        (
            "TEMPLATE template0 LOCALE 'C' ENCODING 'LATIN1'",
            "",
            Some("the encoding of the database is LATIN1: make it with"),
        ),
    ];
    for (options, prepare, error) in wanted {
        let database = TestDatabase::create_with(options).await.unwrap();
        let client = database.client().await.unwrap();
        let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
        let make = format!("DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
        client.batch_execute(&make).await.unwrap();
        client.batch_execute(&prepare.replace("{db}", &name).replace("{role}", &role)).await.unwrap();
        let store = Store::new(&StoreConfig::new(database.url_as(&role), "test", 1)).unwrap();
        let migrated = schema::migrate(&store).await;
        if let Some(part) = error {
            let error = migrated.unwrap_err().to_string();
            assert!(error.contains(part), "{prepare}: {error}");
            continue;
        }
        if prepare.contains("statement_timeout") {
            // Its role may not create there; a superuser has the same bound.
            schema::migrate(&database.store().unwrap()).await.unwrap();
            // Looking at it within a millisecond is no part of migrating.
            client.batch_execute(&format!("ALTER DATABASE {name} RESET statement_timeout")).await.unwrap();
        } else {
            migrated.unwrap();
        }
        let sql =
            "SELECT count(*) FROM pg_class WHERE relname = 'connection_logs' AND relnamespace = 'public'::regnamespace";
        assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1, "{prepare}");
        schema::check(&database.store().unwrap()).await.unwrap();
    }
}

/// Without this, a change of the schema is seen only by whoever reads the functions that make it.
#[tokio::test]
async fn the_schema_is_the_one_that_is_committed() {
    let pg_dump = Path::new("/usr/lib/postgresql/15/bin/pg_dump");
    if !pg_dump.exists() {
        println!("skipped: there is no pg_dump of PostgreSQL 15");
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    let version: String = client.query_one("SHOW server_version", &[]).await.unwrap().get(0);
    if !version.starts_with("15.") {
        println!("skipped: the server is {version}");
        return;
    }
    // A day of its own, whose name does not change, stands for all.
    client.batch_execute("SELECT attach_day('2020-01-01')").await.unwrap();
    let output = Command::new(pg_dump).args(["--schema-only", "--schema=public", database.url()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Without what differs from one minor version to the next.
    let dump = String::from_utf8(output.stdout).unwrap();
    let is_kept = |line: &&str| !line.starts_with("-- Dumped ") && !line.starts_with('\\');
    let dump: Vec<&str> = dump.lines().filter(is_kept).collect();
    let dump = dump.join("\n") + "\n";
    let committed = fs::read_to_string(DUMP).unwrap_or_default();
    if committed != dump {
        let found = Path::new(DUMP).with_extension("sql.new");
        fs::write(&found, dump).unwrap();
        panic!("migrations/schema.sql is not the schema; what it is lies in {}", found.display());
    }
}
