//! TLS termination: from PEM files to a rustls configuration that picks certificates by name.
//!
//! [`pem`] reads files, [`facts`] tells what a certificate says, [`names`] writes names so that nobody can smuggle
//! another into them, [`Terminator`] is a listener's TLS, [`Peer`] what a handshake told of a client. No sockets.

mod by_name;
mod facts;
mod names;
mod peer;
mod pem;
mod terminator;

use std::path::PathBuf;

pub use facts::{CertificateFacts, Standing};
pub(crate) use peer::Peer;
pub(crate) use pem::{Digest, digest_of_files};
pub use pem::{read_facts, read_pair, read_roots};
pub(crate) use terminator::{Finding, Terminator};

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
