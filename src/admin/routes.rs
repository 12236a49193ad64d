//! The calls of the admin side.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::calls::calls;
use super::{
    Place, block_list, breakers, certificates, dashboard, events, features, guard, health, history, lifecycle, limits,
    maintenance, openapi, requests, schema, session, system, view,
};
use crate::app::Control;

/// What every call can reach.
#[derive(Clone)]
pub(super) struct Panel {
    pub(super) control: Arc<Control>,
    pub(super) refusals: Arc<guard::Refusals>,
    /// Where it was asked for.
    pub(super) place: Arc<Place>,
}

/// Request bodies. The largest that makes sense is a flag with its lists full.
const BODY_BYTES_MAX: usize = 256 << 10;

pub(super) fn router(control: Arc<Control>, refusals: Arc<guard::Refusals>, place: Arc<Place>) -> Router {
    let panel = Panel { control, refusals, place };
    calls()
        .merge(maintenance::router())
        .merge(health::router())
        .merge(breakers::router())
        .merge(certificates::router())
        .merge(lifecycle::router())
        .merge(limits::router())
        .merge(block_list::router())
        .merge(events::router())
        .merge(history::router())
        .merge(features::router())
        .merge(system::router())
        .merge(session::router())
        .merge(requests::router())
        .merge(dashboard::router())
        .merge(openapi::router())
        .fallback(|| async {
            view::problem(StatusCode::NOT_FOUND, "there is no such call: GET /api/openapi.json lists them")
        })
        .method_not_allowed_fallback(|| async {
            view::problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "this call does not take this method: Allow says which it takes",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(view::as_problem))
        .layer(middleware::from_fn_with_state(panel.clone(), guard::check))
        .with_state(panel)
}

calls!(healthz, readyz, metrics, status, reload);

#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It lives", body = String, content_type = "text/plain")))]
async fn healthz() -> &'static str {
    "ok"
}

#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It takes requests", body = String, content_type = "text/plain"),
    (status = 503, description = "It is starting or draining", body = String, content_type = "text/plain")))]
async fn readyz(State(panel): State<Panel>) -> Response {
    match panel.control.is_ready() {
        true => "ok".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response(),
    }
}

#[utoipa::path(get, path = "/metrics", tag = "metrics", responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain")))]
async fn metrics(State(panel): State<Panel>) -> Response {
    view::gauge(&panel.control);
    let text = panel.control.shared.metrics.encode();
    ([(CONTENT_TYPE, crate::telemetry::metrics::CONTENT_TYPE)], text).into_response()
}

#[utoipa::path(get, path = "/api/status", tag = "status", responses((status = 200, description = "Everything in one object", body = schema::Status)))]
async fn status(State(panel): State<Panel>) -> Response {
    axum::Json(view::status(&panel.control)).into_response()
}

/// Nothing is wrong with the configuration then.
const HANDED_OVER: &str =
    "nothing was reloaded: another process has taken over from this one, and has read the file itself: try again";

#[utoipa::path(post, path = "/api/admin/reload", tag = "process", responses(
    (status = 200, description = "What changed", body = schema::Reloaded),
    (status = 422, description = "All that is wrong; the configuration before it serves on", body = schema::Problem, content_type = "application/problem+json"),
    (status = 503, description = "Another process has taken over: try again", body = schema::Problem, content_type = "application/problem+json")))]
async fn reload(State(panel): State<Panel>) -> Response {
    // Reading files and building takes a while; meanwhile the admin side goes on answering.
    let control = Arc::clone(&panel.control);
    match tokio::task::spawn_blocking(move || control.reload()).await {
        Ok(Ok(reloaded)) => axum::Json(view::reloaded(&reloaded)).into_response(),
        Ok(Err(_)) if panel.control.has_handed_over() => {
            view::problem(StatusCode::SERVICE_UNAVAILABLE, HANDED_OVER).into_response()
        }
        Ok(Err(problems)) => view::problems(&problems).into_response(),
        Err(_) => {
            view::problem(StatusCode::INTERNAL_SERVER_ERROR, "the reload broke off; the log says why").into_response()
        }
    }
}
