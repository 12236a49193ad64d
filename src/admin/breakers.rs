//! `/api/status/circuit-breakers`, and closing or opening one by hand.

pub(super) mod schema;

use std::time::Instant;

use axum::extract::{Path, State};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};

use super::calls::calls;
use super::routes::Panel;
use super::view::{Problem, circuit_breakers, problem};
use crate::breaker::Breaker;
use crate::config::suggest;

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(list, reset, open);

#[utoipa::path(get, path = "/api/status/circuit-breakers", tag = "status", responses((status = 200, description = "Every breaker", body = schema::CircuitBreakers)))]
async fn list(State(panel): State<Panel>) -> Json<Value> {
    Json(json!({ "circuitBreakers": circuit_breakers(&panel.control.live.load_full()) }))
}

/// Closes it and forgets what led to its opening; the statistics stay.
#[utoipa::path(post, path = "/api/admin/circuit-breakers/{name}/reset", tag = "circuit breakers", params(("name" = String, Path, description = "As the configuration names it")), responses((status = 200, description = "It is closed", body = schema::CircuitBreakers), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn reset(State(panel): State<Panel>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    change(&panel, &name, |breaker| breaker.reset())
}

/// Opens it until it is reset.
#[utoipa::path(post, path = "/api/admin/circuit-breakers/{name}/open", tag = "circuit breakers", params(("name" = String, Path, description = "As the configuration names it")), responses((status = 200, description = "It is open until it is reset", body = schema::CircuitBreakers), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn open(State(panel): State<Panel>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    change(&panel, &name, |breaker| breaker.force_open(Instant::now(), None))
}

fn change(panel: &Panel, name: &str, how: impl FnOnce(&Breaker)) -> Result<Json<Value>, Problem> {
    panel.control.by_hand(|live| {
        let group = live.groups.get(name).ok_or_else(|| {
            let known = live.groups.keys().map(String::as_str);
            problem(StatusCode::NOT_FOUND, &format!("there is no upstream {name:?}: {}", suggest(name, known)))
        })?;
        let breaker = group
            .breaker
            .as_ref()
            .ok_or_else(|| problem(StatusCode::NOT_FOUND, &format!("the breaker of upstream {name} is not enabled")))?;
        how(breaker);
        let mut breakers = circuit_breakers(live);
        Ok(Json(json!({ "circuitBreakers": { name: breakers[name].take() } })))
    })?
}
