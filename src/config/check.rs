//! From raw to proven: gathers every error of a file that has the right shape.
//!
//! Each function takes the place it reads (`route[0]`) and returns a value in any case; where something is
//! wrong it reports and returns a stand-in, which nobody sees because one error refuses the whole.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::document::{Path, Places, is_within, step_below};
use super::model::Config;
use super::problem::Problem;
use super::raw;

mod address;
mod limit;
mod listener;
mod log;
mod maintenance;
mod process;
mod references;
mod route;
mod route_test;
mod upstream;
mod values;
mod words;

/// What a check found.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// Certificates, keys and authorities the configuration names.
    pub(super) files: Vec<PathBuf>,
}

/// Proves a whole file. `folder` is where relative paths start, `spoilt` the places that were already
/// reported and left out.
pub(super) fn check(file: &raw::File, folder: &std::path::Path, spoilt: BTreeSet<String>, places: &Places) -> Checked {
    let mut check = Check { folder, places, spoilt, problems: Vec::new(), warnings: Vec::new(), files: Vec::new() };
    let config = check.file(file);
    Checked { config, problems: check.problems, warnings: check.warnings, files: check.files }
}

struct Check<'a> {
    folder: &'a std::path::Path,
    places: &'a Places,
    spoilt: BTreeSet<String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    files: Vec<PathBuf>,
}

impl Check<'_> {
    fn file(&mut self, file: &raw::File) -> Config {
        let root = Path::root();
        let server = self.server(&file.server, &root.key("server"));
        let timeouts = self.timeouts(&file.timeouts, &root.key("timeouts"));
        let bounds = self.bounds(&file.bounds, &root.key("bounds"));
        let maintenance = self.maintenance(&file.maintenance, &server.state_dir, &root.key("maintenance"));
        let config = Config {
            admin: self.admin(&file.admin, &root.key("admin")),
            log: self.log(&file.log, &root.key("log")),
            client_ip: self.client_ip(&file.client_ip, &root.key("client_ip")),
            listeners: self.listeners(&file.listener, &root.key("listener")),
            routes: self.routes(&file.route, &timeouts, &bounds, &root.key("route")),
            upstreams: self.upstreams(&file.upstream, &root.key("upstream")),
            limits: self.limits(&file.limit, &root.key("limit")),
            redis: self.redis(&file.redis, &root.key("redis")),
            features: file.features.clone(),
            probes: self.probes(&file.probe, &root.key("probe")),
            host: maintenance::host(&file.host),
            notify: self.notify(&file.notify, &root.key("notify")),
            trace: self.trace(&file.trace, &root.key("trace")),
            certificates: process::certificates(&file.certificates),
            tests: self.tests(&file.test, &root.key("test")),
            server,
            timeouts,
            bounds,
            maintenance,
        };
        self.references(&config);
        config
    }

    fn refuse(&mut self, at: &Path, value: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(at.as_str(), message).with_text(value).with_help(help));
    }

    /// As [`Self::refuse`] where there is no single value, or one that must not be shown.
    fn refuse_place(&mut self, at: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(at.as_str(), message).with_help(help));
    }

    /// A place, with its file and line where there are several files.
    fn shown(&self, at: &Path) -> String {
        match self.places.whole_place(at.as_str()).filter(|_| self.places.are_in_several_files()) {
            Some(place) => format!("{} ({place})", at.as_str()),
            None => at.as_str().to_owned(),
        }
    }

    fn missing(&mut self, at: &Path, help: impl Into<String>) {
        if !self.is_spoilt(at) {
            self.refuse_place(at, "is missing", help);
        }
    }

    fn warn(&mut self, at: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.warnings.push(Problem::new(at.as_str(), message).with_help(help));
    }

    /// Whether this place, or one around it, was reported already: what is not there may have been. What is there of the
    /// one around it was not: `[[routes]]` excuses nothing in `[[route]]`.
    fn is_spoilt(&self, at: &Path) -> bool {
        let at = at.as_str();
        let excuses = |spoilt: &str| step_below(at, spoilt).is_none_or(|step| !self.places.holds(step));
        self.spoilt.iter().any(|spoilt| is_within(at, spoilt) && excuses(spoilt))
    }

    /// Whether what stands at this place was reported already, so that the value here is a stand-in for it.
    fn is_refused(&self, at: &Path) -> bool {
        self.is_spoilt(at) || self.problems.iter().any(|problem| problem.path == at.as_str())
    }
}
