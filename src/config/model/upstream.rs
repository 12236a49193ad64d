//! `[upstream.NAME]`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use super::{Address, CertificatePair};

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
    /// Name of another of [`super::Config::upstreams`].
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
