//! The serde mirror of the TOML. Its doc comments are the schema's descriptions; its defaults are the defaults.
//!
//! Nothing here is checked beyond its type: that is [`super::shape`] (types, sets, ranges) and
//! [`super::check`] (meaning). Empty text stands for "not given".

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod listener;
mod policy;
mod route;
mod text;
mod upstream;

pub(super) use listener::*;
pub(super) use policy::*;
pub(super) use route::*;
pub(super) use text::*;
pub(super) use upstream::*;

/// Flagstone's configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Flagstone configuration")]
pub(super) struct File {
    /// Further files, as patterns from this one's folder: "routes/*.toml". Their tables stand beside this file's.
    pub(super) include: Vec<String>,
    /// The process as a whole.
    pub(super) server: Server,
    /// The admin side: health, status, metrics, API and dashboard.
    pub(super) admin: Admin,
    /// Event log and access log.
    pub(super) log: Log,
    /// Whom to believe about the client's address.
    pub(super) client_ip: ClientIp,
    /// How long to wait for what; a route may override each.
    pub(super) timeouts: Timeouts,
    /// How much a request may take.
    pub(super) bounds: Bounds,
    /// Where connections are accepted.
    pub(super) listener: Vec<Listener>,
    /// What happens to requests. Most specific wins: exact host > wildcard > any, then exact path > longest prefix.
    pub(super) route: Vec<Route>,
    /// Named groups of endpoints.
    pub(super) upstream: BTreeMap<String, Upstream>,
    /// Named rate and concurrency limits.
    pub(super) limit: BTreeMap<String, Limit>,
    /// The shared store of limits for several instances.
    pub(super) redis: Redis,
    /// Feature switches and their defaults; runtime values live in state_dir.
    pub(super) features: BTreeMap<String, bool>,
    /// The maintenance switch and its page.
    pub(super) maintenance: Maintenance,
    /// Further things /api/health reports on.
    pub(super) probe: BTreeMap<String, Probe>,
    /// Non-critical checks of the machine in /api/health; 0 = off.
    pub(super) host: Host,
    /// Webhooks.
    pub(super) notify: Vec<Notify>,
    /// Traces of requests, exported by OTLP.
    pub(super) trace: Trace,
    /// Watching certificates expire.
    pub(super) certificates: Certificates,
    /// Run by check and before every reload; a failing test refuses the reload.
    pub(super) test: Vec<Test>,
}

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Event-loop threads; 0 = one per available CPU.
    #[schemars(range(max = 1024))]
    pub(super) workers: u32,
    /// Folder of flag files and runtime overrides; created when missing.
    pub(super) state_dir: String,
    /// After SIGTERM: /readyz says 503, still accepting.
    pub(super) shutdown_delay: Duration,
    /// Then in-flight requests and streams get this long.
    pub(super) shutdown_grace: Duration,
    /// Downstream connections, over all listeners.
    #[schemars(range(min = 1))]
    pub(super) max_connections: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: 0,
            state_dir: "/run/flagstone".into(),
            shutdown_delay: "0s".into(),
            shutdown_grace: "30s".into(),
            max_connections: 16384,
        }
    }
}

/// The admin side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// "127.0.0.1:9900", "unix:/run/flagstone/admin.sock", or "" for none.
    pub(super) listen: String,
    /// Bearer token; required unless loopback or unix.
    pub(super) token: String,
    /// Further Host names, beyond loopback names, that the admin side answers to.
    pub(super) allowed_hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9900".into(), token: String::new(), allowed_hosts: Vec::new() }
    }
}

/// Event log and access log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// off, error, warn, info, debug or trace, which a release answers with debug; or per-module directives,
    /// "info,flagstone::upstream=debug".
    pub(super) level: String,
    /// How events are written.
    pub(super) format: LogFormat,
    /// "stdout", "stderr", "off" or a file.
    pub(super) access: String,
    /// nginx's combined, byte for byte; or JSON.
    pub(super) access_format: AccessFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
            access: "stdout".into(),
            access_format: AccessFormat::Combined,
        }
    }
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// How access log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AccessFormat {
    Combined,
    Json,
}

/// Whom to believe about the client's address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientIp {
    /// CIDRs that may speak for a client.
    pub(super) trusted_proxies: Vec<String>,
    /// The header they name it in.
    pub(super) header: ClientIpHeader,
}

impl Default for ClientIp {
    fn default() -> Self {
        Self { trusted_proxies: Vec::new(), header: ClientIpHeader::XForwardedFor }
    }
}

/// The header that names the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub(super) enum ClientIpHeader {
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    Forwarded,
    #[serde(rename = "X-Real-IP")]
    XRealIp,
}

/// How long to wait for what. Each above zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub(super) tls_handshake: Duration,
    /// From the first moment of the connection, or of the next request.
    pub(super) request_head: Duration,
    /// Between two reads.
    pub(super) request_body: Duration,
    /// Keep-alive connection without a request.
    pub(super) idle: Duration,
    /// To connect to an endpoint.
    pub(super) connect: Duration,
    /// From the request sent to the answer's head.
    pub(super) response_head: Duration,
    /// Between two reads.
    pub(super) response_body: Duration,
    /// Upgraded connections (WebSocket) without a byte either way.
    pub(super) stream_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake: "10s".into(),
            request_head: "10s".into(),
            request_body: "30s".into(),
            idle: "75s".into(),
            connect: "3s".into(),
            response_head: "60s".into(),
            response_body: "60s".into(),
            stream_idle: "1h".into(),
        }
    }
}

/// How much a request may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Bounds {
    /// All header lines of a request together.
    pub(super) max_header_bytes: Size,
    /// Header lines of a request.
    #[schemars(range(min = 1, max = 10000))]
    pub(super) max_headers: u32,
    /// The request target.
    pub(super) max_uri_bytes: Size,
    /// A request body; a route may override; 0 = no bound.
    pub(super) max_body: Size,
    /// Concurrent HTTP/2 streams of one connection.
    #[schemars(range(min = 1, max = 65535))]
    pub(super) h2_max_streams: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_header_bytes: "32KiB".into(),
            max_headers: 100,
            max_uri_bytes: "8KiB".into(),
            max_body: "16MiB".into(),
            h2_max_streams: 128,
        }
    }
}

/// Watching certificates expire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Certificates {
    /// Warn when fewer days are left.
    #[schemars(range(max = 3650))]
    pub(super) warn_days: u32,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { warn_days: 30 }
    }
}

/// Traces of requests, exported by OTLP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Trace {
    /// Where spans go, by OTLP over HTTP: "http://collector:4318" (/v1/traces where it has no path); "" = no tracing.
    pub(super) otlp: String,
    /// Share of the traces begun here that are recorded; one that a client has begun follows its own sampled flag.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) sample: f64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { otlp: String::new(), sample: 0.01 }
    }
}

impl File {
    /// One listener, one upstream `app`, one route `all` between them.
    pub(super) fn quick(listen: String, upstream: String) -> Self {
        let upstream = Upstream { endpoints: vec![Endpoint::Address(upstream)], ..Upstream::default() };
        let route = Route { name: "all".to_owned(), upstream: Some("app".to_owned()), ..Route::default() };
        Self {
            listener: vec![Listener { address: listen, ..Listener::default() }],
            route: vec![route],
            upstream: [("app".to_owned(), upstream)].into(),
            ..Self::default()
        }
    }
}

/// A list of texts, for defaults.
fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}
