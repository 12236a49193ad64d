//! `/api/health`, `/api/health/summary` and `/api/status/services`.

pub(super) mod schema;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::calls::calls;
use super::routes::Panel;
use crate::shared::{verdicts, verdicts_of_services};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::HealthStatus;
use crate::upstream::verdict::{EndpointVerdict, Verdict, overall};

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(health, summary, services);

/// Everything that is checked. Always 200: whoever wants a verdict asks for the summary.
#[utoipa::path(get, path = "/api/health", tag = "health", responses((status = 200, description = "Every check", body = schema::Health)))]
async fn health(State(panel): State<Panel>) -> Response {
    let live = panel.control.live.load_full();
    let verdicts = verdicts(&live);
    let checks: Map<_, _> = verdicts.iter().map(|verdict| (verdict.name.clone(), check(verdict))).collect();
    axum::Json(json!({
        "status": overall(&verdicts).as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": panel.control.shared.started.elapsed().as_secs(),
        "maintenance": panel.control.shared.switch.load().is_some_and(|state| !state.is_empty()),
        "checks": checks,
    }))
    .into_response()
}

/// The counts, with a status that a load balancer understands.
#[utoipa::path(get, path = "/api/health/summary", tag = "health", responses((status = 200, description = "Healthy or degraded", body = schema::HealthSummary), (status = 503, description = "Unhealthy", body = schema::HealthSummary)))]
async fn summary(State(panel): State<Panel>) -> Response {
    let verdicts = verdicts(&panel.control.live.load_full());
    let status = overall(&verdicts);
    let count = |wanted: bool| verdicts.iter().filter(|verdict| verdict.is_healthy == Some(wanted)).count();
    let code = if status == HealthStatus::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = json!({
        "status": status.as_str(),
        "total": verdicts.len(),
        "healthy": count(true),
        "unhealthy": count(false),
    });
    (code, axum::Json(body)).into_response()
}

#[utoipa::path(get, path = "/api/status/services", tag = "status", responses((status = 200, description = "Upstreams and probes", body = schema::Services)))]
async fn services(State(panel): State<Panel>) -> Response {
    let live = panel.control.live.load_full();
    axum::Json(json!({ "services": services_of(&live) })).into_response()
}

/// Configured, its first checks and names through, and able to take a request.
pub(super) fn services_of(live: &Snapshot) -> Value {
    let service = |verdict: Verdict| {
        let is_initialized = verdict.is_healthy.is_some();
        let is_ready = verdict.is_healthy == Some(true);
        (verdict.name, json!({ "registered": true, "initialized": is_initialized, "ready": is_ready }))
    };
    verdicts_of_services(live).into_iter().map(service).collect::<Map<_, _>>().into()
}

fn check(verdict: &Verdict) -> Value {
    let mut check = json!({
        "status": word(verdict.is_healthy),
        "critical": verdict.critical,
        "latencyMs": verdict.latency.map(millis),
    });
    if !verdict.endpoints.is_empty() {
        let endpoints: Map<_, _> =
            verdict.endpoints.iter().map(|endpoint| (endpoint.label.clone(), self::endpoint(endpoint))).collect();
        check["endpoints"] = endpoints.into();
    }
    if let Some(percent) = verdict.percent {
        check["percentage"] = json!((percent * 10.0).round() / 10.0);
    }
    if let Some(error) = &verdict.error {
        check["error"] = json!(error);
    }
    check
}

fn endpoint(verdict: &EndpointVerdict) -> Value {
    let mut endpoint = json!({ "status": word(verdict.is_healthy), "latencyMs": verdict.latency.map(millis) });
    if let Some(error) = &verdict.error {
        endpoint["error"] = json!(error);
    }
    endpoint
}

fn word(is_healthy: Option<bool>) -> &'static str {
    match is_healthy {
        None => "unknown",
        Some(true) => "healthy",
        Some(false) => "unhealthy",
    }
}

/// To a hundredth.
fn millis(latency: std::time::Duration) -> f64 {
    (latency.as_secs_f64() * 100_000.0).round() / 100.0
}
