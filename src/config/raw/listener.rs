//! `[[listener]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// One place where connections are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Listener {
    /// Unique; default: its address.
    pub(in super::super) name: String,
    /// "0.0.0.0:8080", "[::]:443" or "unix:/path".
    pub(in super::super) address: String,
    /// PROXY protocol v1 and v2, only from client_ip.trusted_proxies.
    pub(in super::super) proxy_protocol: bool,
    /// ALPN h2 on TLS, prior knowledge on plain.
    pub(in super::super) http2: bool,
    /// Answer 308 to https:// (ACME paths and exempt paths aside).
    pub(in super::super) redirect_https: bool,
    /// Serve TLS; absent = plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) tls: Option<ListenerTls>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: "0.0.0.0:8080".into(),
            proxy_protocol: false,
            http2: true,
            redirect_https: false,
            tls: None,
        }
    }
}

/// How a listener serves TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificates"]))]
pub(in super::super) struct ListenerTls {
    /// At least one; chosen by SNI from the certificate's names.
    #[schemars(required, length(min = 1))]
    pub(in super::super) certificates: Vec<CertificatePair>,
    /// Oldest TLS version accepted.
    pub(in super::super) min_version: TlsVersion,
    /// Ask clients for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) client_auth: Option<ClientAuth>,
    /// max-age of Strict-Transport-Security; 0 = no header.
    pub(in super::super) hsts: Duration,
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self { certificates: Vec::new(), min_version: TlsVersion::Tls12, client_auth: None, hsts: "0s".into() }
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(in super::super) struct CertificatePair {
    /// File with the certificate and its chain.
    #[schemars(required, length(min = 1))]
    pub(in super::super) cert: String,
    /// File with the private key.
    #[schemars(required, length(min = 1))]
    pub(in super::super) key: String,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["ca"]))]
pub(in super::super) struct ClientAuth {
    /// PEM file of the authorities that sign client certificates.
    #[schemars(required, length(min = 1))]
    pub(in super::super) ca: String,
    /// Whether a client may come without one.
    pub(in super::super) mode: ClientAuthMode,
}

impl Default for ClientAuth {
    fn default() -> Self {
        Self { ca: String::new(), mode: ClientAuthMode::Require }
    }
}

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum ClientAuthMode {
    Require,
    Optional,
}
