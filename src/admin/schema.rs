//! What the calls take and answer, as the OpenAPI document describes it.
//!
//! Bodies are taken apart by hand, so that what is wrong is told in plain words, and answers are put together as JSON;
//! these types describe both. `tests/it/foreign/schemathesis.rs` holds every call against them.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Why a call was refused (RFC 9457); `detail` says what to do.
#[derive(ToSchema)]
pub(super) struct Problem {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// Of a refused configuration.
    errors: Option<Vec<ConfigurationError>>,
}

/// One thing that is wrong with a configuration.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct ConfigurationError {
    file: String,
    #[schema(required)]
    line: Option<u32>,
    #[schema(required)]
    column: Option<u32>,
    /// Where in the TOML: `route[0].upstream`.
    path: String,
    message: String,
    #[schema(required)]
    value: Option<String>,
    #[schema(required)]
    help: Option<String>,
}

/// The verdict of a check.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Verdict {
    Healthy,
    Unhealthy,
    /// Nobody can tell yet.
    Unknown,
}

/// The verdict of everything.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Overall {
    Healthy,
    /// A check that is not critical is down.
    Degraded,
    Unhealthy,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Health {
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
pub(super) struct Check {
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
pub(super) struct EndpointCheck {
    status: Verdict,
    #[schema(required)]
    latency_ms: Option<f64>,
    error: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct HealthSummary {
    status: Overall,
    total: u64,
    healthy: u64,
    unhealthy: u64,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Status {
    maintenance: Maintenance,
    services: BTreeMap<String, Service>,
    circuit_breakers: BTreeMap<String, CircuitBreaker>,
    limits: BTreeMap<String, Limit>,
    feature_flags: BTreeMap<String, FeatureFlag>,
    certificates: Vec<Certificate>,
    config: Generation,
    process: Process,
}

#[derive(ToSchema)]
pub(super) struct Services {
    services: BTreeMap<String, Service>,
}

#[derive(ToSchema)]
pub(super) struct Service {
    registered: bool,
    /// Its first checks and names are through.
    initialized: bool,
    ready: bool,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct CircuitBreakers {
    circuit_breakers: BTreeMap<String, CircuitBreaker>,
}

#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct CircuitBreaker {
    state: BreakerState,
    /// In a row.
    failures: u64,
    #[schema(format = DateTime)]
    next_attempt_time: Option<String>,
    statistics: BreakerStatistics,
}

/// `totalCalls` is the sum of the others.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct BreakerStatistics {
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    rejected_calls: u64,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct FeatureFlags {
    feature_flags: BTreeMap<String, FeatureFlag>,
}

#[derive(ToSchema)]
pub(super) struct FeatureFlag {
    /// In force.
    value: bool,
    /// What the configuration says.
    default: bool,
}

#[derive(ToSchema)]
pub(super) struct ChangedFeature {
    key: String,
    value: bool,
    default: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeatureChange {
    /// One of `[features]`.
    key: String,
    /// `null` puts the configuration's value back in force.
    #[schema(required)]
    value: Option<bool>,
}

#[derive(ToSchema)]
pub(super) struct Limits {
    limits: BTreeMap<String, Limit>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Limit {
    /// In force, as `10/1m`.
    rate: String,
    burst: u32,
    configured: Rate,
    #[schema(required)]
    r#override: Option<Override>,
    shadow: bool,
    store: String,
    #[schema(required)]
    store_reachable: Option<bool>,
    keys: u64,
    allowed: u64,
    limited: u64,
    shadowed: u64,
    queued: u64,
    in_flight: u64,
}

#[derive(ToSchema)]
pub(super) struct Rate {
    rate: String,
    burst: u32,
}

#[derive(ToSchema)]
pub(super) struct Override {
    rate: String,
    burst: u32,
    #[schema(required, format = DateTime)]
    until: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitChange {
    #[schema(pattern = r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,2}(s|m|h)$", example = "10/1m")]
    rate: String,
    /// How many may come at once; the rate's count unless given.
    #[schema(minimum = 1, maximum = 4_294_967_295_u64)]
    burst: Option<u64>,
    /// Until cleared unless given.
    #[schema(minimum = 1, maximum = 315_360_000)]
    ttl_seconds: Option<u64>,
}

#[derive(ToSchema)]
pub(super) struct Maintenance {
    is_active: bool,
    #[schema(required)]
    mode: Option<String>,
    #[schema(required)]
    reason: Option<String>,
    #[schema(required, format = DateTime)]
    started_at: Option<String>,
    #[schema(required, format = DateTime)]
    estimated_completion: Option<String>,
    /// It should have ended.
    overdue: bool,
    routes: Vec<String>,
    blocked_requests: u64,
    in_flight: i64,
    #[schema(required)]
    by: Option<String>,
    upcoming: Vec<Upcoming>,
    /// Each flag file that is there, the global one first.
    flags: Vec<ActiveFlag>,
}

#[derive(ToSchema)]
pub(super) struct ActiveFlag {
    /// Whose flag it is; `null` = the global one.
    #[schema(required)]
    route: Option<String>,
    mode: String,
    #[schema(required)]
    reason: Option<String>,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(required, format = DateTime)]
    estimated_completion: Option<String>,
    /// It should have ended.
    overdue: bool,
    /// Those that the global one is bound to; empty = all.
    routes: Vec<String>,
    #[schema(required)]
    by: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct Upcoming {
    name: String,
    #[schema(format = DateTime)]
    start: String,
    #[schema(format = DateTime)]
    end: String,
    reason: String,
}

/// The keys of a flag file; all of them optional.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Flag {
    reason: Option<String>,
    message: Option<String>,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    until: Option<String>,
    mode: Option<FlagMode>,
    routes: Option<OneOrMany>,
    hosts: Option<OneOrMany>,
    paths: Option<OneOrMany>,
    allow: Option<OneOrMany>,
    grace: Option<Grace>,
    terminate: Option<bool>,
    auto_end: Option<bool>,
    /// Ignored: it is the API.
    by: Option<String>,
}

/// `30s`, or seconds.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Grace {
    Text(String),
    Seconds(u64),
}

/// One entry may stand for itself.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FlagMode {
    Full,
    ReadOnly,
    Emergency,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Emergency {
    reason: Option<String>,
    /// After the grace period, what is in flight is cut.
    terminate_jobs: Option<bool>,
    /// Seconds.
    #[schema(minimum = 0, maximum = 315_360_000)]
    grace_period: Option<f64>,
}

#[derive(ToSchema)]
pub(super) struct BlockList {
    entries: Vec<BlockedNetwork>,
}

#[derive(ToSchema)]
pub(super) struct BlockedNetwork {
    cidr: String,
    /// `null` = for good.
    #[schema(required, format = DateTime)]
    until: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct Unblocked {
    cidr: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Block {
    /// An address or a network.
    #[schema(example = "192.0.2.0/24")]
    cidr: String,
    /// For good unless given.
    #[schema(minimum = 1, maximum = 315_360_000)]
    ttl_seconds: Option<u64>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Certificate {
    domain: String,
    names: Vec<String>,
    issuer: String,
    #[schema(format = DateTime)]
    not_after: String,
    days_left: i64,
    status: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Generation {
    generation: u64,
    /// The file; `null` = the command line.
    #[schema(required)]
    source: Option<String>,
    #[schema(format = DateTime)]
    loaded_at: String,
    /// `null` = there was none yet.
    #[schema(required)]
    last_reload: Option<LastReload>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct LastReload {
    #[schema(format = DateTime)]
    time: String,
    success: bool,
    changes: Vec<String>,
    errors: Vec<ConfigurationError>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Configuration {
    generation: u64,
    #[schema(required)]
    source: Option<String>,
    #[schema(format = DateTime)]
    loaded_at: String,
    #[schema(required)]
    last_reload: Option<LastReload>,
    /// Every key with its value; secrets as `***`. Its schema is printed by `flagstone schema`.
    #[schema(value_type = Object)]
    config: Value,
}

#[derive(ToSchema)]
pub(super) struct Reloaded {
    generation: u64,
    changes: Vec<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Process {
    pid: u32,
    version: String,
    uptime_seconds: u64,
    workers: u32,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct System {
    pid: u32,
    version: String,
    uptime_seconds: u64,
    workers: u32,
    ready: bool,
    memory: Memory,
    cpu_seconds: f64,
    #[schema(required)]
    threads: Option<u64>,
    #[schema(required)]
    open_files: Option<u64>,
    #[schema(required)]
    open_files_max: Option<u64>,
    listeners: Vec<OpenListener>,
    generation: u64,
    /// Those that requests or streams still hold, and the one that serves.
    generations_alive: u64,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Memory {
    #[schema(required)]
    resident_bytes: Option<u64>,
    #[schema(required)]
    virtual_bytes: Option<u64>,
}

#[derive(ToSchema)]
pub(super) struct OpenListener {
    name: String,
    address: String,
    connections: i64,
}

/// Of the last minute.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct LiveMetrics {
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
pub(super) struct Server {
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
pub(super) struct History {
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

#[derive(ToSchema)]
pub(super) struct Requests {
    requests: Vec<FailedRequest>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct FailedRequest {
    #[schema(format = DateTime)]
    time: String,
    #[schema(required)]
    request_id: Option<String>,
    /// Only while tracing is on.
    trace_id: Option<String>,
    #[schema(required)]
    client: Option<String>,
    #[schema(required)]
    method: Option<String>,
    #[schema(required)]
    host: Option<String>,
    #[schema(required)]
    target: Option<String>,
    #[schema(required)]
    route: Option<String>,
    status: u16,
    /// The `Flagstone-Reason`; `null` = the app's own answer, or the client left.
    #[schema(required)]
    reason: Option<String>,
    policy: Policy,
    #[schema(required)]
    upstream: Option<String>,
    #[schema(required)]
    endpoint: Option<String>,
    duration_ms: f64,
    #[schema(required)]
    upstream_ms: Option<f64>,
}

/// What decided.
#[derive(ToSchema)]
pub(super) struct Policy {
    kind: String,
    #[schema(required)]
    name: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    token: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Draining {
    pid: u32,
    delay_seconds: f64,
    grace_seconds: f64,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Upgraded {
    pid: u32,
    version: String,
    previous_pid: u32,
}
