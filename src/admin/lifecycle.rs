//! Draining, asked for by a call.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::routes::Panel;

pub(super) fn router() -> Router<Panel> {
    Router::new().route("/api/admin/drain", post(drain))
}

/// As TERM does. Answers when it has begun; asking twice changes nothing.
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
