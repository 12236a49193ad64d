//! `[upstream.NAME]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CertificatePair, Duration, Size, words};

/// A named group of endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoints"]))]
pub(in super::super) struct Upstream {
    /// At least one: host:port, ip:port or unix:/path, or a table with weight and backup.
    #[schemars(required, length(min = 1))]
    pub(in super::super) endpoints: Vec<Endpoint>,
    /// Down = the whole is unhealthy; false = degraded.
    pub(in super::super) critical: bool,
    /// TLS to the endpoints.
    pub(in super::super) tls: UpstreamTls,
    /// h2 to the endpoint (gRPC).
    pub(in super::super) http2: bool,
    /// How an endpoint is chosen; least_requests is the power of two choices.
    pub(in super::super) balance: Balance,
    /// For balance = "hash": client_ip, header:NAME, cookie:NAME, uri.
    pub(in super::super) hash_key: String,
    /// "cookie:NAME" = sticky sessions by a signed cookie.
    pub(in super::super) affinity: String,
    /// Upper bound on a name's TTL; all its addresses become endpoints.
    pub(in super::super) dns_refresh: Duration,
    /// Kept connections per endpoint.
    #[schemars(range(max = 1000000))]
    pub(in super::super) max_idle: u32,
    /// How long a kept connection is kept; below Node's 5 s.
    pub(in super::super) idle_timeout: Duration,
    /// Per endpoint; 0 = no bound.
    pub(in super::super) max_in_flight: u32,
    /// While no endpoint can take a request: wait this long before giving up.
    pub(in super::super) hold: Duration,
    /// A new or restored endpoint's share grows over this long.
    pub(in super::super) slow_start: Duration,
    /// Active checks; absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) health: Option<Health>,
    /// Passive checks, per endpoint; never the last one standing.
    pub(in super::super) ejection: Ejection,
    /// The circuit breaker, for the upstream as a whole.
    pub(in super::super) breaker: Breaker,
    /// Further tries.
    pub(in super::super) retry: Retry,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            critical: true,
            tls: UpstreamTls::default(),
            http2: false,
            balance: Balance::LeastRequests,
            hash_key: "client_ip".into(),
            affinity: String::new(),
            dns_refresh: "30s".into(),
            max_idle: 256,
            idle_timeout: "4s".into(),
            max_in_flight: 0,
            hold: "0s".into(),
            slow_start: "0s".into(),
            health: None,
            ejection: Ejection::default(),
            breaker: Breaker::default(),
            retry: Retry::default(),
        }
    }
}

/// An endpoint: its address, or a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in super::super) enum Endpoint {
    Address(String),
    Table(EndpointTable),
}

/// An endpoint with weight or role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(in super::super) struct EndpointTable {
    /// host:port, ip:port or unix:/path.
    #[schemars(required, length(min = 1))]
    pub(in super::super) address: String,
    /// Its share, next to the others' weights.
    #[schemars(range(min = 1, max = 65535))]
    pub(in super::super) weight: u32,
    /// Used only while no other endpoint can take a request.
    pub(in super::super) backup: bool,
}

impl Default for EndpointTable {
    fn default() -> Self {
        Self { address: String::new(), weight: 1, backup: false }
    }
}

/// TLS to the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct UpstreamTls {
    /// Default: true when anything else is set here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) enabled: Option<bool>,
    /// The name to ask for and to verify; empty = the endpoint's own.
    pub(in super::super) server_name: String,
    /// PEM file of authorities to trust; empty = the built-in roots, and those of SSL_CERT_FILE.
    pub(in super::super) ca: String,
    /// Our own certificate and key, for an upstream that asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) client: Option<CertificatePair>,
    /// Do not verify the endpoint's certificate.
    pub(in super::super) insecure: bool,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Balance {
    LeastRequests,
    RoundRobin,
    PeakEwma,
    Hash,
}

/// Active checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Health {
    /// GET this path.
    #[schemars(extend("default" = "/api/health"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) path: Option<String>,
    /// Connecting is enough; instead of path.
    pub(in super::super) tcp: bool,
    /// From one check to the next.
    pub(in super::super) interval: Duration,
    /// How long one check may take.
    pub(in super::super) timeout: Duration,
    /// Passed checks in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub(in super::super) healthy_after: u32,
    /// Failed checks in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub(in super::super) unhealthy_after: u32,
    /// Statuses that pass: "200-399", "200,204".
    pub(in super::super) expect: String,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            tcp: false,
            interval: "5s".into(),
            timeout: "2s".into(),
            healthy_after: 2,
            unhealthy_after: 3,
            expect: "200-399".into(),
        }
    }
}

/// Passive checks: what endpoints did with real requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Ejection {
    /// Consecutive; 0 = never eject.
    pub(in super::super) failures: u32,
    /// Times the number of ejections in a row.
    pub(in super::super) base: Duration,
    /// No ejection is longer.
    pub(in super::super) max: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, base: "30s".into(), max: "5m".into() }
    }
}

/// The circuit breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Breaker {
    /// false: no breaker.
    pub(in super::super) enabled: bool,
    /// Consecutive failures that open it; 0 = this rule is off.
    pub(in super::super) failures: u32,
    /// Or this share of at least min_requests within window; 0 = this rule is off.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(in super::super) failure_ratio: f64,
    /// Fewer requests within window open nothing by ratio.
    #[schemars(range(min = 1))]
    pub(in super::super) min_requests: u32,
    /// What failure_ratio looks at.
    pub(in super::super) window: Duration,
    /// A response head slower than this is a failure; 0 = off.
    pub(in super::super) slow_call: Duration,
    /// How long it stays open; doubled on every re-open, up to max_open.
    pub(in super::super) open: Duration,
    /// It never stays open longer.
    pub(in super::super) max_open: Duration,
    /// Requests let through when half-open; all must succeed.
    #[schemars(range(min = 1, max = 1000))]
    pub(in super::super) probes: u32,
    /// After closing, the share of traffic grows from 10 % to all over this long.
    pub(in super::super) ramp: Duration,
    /// What is a failure: connect, timeout, reset, statuses.
    pub(in super::super) count: Vec<String>,
    /// Decide and count, reject nothing.
    pub(in super::super) shadow: bool,
    /// Another upstream to use while open.
    pub(in super::super) fallback: String,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 5,
            failure_ratio: 0.5,
            min_requests: 20,
            window: "10s".into(),
            slow_call: "0s".into(),
            open: "30s".into(),
            max_open: "5m".into(),
            probes: 1,
            ramp: "0s".into(),
            count: words(&["connect", "timeout", "reset", "500-599"]),
            shadow: false,
            fallback: String::new(),
        }
    }
}

/// Further tries, other endpoint first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Retry {
    /// Further tries; 0 = none.
    #[schemars(range(max = 10))]
    pub(in super::super) attempts: u32,
    /// connect, reset_before_response, and statuses such as "502-504".
    pub(in super::super) on: Vec<String>,
    /// Connect failures: any method, nothing was sent.
    pub(in super::super) methods: Vec<String>,
    /// Share of live requests that may be retries, at least 3.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(in super::super) budget: f64,
    /// Larger request bodies are not kept for a retry.
    pub(in super::super) max_replay: Size,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: words(&["connect", "reset_before_response"]),
            methods: words(&["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]),
            budget: 0.2,
            max_replay: "64KiB".into(),
        }
    }
}
