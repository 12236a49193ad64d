//! Feature switches: how they stand, and switching them.

pub(super) mod schema;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::body::object;
use super::calls::calls;
use super::disk::on_disk;
use super::routes::Panel;
use super::view::{Problem, Unusable, problem};
use crate::app::Control;
use crate::config::suggest;
use crate::snapshot::Snapshot;

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(list, set);

#[utoipa::path(get, path = "/api/status/feature-flags", tag = "status", responses((status = 200, description = "Every switch", body = schema::FeatureFlags)))]
async fn list(State(panel): State<Panel>) -> Json<Value> {
    Json(json!({ "featureFlags": all(&panel.control, &panel.control.live.load_full()) }))
}

/// Every key of `[features]`: what is in force, and what the configuration says.
pub(super) fn all(control: &Control, live: &Snapshot) -> Value {
    let features = live.config.features.iter();
    features.map(|(key, &default)| (key.clone(), view(control, key, default))).collect::<Map<_, _>>().into()
}

fn view(control: &Control, key: &str, default: bool) -> Value {
    let value = control.shared.runtime.features.value(key);
    json!({ "value": value.unwrap_or(default), "default": default })
}

#[utoipa::path(post, path = "/api/admin/feature-flags", tag = "features", request_body = schema::FeatureChange, responses((status = 200, description = "The feature as it is then", body = schema::ChangedFeature), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json"), (status = 422, description = "A value cannot be used", body = super::schema::Problem, content_type = "application/problem+json"), (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn set(State(panel): State<Panel>, body: Bytes) -> Result<Json<Value>, Problem> {
    let (key, value) = parse(&body)?;
    on_disk(move || change(&panel.control, &key, value)).await.map(Json)
}

fn change(control: &Control, key: &str, value: Option<bool>) -> Result<Value, Problem> {
    let live = control.live.load_full();
    let Some(&default) = live.config.features.get(key) else {
        let known = live.config.features.keys().map(String::as_str);
        return Err(problem(StatusCode::NOT_FOUND, &format!("there is no feature {key:?}: {}", suggest(key, known))));
    };
    control.shared.runtime.features.set(key, value)?;
    control.shared.switched.notify_waiters();
    let mut view = view(control, key, default);
    tracing::info!(feature = %key, value = view["value"].as_bool(), default, "a feature was switched");
    view["key"] = json!(key);
    Ok(view)
}

fn parse(body: &[u8]) -> Result<(String, Option<bool>), Unusable> {
    let mut body = object(body, &["key", "value"])?;
    let Some(Value::String(key)) = body.remove("key") else {
        return Err("key is missing: one of [features], as text".into());
    };
    match body.get("value") {
        Some(Value::Bool(value)) => Ok((key, Some(*value))),
        Some(Value::Null) => Ok((key, None)),
        _ => Err("value is true or false, or null for the configuration's default".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told() {
        for (body, part) in [
            ("", "JSON object"),
            ("{}", "key is missing"),
            (r#"{"key":1,"value":true}"#, "key is missing"),
            (r#"{"key":"a"}"#, "value is true or false"),
            (r#"{"key":"a","value":"true"}"#, "value is true or false"),
            (r#"{"key":"a","value":true,"ttl":1}"#, "\"ttl\" is no key"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{body}: {error}");
        }
        assert_eq!(parse(br#"{"key":"a","value":true}"#), Ok(("a".to_owned(), Some(true))));
        assert_eq!(parse(br#"{"key":"a","value":null}"#), Ok(("a".to_owned(), None)));
    }
}
