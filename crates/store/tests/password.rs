//! Passwords for PostgreSQL in files, on a server that asks for them.

use std::fs;

use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::connect;
use connlog_testkit::postgres::{Options, PostgresServer};
use connlog_testkit::wait::until;

/// Without this, a password that is exchanged, as operators have to, takes a restart of every service.
#[tokio::test]
async fn a_password_file_is_read_anew_for_each_connection() {
    let server = PostgresServer::start(Options::for_tests()).unwrap();
    let superuser = connect(&server.url("postgres")).await.unwrap();
    let lines = "local all all trust\nhost all rotates 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust";
    let hba = format!("COPY (SELECT unnest(string_to_array('{lines}', E'\\n'))) TO PROGRAM 'cat > pg_hba.conf'");
    superuser.batch_execute(&hba).await.unwrap();
    superuser.batch_execute("CREATE ROLE rotates LOGIN PASSWORD 'first'").await.unwrap();
    superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "first\n").unwrap();
    let url = server.url("postgres");
    let (_, place) = url.split_once('@').unwrap();
    let url = format!("postgresql://rotates@{place}");
    let config = StoreConfig { password_file: Some(file.clone()), ..StoreConfig::new(&url, "rotates", 1) };
    let store = Store::new(&config).unwrap();
    let without = Store::new(&StoreConfig::new(&url, "without", 1)).unwrap();
    until("the server asks for passwords", async || without.ping().await.is_err()).await;
    store.ping().await.unwrap();

    superuser.batch_execute("ALTER ROLE rotates PASSWORD 'second'").await.unwrap();
    store.ping().await.unwrap();
    let kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rotates'";
    superuser.batch_execute(kick).await.unwrap();
    let is_refused = async || match store.ping().await {
        Ok(()) => false,
        Err(error) => format!("{error:?}").contains("password authentication failed"),
    };
    until("the password of before is refused", is_refused).await;
    fs::write(&file, "second\n").unwrap();
    store.ping().await.unwrap();
}
