//! What the flag files say, for people and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use jiff::{SignedDurationRound, Timestamp, Unit};
use serde_json::json;

use super::{CliError, Place, time};
use crate::admin;
use crate::cli::human::span;
use crate::policy::maintenance::{Active, Scope, State};
use crate::reload::flag_file::{Settings, snapshot};
use crate::reload::windows::upcoming;

impl Place<'_> {
    pub(super) fn status(&self, as_json: bool) -> Result<String, CliError> {
        let state = self.seen()?;
        if as_json {
            let text = serde_json::to_string_pretty(&self.json(&state)).expect("a JSON value is written as it is");
            return Ok(text + "\n");
        }
        let mut text: String = state.all().map(|active| self.describe(active)).collect();
        if state.is_empty() {
            text.push_str("maintenance is off\n");
        }
        for next in upcoming(self.windows, self.now.timestamp()) {
            let start = time::show(next.at.start, &self.now);
            let reason = if next.reason.is_empty() { "" } else { ", " };
            let _ = writeln!(text, "planned: {}, {start}{reason}{}", next.name, next.reason);
        }
        Ok(text)
    }

    /// What a running process would see in the same files.
    pub(super) fn seen(&self) -> Result<State, CliError> {
        let settings = Settings { flag: self.flag.to_owned(), routes_dir: self.routes_dir.to_owned() };
        snapshot(&settings).map_err(CliError::Unknown)
    }

    /// The shape of `GET /api/maintenance/status`; what only a running process knows is `null`.
    fn json(&self, state: &State) -> serde_json::Value {
        let time = |time: Timestamp| time.to_string();
        // With no global flag the first route's own speaks.
        let first = state.all().next();
        let listed = state.global.iter().flat_map(|active| &active.flag.routes);
        let routes: BTreeSet<_> = listed.chain(state.routes.keys()).collect();
        json!({
            "is_active": !state.is_empty(),
            "mode": first.map(|active| active.flag.mode.name()),
            "reason": first.and_then(|active| active.flag.reason.as_deref()),
            "started_at": first.map(|active| time(active.since)),
            "estimated_completion": first.and_then(|active| active.flag.until).map(time),
            "overdue": first.is_some_and(|active| active.overdue(self.now.timestamp()).is_some()),
            "routes": routes,
            "blocked_requests": null,
            "in_flight": null,
            "by": first.and_then(|active| active.flag.by.as_deref()),
            "upcoming": admin::maintenance::upcoming(&upcoming(self.windows, self.now.timestamp())),
            "flags": state.all().map(|active| admin::maintenance::flag(active, self.now.timestamp())).collect::<Vec<_>>(),
        })
    }

    fn describe(&self, active: &Arc<Active>) -> String {
        let (flag, now) = (&active.flag, self.now.timestamp());
        let what = match &active.scope {
            Scope::Global if flag.covers_everything() => "everything".to_owned(),
            Scope::Global => "a part of the requests".to_owned(),
            Scope::Route(name) => format!("route {name}"),
        };
        let mut text = format!("maintenance is on for {what}\n");
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<12}{value}");
        };
        line("mode", flag.mode.name());
        if let Some(reason) = &flag.reason {
            line("reason", reason);
        }
        if let Some(message) = &flag.message {
            line("message", &message.replace('\n', " "));
        }
        line("since", &time::show(active.since, &self.now));
        match (flag.until, active.overdue(now)) {
            (Some(until), Some(_)) => line("until", &format!("{} (overdue)", time::show(until, &self.now))),
            (Some(until), None) => {
                let left = until.duration_since(now);
                let to = |unit| left.round(SignedDurationRound::new().smallest(unit)).ok();
                let minutes = to(Unit::Minute).filter(|rounded| !rounded.is_zero());
                let left = minutes.or_else(|| to(Unit::Second)).unwrap_or(left);
                let left = span(left.as_secs().unsigned_abs());
                line("until", &format!("{} (in {left})", time::show(until, &self.now)));
            }
            (None, _) => line("until", &format!("not known; clients retry after {} s", self.retry_after.as_secs())),
        }
        match flag.grace.filter(|grace| !grace.is_zero()) {
            _ if !flag.terminate => {}
            Some(grace) => line("in flight", &format!("cut {} after it began", span(grace.as_secs().max(1)))),
            None => line("in flight", "cut at once"),
        }
        let lists = [
            ("routes", join(&flag.routes)),
            ("hosts", join(&flag.hosts)),
            ("paths", join(&flag.paths)),
            ("allow", join(&flag.allow)),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            line(name, &list);
        }
        if let Some(by) = &flag.by {
            line("by", by);
        }
        text
    }
}

fn join<T: ToString>(elements: &[T]) -> String {
    elements.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
