//! What differs between two configurations, in the words of the file.

use std::time::Duration;

use crate::config::model::{Config, Server};

const ZERO: Duration = Duration::ZERO;

/// One line per part that changed: `routes: +api ~web -old`.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut named = |part: &str, old: Vec<(&str, String)>, new: Vec<(&str, String)>| {
        let mut words = Vec::new();
        for (name, content) in &new {
            match old.iter().find(|(other, _)| other == name) {
                None => words.push(format!("+{name}")),
                Some((_, before)) if before != content => words.push(format!("~{name}")),
                Some(_) => {}
            }
        }
        words.extend(
            old.iter()
                .filter(|(name, _)| !new.iter().any(|(other, _)| other == name))
                .map(|(name, _)| format!("-{name}")),
        );
        if !words.is_empty() {
            lines.push(format!("{part}: {}", words.join(" ")));
        }
    };
    named("listeners", of(&old.listeners, |one| &one.name), of(&new.listeners, |one| &one.name));
    named("routes", of(&old.routes, |one| &one.name), of(&new.routes, |one| &one.name));
    named("upstreams", of_map(&old.upstreams), of_map(&new.upstreams));
    named("limits", of_map(&old.limits), of_map(&new.limits));
    let mut plain = |part: &str, differs: bool, note: &str| {
        if differs {
            lines.push(format!("{part}: changed{note}"));
        }
    };
    let needs_restart = " (takes effect with a restart)";
    let shutdown_aside = |server: &Server| Server { shutdown_delay: ZERO, shutdown_grace: ZERO, ..server.clone() };
    let restarts = shutdown_aside(&old.server) != shutdown_aside(&new.server);
    plain("server", old.server != new.server, if restarts { needs_restart } else { "" });
    plain("admin", old.admin != new.admin, if old.admin.listen == new.admin.listen { "" } else { needs_restart });
    plain("log", old.log != new.log, if old.log.level != new.log.level { needs_restart } else { "" });
    plain("client_ip", old.client_ip != new.client_ip, "");
    plain("timeouts", old.timeouts != new.timeouts, "");
    plain("bounds", old.bounds != new.bounds, "");
    plain("features", old.features != new.features, "");
    plain(
        "maintenance",
        old.maintenance != new.maintenance,
        if old.maintenance.flag == new.maintenance.flag { "" } else { needs_restart },
    );
    lines
}

fn of<'a, T: std::fmt::Debug>(items: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<(&'a str, String)> {
    items.iter().map(|item| (name(item), format!("{item:?}"))).collect()
}

fn of_map<T: std::fmt::Debug>(items: &std::collections::BTreeMap<String, T>) -> Vec<(&str, String)> {
    items.iter().map(|(name, item)| (name.as_str(), format!("{item:?}"))).collect()
}
