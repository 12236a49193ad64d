//! Limits, maintenance, and what watches and tells: probes, host, notify.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, Rate};

/// A rate and concurrency limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["rate"]))]
pub(in super::super) struct Limit {
    /// client_ip, global, route, header:NAME, cookie:NAME, path; or a list.
    pub(in super::super) key: LimitKey,
    /// How many in how long.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) rate: Option<Rate>,
    /// How many may come at once; default: the rate's count.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) burst: Option<u32>,
    /// Further requests that wait for their turn instead of 429.
    #[schemars(range(max = 1000000))]
    pub(in super::super) queue: u32,
    /// Requests in flight per key; 0 = no bound.
    pub(in super::super) concurrency: u32,
    /// Addresses that share this many bits are one client.
    #[schemars(range(min = 1, max = 128))]
    pub(in super::super) ipv6_prefix: u8,
    /// CIDRs that are not limited.
    pub(in super::super) exempt: Vec<String>,
    /// Memory bound; the stalest goes first.
    #[schemars(range(min = 1))]
    pub(in super::super) max_keys: u32,
    /// Count, let through.
    pub(in super::super) shadow: bool,
    /// Where the counts live.
    pub(in super::super) store: LimitStore,
    /// The status of refused requests.
    #[schemars(range(min = 400, max = 599))]
    pub(in super::super) status: u16,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            key: LimitKey::One("client_ip".to_owned()),
            rate: None,
            burst: None,
            queue: 0,
            concurrency: 0,
            ipv6_prefix: 64,
            exempt: Vec::new(),
            max_keys: 100_000,
            shadow: false,
            store: LimitStore::Local,
            status: 429,
        }
    }
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in super::super) enum LimitKey {
    One(String),
    Several(#[schemars(length(min = 1))] Vec<String>),
}

/// Where counts live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum LimitStore {
    Local,
    Redis,
}

/// The shared store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Redis {
    /// redis:// or rediss://; empty = none.
    pub(in super::super) url: String,
    /// A PEM file: what signs the server's certificate, in place of the built-in roots; for rediss:// only.
    pub(in super::super) ca: String,
    /// How long one question may take.
    pub(in super::super) timeout: Duration,
    /// While it can't be reached.
    pub(in super::super) on_error: RedisOnError,
}

impl Default for Redis {
    fn default() -> Self {
        Self { url: String::new(), ca: String::new(), timeout: "50ms".into(), on_error: RedisOnError::Local }
    }
}

/// What to do while the store can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RedisOnError {
    Local,
    Allow,
    Deny,
}

/// The maintenance switch and its page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Maintenance {
    /// The flag file: in state_dir, or an absolute path.
    pub(in super::super) flag: String,
    /// Folder with index.html (index.json, index.txt, index.LANG.html, assets); "" = built in.
    pub(in super::super) page: String,
    /// The status of blocked requests.
    #[schemars(range(min = 400, max = 599))]
    pub(in super::super) status: u16,
    /// Retry-After when the flag names no end.
    pub(in super::super) retry_after: Duration,
    /// Paths that stay open: "/api/health", "/api/status", "=/ping".
    pub(in super::super) exempt_paths: Vec<String>,
    /// CIDRs that see the app.
    pub(in super::super) allow: Vec<String>,
    /// Header X-Maintenance-Bypass, or ?maintenance_bypass=… which sets a signed cookie; empty = none.
    pub(in super::super) bypass_token: String,
    /// How long before a window it is announced.
    pub(in super::super) announce: Duration,
    /// Planned maintenance.
    pub(in super::super) window: Vec<Window>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            flag: "maintenance.flag".into(),
            page: String::new(),
            status: 503,
            retry_after: "5m".into(),
            exempt_paths: Vec::new(),
            allow: Vec::new(),
            bypass_token: String::new(),
            announce: "24h".into(),
            window: Vec::new(),
        }
    }
}

/// Planned maintenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "schedule"]))]
pub(in super::super) struct Window {
    /// Required and unique.
    #[schemars(required, length(min = 1))]
    pub(in super::super) name: String,
    /// Cron: minute hour day month weekday, with SUN#1 for the first Sunday.
    #[schemars(required, length(min = 1))]
    pub(in super::super) schedule: String,
    /// How long it lasts.
    pub(in super::super) duration: Duration,
    /// A name of the IANA database, "Europe/Berlin".
    pub(in super::super) timezone: String,
    /// What visitors read.
    pub(in super::super) reason: String,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            name: String::new(),
            schedule: String::new(),
            duration: "1h".into(),
            timezone: "UTC".into(),
            reason: "Weekly maintenance".into(),
        }
    }
}

/// One further thing to report on: exactly one of tcp, http, redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Probe {
    /// host:port that must accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) tcp: Option<String>,
    /// URL that must answer 2xx or 3xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) http: Option<String>,
    /// redis:// URL that must answer PING.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) redis: Option<String>,
    /// Down = the whole is unhealthy; false = degraded.
    pub(in super::super) critical: bool,
    /// From one check to the next.
    pub(in super::super) interval: Duration,
    /// How long one check may take.
    pub(in super::super) timeout: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self { tcp: None, http: None, redis: None, critical: true, interval: "10s".into(), timeout: "2s".into() }
    }
}

/// Non-critical checks of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Host {
    /// Memory in use; 0 = off.
    #[schemars(range(max = 100))]
    pub(in super::super) memory_percent: u8,
    /// Disk of state_dir in use; 0 = off.
    #[schemars(range(max = 100))]
    pub(in super::super) disk_percent: u8,
    /// Processor in use; 0 = off.
    #[schemars(range(max = 100))]
    pub(in super::super) cpu_percent: u8,
}

impl Default for Host {
    fn default() -> Self {
        Self { memory_percent: 85, disk_percent: 80, cpu_percent: 90 }
    }
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub(in super::super) struct Notify {
    /// Where to POST.
    #[schemars(required, length(min = 1))]
    pub(in super::super) url: String,
    /// What to POST.
    pub(in super::super) format: NotifyFormat,
    /// About what.
    pub(in super::super) events: Vec<EventKind>,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            url: String::new(),
            format: NotifyFormat::Slack,
            events: vec![
                EventKind::Maintenance,
                EventKind::Breaker,
                EventKind::Health,
                EventKind::Certificate,
                EventKind::Reload,
            ],
        }
    }
}

/// What a webhook gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum NotifyFormat {
    Slack,
    Json,
}

/// What a webhook is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum EventKind {
    Maintenance,
    Breaker,
    Health,
    Certificate,
    Reload,
}
