//! `/api/config` and `/api/admin/system/status`: what was loaded, and the process that serves it.

pub(super) mod schema;

use std::path;

use axum::Json;
use axum::Router;
use axum::extract::State;
use serde_json::{Value, json};

use super::calls::calls;
use super::routes::Panel;
use crate::app::{Control, LastReload, Source};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Process;

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(config, status);

#[utoipa::path(get, path = "/api/config", tag = "process", responses((status = 200, description = "What serves, secrets masked", body = schema::Configuration)))]
async fn config(State(panel): State<Panel>) -> Json<Value> {
    Json(configuration(&panel.control))
}

#[utoipa::path(get, path = "/api/admin/system/status", tag = "process", responses((status = 200, description = "The process", body = schema::System)))]
async fn status(State(panel): State<Panel>) -> Json<Value> {
    Json(system(&panel.control))
}

/// The configuration that serves, secrets masked.
fn configuration(control: &Control) -> Value {
    let live = control.live.load_full();
    let mut view = generation(control, &live);
    view["config"] = (*live.masked).clone();
    view
}

/// Which configuration serves, where it came from, and what became of the last attempt to load another. Whoever asks is
/// in another folder, perhaps: the path of a file is a whole one.
pub(super) fn generation(control: &Control, live: &Snapshot) -> Value {
    json!({
        "generation": live.generation,
        "source": match &control.source {
            Source::File(file) => path::absolute(file).as_ref().unwrap_or(file).display().to_string().into(),
            Source::Fixed => Value::Null,
        },
        "loadedAt": live.loaded_at.to_string(),
        "lastReload": control.last_reload().as_ref().map(last_reload),
    })
}

fn last_reload(last: &LastReload) -> Value {
    let (changes, errors) = match &last.result {
        Ok(reloaded) => (json!(reloaded.changes), json!([])),
        Err(problems) => (json!([]), problems.to_json()),
    };
    json!({
        "time": last.at.to_string(),
        "success": last.result.is_ok(),
        "changes": changes,
        "errors": errors,
    })
}

/// What `/api/status` says of the process too.
pub(super) fn process(control: &Control, live: &Snapshot) -> Value {
    let access_log = &live.access_log;
    json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": control.shared.started.elapsed().as_secs(),
        "workers": control.shared.workers,
        "ready": control.is_ready(),
        "accessLog": {
            "dropping": access_log.is_dropping(),
            "dropped": control.shared.metrics.log_lines_lost(),
            "error": access_log.is_dropping().then(|| access_log.error()).filter(|error| !error.is_empty()),
        },
    })
}

fn system(control: &Control) -> Value {
    let (own, live) = (Process::read(), control.live.load_full());
    let mut view = process(control, &live);
    view["memory"] = json!({ "residentBytes": own.resident_bytes, "virtualBytes": own.virtual_bytes });
    view["cpuSeconds"] = json!((own.cpu_seconds * 1000.0).round() / 1000.0);
    view["threads"] = json!(own.threads);
    view["openFiles"] = json!(own.open_fds);
    view["openFilesMax"] = json!(own.max_fds);
    let listeners = control.open_listeners();
    view["listeners"] = listeners
        .into_iter()
        .map(|(name, address)| {
            let connections = control.shared.metrics.listener(&name).connections();
            json!({ "name": name, "address": address.to_string(), "connections": connections })
        })
        .collect();
    view["generation"] = json!(live.generation);
    view["generationsAlive"] = json!(control.live.alive());
    view
}
