//! Maintenance by API: its status, and switching it on and off. As everybody else it writes or removes the flag
//! file; it answers when the switch shows what the file says.

pub(super) mod schema;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::{StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};
use toml::Table;

use super::body::any_object;
use super::calls::calls;
use super::disk::on_disk;
use super::query::Parameters;
use super::routes::Panel;
use super::view::{Problem, Unusable, problem};
use crate::app::{Control, flag_settings};
use crate::config::duration;
use crate::config::model::Config;
use crate::error::io_reason;
use crate::policy::maintenance::{Active, Flag, Mode, Scope, State as Flags};
use crate::reload::flag_file::{FLAG_BYTES_MAX, begin_or_change, remove_flag};
use crate::reload::windows::{self, Upcoming};
use crate::snapshot::Snapshot;

/// What `by` says in a flag that was written here.
const BY: &str = "api";
/// A change takes effect within a second; a little more for a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at the switch.
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(status, enable, emergency, disable);

#[utoipa::path(get, path = "/api/maintenance/status", tag = "maintenance", responses((status = 200, description = "How maintenance stands", body = schema::Maintenance)))]
async fn status(State(panel): State<Panel>) -> Json<Value> {
    Json(view(&panel.control, &panel.control.live.load_full()))
}

/// As `of_flags`, and what only a running process knows.
pub(super) fn view(control: &Control, live: &Snapshot) -> Value {
    let state = control.shared.switch.load();
    let now = Timestamp::now();
    let state = state.as_deref();
    let planned = windows::upcoming(&live.config.maintenance.windows, now);
    let mut view = of_flags(state, &planned, Some(&live.config), now);
    let blocked: u64 = state.iter().flat_map(|state| state.all()).map(|active| active.blocked_requests()).sum();
    let in_flight: u64 = live.routes.values().map(|route| route.metrics.in_flight()).sum();
    view["blocked_requests"] = blocked.into();
    view["in_flight"] = in_flight.into();
    view
}

/// How maintenance stands as a whole (docs/maintenance.md, "The API"), and each flag by itself. Keys are in snake_case, as
/// those of a flag file are. What only a running process knows is `null`, and so is which routes there are not, without a
/// configuration to tell.
pub(crate) fn of_flags(state: Option<&Flags>, planned: &[Upcoming], config: Option<&Config>, now: Timestamp) -> Value {
    let all = || state.iter().flat_map(|state| state.all());
    // With no global flag the first route's own speaks.
    let first = all().next();
    let routes: BTreeSet<&String> = all().flat_map(|active| active.routes()).collect();
    json!({
        "is_active": first.is_some(),
        "mode": first.map(|active| active.flag.mode.name()),
        "reason": first.and_then(|active| active.flag.reason.as_deref()),
        "started_at": first.map(|active| active.since.to_string()),
        "estimated_completion": first.and_then(|active| active.flag.until).map(|until| until.to_string()),
        "overdue": first.is_some_and(|active| active.overdue(now).is_some()),
        "routes": routes,
        "blocked_requests": null,
        "in_flight": null,
        "by": first.and_then(|active| active.flag.by.as_deref()),
        "upcoming": planned.iter().map(planned_one).collect::<Vec<_>>(),
        "flags": all().map(|active| flag(active, config, now)).collect::<Vec<_>>(),
    })
}

/// One flag file that is there.
fn flag(active: &Active, config: Option<&Config>, now: Timestamp) -> Value {
    let is_unknown = |config: &Config, name: &str| !config.has_route(name);
    let unknown = |config| active.routes().iter().filter(|name| is_unknown(config, name)).collect::<Vec<_>>();
    json!({
        "route": match &active.scope {
            Scope::Global => None,
            Scope::Route(name) => Some(name),
        },
        "mode": active.flag.mode.name(),
        "reason": active.flag.reason,
        "message": active.flag.message,
        "started_at": active.since.to_string(),
        "estimated_completion": active.flag.until.map(|until| until.to_string()),
        "overdue": active.overdue(now).is_some(),
        "auto_end": active.flag.auto_end,
        "terminate": active.flag.terminate,
        "grace": active.flag.grace.map(|grace| grace.as_secs_f64()),
        "routes": active.flag.routes,
        "unknown_routes": config.map(unknown),
        "hosts": texts(&active.flag.hosts),
        "paths": texts(&active.flag.paths),
        "allow": texts(&active.flag.allow),
        "by": active.flag.by,
    })
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(T::to_string).collect()
}

/// Planned maintenance as the status lists it.
fn planned_one(planned: &Upcoming) -> Value {
    json!({
        "name": planned.name,
        "start": planned.at.start.to_string(),
        "end": planned.at.end.to_string(),
        "reason": planned.reason,
    })
}

/// The body's keys are a flag file's; without a body it is an empty file but for who wrote it.
#[utoipa::path(post, path = "/api/admin/maintenance/enable", tag = "maintenance",
    params(("route" = Option<String>, Query, description = "Only this route, by a flag of its own")),
    request_body = Option<schema::Flag>, responses(
    (status = 200, description = "How it stands then", body = schema::Maintenance),
    (status = 404, description = "There is no such route", body = super::schema::Problem, content_type = "application/problem+json"),
    (status = 422, description = "One of `routes` does not exist, or they come with `route`, `until` has passed, or the file would be too long", body = super::schema::Problem, content_type = "application/problem+json"),
    (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn enable(State(panel): State<Panel>, uri: Uri, body: Bytes) -> Result<Json<Value>, Problem> {
    let scope = scope_of(&uri, &panel.control, |_| false)?;
    let flag = flag_from(&body)?;
    let strays = || strays_of(&flag, &panel.control.live.load_full().config);
    match past_of(&flag).or_else(|| doubt_of(&flag, &scope)).or_else(strays).or_else(|| excess_of(&flag)) {
        Some(problem) => Err(Unusable::Value(problem).into()),
        None => switch_on(&panel.control, scope, flag).await,
    }
}

/// What is wrong with its `until`, as the command line says it. A file may say so, and is overdue or over at once.
fn past_of(flag: &Flag) -> Option<String> {
    let past = flag.until.filter(|until| *until <= Timestamp::now())?;
    Some(format!("the end, {past}, has passed"))
}

/// Whether it names routes twice over: a route's own flag is about that route, whatever it lists.
fn doubt_of(flag: &Flag, scope: &Scope) -> Option<String> {
    let is_doubtful = matches!(scope, Scope::Route(_)) && !flag.routes.is_empty();
    is_doubtful.then(|| "routes: has no meaning beside ?route=: leave out one of the two".to_owned())
}

/// Whether it is too long for a file: one that is cut when it is read is no TOML any more, and means everything.
fn excess_of(flag: &Flag) -> Option<String> {
    let started_at = flag.started_at.or(Some(Timestamp::now()));
    let bytes = Flag { started_at, ..flag.clone() }.to_toml().len() as u64;
    (bytes > FLAG_BYTES_MAX).then(|| format!("the flag file would have {bytes} bytes, more than {FLAG_BYTES_MAX}"))
}

/// What is wrong with its `routes`: a file with such a name means what it says, and covers nothing by it.
fn strays_of(flag: &Flag, config: &Config) -> Option<String> {
    let strays = flag.routes.iter().filter(|name| !config.has_route(name));
    let told: Vec<_> = strays.map(|name| config.no_route(name)).collect();
    (!told.is_empty()).then(|| format!("routes: {}", told.join("; ")))
}

/// Everything, or the one route that is named: one of the configuration, or one that is `known` otherwise.
fn scope_of(uri: &Uri, control: &Control, known: impl Fn(&str) -> bool) -> Result<Scope, Problem> {
    let query = Parameters::of(uri, &["route"])?;
    let Some(name) = query.get("route") else { return Ok(Scope::Global) };
    let live = control.live.load_full();
    match live.config.has_route(name) || known(name) {
        true => Ok(Scope::Route(name.to_owned())),
        false => Err(problem(StatusCode::NOT_FOUND, &live.config.no_route(name))),
    }
}

/// `{reason, terminate_jobs, grace_period}`, the last in seconds.
#[utoipa::path(post, path = "/api/maintenance/emergency", tag = "maintenance", request_body = Option<schema::Emergency>, responses((status = 200, description = "How it stands then", body = schema::Maintenance), (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn emergency(State(panel): State<Panel>, uri: Uri, body: Bytes) -> Result<Json<Value>, Problem> {
    // Whoever names a route here, as for the other two, does not mean everything.
    Parameters::of(&uri, &[])?;
    switch_on(&panel.control, Scope::Global, emergency_from(&body)?).await
}

#[utoipa::path(post, path = "/api/admin/maintenance/disable", tag = "maintenance",
    params(("route" = Option<String>, Query, description = "Only this route's own flag")), responses(
    (status = 200, description = "How it stands then", body = schema::Maintenance),
    (status = 404, description = "There is no such route, and no flag of one", body = super::schema::Problem, content_type = "application/problem+json"),
    (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn disable(State(panel): State<Panel>, uri: Uri) -> Result<Json<Value>, Problem> {
    let control = panel.control;
    // The flag of a route that is gone has to go, too.
    let has_flag = |name: &str| control.shared.switch.load().is_some_and(|state| state.routes.contains_key(name));
    let scope = scope_of(&uri, &control, has_flag)?;
    let path = flag_path(&control, &scope);
    on_disk(move || remove_flag(&path).map_err(|error| failure("removed", &path, &error))).await?;
    Ok(answer(&control, &scope, |active| active.is_none()).await)
}

fn flag_path(control: &Control, scope: &Scope) -> PathBuf {
    flag_settings(&control.live.load_full().config).path_of(scope)
}

async fn switch_on(control: &Control, scope: Scope, flag: Flag) -> Result<Json<Value>, Problem> {
    let (path, now) = (flag_path(control, &scope), Timestamp::now());
    let written = move || begin_or_change(&path, flag, now).map_err(|error| failure("written", &path, &error));
    let flag = on_disk(written).await?;
    // It may be over before it is seen.
    let is_over = || flag.auto_end && flag.until.is_some_and(|until| until <= Timestamp::now());
    Ok(answer(control, &scope, |active| active.map_or_else(is_over, |active| active.flag == flag)).await)
}

/// The status, once the switch is as it was asked to be. It answers 200 also when that takes too long: the file
/// says what was asked for, and the status says what holds.
async fn answer(control: &Control, scope: &Scope, is_done: impl Fn(Option<&Active>) -> bool) -> Json<Value> {
    let shows_it = || {
        let state = control.shared.switch.load();
        let active = state.as_ref().and_then(|state| state.all().find(|active| active.scope == *scope));
        is_done(active.map(|active| &**active))
    };
    let waiting = async {
        while !shows_it() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        tracing::warn!("the flag file was changed by the admin side, but the change has not been seen yet");
    }
    Json(view(control, &control.live.load_full()))
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Problem {
    let text = format!("{} cannot be {what}: {}", path.display(), io_reason(error));
    problem(StatusCode::INTERNAL_SERVER_ERROR, &text)
}

fn flag_from(body: &[u8]) -> Result<Flag, Unusable> {
    let mut table = Table::new();
    for (key, value) in any_object(body)? {
        if value.is_null() {
            continue;
        }
        let value = toml::Value::try_from(&value);
        let value = value.map_err(|_| Unusable::Form(format!("{key}: cannot be the value of a flag's key")))?;
        table.insert(key, value);
    }
    let (flag, warning) = Flag::from_table(&table);
    match warning {
        // A file with a mistake still means on; who calls can be told to mend it.
        Some(warning) => Err(Unusable::Form(warning.to_string())),
        None => Ok(Flag { by: Some(BY.to_owned()), ..flag }),
    }
}

fn emergency_from(body: &[u8]) -> Result<Flag, Unusable> {
    let wrong = |text: &str| Unusable::Form(text.to_owned());
    let mut flag = Flag { mode: Mode::Emergency, by: Some(BY.to_owned()), ..Flag::default() };
    for (key, value) in any_object(body)? {
        match (key.as_str(), &value) {
            (_, Value::Null) => {}
            ("reason", Value::String(reason)) => {
                let table = Table::from_iter([("reason".to_owned(), toml::Value::String(reason.clone()))]);
                flag.reason = Flag::from_table(&table).0.reason;
            }
            ("terminate_jobs", Value::Bool(terminate)) => flag.terminate = *terminate,
            ("grace_period", seconds) => {
                let seconds = seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let seconds = seconds.filter(|seconds| *seconds <= duration::MAX);
                flag.grace =
                    Some(seconds.ok_or_else(|| wrong("grace_period: is no number of seconds from 0 to 315360000"))?);
            }
            ("reason", _) => return Err(wrong("reason: is not text")),
            ("terminate_jobs", _) => return Err(wrong("terminate_jobs: is neither true nor false")),
            _ => return Err(wrong(&format!("{key}: is none of reason, terminate_jobs, grace_period"))),
        }
    }
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_a_file_would() {
        let flag = flag_from(
            br#"{"reason":"Upgrade","until":"2130-01-31T22:00:00Z","mode":"read_only","grace":"30s",
            "routes":["api"],"terminate":true,"message":null,"by":"somebody else"}"#,
        );
        let flag = flag.unwrap();
        assert_eq!(flag.reason.as_deref(), Some("Upgrade"));
        assert_eq!(flag.until, Some("2130-01-31T22:00:00Z".parse().unwrap()));
        assert_eq!((flag.mode, flag.grace, flag.terminate), (Mode::ReadOnly, Some(Duration::from_secs(30)), true));
        assert_eq!(flag.routes, ["api"]);
        assert_eq!(flag.by.as_deref(), Some("api"), "who wrote it is not for the body to say");
    }

    #[test]
    fn no_body_is_an_empty_file() {
        assert_eq!(flag_from(b"").unwrap(), Flag { by: Some("api".to_owned()), ..Flag::default() });
    }

    #[test]
    fn a_mistake_is_refused() {
        for body in [&b"[]"[..], b"{", br#"{"until":"soon"}"#, br#"{"reasons":"x"}"#, br#"{"mode":1}"#] {
            assert!(flag_from(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        for body in [&b"1"[..], br#"{"grace_period":-1}"#, br#"{"grace":1}"#, br#"{"terminate_jobs":"yes"}"#] {
            assert!(emergency_from(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn an_emergency_names_its_grace_in_seconds() {
        let flag = emergency_from(br#"{"reason":"Breach","terminate_jobs":true,"grace_period":1.5}"#).unwrap();
        assert_eq!(flag.mode, Mode::Emergency);
        assert_eq!((flag.grace, flag.terminate), (Some(Duration::from_millis(1500)), true));
        assert_eq!(flag.reason.as_deref(), Some("Breach"));
    }
}
