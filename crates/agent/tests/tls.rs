//! TLS between the agent and the service: who is trusted, who has to show a certificate, and files that change.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chrono::Utc;
use clap::Parser;
use connlog_agent::client::{TlsFiles, TokenSource};
use connlog_agent::{Config, Connect, Reporter};
use connlog_runtime::shutdown::Shutdown;
use connlog_store::roles::INGEST;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::wait::{until, until_value};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

/// An authority whose certificate is in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// Writes a certificate for `host`, and its key.
    fn issue(&self, host: &str, cert: &Path, key: &Path) {
        let own = KeyPair::generate().unwrap();
        let issued = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&own, &self.issuer).unwrap();
        fs::write(cert, issued.pem()).unwrap();
        fs::write(key, own.serialize_pem()).unwrap();
    }
}

struct Stage {
    folder: TempDir,
    _database: TestDatabase,
    token: String,
    address: SocketAddr,
    servers: Authority,
    clients: Authority,
    shutdown: Shutdown,
}

impl Stage {
    /// A service that asks its clients for a certificate.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = TestDatabase::create().await.unwrap();
        let site = fixtures::site(1, 1);
        fixtures::import(&database.store().unwrap(), &site.directory, Utc::now()).await.unwrap();
        let (servers, clients) = (Authority::new(folder.path(), "servers"), Authority::new(folder.path(), "clients"));
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        servers.issue("localhost", path("server.pem").as_ref(), path("server.key").as_ref());
        clients.issue("workspace", path("client.pem").as_ref(), path("client.key").as_ref());
        let (cert, key, client_ca) = (path("server.pem"), path("server.key"), path("clients.pem"));
        let database_url = database.url_as(INGEST);
        let mut arguments = vec!["connlog-ingest", "--database-url", &database_url, "--max-stream-age", "1s"];
        arguments.extend(["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &client_ca]);
        let config = connlog_ingest::Config::try_parse_from(arguments).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = Shutdown::new();
        tokio::spawn(connlog_ingest::run(config, listener, admin, shutdown.clone()));
        Self { folder, _database: database, token: site.token, address, servers, clients, shutdown }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn identity(&self) -> (PathBuf, PathBuf) {
        (self.path("client.pem"), self.path("client.key"))
    }

    fn reporter(&self, spool: &str, scheme: &str, tls: TlsFiles) -> Reporter {
        let config = Config {
            servers: vec![format!("{scheme}://localhost:{}", self.address.port())],
            token: TokenSource::Text(self.token.clone()),
            tls,
            spool: self.path(spool),
            max_spool_bytes: 1 << 20,
            agent_version: "test".to_owned(),
        };
        Reporter::start(config).unwrap().0
    }
}

async fn connect(reporter: &Reporter) {
    let connect = Connect { app_name: "ssh".to_owned(), ..Connect::default() };
    reporter.connect(Uuid::new_v4(), connect).await.unwrap();
}

async fn delivered(reporter: &Reporter) {
    reaches(reporter, |status| status.spool.pending == 0).await;
}

async fn reaches(reporter: &Reporter, condition: impl Fn(&connlog_agent::Status) -> bool) {
    until_value("the reporter's status", async || reporter.status().await.unwrap(), condition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_shows_a_certificate_of_the_right_authority_to_the_right_server_gets_through() {
    let stage = Stage::start().await;
    let ca = || Some(stage.servers.file.clone());
    let good = stage.reporter("good", "https", TlsFiles { ca: ca(), identity: Some(stage.identity()) });
    connect(&good).await;
    delivered(&good).await;

    let refused = [
        ("no certificate", "https", TlsFiles { ca: ca(), identity: None }),
        ("no trust", "https", TlsFiles { ca: Some(stage.clients.file.clone()), identity: Some(stage.identity()) }),
        ("the system's trust", "https", TlsFiles { ca: None, identity: Some(stage.identity()) }),
        ("no TLS", "http", TlsFiles::default()),
        ("no file", "https", TlsFiles { ca: Some(stage.path("absent.pem")), identity: None }),
    ];
    for (case, scheme, tls) in refused {
        let reporter = stage.reporter(case, scheme, tls);
        connect(&reporter).await;
        reaches(&reporter, |status| status.last_error.is_some()).await;
        let status = reporter.status().await.unwrap();
        assert!(!status.connected && status.spool.pending == 1, "{case}: {status:?}");
        let error = status.last_error.unwrap();
        match case {
            "no trust" => assert!(error.contains("UnknownIssuer"), "{error}"),
            "no file" => assert!(error.contains("absent.pem"), "{error}"),
            _ => {}
        }
    }
    stage.shutdown.begin();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_picked_up_on_both_sides_without_a_restart() {
    let stage = Stage::start().await;
    let tls = TlsFiles { ca: Some(stage.servers.file.clone()), identity: Some(stage.identity()) };
    let reporter = stage.reporter("spool", "https", tls);
    connect(&reporter).await;
    delivered(&reporter).await;
    // What is half written leaves the old one in force; then both sides change to another authority.
    fs::write(stage.path("server.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let refused = || !connlog_runtime::telemetry::metrics().render().contains("connlog_tls_reload_failures_total 0\n");
    until("the service reads what is half written", async || refused()).await;
    connect(&reporter).await;
    delivered(&reporter).await;
    let other = Authority::new(stage.folder.path(), "others");
    other.issue("localhost", &stage.path("server.pem"), &stage.path("server.key"));
    reaches(&reporter, |status| status.last_error.as_ref().is_some_and(|error| error.contains("UnknownIssuer"))).await;
    fs::copy(&other.file, &stage.servers.file).unwrap();
    connect(&reporter).await;
    delivered(&reporter).await;
    stage.shutdown.begin();
}
