//! A listener's TLS: its certificates, its authorities for clients, its tickets. Follows its files while it serves.
//!
//! | what changed | handshakes from then on | tickets from before |
//! |---|---|---|
//! | a certificate or key, well | the new pair | resume |
//! | a certificate or key, badly | the old pair | resume |
//! | the authorities, well | the new ones decide | full handshake: who was let in then may not be now, on kept connections neither ([`Admission`]) |
//! | the authorities, badly | the old ones decide | resume |
//!
//! A ticket resumes only for the name that it was made for (rustls compares them, RFC 6066, section 3) and only at
//! its own listener, whose ticket keys are its own. They are replaced every six hours and good for twelve.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::by_name::ByName;
use super::pem::{self, Digest, Sources};
use super::{CertificateFacts, Fault, TlsError};
use crate::config::model::{CertificatePair, ClientAuth, ClientAuthMode, ListenerTls, TlsVersion};

/// A listener's TLS, ready to accept.
#[derive(Debug)]
pub struct Terminator {
    settings: ListenerTls,
    protocols: Vec<Vec<u8>>,
    /// Held only to take or exchange the pointer.
    state: RwLock<Arc<State>>,
}

/// What the files said when they were last well.
#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// As in the settings.
    pairs: Vec<Loaded>,
    clients: Option<Clients>,
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Clone, Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    facts: CertificateFacts,
    digest: Digest,
}

/// Who may sign for clients.
#[derive(Clone, Debug)]
struct Clients {
    auth: ClientAuth,
    roots: Arc<RootCertStore>,
    digest: Digest,
}

/// By what clients are let in: whether all of them need a certificate, and who may have signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    mode: ClientAuthMode,
    authorities: Digest,
}

#[cfg(test)]
impl Admission {
    pub(super) fn of_some() -> Self {
        Self { mode: ClientAuthMode::Require, authorities: Digest::default() }
    }
}

/// A file that is no longer what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The certificate's, or the authorities'.
    pub file: PathBuf,
    /// Of the certificate that serves; the file's name for authorities.
    pub domain: String,
    /// The end of what serves from now on, or why the old one serves on.
    pub outcome: Result<String, TlsError>,
}

impl Terminator {
    /// Reads every file and builds the configuration. `previous` lends its ticket keys where the same clients are let
    /// in. `protocols` are what ALPN offers, the best first.
    ///
    /// # Errors
    /// A file can't be read or parsed, holds nothing of its kind, or certificate and key don't match: all of it.
    pub(crate) fn build(
        settings: &ListenerTls,
        protocols: &[&[u8]],
        previous: Option<&Self>,
    ) -> Result<Self, Vec<Fault>> {
        let (mut pairs, mut faults) = (Vec::new(), Vec::new());
        for (index, pair) in settings.certificates.iter().enumerate() {
            match Sources::read(pair).and_then(|sources| sources.parse(pair)) {
                Ok(read) => pairs.push(Loaded::from(read)),
                Err(error) => {
                    let at = format!("certificates[{index}]");
                    let found = pem::faults_of_pair(pair, &at);
                    // Mended in this very moment, it was still not well when it was read.
                    faults.extend(if found.is_empty() { vec![Fault::new(at, error)] } else { found });
                }
            }
        }
        let clients = settings.client_auth.as_ref().map(Clients::read).transpose();
        let clients = clients.map_err(|error| faults.push(Fault::new("client_auth.ca", error))).ok().flatten();
        if !faults.is_empty() {
            return Err(faults);
        }
        let whole = |error: TlsError| vec![Fault::new("", error)];
        let previous = previous.map(Self::state);
        let lent = previous.filter(|previous| previous.admission() == clients.as_ref().map(Clients::admission));
        let tickets = match lent {
            Some(previous) => Arc::clone(&previous.tickets),
            None => aws_lc_rs::Ticketer::new().map_err(|error| whole(error.into()))?,
        };
        let protocols: Vec<_> = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let state = State::assemble(settings, &protocols, pairs, clients, tickets).map_err(whole)?;
        Ok(Self { settings: settings.clone(), protocols, state: RwLock::new(Arc::new(state)) })
    }

    /// What the next handshake goes by, and by what it lets a client in.
    pub(crate) fn to_accept(&self) -> (Arc<ServerConfig>, Option<Admission>) {
        let state = self.state();
        (Arc::clone(&state.config), state.admission())
    }

    /// By what clients are let in now; `None` where none is asked for a certificate.
    pub(crate) fn admission(&self) -> Option<Admission> {
        self.state().admission()
    }

    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.settings.client_auth.is_some()
    }

    /// The certificates that serve, in the order of the file.
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        self.state().pairs.iter().map(|pair| pair.facts.clone()).collect()
    }

    /// Every file it is made of.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.settings.certificates.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        pairs.chain(self.settings.client_auth.iter().map(|auth| &auth.ca))
    }

    /// Looks at every file and takes what is new and well. One task at a time.
    pub fn refresh(&self) -> Vec<Finding> {
        let state = self.state();
        let (mut pairs, mut clients) = (state.pairs.clone(), state.clients.clone());
        let mut findings = Vec::new();
        for (pair, loaded) in self.settings.certificates.iter().zip(&mut pairs) {
            findings.extend(loaded.refresh(pair));
        }
        let mut tickets = Arc::clone(&state.tickets);
        if let Some(clients) = &mut clients
            && let Some(finding) = clients.refresh()
        {
            if finding.outcome.is_ok() {
                match aws_lc_rs::Ticketer::new() {
                    Ok(new) => tickets = new,
                    Err(error) => return vec![Finding { outcome: Err(error.into()), ..finding }],
                }
            }
            findings.push(finding);
        }
        if findings.iter().any(|finding| finding.outcome.is_ok()) {
            match State::assemble(&self.settings, &self.protocols, pairs, clients, tickets) {
                Ok(new) => *self.state.write() = Arc::new(new),
                Err(error) => findings.iter_mut().for_each(|finding| finding.outcome = Err(error.clone())),
            }
        }
        findings
    }

    /// Certificates of this one that were others in `previous`.
    pub fn changed_since(&self, previous: &Self) -> Vec<CertificateFacts> {
        let before = previous.state();
        let is_new = |pair: &&Loaded| {
            let same_file = before.pairs.iter().find(|other| other.facts.file == pair.facts.file);
            same_file.is_some_and(|other| other.digest != pair.digest)
        };
        self.state().pairs.iter().filter(is_new).map(|pair| pair.facts.clone()).collect()
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }
}

impl State {
    fn assemble(
        settings: &ListenerTls,
        protocols: &[Vec<u8>],
        pairs: Vec<Loaded>,
        clients: Option<Clients>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Self, TlsError> {
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut by_name = ByName::default();
        for pair in &pairs {
            by_name.add(&pair.key, &pair.facts.names);
        }
        let mut config = builder.with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = protocols.to_vec();
        config.ticketer = Arc::clone(&tickets);
        Ok(Self { config: Arc::new(config), pairs, clients, tickets })
    }

    fn admission(&self) -> Option<Admission> {
        self.clients.as_ref().map(Clients::admission)
    }
}

impl From<pem::Pair> for Loaded {
    fn from(pair: pem::Pair) -> Self {
        Self { key: Arc::new(pair.certified), facts: pair.facts, digest: pair.digest }
    }
}

impl Loaded {
    /// Takes what is in the files now, when it is something new that can be used.
    fn refresh(&mut self, pair: &CertificatePair) -> Option<Finding> {
        let read = match Sources::read(pair) {
            Ok(sources) if sources.digest() == self.digest => return None,
            read => read.and_then(|sources| sources.parse(pair)),
        };
        let outcome = read.map(|new| {
            *self = new.into();
            self.facts.until()
        });
        Some(Finding { file: pair.cert.clone(), domain: self.facts.domain(), outcome })
    }
}

impl Clients {
    fn read(auth: &ClientAuth) -> Result<Self, TlsError> {
        let read = pem::read_authorities(&auth.ca)?;
        let clients = Self { auth: auth.clone(), roots: Arc::new(read.store), digest: read.digest };
        // A verifier that cannot be built is found while the old one still serves.
        clients.verifier(Arc::new(aws_lc_rs::default_provider()))?;
        Ok(clients)
    }

    fn refresh(&mut self) -> Option<Finding> {
        let outcome = match Self::read(&self.auth) {
            Ok(new) if new.digest == self.digest => return None,
            Ok(new) => {
                *self = new;
                Ok(String::new())
            }
            Err(error) => Err(error),
        };
        let file = self.auth.ca.clone();
        Some(Finding { domain: file.display().to_string(), file, outcome })
    }

    fn admission(&self) -> Admission {
        Admission { mode: self.auth.mode, authorities: self.digest }
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider);
        let builder = match self.auth.mode {
            ClientAuthMode::Require => builder,
            ClientAuthMode::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|error| TlsError::Unusable { file: self.auth.ca.clone(), reason: error.to_string() })
    }
}
