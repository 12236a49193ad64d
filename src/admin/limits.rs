//! Limits: how they stand, and overriding them.

pub(super) mod schema;

use std::num::NonZeroU32;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::{end, object};
use super::calls::calls;
use super::disk::on_disk;
use super::routes::Panel;
use super::view::{Problem, Unusable, problem};
use crate::app::Control;
use crate::config::{rate, suggest};
use crate::runtime::ChangeError;
use crate::runtime::overrides::Override;
use crate::snapshot::{Limit, Snapshot};

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(list, set, clear);

#[utoipa::path(get, path = "/api/status/limits", tag = "status", responses((status = 200, description = "Every limit", body = schema::Limits)))]
async fn list(State(panel): State<Panel>) -> Json<Value> {
    let (control, live) = (&panel.control, panel.control.live.load_full());
    Json(json!({ "limits": all(control, &live), "strays": strays(control, &live) }))
}

/// Overrides of limits that there are no more, by name: with the limit each would be in force again.
fn strays(control: &Control, live: &Snapshot) -> Value {
    let held = control.shared.runtime.overrides.all(Timestamp::now());
    let strays = held.into_iter().filter(|(name, _)| !live.limits.contains_key(name));
    Value::Object(strays.map(|(name, held)| (name, held.to_json())).collect())
}

/// Every limit by name.
pub(super) fn all(control: &Control, live: &Snapshot) -> Value {
    let views = live.limits.iter().map(|(name, limit)| (name.clone(), view(limit, control)));
    Value::Object(views.collect())
}

fn view(limit: &Limit, control: &Control) -> Value {
    let in_force = limit.limiter.settings();
    let settings = &limit.settings;
    let rate = crate::config::model::Rate { count: in_force.rate_count, period: in_force.period };
    json!({
        "rate": rate.to_string(),
        "burst": in_force.burst,
        "configured": { "rate": settings.rate.to_string(), "burst": settings.burst },
        "override": limit.overridden(&control.shared).map(Override::to_json),
        "shadow": settings.shadow,
        "store": if limit.store.is_some() { "redis" } else { "local" },
        "storeReachable": limit.store.as_ref().map(|store| store.is_up()),
        "keys": limit.limiter.keys_active(control.shared.nanos()),
        "allowed": limit.metrics.allowed_count(),
        "limited": limit.metrics.limited_count(true),
        "shadowed": limit.metrics.limited_count(false),
        "queued": limit.metrics.queued_count(),
        "inFlight": limit.slots.in_flight(),
    })
}

#[utoipa::path(post, path = "/api/admin/limits/{name}", tag = "limits", params(("name" = String, Path, description = "As the configuration names it")), request_body = schema::LimitChange, responses((status = 200, description = "The limit as it is then", body = schema::Limit), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json"), (status = 422, description = "A value cannot be used", body = super::schema::Problem, content_type = "application/problem+json"), (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn set(State(panel): State<Panel>, Path(name): Path<String>, body: Bytes) -> Result<Json<Value>, Problem> {
    let wanted = parse(&body, Timestamp::now())?;
    change(panel, name, move |control, name| control.shared.runtime.overrides.set(name, wanted)).await
}

#[utoipa::path(delete, path = "/api/admin/limits/{name}", tag = "limits", params(("name" = String, Path, description = "As the configuration names it")), responses((status = 200, description = "The limit as it is then", body = schema::Cleared), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json"), (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn clear(State(panel): State<Panel>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    if !panel.control.live.load_full().limits.contains_key(&name) {
        return on_disk(move || clear_stray(&panel.control, &name)).await.map(Json);
    }
    change(panel, name, |control, name| control.shared.runtime.overrides.clear(name).map(drop)).await
}

fn clear_stray(control: &Control, name: &str) -> Result<Value, Problem> {
    if !control.shared.runtime.overrides.clear(name)? {
        return Err(unknown(name, &control.live.load_full()));
    }
    tracing::info!(limit = %name, "the override of a limit that there is not was cleared");
    Ok(json!({ "override": null }))
}

/// Makes a change, and shows the limit as it is then.
async fn change(
    panel: Panel,
    name: String,
    change: impl FnOnce(&Control, &str) -> Result<(), ChangeError> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let changed = on_disk(move || {
        let control = &panel.control;
        let live = control.live.load_full();
        let limit = live.limits.get(&name).cloned();
        let limit = limit.ok_or_else(|| unknown(&name, &live))?;
        change(control, &name)?;
        control.follow_overrides();
        let in_force = limit.limiter.settings();
        tracing::info!(limit = %name, count = in_force.rate_count, period = ?in_force.period, burst = in_force.burst,
                       "the rate of a limit was set");
        Ok(view(&limit, control))
    });
    changed.await.map(Json)
}

fn unknown(name: &str, live: &Snapshot) -> Problem {
    let known = live.limits.keys().map(String::as_str);
    problem(StatusCode::NOT_FOUND, &format!("there is no limit {name:?}: {}", suggest(name, known)))
}

fn parse(body: &[u8], now: Timestamp) -> Result<Override, Unusable> {
    let body = object(body, &["rate", "burst", "ttlSeconds"])?;
    let text = body.get("rate").and_then(Value::as_str).ok_or("rate is missing: such as \"10/1m\"")?;
    let rate = rate::parse(text).map_err(|error| format!("rate: {error}"))?;
    let burst = match body.get("burst") {
        None | Some(Value::Null) => rate.count,
        Some(burst) => {
            let burst = burst.as_u64().and_then(|burst| NonZeroU32::new(burst.try_into().ok()?));
            burst.ok_or("burst is a whole number from 1")?
        }
    };
    if !rate.refills(burst) {
        return Err("such a burst takes more than ten years to refill: lower the burst or raise the rate".into());
    }
    Ok(Override { rate, burst, until: end(&body, now)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_the_form_is_told_from_a_wrong_value() {
        for body in ["", "{", "[]", "null", r#"{"rate":}"#] {
            assert!(matches!(object(body.as_bytes(), &["rate"]), Err(Unusable::Form(_))), "{body}");
        }
        assert!(matches!(parse(b"{}", Timestamp::UNIX_EPOCH), Err(Unusable::Value(_))));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let now = Timestamp::UNIX_EPOCH;
        for (body, part) in [
            ("", "JSON object"),
            ("[]", "JSON object"),
            ("{}", "rate is missing"),
            (r#"{"rate":"0/1m"}"#, "a rate of 0"),
            (r#"{"rate":"1/1m","burst":0}"#, "burst"),
            (r#"{"rate":"1/1m","burst":4294967296}"#, "burst"),
            (r#"{"rate":"1/365d","burst":11}"#, "ten years"),
            (r#"{"rate":"1/1m","ttlSeconds":0}"#, "ttlSeconds"),
            (r#"{"rate":"1/1m","ttlSeconds":1.5}"#, "ttlSeconds"),
            (r#"{"rate":"1/1m","ttl":1}"#, "\"ttl\" is no key"),
        ] {
            let error = parse(body.as_bytes(), now).unwrap_err().to_string();
            assert!(error.contains(part), "{body}: {error}");
        }
        let parsed = parse(br#"{"rate":"10/1m","ttlSeconds":900}"#, now).unwrap();
        assert_eq!((parsed.burst.get(), parsed.until), (10, Timestamp::from_second(900).ok()));
    }
}
