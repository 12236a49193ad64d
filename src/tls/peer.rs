//! What a handshake told of the client, kept for its requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::ServerConnection;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Admission;
use super::names::distinguished_name;
use crate::message::host::Host;

/// A subject beyond this is not passed on: what cannot be read whole must not be believed in part.
const SUBJECT_BYTES_MAX: usize = 4 * 1024;
/// The same for the certificate, as DER.
const CERTIFICATE_BYTES_MAX: usize = 12 * 1024;

/// The client's side of one handshake.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The name it asked for, lower-case and without a dot at the end; `None` = it asked for none.
    pub(crate) server_name: Option<Box<str>>,
    /// By what it was let in, where it had to show a certificate or could have.
    pub(crate) admission: Option<Admission>,
    /// Its certificate, which the listener's authorities have signed.
    pub(crate) certificate: Option<ClientCertificate>,
}

/// A client's certificate as the app is told of it.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// RFC 4514; `None` when it is too long.
    pub(crate) subject: Option<HeaderValue>,
    /// The whole of it: `:BASE64:` (RFC 9440, section 2.2); `None` when it is too long.
    pub(crate) whole: Option<HeaderValue>,
}

impl Peer {
    /// To be called after the handshake.
    pub(crate) fn of(connection: &ServerConnection, admission: Option<Admission>) -> Box<Self> {
        let server_name = connection.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
        // Without a verifier there are none, and nothing that has not been verified is here.
        let certificate = connection.peer_certificates().and_then(|chain| ClientCertificate::of(chain.first()?));
        Box::new(Self { server_name, admission, certificate })
    }

    pub(crate) fn is_asked_for_certificate(&self) -> bool {
        self.admission.is_some()
    }

    /// Whether a request for this host may come over this connection (RFC 9110, section 7.4): where certificates are
    /// asked for, the name that was agreed on in the handshake must be the one that is used.
    pub(crate) fn may_ask_for(&self, host: &Host) -> bool {
        !self.is_asked_for_certificate() || self.server_name.as_deref().is_none_or(|name| name == host.name())
    }
}

impl ClientCertificate {
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = distinguished_name(parsed.subject());
        let subject = (subject.len() <= SUBJECT_BYTES_MAX).then(|| HeaderValue::try_from(subject).ok()).flatten();
        let whole = (certificate.len() <= CERTIFICATE_BYTES_MAX)
            .then(|| HeaderValue::try_from(format!(":{}:", STANDARD.encode(certificate))).ok())
            .flatten();
        Some(Self { subject, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(server_name: Option<&str>, is_asked_for_certificate: bool) -> Peer {
        let admission = is_asked_for_certificate.then(Admission::of_some);
        Peer { server_name: server_name.map(Into::into), admission, certificate: None }
    }

    fn host(name: &str) -> Host {
        Host::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn where_certificates_are_asked_for_a_name_stands_for_itself_alone() {
        assert!(peer(Some("a.example"), true).may_ask_for(&host("a.example")));
        assert!(!peer(Some("a.example"), true).may_ask_for(&host("b.example")));
        assert!(peer(None, true).may_ask_for(&host("b.example")));
        assert!(peer(Some("a.example"), false).may_ask_for(&host("b.example")));
    }
}
