//! `/api/certificates`.

pub(super) mod schema;

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::calls::calls;
use super::routes::Panel;
use crate::snapshot::Snapshot;
use crate::tls::CertificateFacts;

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(list);

#[utoipa::path(get, path = "/api/certificates", tag = "status", responses((status = 200, description = "What serves", body = Vec<schema::Certificate>)))]
async fn list(State(panel): State<Panel>) -> Response {
    axum::Json(all(&panel.control.live.load_full())).into_response()
}

/// What serves now, by listener and then in the order of the file; each once.
pub(super) fn all(live: &Snapshot) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let mut seen = BTreeSet::new();
    let facts = live.listeners.values().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| tls.certificates());
    let once = facts.filter(|facts| seen.insert(facts.file.clone()));
    once.map(|facts| entry(&facts, now, live.config.certificates.warn_days)).collect::<Vec<_>>().into()
}

fn entry(facts: &CertificateFacts, now: i64, warn_days: u32) -> Value {
    json!({
        "domain": facts.domain(),
        "names": facts.names,
        "issuer": facts.issuer,
        "notAfter": facts.until(),
        "daysLeft": facts.days_left(now),
        "status": facts.standing(now, warn_days).as_str(),
    })
}
