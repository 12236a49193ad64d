//! Draining and upgrading, asked for by a call.

pub(super) mod schema;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::calls::calls;
use super::routes::Panel;
use super::view::problem;
use crate::upgrade::UpgradeError;

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(drain, upgrade);

/// As TERM does. Answers when it has begun; asking twice changes nothing.
#[utoipa::path(post, path = "/api/admin/drain", tag = "process", responses((status = 200, description = "It has begun", body = schema::Draining)))]
async fn drain(State(panel): State<Panel>) -> Json<Value> {
    let control = &panel.control;
    let (delay, grace) = control.shutdown_patience();
    control.ask_to_leave();
    Json(json!({
        "pid": std::process::id(),
        "delaySeconds": delay.as_secs_f64(),
        "graceSeconds": grace.as_secs_f64(),
    }))
}

/// As USR2 does. Answers when the new process has taken over, or when this one serves on.
#[utoipa::path(post, path = "/api/admin/upgrade", tag = "process", responses(
    (status = 200, description = "The new process has taken over", body = schema::Upgraded),
    (status = 409, description = "Not now", body = super::schema::Problem, content_type = "application/problem+json"),
    (status = 422, description = "The new binary does not serve", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn upgrade(State(panel): State<Panel>) -> Response {
    let control = Arc::clone(&panel.control);
    match tokio::task::spawn_blocking(move || control.upgrade()).await {
        Ok(Ok(upgraded)) => {
            let old = std::process::id();
            Json(json!({ "pid": upgraded.pid, "version": upgraded.version, "previousPid": old })).into_response()
        }
        Ok(Err(error)) => {
            let detail = match error {
                // It drains, or is about to be replaced.
                UpgradeError::Leaving | UpgradeError::Busy => error.to_string(),
                _ => format!("{error}; the old process serves on"),
            };
            let status = match error {
                UpgradeError::Busy | UpgradeError::Leaving | UpgradeError::Init | UpgradeError::NoProgram => {
                    StatusCode::CONFLICT
                }
                UpgradeError::TooMany(_)
                | UpgradeError::Spawn(_)
                | UpgradeError::Refused(_)
                | UpgradeError::Lost { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            };
            problem(status, &detail).into_response()
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the upgrade broke off; the log says why").into_response(),
    }
}
