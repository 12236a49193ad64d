//! TLS termination: from PEM files to a rustls configuration that picks certificates by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::model::{CertificatePair, ClientAuth, ClientAuthMode, ListenerTls, TlsVersion};

/// A certificate, key or CA file that can't be used; says which and why.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", file.display())]
    Read { file: PathBuf, reason: String },
    #[error("{}: holds no {what} in PEM form", file.display())]
    Empty { file: PathBuf, what: &'static str },
    #[error("{}: does not match the key in {}", cert.display(), key.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("{}: {reason}", file.display())]
    Unusable { file: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Facts about one certificate, for the expiry watch and `flagstone certs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub file: PathBuf,
    /// DNS names and addresses, lower-case; wildcards included.
    pub names: Vec<String>,
    pub issuer: String,
    /// Seconds since the Unix epoch.
    pub not_after: i64,
}

/// A listener's TLS, ready to accept.
#[derive(Clone, Debug)]
pub struct Terminator {
    pub config: Arc<ServerConfig>,
    pub certificates: Vec<CertificateFacts>,
}

impl Terminator {
    /// Reads every file and builds the configuration.
    ///
    /// # Errors
    /// A file can't be read or parsed, holds nothing of its kind, or certificate and key don't match.
    pub fn build(tls: &ListenerTls) -> Result<Self, TlsError> {
        let mut by_name = ByName { exact: HashMap::new(), wildcard: HashMap::new(), default: None };
        let mut certificates = Vec::new();
        for pair in &tls.certificates {
            let (key, facts) = read_pair(pair)?;
            by_name.add(Arc::new(key), &facts.names);
            certificates.push(facts);
        }
        let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &tls.client_auth {
            Some(auth) => builder.with_client_cert_verifier(client_verifier(auth, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Self { config: Arc::new(config), certificates })
    }
}

fn client_verifier(
    auth: &ClientAuth,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let roots = Arc::new(read_roots(&auth.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = match auth.mode {
        ClientAuthMode::Require => builder,
        ClientAuthMode::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| TlsError::Unusable { file: auth.ca.clone(), reason: error.to_string() })
}

/// Reads the certificates of a CA file.
///
/// # Errors
/// The file can't be read, or holds no usable certificate.
pub fn read_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Unusable { file: file.to_path_buf(), reason: error.to_string() })?;
    }
    Ok(roots)
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| unreadable(file, &error))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { file: file.to_path_buf(), what: "certificate" });
    }
    Ok(chain)
}

/// Reads a chain and its key and checks that they belong together.
///
/// # Errors
/// See [`TlsError`].
pub fn read_pair(pair: &CertificatePair) -> Result<(CertifiedKey, CertificateFacts), TlsError> {
    let chain = read_certificates(&pair.cert)?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::Empty { file: pair.key.clone(), what: "private key" },
        error => unreadable(&pair.key, &error),
    })?;
    let key = aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| TlsError::Unusable { file: pair.key.clone(), reason: error.to_string() })?;
    let facts = facts_of(&pair.cert, &chain[0])?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok((certified, facts)),
        Err(_) => Err(TlsError::Mismatch { cert: pair.cert.clone(), key: pair.key.clone() }),
    }
}

fn unreadable(file: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    let reason = match error {
        rustls_pki_types::pem::Error::Io(error) => crate::error::io_reason(error),
        other => format!("is not PEM: {other}"),
    };
    TlsError::Read { file: file.to_path_buf(), reason }
}

fn facts_of(file: &Path, certificate: &CertificateDer<'_>) -> Result<CertificateFacts, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| TlsError::Unusable { file: file.to_path_buf(), reason: error.to_string() })?;
    let mut names: Vec<String> = match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(general_name).collect(),
        _ => Vec::new(),
    };
    if names.is_empty() {
        // Old certificates name their host in the subject alone.
        names.extend(parsed.subject().iter_common_name().filter_map(|name| Some(name.as_str().ok()?.to_lowercase())));
    }
    Ok(CertificateFacts {
        file: file.to_path_buf(),
        names,
        issuer: parsed.issuer().to_string(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress([a, b, c, d]) => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        GeneralName::IPAddress(bytes) => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        _ => None,
    }
}

/// Chooses by SNI: the exact name, then the wildcard one label up, then the first certificate of the file.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// The first certificate that claims a name keeps it.
    fn add(&mut self, key: Arc<CertifiedKey>, names: &[String]) {
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.to_owned()).or_insert_with(|| Arc::clone(&key));
        }
        self.default.get_or_insert(key);
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        name.as_deref()
            .and_then(|name| {
                let parent = name.split_once('.').map(|(_, parent)| parent);
                self.exact.get(name).or_else(|| self.wildcard.get(parent?))
            })
            .or(self.default.as_ref())
            .map(Arc::clone)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}
