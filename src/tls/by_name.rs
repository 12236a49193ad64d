//! Chooses a certificate by the name a client asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Chooses by SNI: the exact name, then the wildcard one label up, then the first certificate of the file.
#[derive(Debug, Default)]
pub(super) struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// The first certificate that claims a name keeps it.
    pub(super) fn add(&mut self, key: &Arc<CertifiedKey>, names: &[String]) {
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.to_owned()).or_insert_with(|| Arc::clone(key));
        }
        self.default.get_or_insert_with(|| Arc::clone(key));
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
