//! PEM files: chains, keys and authorities.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateFacts, Fault, TlsError};
use crate::config::model::CertificatePair;
use crate::config::regular_file;

/// A larger file is a mistake (a log, a device), not a chain: all public authorities together have a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What files held, so that a change can be told without keeping them.
pub(crate) type Digest = [u8; 32];

/// A chain with its key, and the digest of both files.
pub(super) struct Pair {
    pub(super) certified: CertifiedKey,
    pub(super) facts: CertificateFacts,
    pub(super) digest: Digest,
}

/// Authorities, and the digest of their file.
pub(crate) struct Roots {
    pub(crate) store: RootCertStore,
    /// What the store was made of.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(super) digest: Digest,
}

/// Reads a chain and its key and checks that they belong together.
///
/// # Errors
/// See [`TlsError`].
pub fn read_pair(pair: &CertificatePair) -> Result<(CertifiedKey, CertificateFacts), TlsError> {
    Sources::read(pair)?.parse(pair).map(|pair| (pair.certified, pair.facts))
}

/// All that is wrong with a chain and its key, each under `at`, a TOML path.
pub fn faults_of_pair(pair: &CertificatePair, at: &str) -> Vec<Fault> {
    let (cert, key) = (read(&pair.cert), read(&pair.key));
    let chain = cert.as_ref().map_err(Clone::clone).and_then(|text| certificates(&pair.cert, text).map(drop));
    let private = key.as_ref().map_err(Clone::clone).and_then(|text| private_key(&pair.key, text).map(drop));
    let apart = [("cert", chain.err()), ("key", private.err())];
    let found: Vec<_> =
        apart.into_iter().filter_map(|(of, error)| Some(Fault::new(format!("{at}.{of}"), error?))).collect();
    if !found.is_empty() {
        return found;
    }
    // Each by itself is well.
    read_pair(pair).err().map(|error| Fault::new(format!("{at}.cert"), error)).into_iter().collect()
}

/// Reads a chain without its key.
///
/// # Errors
/// The file can't be read, or holds no certificate.
pub fn read_facts(file: &Path) -> Result<CertificateFacts, TlsError> {
    CertificateFacts::read(file, &certificates(file, &read(file)?)?[0])
}

/// Reads the certificates of a CA file.
///
/// # Errors
/// The file can't be read, or holds no usable certificate.
pub fn read_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    read_authorities(file).map(|roots| roots.store)
}

/// The same, with what it was made of.
///
/// # Errors
/// As above.
pub(crate) fn read_authorities(file: &Path) -> Result<Roots, TlsError> {
    let text = read(file)?;
    let certificates = certificates(file, &text)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| TlsError::Unusable { file: file.to_path_buf(), reason: error.to_string() })?;
    }
    Ok(Roots { store, certificates, digest: digest_of(&[&text]) })
}

/// Reads the certificates of a CA bundle that others maintain, which may hold some that no verifier here can use: those are
/// left out, and how many there were is told.
///
/// # Errors
/// The file can't be read, or holds no usable certificate.
pub(super) fn read_bundle(file: &Path) -> Result<(RootCertStore, usize), TlsError> {
    let mut store = RootCertStore::empty();
    match store.add_parsable_certificates(certificates(file, &read(file)?)?) {
        (0, _) => {
            Err(TlsError::Unusable { file: file.to_path_buf(), reason: "no certificate in it can be used".into() })
        }
        (_, left_out) => Ok((store, left_out)),
    }
}

/// The digest of what these files hold.
///
/// # Errors
/// One can't be read.
pub(crate) fn digest_of_files(files: &[&Path]) -> Result<Digest, TlsError> {
    let texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    Ok(digest_of(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

/// The two files of a pair, as they are at one moment, or nearly.
pub(super) struct Sources {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Sources {
    pub(super) fn read(pair: &CertificatePair) -> Result<Self, TlsError> {
        Ok(Self { cert: read(&pair.cert)?, key: read(&pair.key)? })
    }

    pub(super) fn digest(&self) -> Digest {
        digest_of(&[&self.cert, &self.key])
    }

    pub(super) fn parse(&self, pair: &CertificatePair) -> Result<Pair, TlsError> {
        let chain = certificates(&pair.cert, &self.cert)?;
        let key = private_key(&pair.key, &self.key)?;
        let facts = CertificateFacts::read(&pair.cert, &chain[0])?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Pair { certified, facts, digest: self.digest() })
            }
            Err(_) => Err(TlsError::Mismatch { cert: pair.cert.clone(), key: pair.key.clone() }),
        }
    }
}

fn private_key(file: &Path, text: &[u8]) -> Result<Arc<dyn SigningKey>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        PemError::NoItemsFound if memchr::memmem::find(text, b"ENCRYPTED").is_some() => {
            TlsError::Passphrase { file: file.to_path_buf() }
        }
        PemError::NoItemsFound => TlsError::Empty { file: file.to_path_buf(), what: "private key" },
        error => not_pem(file, &error),
    })?;
    any_supported_type(&key).map_err(|error| TlsError::Unusable { file: file.to_path_buf(), reason: error.to_string() })
}

fn certificates(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| not_pem(file, &error))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { file: file.to_path_buf(), what: "certificate" });
    }
    Ok(chain)
}

fn not_pem(file: &Path, error: &PemError) -> TlsError {
    let reason = match error {
        // The library shows the marker's name byte by byte.
        PemError::MissingSectionEnd { end_marker } => {
            format!("is cut off: the line END {} is missing", String::from_utf8_lossy(end_marker))
        }
        error => format!("is not PEM: {error}"),
    };
    TlsError::Read { file: file.to_path_buf(), reason }
}

/// A regular file of decent size: a pipe would be waited for.
fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let refuse = |reason: String| TlsError::Read { file: file.to_path_buf(), reason };
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        regular_file::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() as u64 <= FILE_BYTES_MAX => Ok(text),
        Ok(_) => Err(refuse("is too large for a PEM file".into())),
        Err(error) => Err(refuse(crate::error::io_reason(&error))),
    }
}

fn digest_of(texts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
