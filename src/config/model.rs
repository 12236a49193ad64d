//! The typed configuration: what the TOML means, proven.
//!
//! Every value here has been parsed and checked by [`super::check`]; nothing in this file knows serde,
//! TOML, files or the environment. Cross-references (a route's upstream, a route's limits) are names that
//! are known to exist. Paths are absolute or relative to the process's folder, never to the file's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::problem::suggest;

/// One whole configuration, as one file (or the command line) described it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub log: Log,
    pub client_ip: ClientIp,
    /// The defaults that routes start from; the connection-level ones are used as they are.
    pub timeouts: Timeouts,
    pub bounds: Bounds,
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    pub upstreams: BTreeMap<String, Upstream>,
    pub limits: BTreeMap<String, Limit>,
    pub redis: Redis,
    pub features: BTreeMap<String, bool>,
    pub maintenance: Maintenance,
    pub probes: BTreeMap<String, Probe>,
    pub host: Host,
    pub notify: Vec<Notify>,
    pub trace: Trace,
    pub certificates: Certificates,
    pub tests: Vec<RouteTest>,
}

impl Config {
    /// In the order of the file.
    pub fn route_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.routes.iter().map(|route| route.name.as_str())
    }

    /// What to tell who names a route that there is not.
    pub fn no_route(&self, name: &str) -> String {
        format!("there is no route {name:?}: {}", suggest(name, self.route_names()))
    }
}

/// An address to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An address and port that need no resolver.
    Socket(SocketAddr),
    /// A name to resolve, lower-case, and a port. Never occurs in a listener.
    Name { host: String, port: u16 },
    /// A unix stream socket.
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Event-loop threads; `None` = one per available CPU.
    pub workers: Option<NonZeroUsize>,
    pub state_dir: PathBuf,
    pub shutdown_delay: Duration,
    pub shutdown_grace: Duration,
    /// Downstream connections over all listeners.
    pub max_connections: NonZeroUsize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None` = no admin side.
    pub listen: Option<Address>,
    pub token: Option<Secret>,
    pub allowed_hosts: Vec<String>,
}

/// Text that is never shown: `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Directives of `tracing_subscriber::filter::Targets`, known to parse.
    pub level: String,
    pub format: LogFormat,
    pub access: AccessLogTarget,
    pub access_format: AccessFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    Stdout,
    Stderr,
    Off,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// nginx's `combined`, byte for byte.
    Combined,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClientIp {
    pub trusted_proxies: Vec<IpNet>,
    pub header: ClientIpHeader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIpHeader {
    XForwardedFor,
    Forwarded,
    XRealIp,
}

/// Each is above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tls_handshake: Duration,
    pub request_head: Duration,
    pub request_body: Duration,
    pub idle: Duration,
    pub connect: Duration,
    pub response_head: Duration,
    pub response_body: Duration,
    pub stream_idle: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub header_bytes_max: usize,
    pub headers_max: usize,
    pub uri_bytes_max: usize,
    /// `None` = no bound.
    pub body_bytes_max: Option<u64>,
    pub h2_streams_max: NonZeroU32,
}

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

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique.
    pub name: String,
    /// Lower-case names, `*.`-wildcards included; empty = any.
    pub hosts: Vec<String>,
    /// As written: `/api` or `=/exact`. At least one.
    pub paths: Vec<String>,
    /// Empty = any.
    pub methods: Vec<Method>,
    pub action: Action,
    /// Removed before forwarding; starts with `/`, has no trailing slash.
    pub strip_prefix: Option<String>,
    pub preserve_host: bool,
    /// Names of [`Config::limits`].
    pub limits: Vec<String>,
    /// Key of [`Config::features`].
    pub feature: Option<String>,
    pub maintenance_exempt: bool,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// The file's `[timeouts]` with this route's own laid over.
    pub timeouts: Timeouts,
    /// `None` = no bound.
    pub body_bytes_max: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Name of one of [`Config::upstreams`].
    Upstream(String),
    Files(Files),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    pub root: PathBuf,
    pub index: String,
    /// Empty = `["$uri"]` with the index for folders.
    pub try_paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// May contain `$uri` (path and query), `$path`, `$query`, `$host` and `$scheme`.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    pub status: StatusCode,
    pub body: String,
    pub content_type: HeaderValue,
}

/// Applied in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// At least one, at least one of them not a backup.
    pub endpoints: Vec<Endpoint>,
    pub critical: bool,
    pub tls: Option<UpstreamTls>,
    pub http2: bool,
    pub balance: Balance,
    pub affinity_cookie: Option<String>,
    pub dns_refresh: Duration,
    /// Kept connections per endpoint, over all workers.
    pub max_idle: usize,
    pub idle_timeout: Duration,
    /// Per endpoint; `None` = no bound.
    pub max_in_flight: Option<NonZeroU32>,
    pub hold: Duration,
    pub slow_start: Duration,
    pub health: Option<Health>,
    pub ejection: Ejection,
    pub breaker: Breaker,
    pub retry: Retry,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: Address,
    /// 1 to 65,535.
    pub weight: NonZeroU32,
    pub backup: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// `None` = the endpoint's own name.
    pub server_name: Option<String>,
    /// `None` = the built-in roots.
    pub ca: Option<PathBuf>,
    /// Our own certificate and key, for an upstream that asks for one.
    pub client: Option<CertificatePair>,
    pub insecure: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Balance {
    LeastRequests,
    RoundRobin,
    PeakEwma,
    Hash(HashKey),
}

#[derive(Clone, Debug, PartialEq)]
pub enum HashKey {
    ClientIp,
    Header(HeaderName),
    Cookie(String),
    Uri,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    pub kind: HealthKind,
    pub interval: Duration,
    pub timeout: Duration,
    pub healthy_after: NonZeroU32,
    pub unhealthy_after: NonZeroU32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HealthKind {
    Http { path: String, expect: StatusRanges },
    Tcp,
}

/// Statuses, as inclusive ranges: `"200-399"`, `"200,204"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRanges(pub Vec<(u16, u16)>);

impl StatusRanges {
    pub fn contains(&self, status: StatusCode) -> bool {
        let code = status.as_u16();
        self.0.iter().any(|&(low, high)| (low..=high).contains(&code))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    /// Consecutive failures; `None` (0 in the file) = never eject.
    pub failures: Option<NonZeroU32>,
    pub base: Duration,
    pub max: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    pub enabled: bool,
    /// Consecutive failures; `None` (0 in the file) = this rule is off.
    pub failures: Option<NonZeroU32>,
    /// Above 0, at most 1; `None` (0 in the file) = this rule is off.
    pub failure_ratio: Option<f64>,
    pub min_requests: NonZeroU32,
    pub window: Duration,
    /// `None` = slow calls are no failures.
    pub slow_call: Option<Duration>,
    pub open: Duration,
    pub max_open: Duration,
    pub probes: NonZeroU32,
    pub ramp: Duration,
    pub count: FailureClasses,
    pub shadow: bool,
    /// Name of another of [`Config::upstreams`].
    pub fallback: Option<String>,
}

/// What counts: `["connect", "timeout", "reset", "500-599"]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailureClasses {
    pub connect: bool,
    pub timeout: bool,
    /// For a breaker `reset`, for retries `reset_before_response`.
    pub reset: bool,
    pub statuses: StatusRanges,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Further tries.
    pub attempts: u32,
    pub on: FailureClasses,
    pub methods: Vec<Method>,
    /// Share of live requests that may be retries, at least 3; 0 to 1.
    pub budget: f64,
    pub replay_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// At least one part.
    pub key: Vec<LimitKey>,
    pub rate: Rate,
    pub burst: NonZeroU32,
    pub queue: u32,
    /// Requests in flight per key; `None` = no bound.
    pub concurrency: Option<NonZeroU32>,
    /// 1 to 128.
    pub ipv6_prefix: u8,
    pub exempt: Vec<IpNet>,
    pub keys_max: NonZeroUsize,
    pub shadow: bool,
    pub store: LimitStore,
    pub status: StatusCode,
}

/// `count` in `period`, both above zero: `"100/1m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub period: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LimitKey {
    ClientIp,
    Global,
    Route,
    Header(HeaderName),
    Cookie(String),
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitStore {
    Local,
    Redis,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    pub url: Option<Secret>,
    /// `None` = the built-in roots, or those of the environment.
    pub ca: Option<PathBuf>,
    pub timeout: Duration,
    pub on_error: RedisOnError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisOnError {
    Local,
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Absolute, or already joined to the state folder.
    pub flag: PathBuf,
    /// `None` = the built-in page.
    pub page: Option<PathBuf>,
    pub status: StatusCode,
    pub retry_after: Duration,
    /// In the syntax of a route's paths.
    pub exempt_paths: Vec<String>,
    pub allow: Vec<IpNet>,
    pub bypass_token: Option<Secret>,
    pub announce: Duration,
    pub windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Unique.
    pub name: String,
    /// A cron pattern that parses.
    pub schedule: String,
    pub duration: Duration,
    /// A name in the IANA database.
    pub timezone: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub kind: ProbeKind,
    pub critical: bool,
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProbeKind {
    Tcp(Address),
    Http(String),
    Redis(Secret),
}

/// Percent, 1 to 100; `None` (0 in the file) = off.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub memory_percent: Option<u8>,
    pub disk_percent: Option<u8>,
    pub cpu_percent: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    pub url: Secret,
    pub format: NotifyFormat,
    pub events: Vec<EventKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyFormat {
    Slack,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Maintenance,
    Breaker,
    Health,
    Certificate,
    Reload,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// A whole URL, its path included; `None` = no tracing.
    pub otlp: Option<Secret>,
    /// Of the traces begun here; 0 to 1.
    pub sample: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    pub warn_days: u32,
}

/// One `[[test]]`: a request and where it must go.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTest {
    pub name: String,
    pub method: Method,
    pub url: http::Uri,
    pub ip: std::net::IpAddr,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub expect: Expect,
}

/// `None` = not looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    pub route: Option<String>,
    pub upstream: Option<String>,
    pub status: Option<StatusCode>,
    pub limits: Option<Vec<String>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// As it is written in the file: `100/1m`.
impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.count, super::duration::format(self.period))
    }
}

/// As it is written in the file.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
