//! Maintenance by the running process, which knows where its flags are whatever has become of the file since.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use serde_json::{Map, Value};

use super::super::client::{Client, segment};
use super::status::{entries, told};
use super::{Action, Args, CliError, On, afterword, flag_from, for_each};
use crate::config::model::no_route;
use crate::policy::maintenance::Flag;

const STATUS: &str = "/api/maintenance/status";
/// What the status has, and so the answer to every order.
const IS_ACTIVE: &str = "is_active";

/// Has the process do it, and returns what to print.
///
/// # Errors
/// A time that is none or has passed, or the process said no or did not answer.
pub(in crate::cli) fn order(args: &Args, client: &Client, now: &Zoned) -> Result<String, CliError> {
    let said = match &args.action {
        Action::On(on) => switch_on(on, client, now)?,
        Action::Off(off) => switch_off(&off.routes, client)?,
        Action::Status(_) => String::new(),
    };
    let as_json = args.action.wants_json();
    if !as_json && !said.is_empty() {
        return Ok(said);
    }
    let status = client.call("GET", STATUS, None, IS_ACTIVE)?;
    Ok(if as_json { format!("{status:#}\n") } else { told(&status, "not known", now) })
}

/// Where a process that serves without a file has its flag, if that is not `flag`: one of another user has it in
/// another folder.
pub(in crate::cli) fn flag_elsewhere(client: &Client, flag: &Path) -> Option<PathBuf> {
    let view = client.call("GET", "/api/config", None, "source").ok()?;
    let config = &view["config"];
    let its_own = Path::new(config["server"]["state_dir"].as_str()?).join(config["maintenance"]["flag"].as_str()?);
    (view["source"].is_null() && its_own != flag).then_some(its_own)
}

fn switch_on(on: &On, client: &Client, now: &Zoned) -> Result<String, CliError> {
    let flag = flag_from(on, now, "")?;
    if on.routes.len() > 1 {
        all_known(on.routes.iter().map(String::as_str), client)?;
    }
    let said = for_each(&scopes(&on.routes), |(_, query), what| {
        client.call("POST", &format!("/api/admin/maintenance/enable{query}"), Some(&body_of(&flag)), IS_ACTIVE)?;
        Ok(format!("maintenance is on for {what} (by the process on {})\n", client.address()))
    })?;
    Ok(said + &afterword(&flag, now))
}

fn switch_off(routes: &[String], client: &Client) -> Result<String, CliError> {
    let before = client.call("GET", STATUS, None, IS_ACTIVE)?;
    let has_flag = |name: &str| entries(&before, "flags").any(|flag| flag["route"] == name);
    if routes.len() > 1 {
        // The flag of a route that is gone has to go, too.
        all_known(routes.iter().map(String::as_str).filter(|name| !has_flag(name)), client)?;
    }
    let mut after = Value::Null;
    let mut said = for_each(&scopes(routes), |(route, query), what| {
        after = client.call("POST", &format!("/api/admin/maintenance/disable{query}"), None, IS_ACTIVE)?;
        let was_on = entries(&before, "flags").any(|flag| flag["route"].as_str() == *route);
        Ok(format!("maintenance {} for {what}\n", if was_on { "is off" } else { "was not on" }))
    })?;
    let left: Vec<&str> = entries(&after, "flags").filter_map(|flag| flag["route"].as_str()).collect();
    if routes.is_empty() && !left.is_empty() {
        let _ = writeln!(said, "still on for {} (end it with --route)", left.join(", "));
    }
    Ok(said)
}

/// Before anything is done: a wrong name among several leaves the others as they are, too. The process refuses one by
/// itself.
fn all_known<'a>(routes: impl Iterator<Item = &'a str>, client: &Client) -> Result<(), CliError> {
    let view = client.call("GET", "/api/config", None, "config")?;
    let known: Vec<&str> = entries(&view["config"], "route").filter_map(|route| route["name"].as_str()).collect();
    let told: Vec<_> =
        routes.filter(|name| !known.contains(name)).map(|name| no_route(name, known.iter().copied())).collect();
    if told.is_empty() { Ok(()) } else { Err(CliError::Process(told.join("; "))) }
}

/// For each flag meant, whose it is and the query that names it, with the words for what it covers.
fn scopes(routes: &[String]) -> Vec<((Option<&str>, String), String)> {
    if routes.is_empty() {
        return vec![((None, String::new()), "everything".to_owned())];
    }
    let names = routes.iter().map(String::as_str);
    names.map(|name| ((Some(name), format!("?route={}", segment(name))), format!("route {name}"))).collect()
}

/// By whom is the process's to say.
fn body_of(flag: &Flag) -> Value {
    let table: toml::Table = flag.to_toml().parse().expect("it is read again as it was written");
    let keys = table.into_iter().filter(|(key, _)| key != "by");
    let value = |value| serde_json::to_value::<toml::Value>(value).expect("text, numbers and lists");
    keys.map(|(key, it)| (key, value(it))).collect::<Map<_, _>>().into()
}
