//! The calls of the admin side.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::{
    block_list, breakers, certificates, dashboard, events, features, guard, health, history, lifecycle, limits,
    maintenance, requests, session, system, view,
};
use crate::app::Control;

/// What every call can reach.
#[derive(Clone)]
pub(super) struct Panel {
    pub(super) control: Arc<Control>,
    pub(super) refusals: Arc<guard::Refusals>,
}

pub(super) fn router(control: Arc<Control>) -> Router {
    let panel = Panel { control, refusals: Arc::new(guard::Refusals::new()) };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/maintenance/status", get(maintenance::status))
        .route("/api/maintenance/emergency", post(maintenance::emergency))
        .route("/api/admin/maintenance/enable", post(maintenance::enable))
        .route("/api/admin/maintenance/disable", post(maintenance::disable))
        .route("/api/health", get(health::health))
        .route("/api/health/summary", get(health::summary))
        .route("/api/status/services", get(health::services))
        .route("/api/status/circuit-breakers", get(breakers::list))
        .route("/api/admin/circuit-breakers/{name}/reset", post(breakers::reset))
        .route("/api/admin/circuit-breakers/{name}/open", post(breakers::open))
        .route("/api/admin/reload", post(reload))
        .merge(dashboard::router())
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
        .fallback(|| async { view::problem(StatusCode::NOT_FOUND, "there is no such call") })
        .method_not_allowed_fallback(|| async {
            view::problem(StatusCode::METHOD_NOT_ALLOWED, "this call does not take this method")
        })
        .layer(middleware::from_fn_with_state(panel.clone(), guard::check))
        .with_state(panel)
}

async fn readyz(State(panel): State<Panel>) -> Response {
    match panel.control.is_ready() {
        true => "ok".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response(),
    }
}

async fn metrics(State(panel): State<Panel>) -> Response {
    view::gauge(&panel.control);
    let text = panel.control.shared.metrics.encode();
    ([(CONTENT_TYPE, crate::telemetry::metrics::CONTENT_TYPE)], text).into_response()
}

async fn status(State(panel): State<Panel>) -> Response {
    axum::Json(view::status(&panel.control)).into_response()
}

async fn reload(State(panel): State<Panel>) -> Response {
    // Reading files and building takes a while; meanwhile the admin side goes on answering.
    let control = Arc::clone(&panel.control);
    match tokio::task::spawn_blocking(move || control.reload()).await {
        Ok(Ok(reloaded)) => axum::Json(view::reloaded(&reloaded)).into_response(),
        Ok(Err(problems)) => view::problems(&problems).into_response(),
        Err(_) => {
            view::problem(StatusCode::INTERNAL_SERVER_ERROR, "the reload broke off; the log says why").into_response()
        }
    }
}
