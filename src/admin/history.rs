//! `/api/metrics` and `/api/metrics/history`: the live figures, kept in the process for 15 minutes.

pub(super) mod schema;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::{Extension, Json};
use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::calls::calls;
use super::query::Parameters;
use super::routes::Panel;
use super::view::{Problem, problem};
use crate::app::Control;
use crate::telemetry::machine::{self, Cpu};
use crate::telemetry::metrics::{HISTORY, LastMinute, NO_ROUTE, Process, RouteSecond, Second};

pub(super) fn router() -> Router<Panel> {
    calls().layer(Extension(Arc::<Cpu>::default()))
}

calls!(metrics, history);

/// The last minute, of all routes together and of each, and the machine.
#[utoipa::path(get, path = "/api/metrics", tag = "metrics", responses((status = 200, description = "The last minute", body = schema::LiveMetrics)))]
async fn metrics(State(panel): State<Panel>, Extension(cpu): Extension<Arc<Cpu>>) -> Json<Value> {
    let control = &panel.control;
    let live = control.live.load_full();
    let mut body = last_minute(control);
    body["server"] = json!({
        "uptime": control.shared.started.elapsed().as_secs(),
        "cpu": cpu.percent().map(tenth),
        "memory": machine::memory_percent().map(tenth),
        "disk": machine::disk_percent(&live.config.server.state_dir).map(tenth),
        "residentBytes": Process::read().resident_bytes,
    });
    Json(body)
}

/// What a metrics tick says too.
pub(super) fn last_minute(control: &Control) -> Value {
    let metrics = &control.shared.metrics;
    let mut body = minute(&metrics.last_minute());
    body["activeRequests"] = json!(metrics.active_requests());
    body["activeConnections"] = json!(metrics.active_connections());
    let routes = metrics.routes_last_minute().into_iter();
    body["routes"] = routes.map(|(name, figures)| (name, minute(&figures))).collect::<Map<_, _>>().into();
    body
}

fn minute(figures: &LastMinute) -> Value {
    json!({
        "requestsPerSecond": hundredth(figures.requests_per_second),
        "responseTimeP50": thousandth(figures.p50_ms),
        "responseTimeP95": thousandth(figures.p95_ms),
        "responseTimeP99": thousandth(figures.p99_ms),
        "errorRate": (figures.error_rate * 1e6).round() / 1e6,
    })
}

/// One second as a metrics tick tells it.
pub(super) fn second(second: &Second) -> Value {
    json!({
        "time": second.unix_seconds,
        "requests": second.requests,
        "errors": second.errors,
        "p50": thousandth(second.p50_ms),
        "p95": thousandth(second.p95_ms),
        "p99": thousandth(second.p99_ms),
        "inFlight": second.in_flight,
    })
}

/// Columns, which is what charts want and what is small: the n-th entries of all belong together.
#[utoipa::path(get, path = "/api/metrics/history", tag = "metrics", params(("route" = Option<String>, Query)), responses((status = 200, description = "The last 15 minutes", body = schema::History), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn history(State(panel): State<Panel>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = Parameters::of(&uri, &["route"])?;
    let metrics = &panel.control.shared.metrics;
    let Some(route) = query.get("route") else {
        let seconds = metrics.history();
        return Ok(Json(json!({
            "stepSeconds": 1,
            "secondsMax": HISTORY,
            "time": column(&seconds, |second| json!(second.unix_seconds)),
            "requests": column(&seconds, |second| json!(second.requests)),
            "errors": column(&seconds, |second| json!(second.errors)),
            "p50": column(&seconds, |second| json!(thousandth(second.p50_ms))),
            "p95": column(&seconds, |second| json!(thousandth(second.p95_ms))),
            "p99": column(&seconds, |second| json!(thousandth(second.p99_ms))),
            "inFlight": column(&seconds, |second| json!(second.in_flight)),
        })));
    };
    let live = panel.control.live.load_full();
    if route != NO_ROUTE && !live.config.has_route(route) {
        return Err(problem(StatusCode::NOT_FOUND, &live.config.no_route(route)));
    }
    Ok(Json(of_route(route, &metrics.route_history(route))))
}

fn of_route(route: &str, seconds: &[RouteSecond]) -> Value {
    json!({
        "route": route,
        "stepSeconds": 1,
        "secondsMax": HISTORY,
        "time": column(seconds, |second| json!(second.unix_seconds)),
        "requests": column(seconds, |second| json!(second.requests)),
        "errors": column(seconds, |second| json!(second.errors)),
        "p50": column(seconds, |second| json!(thousandth(second.p50_ms.into()))),
        "p95": column(seconds, |second| json!(thousandth(second.p95_ms.into()))),
        "p99": column(seconds, |second| json!(thousandth(second.p99_ms.into()))),
    })
}

fn column<T>(seconds: &[T], value: impl Fn(&T) -> Value) -> Value {
    seconds.iter().map(value).collect()
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn thousandth(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
