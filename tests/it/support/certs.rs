//! Certificates for one test, good and bad, and the TLS configurations that go with them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SignatureAlgorithm,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files::Folder;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The kinds of keys that operators bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Ecdsa,
    Ed25519,
    Rsa,
}

/// A certificate authority of the test's own.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Flagstone test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, key(Algorithm::Ecdsa));
        Self(ca.expect("a CA certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A good certificate for these names (IP addresses too), valid for 90 days, ECDSA.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, Algorithm::Ecdsa, 90)
    }

    /// One that ended yesterday.
    pub fn expired(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, Algorithm::Ecdsa, -1)
    }

    /// One whose key belongs to another certificate.
    pub fn mismatched(&self, names: &[&str]) -> Leaf {
        let key_pem = key(Algorithm::Ecdsa).serialize_pem();
        Leaf { key_pem, ..self.leaf(names) }
    }

    /// One with any key, whose validity ends in so many days (negative: ago). It began 100 days before that end or
    /// yesterday, whichever is earlier.
    pub fn leaf_with(&self, names: &[&str], algorithm: Algorithm, days_left: i32) -> Leaf {
        let params = params(names, days_left);
        let key = key(algorithm);
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }

    /// A client's configuration that trusts this CA and offers these protocols (`b"http/1.1"`).
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        self.client_builder(alpn, None)
    }

    /// The same for a client that shows a certificate of its own.
    pub fn client_config_with(&self, alpn: &[&[u8]], own: &Leaf) -> Arc<ClientConfig> {
        self.client_builder(alpn, Some(own))
    }

    fn client_builder(&self, alpn: &[&[u8]], own: Option<&Leaf>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a CA certificate");
        let builder = ClientConfig::builder_with_provider(provider());
        let builder =
            builder.with_safe_default_protocol_versions().expect("protocol versions that go with the provider");
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(leaf.chain(), leaf.key()).expect("a certificate with its key"),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

fn params(names: &[&str], days_left: i32) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("names that fit a certificate");
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("", String::as_str));
    let now = SystemTime::now();
    let days = DAY * days_left.unsigned_abs();
    let end = if days_left < 0 { now - days } else { now + days };
    params.not_before = (end - DAY * 100).min(now - DAY).into();
    params.not_after = end.into();
    params
}

impl Leaf {
    /// One that nobody else has signed, and a CA's as well: what `openssl req -x509` makes.
    pub fn self_signed(names: &[&str], days_left: i32) -> Self {
        let mut params = params(names, days_left);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key(Algorithm::Ecdsa);
        let cert = params.self_signed(&key).expect("a certificate");
        Self { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }

    /// Writes `NAME.pem` and `NAME.key` and returns both paths.
    pub fn write(&self, folder: &Folder, name: &str) -> (PathBuf, PathBuf) {
        let cert = folder.write(&format!("{name}.pem"), &self.cert_pem);
        (cert, folder.write(&format!("{name}.key"), &self.key_pem))
    }

    /// A server's configuration that shows this certificate.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder =
            builder.with_safe_default_protocol_versions().expect("protocol versions that go with the provider");
        let config = builder.with_no_client_auth().with_single_cert(self.chain(), self.key());
        let mut config = config.expect("a certificate with its key");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// As DER, to compare with what a server showed.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).expect("a certificate")
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.der()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key")
    }
}

fn key(algorithm: Algorithm) -> KeyPair {
    let algorithm: &'static SignatureAlgorithm = match algorithm {
        Algorithm::Ecdsa => &rcgen::PKCS_ECDSA_P256_SHA256,
        Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
        Algorithm::Rsa => &rcgen::PKCS_RSA_SHA256,
    };
    KeyPair::generate_for(algorithm).expect("a key")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
