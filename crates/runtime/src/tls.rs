//! TLS of a listener: certificate, key and, for mutual TLS, the authority of the clients' certificates, which of them are revoked, and
//! whom they are for.
//!
//! The files are looked at every few seconds; new ones serve new connections, without a restart. Files that do not make
//! sense are reported and the ones before stay in force: a certificate that is being written does not cut anyone off.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use uuid::Uuid;

use crate::shutdown::Shutdown;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Where a listener's certificate is.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsOptions {
    /// Certificate chain of the listener, as PEM; with it, the listener speaks nothing but TLS.
    #[arg(long, env = "CONNLOG_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, as PEM.
    #[arg(long, env = "CONNLOG_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authorities of the clients' certificates, as PEM; with it, a client without one is turned away.
    #[arg(long, env = "CONNLOG_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Lists of revoked client certificates (CRLs), as PEM. If an authority has no list, its certificates are accepted.
    #[arg(long, env = "CONNLOG_TLS_CLIENT_CRL", value_name = "FILE", requires = "tls_client_ca")]
    pub tls_client_crl: Option<PathBuf>,
    /// Does not start without TLS.
    #[arg(long, env = "CONNLOG_REQUIRE_TLS")]
    pub require_tls: bool,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, #[source] std::io::Error),
    /// One has nothing of what it should.
    #[error("{0} has no {1}: {2}")]
    Pem(PathBuf, &'static str, rustls::pki_types::pem::Error),
    /// They do not fit together.
    #[error("the certificate, its key or the clients' authority cannot be used: {0}")]
    Unusable(String),
    /// There are none.
    #[error("--require-tls is given, and --tls-cert and --tls-key are not")]
    Missing,
}

/// The TLS of a listener, as its files have it now.
#[derive(Debug)]
pub struct ServerTls {
    options: Files,
    alpn: &'static [&'static str],
    current: ArcSwap<ServerConfig>,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_crl: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

/// Counts attempts to read new TLS files that failed; the files before stay in force.
const RELOAD_FAILURES: &str = "connlog_tls_reload_failures_total";

impl ServerTls {
    /// Reads the files of the listener at `address`. Returns nothing if none are configured, and warns if other machines reach the
    /// listener then. `alpn` lists the protocols that it speaks. New files are picked up until `shutdown`.
    pub fn load(
        options: &TlsOptions,
        address: SocketAddr,
        alpn: &'static [&'static str],
        shutdown: &Shutdown,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let (Some(cert), Some(key)) = (options.tls_cert.clone(), options.tls_key.clone()) else {
            if options.require_tls {
                return Err(TlsError::Missing);
            }
            if !address.ip().to_canonical().is_loopback() {
                tracing::warn!(%address, "other machines reach this listener, and it speaks no TLS: tokens and events pass in clear text");
            }
            return Ok(None);
        };
        let (client_ca, client_crl) = (options.tls_client_ca.clone(), options.tls_client_crl.clone());
        let files = Files { cert, key, client_ca, client_crl };
        let contents = files.read()?;
        let current = ArcSwap::from_pointee(files.configure(&contents, alpn)?);
        metrics::counter!(RELOAD_FAILURES).increment(0);
        let tls = Arc::new(Self { options: files, alpn, current });
        shutdown.spawn("TLS files", Arc::clone(&tls).watch(contents, shutdown.clone()));
        Ok(Some(tls))
    }

    /// The configuration for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    async fn watch(self: Arc<Self>, mut in_force: Contents, shutdown: Shutdown) {
        let mut last_error = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
                () = shutdown.begun() => return,
            }
            match self.reload(&mut in_force) {
                Ok(changed) => {
                    if changed {
                        tracing::info!(certificate = %self.options.cert.display(), "a new certificate is in force");
                    }
                    last_error = None;
                }
                Err(error) => {
                    metrics::counter!(RELOAD_FAILURES).increment(1);
                    let text = error.to_string();
                    if last_error.as_ref() != Some(&text) {
                        tracing::error!(%error, "the new TLS files cannot be used; the ones before stay in force");
                    }
                    last_error = Some(text);
                }
            }
        }
    }

    fn reload(&self, in_force: &mut Contents) -> Result<bool, TlsError> {
        let contents = self.options.read()?;
        if contents == *in_force {
            return Ok(false);
        }
        self.current.store(Arc::new(self.options.configure(&contents, self.alpn)?));
        *in_force = contents;
        Ok(true)
    }
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| TlsError::Read(path.to_owned(), error));
        let client_ca = self.client_ca.as_deref().map(read).transpose()?;
        let client_crl = self.client_crl.as_deref().map(read).transpose()?;
        Ok(Contents { cert: read(&self.cert)?, key: read(&self.key)?, client_ca, client_crl })
    }

    fn configure(&self, contents: &Contents, alpn: &[&str]) -> Result<ServerConfig, TlsError> {
        let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, pem)? {
                    roots.add(authority).map_err(|error| unusable(&error))?;
                }
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if let (Some(path), Some(pem)) = (&self.client_crl, &contents.client_crl) {
                    verifier = verifier.with_crls(revocation_lists(path, pem)?).allow_unknown_revocation_status();
                }
                builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&error))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| TlsError::Pem(self.key.clone(), "private key", error))?;
        let chain = certificates(&self.cert, &contents.cert)?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

fn revocation_lists(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let error = |error| TlsError::Pem(path.to_owned(), "list of revoked certificates", error);
    let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(error)?;
    if found.is_empty() { Err(error(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// What begins the names in a certificate that say whom it is for, in small letters: the id of an agent, or of an API token, follows.
const OURS: &str = "urn:connlog:";
const BINDINGS: [&str; 2] = ["urn:connlog:agent:", "urn:connlog:token:"];

/// Whom the certificate of a client is for: the agents and API tokens that its names (subjectAltName, of type URI) bind it to. None if
/// it is bound to nobody.
pub fn bound_to(certificate: &CertificateDer<'_>) -> Vec<Uuid> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let names = certificate.valid_uri_names().map(str::to_ascii_lowercase).filter(|name| name.starts_with(OURS));
    // A binding that cannot be read is one to nobody.
    let id = |name: String| BINDINGS.iter().find_map(|binding| Uuid::parse_str(name.strip_prefix(binding)?).ok());
    names.map(|name| id(name).unwrap_or_default()).collect()
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |error| TlsError::Pem(path.to_owned(), "certificate", error);
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(error)?;
    if found.is_empty() { Err(error(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_files_there_is_no_tls_unless_it_is_required() {
        let load = |options: &TlsOptions| {
            ServerTls::load(options, SocketAddr::from(([192, 0, 2, 1], 443)), &["h2"], &Shutdown::new())
        };
        assert!(load(&TlsOptions::default()).unwrap().is_none());
        let required = TlsOptions { require_tls: true, ..TlsOptions::default() };
        assert!(matches!(load(&required), Err(TlsError::Missing)));
    }
}
