//! What is told of maintenance: begun, changed, over, late.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::Shared;
use crate::config::model::Config;
use crate::policy::maintenance::{Active, Change, Mode, Scope};
use crate::telemetry::events::Event;
use crate::telemetry::metrics::{GLOBAL_SCOPE, ScopeFigures};

impl Shared {
    /// Makes events and metrics of what the flag files' watcher saw.
    pub fn flag_changed(&self, change: &Change) {
        match change {
            Change::Activated(active) | Change::Changed(active) => {
                self.switched.notify_waiters();
                self.cuts.flag_is_on(active, Instant::now().into());
                self.tell(activated(active));
            }
            Change::Deactivated(active) => {
                self.cuts.flag_is_off(active);
                let (scope, by) = (active.scope.to_string(), active.flag.by.clone().unwrap_or_default());
                self.tell(Event::MaintenanceDeactivated { scope, by });
            }
            Change::Warning { scope, text } if self.is_in_charge() => tracing::warn!(%scope, "flag file: {text}"),
            Change::Warning { .. } => {}
        }
    }

    /// The scopes of the maintenance that is on, as events name them.
    pub fn scopes_in_maintenance(&self) -> Vec<String> {
        self.switch.load().iter().flat_map(|state| state.all()).map(|active| active.scope.to_string()).collect()
    }

    /// Tells of the maintenance that is on, or over, otherwise than the process before has `told`, by scope: this one
    /// may look for flags elsewhere.
    pub fn catch_up(&self, told: &[String]) {
        let state = self.switch.load();
        let on: Vec<_> = state.iter().flat_map(|state| state.all()).collect();
        for active in on.iter().filter(|active| !told.contains(&active.scope.to_string())) {
            self.tell(activated(active));
        }
        for scope in told.iter().filter(|scope| !on.iter().any(|active| active.scope.to_string() == **scope)) {
            self.tell(Event::MaintenanceDeactivated { scope: scope.clone(), by: String::new() });
        }
    }

    /// Tells once of each maintenance that should have ended.
    pub(super) fn tell_overdue(&self, now: Timestamp) {
        let mut told = self.overdue_told.lock();
        let Some(state) = self.switch.load() else { return told.clear() };
        let late = state.all().filter(|active| active.overdue(now).is_some());
        let late: Vec<_> = late.filter_map(|active| Some((active.flag.until?, Arc::clone(active)))).collect();
        drop(state);
        told.retain(|(scope, end)| late.iter().any(|(until, active)| active.scope == *scope && until == end));
        for (until, active) in late {
            if told.insert((active.scope.clone(), until)) {
                let by = active.flag.by.clone().unwrap_or_default();
                let until = until.to_string();
                self.tell(Event::MaintenanceOverdue { scope: active.scope.to_string(), by, until });
            }
        }
    }

    /// Only scopes that the configuration knows: whoever may write flags may make up names.
    pub(super) fn gauge_maintenance(&self, config: &Config) {
        let (state, now) = (self.switch.load(), Timestamp::now());
        let figures = |(scope, blocked)| {
            let label = match &scope {
                Scope::Global => GLOBAL_SCOPE,
                Scope::Route(name) if config.routes.iter().any(|route| route.name == *name) => name,
                Scope::Route(_) => return None,
            };
            let active = state.as_ref().and_then(|state| state.all().find(|active| active.scope == scope));
            let overdue = active.and_then(|active| active.overdue(now)).unwrap_or_default();
            let figures = ScopeFigures { is_active: active.is_some(), overdue_seconds: overdue.as_secs(), blocked };
            Some((label.to_owned(), figures))
        };
        self.metrics.set_scopes(self.switch.blocked_totals().into_iter().filter_map(figures));
    }
}

fn activated(active: &Active) -> Event {
    let flag = &active.flag;
    let (scope, by) = (active.scope.to_string(), flag.by.clone().unwrap_or_default());
    let reason = flag.reason.clone().unwrap_or_default();
    match flag.mode {
        Mode::Emergency => Event::EmergencyActivated { scope, by, reason },
        mode => Event::MaintenanceActivated {
            scope,
            mode: mode.name().to_owned(),
            by,
            reason,
            until: flag.until.map(|until| until.to_string()).unwrap_or_default(),
        },
    }
}
