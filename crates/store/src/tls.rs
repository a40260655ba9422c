//! TLS to PostgreSQL, with the parameters of libpq: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>
//!
//! The files are read anew for each connection, so a renewed certificate needs no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The parameters of libpq about TLS that the driver does not know.
const OWN_PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "gssencmode"];

/// Where libpq looks for an authority if none is named, below the home directory.
const DEFAULT_ROOT: &str = ".postgresql/root.crt";

/// What is asked of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verification {
    /// Nothing: `prefer`, and `require` without an authority.
    Nothing,
    /// That an authority made it: `verify-ca`, and `require` with an authority.
    Authority,
    /// That, and that it is for the host: `verify-full`.
    Full,
}

/// Where the authorities are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Roots {
    None,
    System,
    File(PathBuf),
}

/// How connections to the database are protected.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseTls {
    verification: Verification,
    roots: Roots,
    identity: Option<(PathBuf, PathBuf)>,
}

/// Takes the parameters about TLS out of a database URL: the rest is for the driver. The error is one line, and repeats no more
/// of the URL than the value that is wrong.
pub(crate) fn take_parameters(url: &str) -> Result<(String, DatabaseTls), String> {
    let (mut rest, given) = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        from_url(url)
    } else {
        from_pairs(url)
    };
    let value = |name: &str| given.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if value("gssencmode").is_some_and(|mode| mode == "require") {
        return Err("has gssencmode=require: GSSAPI is not spoken here".to_owned());
    }
    let home = std::env::home_dir().map(|home| home.join(DEFAULT_ROOT));
    let roots = match value("sslrootcert") {
        None => home.filter(|file| file.exists()).map_or(Roots::None, Roots::File),
        Some(system) if system == "system" => Roots::System,
        Some(file) => Roots::File(file.into()),
    };
    let usual = if roots == Roots::System { "verify-full" } else { "prefer" };
    let mode = value("sslmode").unwrap_or_else(|| usual.to_owned());
    let (mode, verification) = match (mode.as_str(), &roots) {
        ("disable", _) => ("disable", Verification::Nothing),
        // The driver cannot try without TLS first.
        ("allow" | "prefer", Roots::None | Roots::File(_)) => ("prefer", Verification::Nothing),
        ("require", Roots::None) => ("require", Verification::Nothing),
        ("verify-ca" | "verify-full", Roots::None) => return Err(format!("has sslmode={mode} without sslrootcert")),
        ("require" | "verify-ca", Roots::File(_)) => ("require", Verification::Authority),
        ("verify-full", _) => ("require", Verification::Full),
        ("allow" | "prefer" | "require" | "verify-ca", Roots::System) => {
            return Err("has sslrootcert=system without sslmode=verify-full".to_owned());
        }
        _ => {
            return Err(format!(
                "has an unknown sslmode {mode:?}: disable, allow, prefer, require, verify-ca, verify-full"
            ));
        }
    };
    let identity = match (value("sslcert"), value("sslkey")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        _ => return Err("has one of sslcert and sslkey without the other".to_owned()),
    };
    rest.set("sslmode", mode);
    Ok((rest.text, DatabaseTls { verification, roots, identity }))
}

/// A URL or a list of pairs without the parameters that are taken out.
struct Rest {
    text: String,
    is_url: bool,
}

impl Rest {
    fn set(&mut self, key: &str, value: &str) {
        let separator = match (self.is_url, self.text.contains('?')) {
            (false, _) => ' ',
            (true, true) => '&',
            (true, false) => '?',
        };
        self.text = format!("{}{separator}{key}={value}", self.text);
    }
}

type Pairs = Vec<(String, String)>;

fn from_url(url: &str) -> (Rest, Pairs) {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if OWN_PARAMETERS.contains(&key) {
            taken.push((key.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()));
        } else {
            kept.push(pair);
        }
    }
    let text = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (Rest { text, is_url: true }, taken)
}

/// `key = value` pairs, a value perhaps in quotes, where a backslash keeps the next character from meaning anything.
fn from_pairs(text: &str) -> (Rest, Pairs) {
    let (mut kept, mut taken) = (String::new(), Vec::new());
    let mut characters = text.char_indices().peekable();
    while let Some(&(start, _)) = characters.peek() {
        let mut key = String::new();
        while let Some((_, c)) = characters.next_if(|(_, c)| *c != '=') {
            key.push(c);
        }
        characters.next();
        while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let quoted = characters.next_if(|(_, c)| *c == '\'').is_some();
        let mut value = String::new();
        while let Some((_, c)) = characters.next() {
            match c {
                '\\' => value.extend(characters.next().map(|(_, c)| c)),
                '\'' if quoted => break,
                c if !quoted && c.is_whitespace() => break,
                c => value.push(c),
            }
        }
        let end = characters.peek().map_or(text.len(), |(end, _)| *end);
        let key = key.trim();
        if OWN_PARAMETERS.contains(&key) {
            taken.push((key.to_owned(), value));
        } else {
            kept.push_str(text[start..end].trim());
            kept.push(' ');
        }
    }
    (Rest { text: kept.trim_end().to_owned(), is_url: false }, taken)
}

impl DatabaseTls {
    /// What connections are made with, from the files as they are now.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.verification {
            Verification::Nothing => Arc::new(Unverified { provider: Arc::clone(&provider) }),
            Verification::Authority | Verification::Full => {
                let roots = Arc::new(self.read_roots()?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
                let verifier = verifier.map_err(|error| format!("sslrootcert: {error}"))?;
                if self.verification == Verification::Full { verifier } else { Arc::new(AnyName(verifier)) }
            }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates("sslcert", cert)?;
                let key =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| format!("sslkey {}: {error}", key.display()))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| format!("sslcert and sslkey: {error}"))?
            }
        };
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }

    fn read_roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Roots::None => {}
            Roots::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Roots::File(file) => {
                for certificate in certificates("sslrootcert", file)? {
                    roots.add(certificate).map_err(|error| format!("sslrootcert {}: {error}", file.display()))?;
                }
            }
        }
        Ok(roots)
    }
}

fn certificates(parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: rustls::pki_types::pem::Error| format!("{parameter} {}: {error}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(named)?.collect::<Result<Vec<_>, _>>().map_err(named)?;
    if found.is_empty() { Err(format!("{parameter} {} has no certificate", file.display())) } else { Ok(found) }
}

impl MakeTlsConnect<Socket> for DatabaseTls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut make = MakeRustlsConnect::new(self.client_config()?);
        // A socket in the file system has no name to verify, and PostgreSQL speaks no TLS on it.
        let host = if host.is_empty() { "localhost" } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut make, host).map_err(Into::into)
    }
}

/// Takes whatever the server shows, without reading it: who does not ask for an authority is not protected from one in the
/// middle, and PostgreSQL's own instructions make certificates that are too old to be read.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks for the authority, and not for the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The chain is verified before the name.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_libpq_are_taken_out_and_mean_what_they_mean_there() {
        use Verification::{Authority, Full, Nothing};
        for (given, left, verification) in [
            ("postgresql://u@h/d", "postgresql://u@h/d?sslmode=prefer", Nothing),
            (
                "postgres://h?sslmode=disable&connect_timeout=3",
                "postgres://h?connect_timeout=3&sslmode=disable",
                Nothing,
            ),
            ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require", Nothing),
            (
                "postgresql://h/d?sslmode=require&sslrootcert=%2Fa%20b.pem",
                "postgresql://h/d?sslmode=require",
                Authority,
            ),
            ("postgresql://h/d?sslrootcert=a&sslmode=verify-ca", "postgresql://h/d?sslmode=require", Authority),
            ("postgresql://h/d?sslrootcert=system&sslmode=verify-full", "postgresql://h/d?sslmode=require", Full),
            ("host=h sslmode = verify-full sslrootcert='a \\'b' user=u", "host=h user=u sslmode=require", Full),
            ("host='a b' password='sslmode=disable'", "host='a b' password='sslmode=disable' sslmode=prefer", Nothing),
        ] {
            let (rest, tls) = take_parameters(given).expect(given);
            assert_eq!((rest.as_str(), tls.verification), (left, verification), "{given}");
        }
        let (_, tls) =
            take_parameters("host=h sslmode=verify-ca sslrootcert='a \\'b' sslcert=c sslkey=k").expect("fine");
        assert_eq!((tls.roots, tls.identity), (Roots::File("a 'b".into()), Some(("c".into(), "k".into()))));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (given, named) in [
            ("postgresql://h/d?sslmode=tls", "sslmode \"tls\""),
            ("postgresql://h/d?sslmode=verify-full", "sslmode=verify-full without sslrootcert"),
            ("postgresql://h/d?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
            ("postgresql://h/d?sslcert=c", "sslkey"),
        ] {
            let error = take_parameters(given).expect_err(given);
            assert!(error.contains(named), "{given}: {error}");
        }
    }
}
