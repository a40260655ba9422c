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
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, date_time_ymd,
};
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
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// Writes a certificate for `host`, and its key.
    fn issue(&self, host: &str, cert: &Path, key: &Path) {
        self.issue_with(&CertificateParams::new(vec![host.to_owned()]).unwrap(), cert, key);
    }

    /// Writes a certificate with a serial number that is bound to some agents or tokens.
    fn issue_bound(&self, serial: u64, names: &[String], cert: &Path, key: &Path) {
        let mut params = CertificateParams::new(vec!["workspace".to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        let names = names.iter().map(|name| SanType::URI(name.as_str().try_into().unwrap()));
        params.subject_alt_names.extend(names);
        self.issue_with(&params, cert, key);
    }

    fn issue_with(&self, params: &CertificateParams, cert: &Path, key: &Path) {
        let own = KeyPair::generate().unwrap();
        fs::write(cert, params.signed_by(&own, &self.issuer).unwrap().pem()).unwrap();
        fs::write(key, own.serialize_pem()).unwrap();
    }

    /// A list of revoked certificates.
    fn revoke(&self, serials: &[u64]) -> String {
        let (now, later) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: later,
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

struct Stage {
    folder: TempDir,
    _database: TestDatabase,
    token: String,
    agent_id: Uuid,
    address: SocketAddr,
    servers: Authority,
    clients: Authority,
    shutdown: Shutdown,
}

impl Stage {
    /// A service that asks its clients for a certificate.
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with further flags; files among them are in the folder of the stage.
    async fn start_with(flags: &[&str]) -> Self {
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
        let flags: Vec<String> =
            flags.iter().map(|flag| if *flag == "clients.crl" { path(flag) } else { (*flag).to_owned() }).collect();
        fs::write(path("clients.crl"), clients.revoke(&[])).unwrap();
        arguments.extend(flags.iter().map(String::as_str));
        let config = connlog_ingest::Config::try_parse_from(arguments).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = Shutdown::new();
        tokio::spawn(connlog_ingest::run(config, listener, admin, shutdown.clone()));
        Self {
            folder,
            _database: database,
            token: site.token,
            agent_id: site.agent.agent_id.unwrap(),
            address,
            servers,
            clients,
            shutdown,
        }
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

/// Without this, whoever has any certificate of the authority, and a token that leaked, is that agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_bound_goes_with_the_tokens_that_it_is_for() {
    let (stage, strict) = (Stage::start().await, Stage::start_with(&["--require-bound-certificates"]).await);
    let of = |id: Uuid| format!("urn:connlog:agent:{id}");
    let other = Uuid::from_u128(99);
    for (stage, case, names, expected) in [
        (&stage, "own", vec![of(stage.agent_id)], Ok(())),
        (&stage, "own and another", vec![of(other), of(stage.agent_id)], Ok(())),
        (&stage, "unbound", vec!["https://elsewhere.example".to_owned()], Ok(())),
        (&stage, "another", vec![of(other)], Err("bound to another agent or token")),
        (&stage, "unreadable", vec!["urn:connlog:agent:x".to_owned()], Err("bound to another agent or token")),
        (
            &stage,
            "misspelt",
            vec![format!("URN:connlog:agents:{}", stage.agent_id)],
            Err("bound to another agent or token"),
        ),
        (&stage, "large letters", vec![format!("URN:connlog:Agent:{}", stage.agent_id)], Ok(())),
        (&strict, "own", vec![of(strict.agent_id)], Ok(())),
        (&strict, "unbound", Vec::new(), Err("bound to no agent and no token")),
    ] {
        let (cert, key) = (stage.path(&format!("{case}.pem")), stage.path(&format!("{case}.key")));
        stage.clients.issue_bound(7, &names, &cert, &key);
        let tls = TlsFiles { ca: Some(stage.servers.file.clone()), identity: Some((cert, key)) };
        let reporter = stage.reporter(case, "https", tls);
        connect(&reporter).await;
        match expected {
            Ok(()) => delivered(&reporter).await,
            Err(error) => {
                reaches(&reporter, |status| status.last_error.as_ref().is_some_and(|last| last.contains(error))).await;
            }
        }
    }
    stage.shutdown.begin();
    strict.shutdown.begin();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_revoked_is_turned_away_once_the_list_is_read() {
    let stage = Stage::start_with(&["--tls-client-crl", "clients.crl"]).await;
    let reporter = |number: u64| {
        let (cert, key) = (stage.path(&format!("{number}.pem")), stage.path(&format!("{number}.key")));
        stage.clients.issue_bound(number, &[], &cert, &key);
        let tls = TlsFiles { ca: Some(stage.servers.file.clone()), identity: Some((cert, key)) };
        stage.reporter(&format!("spool {}", Uuid::new_v4()), "https", tls)
    };
    let (one, other) = (reporter(7), reporter(8));
    for reporter in [&one, &other] {
        connect(reporter).await;
        delivered(reporter).await;
    }
    fs::write(stage.path("clients.crl"), stage.clients.revoke(&[7])).unwrap();
    // Streams end after a second, and come back by a new connection or by the old one: here each is another one.
    drop(one);
    until("the list is read", async || {
        let again = reporter(7);
        connect(&again).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        again.status().await.unwrap().last_error.is_some()
    })
    .await;
    connect(&other).await;
    delivered(&other).await;
    stage.shutdown.begin();
}
