//! `/api/requests`: the last requests that were refused or failed, and why.

pub(super) mod schema;

use axum::Json;
use axum::Router;
use axum::extract::State;
use http::{StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::calls::calls;
use super::query::Parameters;
use super::routes::Panel;
use super::view::{Problem, problem};
use crate::telemetry::recent::{Failed, RECENT_MAX, Text};

const PARAMETERS: &[&str] = &["reason", "id", "route", "client", "status", "limit"];

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(list);

/// The latest first; each parameter that is given must hold.
#[utoipa::path(get, path = "/api/requests", tag = "status", params(
    ("reason" = Option<String>, Query, description = "A `Flagstone-Reason`"),
    ("id" = Option<String>, Query, description = "What the client got in `X-Request-Id`"),
    ("route" = Option<String>, Query), ("client" = Option<String>, Query),
    ("status" = Option<u16>, Query, maximum = 999, minimum = 0),
    ("limit" = Option<u16>, Query, maximum = 1000, minimum = 0)), responses((status = 200, description = "The latest first", body = schema::Requests)))]
async fn list(State(panel): State<Panel>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = Parameters::of(&uri, PARAMETERS)?;
    let number = |key: &str, max: usize| match query.get(key).map(str::parse::<usize>) {
        None => Ok(None),
        Some(Ok(number)) if number <= max => Ok(Some(number)),
        Some(_) => {
            let text = format!("{key} is a whole number from 0 to {max}");
            Err(problem(StatusCode::BAD_REQUEST, &text))
        }
    };
    let (limit, status) = (number("limit", RECENT_MAX)?.unwrap_or(RECENT_MAX), number("status", 999)?);
    let is = |key: &str, value: Option<&str>| query.get(key).is_none_or(|wanted| value == Some(wanted));
    let matches = |failed: &Failed| {
        is("reason", failed.text(Text::Reason))
            && is("id", failed.text(Text::RequestId))
            && is("route", failed.text(Text::Route))
            && is("client", failed.client.map(|client| client.to_string()).as_deref())
            && status.is_none_or(|status| usize::from(failed.status) == status)
    };
    let latest = panel.control.shared.recent.latest();
    let requests = latest.iter().filter(|failed| matches(failed)).take(limit);
    Ok(Json(json!({ "requests": requests.map(|failed| view(failed)).collect::<Vec<_>>() })))
}

fn view(failed: &Failed) -> Value {
    let time = Timestamp::from_millisecond(i64::try_from(failed.unix_ms).unwrap_or(0)).unwrap_or_default();
    let mut view = json!({
        "time": time.to_string(),
        "requestId": failed.text(Text::RequestId),
        "client": failed.client.map(|client| client.to_string()),
        "method": failed.text(Text::Method),
        "host": failed.text(Text::Host),
        "target": failed.text(Text::Target),
        "route": failed.text(Text::Route),
        "status": failed.status,
        "reason": failed.text(Text::Reason),
        "policy": { "kind": kind(failed), "name": name(failed) },
        "upstream": failed.text(Text::Upstream),
        "endpoint": failed.text(Text::Endpoint),
        "durationMs": millis(failed.duration),
        "upstreamMs": failed.upstream_duration.map(millis),
    });
    if let Some(trace_id) = failed.text(Text::TraceId) {
        view["traceId"] = trace_id.into();
    }
    view
}

/// What decided: a policy, the app, or the client.
fn kind(failed: &Failed) -> &'static str {
    match failed.text(Text::Reason) {
        Some("maintenance") => "maintenance",
        Some("feature_off") => "feature",
        Some("rate_limited" | "concurrency") => "limit",
        Some("circuit_open") => "breaker",
        Some("denied") => "access",
        Some("blocked") => "block_list",
        Some("no_route") => "route",
        Some("too_large" | "bad_request") => "bounds",
        Some(_) => "upstream",
        None if failed.status == 499 => "client",
        None => "app",
    }
}

/// Which of them.
fn name(failed: &Failed) -> Option<&str> {
    match kind(failed) {
        // A route's own flag has the route's name.
        "maintenance" => Some(failed.text(Text::DecidedBy).unwrap_or("global")),
        "access" | "route" => failed.text(Text::Route),
        "upstream" | "app" => failed.text(Text::Upstream),
        _ => failed.text(Text::DecidedBy),
    }
}

/// To a thousandth.
fn millis(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
