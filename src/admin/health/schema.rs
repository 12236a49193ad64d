//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// The verdict of a check.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::admin) enum Verdict {
    Healthy,
    Unhealthy,
    /// Nobody can tell yet.
    Unknown,
}

/// The verdict of everything.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::admin) enum Overall {
    Healthy,
    /// A check that is not critical is down.
    Degraded,
    Unhealthy,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Health {
    status: Overall,
    version: String,
    uptime_seconds: u64,
    /// Whether maintenance is on.
    maintenance: bool,
    /// By upstream, probe, and `memory`, `disk`, `cpu`.
    checks: BTreeMap<String, Check>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Check {
    status: Verdict,
    critical: bool,
    #[schema(required)]
    latency_ms: Option<f64>,
    /// Of an upstream.
    endpoints: Option<BTreeMap<String, EndpointCheck>>,
    /// Of the machine.
    percentage: Option<f64>,
    error: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct EndpointCheck {
    status: Verdict,
    #[schema(required)]
    latency_ms: Option<f64>,
    error: Option<String>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct HealthSummary {
    status: Overall,
    total: u64,
    healthy: u64,
    unhealthy: u64,
}

#[derive(ToSchema)]
pub(in crate::admin) struct Services {
    services: BTreeMap<String, Service>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct Service {
    registered: bool,
    /// Its first checks and names are through.
    initialized: bool,
    ready: bool,
}
