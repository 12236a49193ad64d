//! Limits, maintenance, and what watches and tells: probes, host, notify.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use super::super::duration;
use super::{Address, Secret};

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

impl Rate {
    /// Whether a burst of so many is full again within the longest duration there is, ten years.
    pub fn refills(&self, burst: NonZeroU32) -> bool {
        self.period.checked_mul(burst.get()).is_some_and(|whole| whole / self.count.get() <= duration::MAX)
    }
}

/// As it is written in the file: `100/1m`. [`super::super::rate::parse`] reads it back.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, duration::format(self.period))
    }
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

/// As the file names it.
impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Global => f.write_str("global"),
            Self::Route => f.write_str("route"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
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
