//! Whose certificate is believed, where the roots that everybody here trusts are not asked.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::Roots;

/// Believes certificates by its rule; that the other side has the key to one is verified in any case.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    believed: Believed,
}

#[derive(Debug)]
enum Believed {
    /// `insecure = true`: whoever answers, as the operator asked.
    Anybody,
    /// `ca = "…"`: what the authorities there have signed, and what is listed there itself. An app's own self-signed
    /// certificate is mostly an authority's too (`openssl req -x509` makes it one), and such a one webpki takes for no
    /// server's.
    Listed { authorities: Arc<WebPkiServerVerifier>, certificates: Vec<CertificateDer<'static>> },
}

impl Verifier {
    pub(super) fn of_anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, believed: Believed::Anybody }
    }

    pub(super) fn of_listed(roots: Roots, provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let Roots { store, certificates, .. } = roots;
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        let authorities = builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { provider, believed: Believed::Listed { authorities, certificates } })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.believed {
            Believed::Anybody => {}
            Believed::Listed { certificates, .. } if certificates.contains(certificate) => {
                is_in_force(certificate, now)?;
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            Believed::Listed { authorities, .. } => {
                return authorities.verify_server_cert(certificate, intermediates, name, ocsp, now);
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_in_force(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    match () {
        () if now < validity.not_before.timestamp() => Err(CertificateError::NotValidYet),
        () if now > validity.not_after.timestamp() => Err(CertificateError::Expired),
        () => Ok(()),
    }
}
