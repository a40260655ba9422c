//! TLS to PostgreSQL, as `sslmode` says, with certificates made here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::Path;

use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::connect;
use connlog_testkit::postgres::{Options, PostgresServer};
use connlog_testkit::wait::until_value;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_postgres::Client;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name`, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        // With the name of its issuer it would be taken for signed by itself.
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Writes a file into the server's folder, as the server.
async fn put(client: &Client, file: &str, text: &str) {
    let lines = format!("SELECT unnest(string_to_array('{}', E'\\n'))", text.trim_end());
    let sql = format!("COPY ({lines}) TO PROGRAM 'cat > {file} && chmod 600 {file}'");
    client.batch_execute(&sql).await.unwrap();
}

/// Whether a connection comes about, and if so whether it is encrypted.
async fn encrypted(superuser: &Client, url: &str) -> Result<bool, String> {
    let name = format!("tls-{}", uuid::Uuid::new_v4());
    let store = Store::new(&StoreConfig::new(url, &name, 1)).map_err(|error| error.to_string())?;
    store.ping().await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = $1";
    Ok(superuser.query_one(sql, &[&name]).await.unwrap().get(0))
}

/// Until a connection fails or comes about as wanted: the server reads its files when it gets to it.
async fn reloaded(superuser: &Client, url: &str, wanted: impl Fn(&Result<bool, String>) -> bool) {
    superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let _as_wanted = until_value(url, async || encrypted(superuser, url).await, wanted).await;
}

#[tokio::test]
async fn sslmode_means_what_it_means_to_libpq_and_new_files_are_read() {
    let server = PostgresServer::start(Options::for_tests()).unwrap();
    let superuser = connect(&server.url("postgres")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let root = write(folder.path(), "root.pem", &ours.0.pem());
    let other_root = write(folder.path(), "other.pem", &theirs.0.pem());
    let by_address = server.url("postgres");
    let by_name = by_address.replace("127.0.0.1", "localhost");

    // A server without TLS.
    for (mode, expected) in [("disable", Ok(false)), ("prefer", Ok(false)), ("allow", Ok(false)), ("require", Err(()))]
    {
        let found = encrypted(&superuser, &format!("{by_name}?sslmode={mode}")).await;
        assert_eq!(found.clone().map_err(|_| ()), expected, "{mode}: {found:?}");
    }

    // One with a certificate for localhost, which 127.0.0.1 is not.
    let (certificate, key) = ours.issue("localhost");
    put(&superuser, "server.crt", &certificate).await;
    put(&superuser, "server.key", &key).await;
    superuser.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    reloaded(&superuser, &by_name, |found| *found == Ok(true)).await;
    let (verified, elsewhere) = (format!("sslrootcert={root}"), format!("sslrootcert={other_root}"));
    for (url, parameters, expected) in [
        (&by_name, "sslmode=disable", Ok(false)),
        (&by_address, "sslmode=prefer", Ok(true)),
        (&by_address, "sslmode=require", Ok(true)),
        (&by_address, &format!("sslmode=require&{verified}"), Ok(true)),
        (&by_address, &format!("sslmode=require&{elsewhere}"), Err("invalid peer certificate")),
        (&by_address, &format!("sslmode=verify-ca&{verified}"), Ok(true)),
        (&by_address, &format!("sslmode=verify-ca&{elsewhere}"), Err("invalid peer certificate")),
        (&by_name, &format!("sslmode=verify-full&{verified}"), Ok(true)),
        (&by_address, &format!("sslmode=verify-full&{verified}"), Err("not valid for")),
        (&by_name, &format!("sslmode=verify-full&{elsewhere}"), Err("invalid peer certificate")),
        (&by_name, "sslmode=verify-full&sslrootcert=system", Err("")),
        (&by_name, "sslmode=verify-full&sslrootcert=/nowhere.pem", Err("/nowhere.pem")),
    ] {
        let found = encrypted(&superuser, &format!("{url}?{parameters}")).await;
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{url} {parameters}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{url} {parameters}: {found}"),
            _ => panic!("{url} {parameters}: {found:?} instead of {expected:?}"),
        }
    }

    // The authority is exchanged on both sides, without a restart of anything.
    let full = format!("{by_name}?sslmode=verify-full&{verified}");
    let (certificate, key) = theirs.issue("localhost");
    put(&superuser, "server.crt", &certificate).await;
    put(&superuser, "server.key", &key).await;
    reloaded(&superuser, &full, |found| found.as_ref().is_err_and(|error| error.contains("invalid peer certificate")))
        .await;
    let store = Store::new(&StoreConfig::new(&full, "tls", 1)).unwrap();
    assert!(store.ping().await.is_err());
    write(folder.path(), "root.pem", &theirs.0.pem());
    store.ping().await.unwrap();

    // A server that wants certificates of its clients.
    put(&superuser, "client_ca.crt", &ours.0.pem()).await;
    let superusers = "local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n\
                      hostssl all all ::1/128 trust clientcert=verify-ca";
    put(&superuser, "pg_hba.conf", superusers).await;
    superuser.batch_execute("ALTER SYSTEM SET ssl_ca_file = 'client_ca.crt'").await.unwrap();
    reloaded(&superuser, &full, Result::is_err).await;
    for (authority, expected) in [(&ours, true), (&theirs, false)] {
        let (certificate, key) = authority.issue("connlog-ingest");
        let certificate = write(folder.path(), "client.crt", &certificate);
        let key = write(folder.path(), "client.key", &key);
        let found = encrypted(&superuser, &format!("{full}&sslcert={certificate}&sslkey={key}")).await;
        assert_eq!(found.is_ok(), expected, "{found:?}");
    }
}
