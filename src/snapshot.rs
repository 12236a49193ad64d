//! One immutable generation: everything a request needs, built from one [`Config`].
//!
//! A snapshot is built whole before it serves; what a request holds of it stays valid for as long as the
//! request lives. What did not change from one generation to the next (upstreams with their pools and
//! breakers, limits with their keys, counters) is carried over, not rebuilt.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::config::model::{self, Config};
use crate::config::{Problem, Problems};
use crate::listener::head::HeadBounds;
use crate::message::trace_context::Share;
use crate::policy::access::Access;
use crate::policy::client_ip::{Source, TrustedProxies};
use crate::policy::maintenance::Active;
use crate::proxy::bypass::Bypass;
use crate::proxy::files::Folder;
use crate::proxy::https;
use crate::proxy::page::{PageError, Pages};
use crate::route::{PathSet, Table};
use crate::runtime::features::Feature;
use crate::shared::Shared;
use crate::shared_limit::Store;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{ListenerMetrics, NO_ROUTE, RouteMetrics};
use crate::tls::{Fault, Terminator};
use crate::upstream::group::{Group, Surroundings};
use crate::upstream::probe::Probe;

mod limit;

pub use limit::{Limit, Limits};

/// One generation.
pub struct Snapshot {
    pub generation: u64,
    pub config: Arc<Config>,
    pub loaded_at: jiff::Timestamp,
    /// The configuration as it may be shown.
    pub masked: Arc<serde_json::Value>,
    pub routes: Table<Arc<Route>>,
    pub groups: BTreeMap<String, Arc<Group>>,
    pub(crate) probes: BTreeMap<String, Arc<Probe>>,
    pub limits: BTreeMap<String, Arc<Limit>>,
    /// Where limits count that are shared with other instances.
    pub(crate) store: Option<Arc<Store>>,
    pub listeners: BTreeMap<Arc<str>, Listener>,
    /// What only the generation before had: a connection may have been accepted there a moment ago.
    retired_listeners: BTreeMap<Arc<str>, Listener>,
    /// Where plain requests are sent on to, when a listener does so.
    pub(crate) https: Option<https::Entrance>,
    pub(crate) has_hsts: bool,
    pub trusted: TrustedProxies,
    pub client_ip_header: Source,
    pub maintenance: Maintenance,
    pub access_log: Arc<AccessLog>,
    /// Of traces that begin here; `None` = tracing is off.
    pub(crate) traced: Option<Share>,
    /// Counts what no route matches.
    pub(crate) no_route: Arc<RouteMetrics>,
    /// What outlives generations.
    pub shared: Arc<Shared>,
}

/// A `[[listener]]`, but for its socket.
#[derive(Clone, Debug)]
pub struct Listener {
    pub tls: Option<Arc<Terminator>>,
    /// Plain requests are sent on to https.
    pub(crate) redirects_https: bool,
    /// `Strict-Transport-Security`.
    pub(crate) hsts: Option<HeaderValue>,
    /// Trusted peers begin with a PROXY header.
    pub(crate) proxy_protocol: bool,
    pub(crate) http2: bool,
    pub(crate) metrics: Arc<ListenerMetrics>,
}

/// A `[[route]]`.
pub struct Route {
    pub name: Arc<str>,
    pub action: Action,
    pub strip_prefix: Option<String>,
    pub(crate) preserve_host: bool,
    pub limits: Limits,
    pub(crate) feature: Option<Switched>,
    pub maintenance_exempt: bool,
    /// Where its events are sampled.
    pub(crate) sample_place: usize,
    pub access: Access,
    pub(crate) request_headers: Edits,
    pub(crate) response_headers: Edits,
    pub(crate) timeouts: model::Timeouts,
    pub(crate) body_bytes_max: Option<u64>,
    pub metrics: Arc<RouteMetrics>,
}

/// What a route does.
pub enum Action {
    Upstream(Target),
    Files(Folder),
    Redirect(model::Redirect),
    Respond(FixedAnswer),
}

/// The feature that a route depends on.
pub(crate) struct Switched {
    key: Arc<str>,
    feature: Arc<Feature>,
    default: bool,
}

impl Switched {
    pub(crate) fn key(&self) -> Arc<str> {
        Arc::clone(&self.key)
    }

    /// What the route answers with while its feature is off; `None` = it is on, for one read of shared memory.
    pub(crate) fn off(&self) -> Option<Arc<Active>> {
        if self.feature.is_on(self.default) { None } else { Some(self.feature.off()) }
    }

    /// The same, as if nobody had set it.
    pub(crate) fn off_by_default(&self) -> Option<Arc<Active>> {
        if self.default { None } else { Some(self.feature.off()) }
    }
}

/// Where a route forwards to.
pub struct Target {
    pub group: Arc<Group>,
    /// Used while the breaker of `group` is open.
    pub(crate) fallback: Option<Arc<Group>>,
}

/// `respond = { … }`, ready to send.
pub struct FixedAnswer {
    pub status: StatusCode,
    pub(crate) content_type: HeaderValue,
    pub(crate) body: bytes::Bytes,
}

/// What the configuration says about maintenance.
pub struct Maintenance {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Duration,
    pub exempt_paths: PathSet,
    pub allow: Vec<IpNet>,
    pub pages: Pages,
    /// `None` = nobody gets past it by a token.
    pub bypass: Option<Bypass>,
}

/// Header edits of a route.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits(model::HeaderEdits);

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.remove.is_empty() && self.0.set.is_empty() && self.0.add.is_empty()
    }

    /// Remove, then set, then add.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.0.remove {
            headers.remove(name);
        }
        for (name, value) in &self.0.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.0.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

impl Snapshot {
    /// Builds a generation. `previous` lends what did not change; nothing of it is altered.
    ///
    /// # Errors
    /// Everything that can't be built, all at once: unreadable certificates, folders, pages, log files.
    pub fn build(config: Config, previous: Option<&Self>, shared: &Arc<Shared>) -> Result<Self, Problems> {
        Self::build_proven(config, previous, shared, Vec::new(), |_| Vec::new())
    }

    /// [`Snapshot::build`], with `prove` asked before anything is left behind that others see (the log's file). `found` is
    /// what is wrong already, which is added to what is found here.
    ///
    /// # Errors
    /// As [`Snapshot::build`], and what `prove` found.
    pub fn build_proven(
        config: Config,
        previous: Option<&Self>,
        shared: &Arc<Shared>,
        found: Vec<Problem>,
        prove: impl FnOnce(&Self) -> Vec<Problem>,
    ) -> Result<Self, Problems> {
        let mut builder = Builder { config: &config, previous, shared, problems: found };
        let store = builder.store();
        let limits = builder.limits(store.as_ref());
        let groups = builder.groups();
        let probes = builder.probes();
        let listeners = builder.listeners();
        let maintenance = builder.maintenance();
        let routes = builder.routes(&limits, &groups);
        let mut problems = builder.problems;
        let (Some(maintenance), true) = (maintenance, problems.is_empty()) else {
            problems.extend(log_problem(AccessLog::could_start(&config.log.access)));
            return Err(Problems(problems));
        };
        let retired = previous.into_iter().flat_map(|previous| &previous.listeners);
        let retired = retired.filter(|(name, _)| !listeners.contains_key(*name));
        let mut snapshot = Self {
            retired_listeners: retired.map(|(name, listener)| (Arc::clone(name), listener.clone())).collect(),
            generation: previous.map_or(1, |previous| previous.generation + 1),
            loaded_at: jiff::Timestamp::now(),
            masked: Arc::default(),
            trusted: TrustedProxies::new(config.client_ip.trusted_proxies.clone()),
            client_ip_header: match config.client_ip.header {
                model::ClientIpHeader::XForwardedFor => Source::XForwardedFor,
                model::ClientIpHeader::Forwarded => Source::Forwarded,
                model::ClientIpHeader::XRealIp => Source::XRealIp,
            },
            https: https::Entrance::of(&config.listeners),
            has_hsts: listeners.values().any(|listener| listener.hsts.is_some()),
            routes,
            groups,
            probes,
            limits,
            store,
            listeners,
            maintenance,
            access_log: Arc::new(AccessLog::off()),
            traced: config.trace.otlp.is_some().then(|| Share::new(config.trace.sample)),
            no_route: shared.metrics.route(NO_ROUTE),
            shared: Arc::clone(shared),
            config: Arc::new(config),
        };
        let mut problems = prove(&snapshot);
        if !problems.is_empty() {
            problems.extend(log_problem(AccessLog::could_start(&snapshot.config.log.access)));
            return Err(Problems(problems));
        }
        // Last, and only when all the rest is well: it makes a file.
        snapshot.access_log = snapshot.access_log(previous)?;
        Ok(snapshot)
    }

    fn access_log(&self, previous: Option<&Self>) -> Result<Arc<AccessLog>, Problems> {
        let log = &self.config.log;
        let same = |previous: &&Self| {
            let before = &previous.config.log;
            before.access == log.access && before.access_format == log.access_format
        };
        if let Some(previous) = previous.filter(same) {
            return Ok(Arc::clone(&previous.access_log));
        }
        let started = AccessLog::start(log.access.clone(), log.access_format, self.shared.workers);
        match started {
            Ok(started) => Ok(Arc::new(started)),
            Err(error) => Err(Problems(log_problem(Err(error)).into_iter().collect())),
        }
    }

    /// The listener with this name, also one that has just been taken away.
    pub(crate) fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.get(name).or_else(|| self.retired_listeners.get(name))
    }

    pub fn head_bounds(&self) -> HeadBounds {
        let bounds = &self.config.bounds;
        HeadBounds {
            head_bytes_max: bounds.header_bytes_max,
            headers_max: bounds.headers_max,
            uri_bytes_max: bounds.uri_bytes_max,
        }
    }

    /// Starts what works beside the requests: the shared store connects.
    pub fn start(&self) {
        if let Some(Err(error)) = self.store.as_ref().map(|store| store.start()) {
            tracing::error!(%error, "the shared store of limits does not start: redis.on_error holds");
        }
    }

    /// Begins what goes on beside requests: checks, probes, following names. What was begun already goes on.
    pub fn watch(&self, runtime: &tokio::runtime::Handle) {
        self.groups.values().for_each(|group| group.start(runtime));
        self.probes.values().for_each(|probe| probe.start(runtime));
    }

    /// Closes what one worker has kept open for too long.
    pub(crate) fn sweep(&self, worker: usize) {
        self.groups.values().for_each(|group| group.sweep(worker));
    }
}

/// Gathers the parts and everything that is wrong with them.
struct Builder<'a> {
    config: &'a Config,
    previous: Option<&'a Snapshot>,
    shared: &'a Arc<Shared>,
    problems: Vec<Problem>,
}

/// What keeps the access log from being written.
fn log_problem(tried: io::Result<()>) -> Option<Problem> {
    let problem = Problem::new("log.access", crate::error::io_reason(&tried.err()?));
    Some(problem.with_help("name a file that this user may write, in a folder that is there, or \"stdout\""))
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

    fn limits(&mut self, store: Option<&Arc<Store>>) -> BTreeMap<String, Arc<Limit>> {
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

    /// The shared store, when a limit uses it.
    fn store(&mut self) -> Option<Arc<Store>> {
        let settings = &self.config.redis;
        settings.url.as_ref()?;
        if !self.config.limits.values().any(|limit| limit.store == model::LimitStore::Redis) {
            return None;
        }
        let kept = self.previous.and_then(|previous| previous.store.as_ref());
        if let Some(kept) = kept.filter(|kept| kept.settings == *settings) {
            return Some(Arc::clone(kept));
        }
        let built = Store::new(settings, self.shared.resolver.clone(), self.shared.workers);
        self.note("redis.url", "write redis://HOST:PORT or rediss://HOST:PORT, its CA in redis.ca", built).map(Arc::new)
    }

    fn groups(&mut self) -> BTreeMap<String, Arc<Group>> {
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

    fn probes(&self) -> BTreeMap<String, Arc<Probe>> {
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

    fn listeners(&mut self) -> BTreeMap<Arc<str>, Listener> {
        let mut listeners = BTreeMap::new();
        for (index, listener) in self.config.listeners.iter().enumerate() {
            let protocols: &[&[u8]] = if listener.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
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

    fn maintenance(&mut self) -> Option<Maintenance> {
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
        let exempt = PathSet::parse(&settings.exempt_paths).map_err(|(text, error)| format!("{text:?}: {error}"));
        let exempt_paths =
            self.note("maintenance.exempt_paths", "write paths as a route's: \"/below\" or \"=/exact\"", exempt);
        Some(Maintenance {
            status: settings.status,
            retry_after: settings.retry_after,
            exempt_paths: exempt_paths?,
            allow: settings.allow.clone(),
            pages: pages?,
            bypass: settings.bypass_token.as_ref().map(|token| Bypass::new(&token.0, self.shared.secret())),
        })
    }

    fn routes(
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
                strip_prefix: route.strip_prefix.clone(),
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
            self.note(&format!("route[{index}]"), "change the host, path or method of one of them", added);
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
            model::Action::Files(files) => {
                let opened = Folder::open(files)
                    .map_err(|error| format!("{}: {}", files.root.display(), crate::error::io_reason(&error)));
                self.note(&format!("route[{index}].files.root"), "name a folder that this user may read", opened)
                    .map(Action::Files)
            }
            model::Action::Redirect(redirect) => Some(Action::Redirect(redirect.clone())),
            model::Action::Respond(respond) => Some(Action::Respond(FixedAnswer {
                status: respond.status,
                content_type: respond.content_type.clone(),
                body: respond.body.clone().into(),
            })),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("generation", &self.generation).finish_non_exhaustive()
    }
}
