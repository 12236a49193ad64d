//! What the calls take and answer, as the OpenAPI document describes it: what all of them have, and what is put
//! together from several. The rest stands beside its calls, in the `schema.rs` of each.
//!
//! Bodies are taken apart by hand, so that what is wrong is told in plain words, and answers are put together as JSON;
//! these types describe both. `tests/it/foreign/schemathesis.rs` holds every call against them.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

use super::breakers::schema::CircuitBreaker;
use super::certificates::schema::Certificate;
use super::features::schema::FeatureFlag;
use super::health::schema::Service;
use super::limits::schema::Limit;
use super::maintenance::schema::Maintenance;
use super::system::schema::{AccessLogState, Generation};

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
    /// It takes requests: false while starting or draining.
    ready: bool,
    access_log: AccessLogState,
}
