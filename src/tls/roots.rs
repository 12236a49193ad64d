//! Whose certificates are believed where no `ca` is named: by requests and checks of an upstream, probes, webhooks and
//! the exporter of traces alike.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;

use super::pem::read_bundle;

/// Names a PEM file with roots to trust, as OpenSSL has it.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// Mozilla's roots, built in, and those of the file that the environment names. That is read once, when they are wanted
/// first: it takes some milliseconds, and most have nobody to ask.
pub(crate) fn trusted_roots() -> Arc<RootCertStore> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| Arc::new(all()));
    Arc::clone(&ROOTS)
}

/// The file that the environment names; set to nothing it counts as not set.
pub(crate) fn roots_file() -> Option<PathBuf> {
    std::env::var_os(ROOTS_VARIABLE).filter(|file| !file.is_empty()).map(Into::into)
}

fn all() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = roots_file() {
        match read_bundle(&file) {
            Ok((further, left_out)) => {
                roots.roots.extend(further.roots);
                if left_out > 0 {
                    tracing::warn!(left_out, "{ROOTS_VARIABLE} has certificates that cannot be used");
                }
            }
            Err(error) => tracing::warn!(%error, "{ROOTS_VARIABLE} is left out"),
        }
    }
    roots
}
