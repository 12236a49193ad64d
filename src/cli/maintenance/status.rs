//! What the flags say, for people and as JSON: those of the files, or those that the running process tells of.

use std::fmt::Write;

use jiff::{SignedDurationRound, Timestamp, Unit, Zoned};
use serde_json::Value;

use super::{CliError, Place, time};
use crate::admin;
use crate::cli::human::{shown, span};
use crate::policy::maintenance::State;
use crate::reload::flag_file::{Settings, snapshot};
use crate::reload::windows::upcoming;

/// What the global flag may be bound to.
const BOUNDS: [&str; 3] = ["routes", "hosts", "paths"];

impl Place<'_> {
    /// The shape of `GET /api/maintenance/status`; what only a running process knows is `null`.
    pub(super) fn status(&self, as_json: bool) -> Result<String, CliError> {
        let state = self.seen()?;
        let now = self.now.timestamp();
        let planned = upcoming(self.windows, now);
        let status = admin::maintenance::of_flags(Some(&state), &planned, self.routes_of, now);
        let unknown_end = format!("not known; clients retry after {} s", self.retry_after.as_secs());
        Ok(if as_json { format!("{status:#}\n") } else { told(&status, &unknown_end, &self.now) })
    }

    /// What a running process would see in the same files.
    pub(super) fn seen(&self) -> Result<State, CliError> {
        let settings = Settings { flag: self.flag.to_owned(), routes_dir: self.routes_dir.to_owned() };
        snapshot(&settings).map_err(CliError::Unknown)
    }
}

/// The flags of a status, each on some lines, and what is planned. `unknown_end` stands where a flag names no end.
pub(super) fn told(status: &Value, unknown_end: &str, now: &Zoned) -> String {
    let mut text: String = entries(status, "flags").map(|flag| described(flag, unknown_end, now)).collect();
    if text.is_empty() {
        text.push_str("maintenance is off\n");
    }
    for planned in entries(status, "upcoming") {
        let word = |key: &str| planned[key].as_str().map(shown).unwrap_or_default();
        let start = moment(planned, "start").map_or_else(|| "?".to_owned(), |start| time::show(start, now));
        let reason = word("reason");
        let comma = if reason.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "planned: {}, {start}{comma}{reason}", word("name"));
    }
    text
}

fn described(flag: &Value, unknown_end: &str, now: &Zoned) -> String {
    let word = |key: &str| flag[key].as_str().map(shown);
    let since = moment(flag, "started_at").map(|since| time::show(since, now));
    let until = moment(flag, "estimated_completion").map(|until| end(until, flag, now));
    let lines = [
        ("mode", word("mode")),
        ("reason", word("reason")),
        ("message", flag["message"].as_str().map(|message| shown(&message.replace('\n', " ")))),
        ("since", since),
        ("until", Some(until.unwrap_or_else(|| unknown_end.to_owned()))),
        ("in flight", in_flight(flag)),
        ("routes", listed(flag, "routes")),
        (
            "unknown",
            listed(flag, "unknown_routes").map(|names| format!("{names}: no such route, nothing is covered by it")),
        ),
        ("hosts", listed(flag, "hosts")),
        ("paths", listed(flag, "paths")),
        ("allow", listed(flag, "allow")),
        ("by", word("by")),
    ];
    let mut text = format!("maintenance is on for {}\n", covered(flag));
    for (name, value) in lines {
        let _ = value.map(|value| writeln!(text, "  {name:<12}{value}"));
    }
    text
}

fn covered(flag: &Value) -> String {
    match flag["route"].as_str() {
        Some(name) => format!("route {}", shown(name)),
        None if BOUNDS.iter().any(|key| listed(flag, key).is_some()) => "a part of the requests".to_owned(),
        None => "everything".to_owned(),
    }
}

/// `22:00 CET (in 30m)`.
fn end(until: Timestamp, flag: &Value, now: &Zoned) -> String {
    let when = time::show(until, now);
    if flag["overdue"] == true {
        return format!("{when} (overdue)");
    }
    let left = until.duration_since(now.timestamp());
    let to = |unit| left.round(SignedDurationRound::new().smallest(unit)).ok();
    let minutes = to(Unit::Minute).filter(|rounded| !rounded.is_zero());
    let left = minutes.or_else(|| to(Unit::Second)).unwrap_or(left);
    let then = if flag["auto_end"] == true { "; ends then by itself" } else { "" };
    format!("{when} (in {}{then})", span(left.as_secs().unsigned_abs()))
}

/// What becomes of what is in flight, where it is not left alone.
fn in_flight(flag: &Value) -> Option<String> {
    if flag["terminate"] != true {
        return None;
    }
    let grace = flag["grace"].as_f64().filter(|grace| *grace > 0.0);
    Some(match grace {
        Some(grace) => format!("cut {} after it began", span(grace.max(1.0) as u64)),
        None => "cut at once".to_owned(),
    })
}

pub(super) fn entries<'a>(status: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    status[key].as_array().into_iter().flatten()
}

fn moment(of: &Value, key: &str) -> Option<Timestamp> {
    of[key].as_str()?.parse().ok()
}

/// `None` = there is nothing in this list.
fn listed(flag: &Value, key: &str) -> Option<String> {
    let list: Vec<_> = entries(flag, key).filter_map(Value::as_str).map(shown).collect();
    (!list.is_empty()).then(|| list.join(", "))
}
