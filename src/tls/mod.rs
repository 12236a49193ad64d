//! TLS termination: from PEM files to a rustls configuration that picks certificates by name.
//!
//! [`pem`] reads files, [`facts`] tells what a certificate says, [`names`] writes names so that nobody can smuggle
//! another into them, [`Terminator`] is a listener's TLS, [`Peer`] what a handshake told of a client. No sockets.

mod by_name;
mod facts;
mod names;
mod peer;
mod pem;
mod roots;
mod terminator;

use std::path::PathBuf;

pub use facts::{CertificateFacts, Standing};
pub(crate) use peer::Peer;
pub(crate) use pem::{Digest, Roots, digest_of_files, read_authorities};
pub use pem::{faults_of_pair, read_facts, read_pair, read_roots};
pub(crate) use roots::{roots_file, trusted_roots};
pub(crate) use terminator::Admission;
pub use terminator::{Finding, Terminator};

/// A certificate, key or CA file that can't be used; says which and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", file.display())]
    Read { file: PathBuf, reason: String },
    #[error("{}: holds no {what} in PEM form", file.display())]
    Empty { file: PathBuf, what: &'static str },
    #[error("{}: the key is protected by a passphrase, which nobody is here to type", file.display())]
    Passphrase { file: PathBuf },
    #[error("{}: does not match the key in {}", cert.display(), key.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("{}: {reason}", file.display())]
    Unusable { file: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => "name a PEM file that this user may read",
            Self::Empty { what, .. } if *what == "certificate" => {
                "name the PEM file with the certificate, its chain below it"
            }
            Self::Empty { .. } => "name the PEM file with the private key of the certificate",
            Self::Passphrase { .. } => "write it without one: openssl pkey -in KEY -out NEW",
            Self::Mismatch { .. } => "name the key that the certificate was made for",
            Self::Unusable { .. } => {
                "replace it by one that is complete and of a common kind (ECDSA P-256, RSA 2048, Ed25519)"
            }
            Self::Library(_) => "see what the library says, and tell us when it is no fault of the file",
        }
    }
}

/// One thing that keeps TLS from being set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Where, below `tls` in the configuration: `certificates[0].key`. Empty: as a whole.
    pub at: String,
    pub error: TlsError,
}

impl Fault {
    pub(crate) fn new(at: impl Into<String>, error: impl Into<TlsError>) -> Self {
        Self { at: at.into(), error: error.into() }
    }
}
