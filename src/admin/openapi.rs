//! `/api/openapi.json`: the document, as text. Its test makes it from the very handlers that answer, and compares.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::calls::calls;
use super::routes::Panel;

/// With a token set, as most who read it have it.
fn document_text() -> &'static str {
    flagstone_assets::text("openapi.json")
}

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(document);

/// It says what is asked for here and now.
#[utoipa::path(get, path = "/api/openapi.json", tag = "status", responses((status = 200, description = "This document", body = serde_json::Map<String, Value>)))]
async fn document(State(panel): State<Panel>) -> Response {
    let has_token = panel.control.live.load_full().config.admin.token.is_some();
    let header = [(CONTENT_TYPE, "application/json")];
    match has_token {
        true => (header, document_text()).into_response(),
        false => (header, open().to_string()).into_response(),
    }
}

/// The document where no call needs a token.
fn open() -> Value {
    let mut document: Value = serde_json::from_str(document_text()).expect("a test reads it");
    let remove = |from: &mut Value, key| from.as_object_mut().and_then(|object| object.remove(key));
    remove(&mut document["components"], "securitySchemes");
    let calls = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in calls.filter_map(Value::as_object_mut).flat_map(|call| call.values_mut()) {
        remove(operation, "security");
    }
    document
}

#[cfg(test)]
mod tests;
