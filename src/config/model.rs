//! The typed configuration: what the TOML means, proven.
//!
//! Every value here has been parsed and checked by [`super::check`]; nothing here knows serde,
//! TOML, files or the environment. Cross-references (a route's upstream, a route's limits) are names that
//! are known to exist. Paths are absolute or relative to the process's folder, never to the file's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

mod listener;
mod policy;
mod route;
mod upstream;

pub use listener::*;
pub use policy::*;
pub use route::*;
pub use upstream::*;

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

    pub fn has_route(&self, name: &str) -> bool {
        self.route_names().any(|known| known == name)
    }

    /// What to tell who names a route that there is not.
    pub fn no_route(&self, name: &str) -> String {
        no_route(name, self.route_names())
    }
}

/// What to tell who names a route that is none of `known`.
pub fn no_route<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    // One whose name was left out as wrong has none.
    let named = known.filter(|known| !known.is_empty());
    format!("there is no route {name:?}: {}", suggest(name, named))
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

/// As it is written in the file.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

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
