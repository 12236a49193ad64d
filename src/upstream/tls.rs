//! TLS towards endpoints. Follows its files while it serves: who has a private CA renews often, and a certificate of
//! our own that has ended is let in nowhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;

use super::verifier::Verifier;
use crate::config::model::{Address, UpstreamTls};
use crate::tls::{
    CertificateFacts, Digest, Fault, Finding, TlsError, digest_of_files, faults_of_pair, read_authorities, read_pair,
    read_roots, trusted_roots,
};

/// An upstream's TLS settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    #[error(transparent)]
    File(#[from] TlsError),
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// What is asked for by ALPN.
fn alpn(http2: bool) -> &'static [u8] {
    if http2 { b"h2" } else { b"http/1.1" }
}

/// An upstream's TLS, ready to connect.
#[derive(Debug)]
pub struct Originator {
    settings: UpstreamTls,
    alpn: &'static [u8],
    /// Held only to take or exchange the pointer.
    state: RwLock<State>,
}

/// What the files said when they were last well.
#[derive(Debug)]
struct State {
    config: Arc<ClientConfig>,
    digest: Digest,
    /// Of our own certificate, where there is one.
    facts: Option<CertificateFacts>,
}

impl Originator {
    /// Reads the files and builds the configuration.
    ///
    /// # Errors
    /// A CA, certificate or key can't be used.
    pub(crate) fn build(settings: &UpstreamTls, http2: bool) -> Result<Self, UpstreamTlsError> {
        let (settings, alpn) = (settings.clone(), alpn(http2));
        // Read first: what changes in between is then seen as new.
        let digest = digest_of_files(&files_of(&settings))?;
        let (config, facts) = client_config(&settings, alpn)?;
        Ok(Self { settings, alpn, state: RwLock::new(State { config, digest, facts }) })
    }

    /// The roots that are trusted without a CA, and nothing special.
    pub(super) fn of_the_web() -> Result<Self, UpstreamTlsError> {
        Self::build(&UpstreamTls { server_name: None, ca: None, client: None, insecure: false }, false)
    }

    /// What the next handshake goes by.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.state.read().config)
    }

    /// Whose certificate is asked for at this address, and must come.
    pub(super) fn server_name(&self, address: &Address) -> Result<ServerName<'static>, UpstreamTlsError> {
        let name = match (&self.settings.server_name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Name { host, .. }) => host.clone(),
            (None, Address::Socket(address)) => address.ip().to_string(),
            (None, Address::Unix(_)) => "localhost".to_owned(),
        };
        let wrong = "server_name is neither a DNS name nor an address";
        ServerName::try_from(name).map_err(|_| rustls::Error::General(wrong.into()).into())
    }

    /// Every file it is made of.
    pub fn files(&self) -> Vec<PathBuf> {
        files_of(&self.settings).into_iter().map(Path::to_path_buf).collect()
    }

    /// Of the certificate in force that is shown to endpoints, if there is one.
    pub fn certificate(&self) -> Option<CertificateFacts> {
        self.state.read().facts.clone()
    }

    /// Looks at the files and takes them when they are new and well. One task at a time.
    pub fn refresh(&self) -> Option<Finding> {
        let files = files_of(&self.settings);
        let file = files.first()?.to_path_buf();
        let outcome = match self.take(&files) {
            Ok(false) => return None,
            taken => taken,
        };
        // Of what serves from now on: a file that was not taken may hold anybody's certificate.
        let facts = self.certificate();
        let domain = facts.as_ref().map_or_else(|| file.display().to_string(), CertificateFacts::domain);
        let until = || facts.map(|facts| facts.until()).unwrap_or_default();
        Some(Finding { file, domain, outcome: outcome.map(|_| until()) })
    }

    /// Whether there was something new to take.
    fn take(&self, files: &[&Path]) -> Result<bool, TlsError> {
        let digest = digest_of_files(files)?;
        if self.state.read().digest == digest {
            return Ok(false);
        }
        let (config, facts) = client_config(&self.settings, self.alpn).map_err(TlsError::from)?;
        *self.state.write() = State { config, digest, facts };
        Ok(true)
    }
}

/// All that is wrong with the files of `settings`, or `error` where that is none of them.
pub(super) fn faults(settings: &UpstreamTls, error: UpstreamTlsError) -> Vec<Fault> {
    let mut faults: Vec<_> = settings.client.iter().flat_map(|pair| faults_of_pair(pair, "client")).collect();
    let ca = settings.ca.as_deref().filter(|_| !settings.insecure);
    faults.extend(ca.and_then(|ca| read_roots(ca).err()).map(|error| Fault::new("ca", error)));
    if faults.is_empty() { vec![Fault::new("", error)] } else { faults }
}

/// Our own certificate first: it is what a finding is named for.
fn files_of(settings: &UpstreamTls) -> Vec<&Path> {
    let own = settings.client.iter().flat_map(|pair| [pair.cert.as_path(), pair.key.as_path()]);
    let ca = settings.ca.as_deref().filter(|_| !settings.insecure);
    own.chain(ca).collect()
}

impl From<UpstreamTlsError> for TlsError {
    fn from(error: UpstreamTlsError) -> Self {
        match error {
            UpstreamTlsError::File(error) => error,
            UpstreamTlsError::Library(error) => error.into(),
        }
    }
}

/// Builds the client side: a private CA or the roots that everybody here trusts, our own certificate where one is given,
/// with its facts.
fn client_config(
    tls: &UpstreamTls,
    alpn: &'static [u8],
) -> Result<(Arc<ClientConfig>, Option<CertificateFacts>), UpstreamTlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier = match &tls.ca {
        _ if tls.insecure => Some(Verifier::of_anybody(provider)),
        Some(file) => Some(Verifier::of_listed(read_authorities(file)?, provider)?),
        None => None,
    };
    let builder = match verifier {
        Some(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
        None => builder.with_root_certificates(trusted_roots()),
    };
    let (mut config, facts) = match &tls.client {
        Some(pair) => {
            let (key, facts) = read_pair(pair)?;
            (builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))), Some(facts))
        }
        None => (builder.with_no_client_auth(), None),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok((Arc::new(config), facts))
}
