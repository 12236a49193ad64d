//! `[[listener]]`.

use super::super::document::Path;
use super::super::model::{CertificatePair, ClientAuth, ClientAuthMode, Listener, ListenerTls, TlsVersion};
use super::super::raw;
use super::Check;

impl Check<'_> {
    pub(super) fn listeners(&mut self, raw: &[raw::Listener], at: &Path) -> Vec<Listener> {
        if raw.is_empty() {
            self.missing(at, "add a [[listener]] with an address, such as \"0.0.0.0:8080\"");
        }
        let each = raw.iter().enumerate();
        each.map(|(index, listener)| self.listener(listener, &at.index(index))).collect()
    }

    fn listener(&mut self, raw: &raw::Listener, at: &Path) -> Listener {
        let address = self.listen_address(&raw.address, "0.0.0.0", &at.key("address"));
        let name = match raw.name.is_empty() {
            true => address.to_string(),
            false => {
                self.name(&raw.name, &at.key("name"));
                raw.name.clone()
            }
        };
        if raw.redirect_https && raw.tls.is_some() {
            self.refuse_place(
                &at.key("redirect_https"),
                "would send TLS clients round in circles",
                "set it on the plain listener, not on the one with tls",
            );
        }
        Listener {
            name,
            address,
            proxy_protocol: raw.proxy_protocol,
            http2: raw.http2,
            redirect_https: raw.redirect_https,
            tls: raw.tls.as_ref().map(|tls| self.listener_tls(tls, &at.key("tls"))),
        }
    }

    fn listener_tls(&mut self, raw: &raw::ListenerTls, at: &Path) -> ListenerTls {
        let place = at.key("certificates");
        if raw.certificates.is_empty() && !self.is_spoilt(&place.index(0)) {
            self.missing(&place, "write certificates = [{ cert = \"tls/site.pem\", key = \"tls/site.key\" }]");
        }
        let each = raw.certificates.iter().enumerate();
        let certificates = each.map(|(index, pair)| self.certificate_pair(pair, &place.index(index))).collect();
        ListenerTls {
            certificates,
            min_version: match raw.min_version {
                raw::TlsVersion::Tls12 => TlsVersion::Tls12,
                raw::TlsVersion::Tls13 => TlsVersion::Tls13,
            },
            client_auth: raw.client_auth.as_ref().map(|auth| ClientAuth {
                ca: self.file_path(&auth.ca, &at.key("client_auth").key("ca")),
                mode: match auth.mode {
                    raw::ClientAuthMode::Require => ClientAuthMode::Require,
                    raw::ClientAuthMode::Optional => ClientAuthMode::Optional,
                },
            }),
            hsts: self.duration(&raw.hsts, &at.key("hsts")),
        }
    }

    pub(super) fn certificate_pair(&mut self, raw: &raw::CertificatePair, at: &Path) -> CertificatePair {
        CertificatePair {
            cert: self.file_path(&raw.cert, &at.key("cert")),
            key: self.file_path(&raw.key, &at.key("key")),
        }
    }
}
