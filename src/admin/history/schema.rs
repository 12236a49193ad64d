//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// Of the last minute.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct LiveMetrics {
    requests_per_second: f64,
    /// Milliseconds.
    #[schema(rename = "responseTimeP50")]
    response_time_p50: f64,
    #[schema(rename = "responseTimeP95")]
    response_time_p95: f64,
    #[schema(rename = "responseTimeP99")]
    response_time_p99: f64,
    /// The share of answers of 500 and above.
    #[schema(minimum = 0, maximum = 1)]
    error_rate: f64,
    active_requests: i64,
    active_connections: i64,
    routes: BTreeMap<String, Value>,
    server: Server,
}

/// Seconds, percent and bytes; `null` where it cannot be read.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Server {
    uptime: u64,
    #[schema(required)]
    cpu: Option<f64>,
    #[schema(required)]
    memory: Option<f64>,
    #[schema(required)]
    disk: Option<f64>,
    #[schema(required)]
    resident_bytes: Option<u64>,
}

/// Columns of equal length, one entry a second, oldest first.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct History {
    /// When only one route was asked for.
    route: Option<String>,
    step_seconds: u64,
    seconds_max: u64,
    time: Vec<u64>,
    requests: Vec<u64>,
    errors: Vec<u64>,
    p50: Vec<f64>,
    p95: Vec<f64>,
    p99: Vec<f64>,
    in_flight: Option<Vec<i64>>,
}
