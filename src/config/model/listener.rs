//! `[[listener]]`.

use std::path::PathBuf;
use std::time::Duration;

use super::Address;

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique.
    pub name: String,
    /// Never [`Address::Name`].
    pub address: Address,
    pub proxy_protocol: bool,
    pub http2: bool,
    pub redirect_https: bool,
    pub tls: Option<ListenerTls>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// At least one.
    pub certificates: Vec<CertificatePair>,
    pub min_version: TlsVersion,
    pub client_auth: Option<ClientAuth>,
    /// Zero = no header.
    pub hsts: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuth {
    pub ca: PathBuf,
    pub mode: ClientAuthMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMode {
    Require,
    Optional,
}
