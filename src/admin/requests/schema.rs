//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use utoipa::ToSchema;

#[derive(ToSchema)]
pub(in crate::admin) struct Requests {
    requests: Vec<FailedRequest>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct FailedRequest {
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
pub(in crate::admin) struct Policy {
    kind: String,
    #[schema(required)]
    name: Option<String>,
}
