//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use serde_json::Value;
use utoipa::ToSchema;

use super::super::schema::ConfigurationError;

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Generation {
    generation: u64,
    /// The whole path of the file; `null` = the command line.
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
pub(in crate::admin) struct LastReload {
    #[schema(format = DateTime)]
    time: String,
    success: bool,
    changes: Vec<String>,
    errors: Vec<ConfigurationError>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Configuration {
    #[serde(flatten)]
    generation: Generation,
    /// Every key with its value; secrets as `***`. Its schema is printed by `flagstone schema`.
    #[schema(value_type = Object)]
    config: Value,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct System {
    pid: u32,
    version: String,
    uptime_seconds: u64,
    workers: u32,
    ready: bool,
    access_log: AccessLogState,
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
pub(in crate::admin) struct AccessLogState {
    /// It does not take its lines at the moment.
    dropping: bool,
    /// Lines lost since the start of the process.
    dropped: u64,
    /// Why it drops them; `null` = it does not, or nobody knows.
    #[schema(required)]
    error: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Memory {
    #[schema(required)]
    resident_bytes: Option<u64>,
    #[schema(required)]
    virtual_bytes: Option<u64>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct OpenListener {
    name: String,
    address: String,
    connections: i64,
}
