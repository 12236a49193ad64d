//! One immutable generation: everything a request needs, built from one [`Config`].
//!
//! A snapshot is built whole before it serves; what a request holds of it stays valid for as long as the
//! request lives. What did not change from one generation to the next (upstreams with their pools and
//! breakers, limits with their keys, counters) is carried over, not rebuilt.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::config::model::{self, Config};
use crate::config::{Problem, Problems};
use crate::listener::head::HeadBounds;
use crate::message::trace_context::Share;
use crate::policy::access::Access;
use crate::policy::client_ip::{Arrival, Source, TrustedProxies};
use crate::policy::maintenance::Active;
use crate::proxy::bypass::Bypass;
use crate::proxy::files::Folder;
use crate::proxy::https;
use crate::proxy::page::Pages;
use crate::route::{PathSet, Table};
use crate::runtime::features::Feature;
use crate::shared::Shared;
use crate::shared_limit::Store;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{ListenerMetrics, NO_ROUTE, RouteMetrics};
use crate::tls::Terminator;
use crate::upstream::group::Group;
use crate::upstream::probe::Probe;

mod builder;
mod limit;

use builder::Builder;
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
    /// What only generations before had, for connections that came in there.
    retired_listeners: BTreeMap<Arc<str>, Listener>,
    /// Where plain requests are sent on to, when a listener does so.
    pub(crate) https: Option<https::Entrance>,
    pub(crate) has_hsts: bool,
    /// Some listener has `client_auth`, or one that is gone and has connections still.
    pub(crate) asks_for_certificates: bool,
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

impl Listener {
    fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.asks_for_certificates())
    }
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

    pub(crate) fn sets(&self, name: &HeaderName) -> bool {
        self.0.set.iter().any(|(set, _)| set == name)
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

    /// [`Snapshot::build`], with `prove` asked before anything is left behind that others see (the log's file). `found`
    /// is what is wrong already, which is added to what is found here.
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
            problems.extend(log_fault(&config.log.access));
            return Err(Problems(problems));
        };
        let mut snapshot = Self {
            retired_listeners: BTreeMap::new(),
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
            asks_for_certificates: listeners.values().any(Listener::asks_for_certificates),
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
            problems.extend(log_fault(&snapshot.config.log.access));
            return Err(Problems(problems));
        }
        // Last, and only when all the rest is well: it makes a file.
        snapshot.access_log = snapshot.access_log(previous)?;
        Ok(snapshot)
    }

    /// What is wrong with the files and folders that a configuration names, also with one that was refused.
    pub fn faults_of_files(config: &Config, shared: &Arc<Shared>) -> Vec<Problem> {
        let mut builder = Builder { config, previous: None, shared, problems: Vec::new() };
        builder.look_at_files();
        builder.problems
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
        started.map(Arc::new).map_err(|error| log_problem(&error).into())
    }

    /// Remembers listeners of `previous` that are gone: those that just went, for a connection may have been accepted
    /// there a moment ago, and of the others those that are `in_use`.
    pub fn remember_listeners(&mut self, previous: &Self, in_use: impl Fn(&str) -> bool) {
        let earlier = previous.retired_listeners.iter().filter(|(name, _)| in_use(name));
        let gone = previous.listeners.iter().chain(earlier).filter(|(name, _)| !self.listeners.contains_key(*name));
        let retired: BTreeMap<_, _> = gone.map(|(name, listener)| (Arc::clone(name), listener.clone())).collect();
        self.has_hsts |= retired.values().any(|listener| listener.hsts.is_some());
        self.asks_for_certificates |= retired.values().any(Listener::asks_for_certificates);
        if retired.values().any(|listener| listener.redirects_https) {
            self.https = self.https.or(previous.https);
        }
        self.retired_listeners = retired;
    }

    /// The listener with this name, also one that is gone and has connections still.
    pub(crate) fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.get(name).or_else(|| self.retired_listeners.get(name))
    }

    /// How the client came in, where a trusted proxy is to tell that by `Forwarded`.
    pub(crate) fn arrival(&self, peer_is_trusted: bool, headers: &HeaderMap) -> Option<Arrival> {
        let is_told = peer_is_trusted && self.client_ip_header == Source::Forwarded;
        is_told.then(|| self.trusted.arrival(headers))
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

    /// Takes over what operators have set in `previous` that nothing else remembers. As the last step before it serves,
    /// for they may have done so while this one was built.
    pub fn obey(&self, previous: &Self) {
        let now = Instant::now();
        self.lasting(previous).for_each(|(group, before)| group.stay_forced(before, now));
    }

    /// Ends breakers of `previous` that do not go on in this one. Once this one serves.
    pub fn relieve(&self, previous: &Self) {
        let now = Instant::now();
        self.lasting(previous).for_each(|(group, before)| group.relieve(before, now));
    }

    /// Upstreams that `previous` has as well, each beside what it was there.
    fn lasting<'a>(&'a self, previous: &'a Self) -> impl Iterator<Item = (&'a Group, &'a Group)> {
        self.groups.iter().filter_map(|(name, group)| Some((&**group, &**previous.groups.get(name)?)))
    }

    /// Begins what goes on beside requests: checks, probes, following names. What was begun already goes on.
    pub fn watch(&self, runtime: &tokio::runtime::Handle) {
        self.groups.values().for_each(|group| group.start(runtime));
        self.probes.values().for_each(|probe| probe.start(runtime));
    }

    /// Ends what goes on beside requests and is not shared with `current`, which serves in its place.
    pub(crate) fn retire(&self, current: &Self) {
        for (name, group) in &self.groups {
            match current.groups.get(name) {
                Some(kept) if Arc::ptr_eq(kept, group) => {}
                successor => group.retire(successor.map(|successor| &**successor)),
            }
        }
        for (name, probe) in &self.probes {
            if !current.probes.get(name).is_some_and(|kept| Arc::ptr_eq(kept, probe)) {
                probe.retire();
            }
        }
    }

    /// Closes what one worker has kept open for too long.
    pub(crate) fn sweep(&self, worker: usize) {
        self.groups.values().for_each(|group| group.sweep(worker));
    }
}

/// What would keep the access log from being written, as far as that can be seen without making a file.
pub fn log_fault(target: &model::AccessLogTarget) -> Option<Problem> {
    AccessLog::could_start(target).err().map(|error| log_problem(&error))
}

fn log_problem(error: &io::Error) -> Problem {
    let help = "name a file that this user may write, in a folder that is there, or \"stdout\"";
    Problem::new("log.access", error.to_string()).with_help(help)
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("generation", &self.generation).finish_non_exhaustive()
    }
}
