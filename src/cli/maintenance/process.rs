//! Maintenance by the running process, which knows where its flags are whatever has become of the file since.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Zoned};
use serde_json::{Map, Value};

use super::super::client::{CallError, Client, segment};
use super::{Action, Args, CliError, On, afterword, flag_from, time};
use crate::policy::maintenance::Flag;

const STATUS: &str = "/api/maintenance/status";
/// What the global flag may be bound to.
const BOUNDS: [&str; 3] = ["routes", "hosts", "paths"];

/// Has the process do it, and returns what to print.
///
/// # Errors
/// A time that is none or has passed, or the process said no or did not answer.
pub(in crate::cli) fn order(args: &Args, client: &Client, now: &Zoned) -> Result<String, CliError> {
    let (said, as_json) = match &args.action {
        Action::On(on) => (switch_on(on, client, now)?, on.json),
        Action::Off(off) => (switch_off(&off.routes, client)?, off.json),
        Action::Status(status) => (String::new(), status.json),
    };
    if !as_json && !said.is_empty() {
        return Ok(said);
    }
    let status = call(client, "GET", STATUS, None)?;
    Ok(if as_json { format!("{status:#}\n") } else { described(&status, now) })
}

/// Where a process that serves without a file has its flag, if that is not `flag`: one of another user has it in
/// another folder.
pub(in crate::cli) fn flag_elsewhere(client: &Client, flag: &Path) -> Option<PathBuf> {
    let view = client.call("GET", "/api/config", None).ok()?;
    let config = &view["config"];
    let its_own = Path::new(config["server"]["state_dir"].as_str()?).join(config["maintenance"]["flag"].as_str()?);
    (view["source"].is_null() && its_own != flag).then_some(its_own)
}

fn switch_on(on: &On, client: &Client, now: &Zoned) -> Result<String, CliError> {
    let flag = flag_from(on, now, "")?;
    let mut said = String::new();
    for (_, query, what) in scopes(&on.routes) {
        call(client, "POST", &format!("/api/admin/maintenance/enable{query}"), Some(&body_of(&flag)))?;
        let _ = writeln!(said, "maintenance is on for {what} (by the process on {})", client.address());
    }
    Ok(said + &afterword(&flag, now))
}

fn switch_off(routes: &[String], client: &Client) -> Result<String, CliError> {
    let before = call(client, "GET", STATUS, None)?;
    let mut said = String::new();
    let mut after = Value::Null;
    for (route, query, what) in scopes(routes) {
        after = call(client, "POST", &format!("/api/admin/maintenance/disable{query}"), None)?;
        let was_on = flags(&before).any(|flag| flag["route"].as_str() == route);
        let _ = writeln!(said, "maintenance {} for {what}", if was_on { "is off" } else { "was not on" });
    }
    let left: Vec<&str> = flags(&after).filter_map(|flag| flag["route"].as_str()).collect();
    if routes.is_empty() && !left.is_empty() {
        let _ = writeln!(said, "still on for {} (end it with --route)", left.join(", "));
    }
    Ok(said)
}

/// For each flag meant, whose it is, the query that names it, and the words for what it covers.
fn scopes(routes: &[String]) -> Vec<(Option<&str>, String, String)> {
    if routes.is_empty() {
        return vec![(None, String::new(), "everything".to_owned())];
    }
    let names = routes.iter().map(String::as_str);
    names.map(|name| (Some(name), format!("?route={}", segment(name)), format!("route {name}"))).collect()
}

/// When it began and by whom is the process's to say.
fn body_of(flag: &Flag) -> Value {
    let table: toml::Table = flag.to_toml().parse().expect("it is read again as it was written");
    let keys = table.into_iter().filter(|(key, _)| key != "started_at" && key != "by");
    let value = |value| serde_json::to_value::<toml::Value>(value).expect("text, numbers and lists");
    keys.map(|(key, it)| (key, value(it))).collect::<Map<_, _>>().into()
}

fn flags(status: &Value) -> impl Iterator<Item = &Value> {
    status["flags"].as_array().into_iter().flatten()
}

fn covered(flag: &Value) -> String {
    match flag["route"].as_str() {
        Some(name) => format!("route {name}"),
        None if BOUNDS.iter().any(|key| listed(flag, key).is_some()) => "a part of the requests".to_owned(),
        None => "everything".to_owned(),
    }
}

/// `None` = there is nothing in this list.
fn listed(flag: &Value, key: &str) -> Option<String> {
    let list: Vec<_> = flag[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    (!list.is_empty()).then(|| list.join(", "))
}

fn described(status: &Value, now: &Zoned) -> String {
    let mut text = String::new();
    for flag in flags(status) {
        let _ = writeln!(text, "maintenance is on for {}", covered(flag));
        let time = |key: &str| {
            let time = flag[key].as_str()?.parse::<Timestamp>().ok()?;
            Some(time::show(time, now))
        };
        let word = |key: &str| flag[key].as_str().map(str::to_owned);
        let times = [("since", time("started_at")), ("until", time("estimated_completion"))];
        let words = [("mode", word("mode")), ("reason", word("reason"))];
        let lists = BOUNDS.map(|key| (key, listed(flag, key)));
        for (name, value) in words.into_iter().chain(times).chain(lists).chain([("by", word("by"))]) {
            let _ = value.map(|value| writeln!(text, "  {name:<12}{value}"));
        }
    }
    if text.is_empty() { "maintenance is off\n".to_owned() } else { text }
}

fn call(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
    client.call(method, path, body).map_err(|error: CallError| CliError::Process(error.to_string()))
}
