//! What several calls say, as JSON: problems, and the status as a whole.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::app::{Control, Reloaded};
use crate::config::Problems;
use crate::runtime::ChangeError;
use crate::snapshot::Snapshot;

/// `application/problem+json` (RFC 9457).
pub(super) struct Problem(StatusCode, Value);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let headers = [(CONTENT_TYPE, "application/problem+json")];
        (self.0, headers, self.1.to_string()).into_response()
    }
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Problem {
    let title = status.canonical_reason().unwrap_or_default();
    Problem(status, json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail }))
}

/// Why a change of the runtime state was not made.
impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::Full { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ChangeError::Write { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            ChangeError::HandedOver => StatusCode::SERVICE_UNAVAILABLE,
        };
        problem(status, &format!("nothing was changed: {error}"))
    }
}

/// What axum refuses by itself is told as everything else is: a body too large, a path that is no text.
pub(super) async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_text = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !is_text || !status.is_client_error() {
        return response;
    }
    let detail = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than this call takes: 256 KiB",
        _ => "the path or the body of the request cannot be read: both are text in UTF-8",
    };
    problem(status, detail).into_response()
}

/// A body that cannot be used: one without the form of its call, or with a value that will not do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Form(String),
    #[error("{0}")]
    Value(String),
}

impl From<String> for Unusable {
    fn from(text: String) -> Self {
        Self::Value(text)
    }
}

impl From<&str> for Unusable {
    fn from(text: &str) -> Self {
        Self::Value(text.to_owned())
    }
}

impl From<Unusable> for Problem {
    fn from(unusable: Unusable) -> Self {
        let status = match unusable {
            Unusable::Form(_) => StatusCode::BAD_REQUEST,
            Unusable::Value(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        problem(status, &unusable.to_string())
    }
}

/// A refused configuration, with everything that is wrong.
pub(super) fn problems(problems: &Problems) -> Problem {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Problem(
        status,
        json!({
            "type": "about:blank",
            "title": "The configuration was refused",
            "status": status.as_u16(),
            "detail": "The old configuration serves on. Mend the errors and reload again.",
            "errors": problems.to_json(),
        }),
    )
}

pub(super) fn reloaded(reloaded: &Reloaded) -> Value {
    json!({ "generation": reloaded.generation, "changes": reloaded.changes })
}

/// Everything in one object, all of it of one generation.
pub(super) fn status(control: &Control) -> Value {
    let live = control.live.load_full();
    json!({
        "maintenance": super::maintenance::view(control, &live),
        "services": super::health::services_of(&live),
        "circuitBreakers": circuit_breakers(&live),
        "limits": super::limits::all(control, &live),
        "featureFlags": super::features::all(control, &live),
        "certificates": super::certificates::all(&live),
        "config": super::system::generation(control, &live),
        "process": super::system::process(control, &live),
    })
}

pub(super) fn circuit_breakers(live: &Snapshot) -> Value {
    let now = std::time::Instant::now();
    let mut breakers = Map::new();
    for (name, group) in &live.groups {
        let Some(breaker) = &group.breaker else { continue };
        let view = breaker.view(now);
        let mut entry = json!({
            "state": view.state.name(),
            "failures": view.failures,
            "statistics": {
                "totalCalls": view.statistics.total(),
                "successfulCalls": view.statistics.successful,
                "failedCalls": view.statistics.failed,
                "rejectedCalls": view.statistics.rejected,
            },
        });
        if breaker.settings().shadow {
            entry["shadow"] = json!(true);
        }
        if let Some(wait) = view.next_attempt {
            entry["nextAttemptTime"] = json!(live.shared.timestamp_at(now + wait).to_string());
        }
        breakers.insert(name.clone(), entry);
    }
    breakers.into()
}

/// Brings those metrics up to date that are looked up, not counted.
pub(super) fn gauge(control: &Control) {
    control.shared.gauge(&control.live.load_full());
}
