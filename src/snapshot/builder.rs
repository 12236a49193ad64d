//! The parts of a generation, made from its configuration: what did not change is taken from the one before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::limit::{Limit, Limits};
use super::{Action, Edits, FixedAnswer, Listener, Maintenance, Route, Snapshot, Switched, Target};
use crate::config::Problem;
use crate::config::model::{self, Config};
use crate::policy::access::{Access, canonical};
use crate::proxy::bypass::Bypass;
use crate::proxy::files::Folder;
use crate::proxy::https;
use crate::proxy::page::{PageError, Pages};
use crate::route::{AddError, PathPattern, PathSet, Table};
use crate::shared::Shared;
use crate::shared_limit::Store;
use crate::tls::{Fault, Terminator, read_roots};
use crate::upstream::group::{Group, Surroundings};
use crate::upstream::probe::Probe;

const HOSTS: &str = "write \"example.com\" or \"*.example.com\"";
const PATHS: &str = "write \"/below\" or \"=/exact\"";
/// What ALPN offers (RFC 7301), the best first. A client that names none of them is sent away at the handshake.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// Gathers the parts and everything that is wrong with them.
pub(super) struct Builder<'a> {
    pub(super) config: &'a Config,
    pub(super) previous: Option<&'a Snapshot>,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) problems: Vec<Problem>,
}

impl Builder<'_> {
    /// `help` is what to do about any failure.
    fn note<T, E: fmt::Display>(&mut self, path: &str, help: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(Problem::new(path, error.to_string()).with_help(help));
                None
            }
        }
    }

    /// Which entry of the list at `path` it is, is told by its text. That is not shown, for a variable may hold it: whoever
    /// locates the problem knows how it is written.
    fn note_entry(&mut self, path: &str, entries: &[String], text: &str, error: &dyn fmt::Display, help: &str) {
        let place = entries.iter().position(|entry| entry == text).map_or_else(String::new, |at| format!("[{at}]"));
        self.problems.push(Problem::new(format!("{path}{place}"), error.to_string()).with_help(help));
    }

    /// `path` is that of the table `tls`.
    fn note_tls<T>(&mut self, path: &str, result: Result<T, Vec<Fault>>) -> Option<T> {
        let faults = match result {
            Ok(value) => return Some(value),
            Err(faults) => faults,
        };
        for Fault { at, error } in faults {
            let path = if at.is_empty() { path.to_owned() } else { format!("{path}.{at}") };
            self.problems.push(Problem::new(path, error.to_string()).with_help(error.remedy()));
        }
        None
    }

    /// Opens every file and folder that the configuration names, and builds nothing of what it says: it may be the
    /// remains of one that was refused.
    pub(super) fn look_at_files(&mut self) {
        self.listeners();
        self.maintenance();
        self.redis_ca();
        for (name, upstream) in &self.config.upstreams {
            self.note_tls(&format!("upstream.{name}.tls"), Err::<(), _>(Group::faults_of_files(upstream)));
        }
        for (index, route) in self.config.routes.iter().enumerate() {
            if let model::Action::Files(files) = &route.action {
                self.folder(index, files);
            }
        }
    }

    pub(super) fn limits(&mut self, store: Option<&Arc<Store>>) -> BTreeMap<String, Arc<Limit>> {
        let build = |(name, settings): (&String, &model::Limit)| {
            let store = store.filter(|_| settings.store == model::LimitStore::Redis);
            let kept = self.previous.and_then(|previous| previous.limits.get(name));
            let limit = match kept {
                Some(kept) if kept.is_current(settings, store) => Arc::clone(kept),
                kept => {
                    let kept = kept.map(|kept| &**kept);
                    Arc::new(Limit::build(name, settings, store.cloned(), kept, self.shared))
                }
            };
            (name.clone(), limit)
        };
        self.config.limits.iter().map(build).collect()
    }

    /// The shared store, when a limit uses it. Its address and the file of its authorities are looked at in any case.
    pub(super) fn store(&mut self) -> Option<Arc<Store>> {
        let settings = &self.config.redis;
        settings.url.as_ref()?;
        let is_used = self.config.limits.values().any(|limit| limit.store == model::LimitStore::Redis);
        let kept = self.previous.and_then(|previous| previous.store.as_ref());
        if let Some(kept) = kept.filter(|kept| is_used && kept.settings == *settings) {
            return Some(Arc::clone(kept));
        }
        // Found now, whoever names it, and not on the day that the first limit uses it.
        if !self.redis_ca() {
            return None;
        }
        let built = Store::new(settings, self.shared.resolver.clone(), self.shared.workers);
        let built = self.note("redis.url", "write redis://HOST:PORT or rediss://HOST:PORT", built);
        built.filter(|_| is_used).map(Arc::new)
    }

    /// Whether the file of the shared store's authorities can be read, if there is one.
    fn redis_ca(&mut self) -> bool {
        let Some(Err(error)) = self.config.redis.ca.as_deref().map(read_roots) else { return true };
        self.problems.push(Problem::new("redis.ca", error.to_string()).with_help(error.remedy()));
        false
    }

    pub(super) fn groups(&mut self) -> BTreeMap<String, Arc<Group>> {
        let mut groups = BTreeMap::new();
        for (name, settings) in &self.config.upstreams {
            let kept = self.previous.and_then(|previous| previous.groups.get(name));
            if let Some(kept) = kept.filter(|kept| kept.settings == *settings) {
                groups.insert(name.clone(), Arc::clone(kept));
                continue;
            }
            let surroundings = Surroundings {
                workers: self.shared.workers,
                resolver: &self.shared.resolver,
                metrics: self.shared.metrics.upstream(name),
                pauses: Arc::clone(&self.shared.pauses),
                breaker_observer: self.shared.breaker_observer(name),
                endpoint_observer: self.shared.endpoint_observer(name),
                secret: self.shared.secret(),
                previous: kept.map(|kept| &**kept),
            };
            let built = Group::build(name, settings, surroundings);
            if let Some(group) = self.note_tls(&format!("upstream.{name}.tls"), built) {
                groups.insert(name.clone(), Arc::new(group));
            }
        }
        groups
    }

    pub(super) fn probes(&self) -> BTreeMap<String, Arc<Probe>> {
        let build = |(name, settings): (&String, &model::Probe)| {
            let kept = self.previous.and_then(|previous| previous.probes.get(name));
            let probe = match kept.filter(|kept| kept.settings == *settings) {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(Probe::new(settings, &self.shared.resolver, Arc::clone(&self.shared.pauses))),
            };
            (name.clone(), probe)
        };
        self.config.probes.iter().map(build).collect()
    }

    pub(super) fn listeners(&mut self) -> BTreeMap<Arc<str>, Listener> {
        let mut listeners = BTreeMap::new();
        for (index, listener) in self.config.listeners.iter().enumerate() {
            let protocols = if listener.http2 { &PROTOCOLS[..] } else { &PROTOCOLS[1..] };
            let tls = listener.tls.as_ref().and_then(|tls| {
                let kept = self.previous.and_then(|previous| previous.listeners.get(listener.name.as_str()));
                let kept = kept.and_then(|kept| kept.tls.as_deref());
                self.note_tls(&format!("listener[{index}].tls"), Terminator::build(tls, protocols, kept))
            });
            let hsts = listener.tls.as_ref().and_then(|tls| https::hsts(tls.hsts));
            let redirects_https = listener.redirect_https;
            let metrics = self.shared.metrics.listener(&listener.name);
            listeners.insert(
                Arc::from(listener.name.as_str()),
                Listener {
                    tls: tls.map(Arc::new),
                    redirects_https,
                    hsts,
                    proxy_protocol: listener.proxy_protocol,
                    http2: listener.http2,
                    metrics,
                },
            );
        }
        listeners
    }

    pub(super) fn maintenance(&mut self) -> Option<Maintenance> {
        let settings = &self.config.maintenance;
        let pages = Pages::load(settings.page.as_deref()).map_err(|error| match &error {
            PageError::Read { source, .. } => format!("{error}: {}", crate::error::io_reason(source)),
            PageError::TooLarge { .. } | PageError::NotText { .. } => error.to_string(),
        });
        let pages = self.note(
            "maintenance.page",
            "name a folder with index.html that this user may read, or \"\" for the built-in page",
            pages,
        );
        let exempt_paths = match PathSet::parse(&settings.exempt_paths) {
            Ok(paths) => Some(paths),
            Err((text, error)) => {
                self.note_entry("maintenance.exempt_paths", &settings.exempt_paths, &text, &error, PATHS);
                None
            }
        };
        Some(Maintenance {
            status: settings.status,
            retry_after: settings.retry_after,
            exempt_paths: exempt_paths?,
            allow: settings.allow.iter().copied().map(canonical).collect(),
            pages: pages?,
            bypass: settings.bypass_token.as_ref().map(|token| Bypass::new(&token.0, self.shared.secret())),
        })
    }

    pub(super) fn routes(
        &mut self,
        limits: &BTreeMap<String, Arc<Limit>>,
        groups: &BTreeMap<String, Arc<Group>>,
    ) -> Table<Arc<Route>> {
        let mut table = Table::new();
        for (index, route) in self.config.routes.iter().enumerate() {
            let Some(action) = self.action(index, route, groups) else { continue };
            let limits: Vec<_> = route.limits.iter().filter_map(|name| limits.get(name)).cloned().collect();
            let built = Arc::new(Route {
                name: route.name.as_str().into(),
                action,
                strip_prefix: route.strip_prefix.as_deref().map(in_normal_form),
                preserve_host: route.preserve_host,
                limits: Limits::new(limits),
                feature: route.feature.as_ref().map(|key| self.switched(key)),
                maintenance_exempt: route.maintenance_exempt,
                sample_place: self.shared.place(&route.name),
                access: Access::new(route.allow.iter().copied(), route.deny.iter().copied()),
                request_headers: Edits(route.request_headers.clone()),
                response_headers: Edits(route.response_headers.clone()),
                timeouts: route.timeouts.clone(),
                body_bytes_max: route.body_bytes_max,
                metrics: self.shared.metrics.route(&route.name),
            });
            let added = table.add(&route.hosts, &route.paths, &route.methods, built);
            let place = format!("route[{index}]");
            match added {
                Ok(()) => {}
                Err(AddError::Host { text, source }) => {
                    self.note_entry(&format!("{place}.host"), &route.hosts, &text, &source, HOSTS);
                }
                Err(AddError::Path { text, source }) => {
                    self.note_entry(&format!("{place}.path"), &route.paths, &text, &source, PATHS);
                }
                Err(AddError::Duplicate { what, earlier }) => {
                    let first = table.value(earlier).map_or_else(String::new, |first| format!(" {:?}", first.name));
                    let error = format!("{what} already belongs to route{first}");
                    self.note(&place, "change the host, path or method of one of them", Err::<(), _>(error));
                }
                Err(error @ AddError::NoPath) => {
                    self.note(&place, "write path = [\"/\"]", Err::<(), _>(error));
                }
            }
        }
        table
    }

    fn switched(&self, key: &str) -> Switched {
        Switched {
            key: key.into(),
            feature: self.shared.runtime.features.feature(key),
            // Its key was proven to be one of them.
            default: self.config.features.get(key).copied().unwrap_or(true),
        }
    }

    /// `None` when it can't be built; the reason has been noted, here or where its upstream was built.
    fn action(&mut self, index: usize, route: &model::Route, groups: &BTreeMap<String, Arc<Group>>) -> Option<Action> {
        match &route.action {
            model::Action::Upstream(name) => {
                let group = Arc::clone(groups.get(name)?);
                let fallback = group.settings.breaker.fallback.as_ref();
                let fallback = fallback.and_then(|name| groups.get(name)).cloned();
                Some(Action::Upstream(Target { group, fallback }))
            }
            model::Action::Files(files) => self.folder(index, files).map(Action::Files),
            model::Action::Redirect(redirect) => Some(Action::Redirect(redirect.clone())),
            model::Action::Respond(respond) => Some(Action::Respond(FixedAnswer {
                status: respond.status,
                content_type: respond.content_type.clone(),
                body: respond.body.clone().into(),
            })),
        }
    }

    fn folder(&mut self, index: usize, files: &model::Files) -> Option<Folder> {
        let opened = Folder::open(files)
            .map_err(|error| format!("{}: {}", files.root.display(), crate::error::io_reason(&error)));
        self.note(&format!("route[{index}].files.root"), "name a folder that this user may read", opened)
    }
}

/// As the paths are matched from which it is taken.
fn in_normal_form(prefix: &str) -> String {
    // What it is refused for is told of the path that should begin with it.
    PathPattern::parse(prefix).map_or_else(|_| prefix.to_owned(), |pattern| pattern.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runtime::Runtime;
    use crate::upstream::Resolver;

    /// What the file's text alone does not show: both are the same path to requests.
    #[test]
    fn routes_in_each_others_way_are_told_by_name() {
        let route = |name: &str, path: &str| {
            format!("[[route]]\nname = \"{name}\"\npath = [\"{path}\"]\nrespond = {{ body = \"\" }}\n")
        };
        let (first, second) = (route("menu", "/caf%c3%a9"), route("list", "/caf%C3%A9"));
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n{first}{second}");
        let config = crate::config::parse(&text, Path::new("flagstone.toml"), &|_| None).unwrap().config;
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let problems = Snapshot::build(config, None, &shared).unwrap_err();
        let told = problems.0.iter().map(|problem| (problem.path.as_str(), problem.message.as_str()));
        let expected = "/caf%C3%A9 on any host, any method, already belongs to route \"menu\"";
        assert_eq!(told.collect::<Vec<_>>(), [("route[1]", expected)]);
    }
}
