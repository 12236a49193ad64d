//! What outlives every generation: the maintenance switch, counters, the event log, the clock's origin.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::breaker::{Pauses, State, Transition};
use crate::config::model::Config;
use crate::policy::limit::Nanos;
use crate::policy::maintenance::{Active, Change, Mode, Scope, Switch};
use crate::proxy::cut::Cuts;
use crate::runtime::Runtime;
use crate::secret::Secret;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::access_log::watch::{LogWatch, News};
use crate::telemetry::events::{Event, EventLog, Sampler};
use crate::telemetry::host::{Check, Host};
use crate::telemetry::metrics::{BreakerState, GLOBAL_SCOPE, Metrics, NO_ROUTE};
use crate::telemetry::recent::Recent;
use crate::telemetry::traces::Traces;
use crate::upstream::Resolver;
use crate::upstream::endpoint::{Change as EndpointChange, Observer};
use crate::upstream::verdict::{LastTold, Verdict, overall};

/// Names of routes beyond this, those of earlier generations included, are counted with what met no route.
const SAMPLED_ROUTES: usize = 65_536;
/// What the two clocks may drift apart before a moment to come is told anew.
const STEADY_NS: u64 = 50_000_000;
/// A gap between two beats longer than this means that the process stood still.
const PAUSE_TOLERANCE: Duration = Duration::from_secs(1);

/// Shared by all generations and all workers of one process.
#[derive(Debug)]
pub struct Shared {
    pub workers: usize,
    pub switch: Arc<Switch>,
    pub metrics: Metrics,
    pub events: Arc<EventLog>,
    /// Requests that were refused or failed.
    pub recent: Recent,
    /// Requests that were recorded, on their way to the collector.
    pub traces: Arc<Traces>,
    pub host: Host,
    pub cuts: Cuts,
    pub resolver: Resolver,
    pub started: Instant,
    /// What the wall clock showed then, in Unix nanoseconds: by what it shows now, as of the last [`Shared::tick`].
    started_unix_ns: AtomicU64,
    /// The same, but moved only by more than [`STEADY_NS`]: a moment to come is told alike however often it is asked
    /// for.
    steady_unix_ns: AtomicU64,
    /// Tells this process from those before and after it.
    pub instance: String,
    pub runtime: Runtime,
    /// Told every [`Shared::beat`].
    pub(crate) pauses: Arc<Pauses>,
    told: Mutex<LastTold>,
    log_watch: Mutex<LogWatch>,
    /// The last place is for what no route matches.
    blocked: Sampler,
    limited: Sampler<String>,
    /// Over a limit that only watches.
    shadowed: Sampler<String>,
    turned_away: Sampler<(IpAddr, String)>,
    /// Names of the places in the samplers: routes keep theirs over reloads.
    places: Mutex<BTreeMap<String, usize>>,
    secret: OnceLock<Secret>,
    /// The maintenances that are known to be late, each with its end: another reason is no other delay.
    overdue_told: Mutex<BTreeSet<(Scope, Timestamp)>>,
    /// False in the one of the two processes of an upgrade that does not tell what both see.
    is_in_charge: watch::Sender<bool>,
}

impl Shared {
    pub fn new(workers: usize, resolver: Resolver, runtime: Runtime) -> Arc<Self> {
        let metrics = Metrics::new(workers);
        // There from the first scrape on: an alert on a series that does not exist never fires.
        metrics.maintenance(GLOBAL_SCOPE);
        let traces = Arc::new(Traces::new(metrics.clone()));
        Arc::new(Self {
            workers,
            switch: Arc::default(),
            metrics,
            events: Arc::new(EventLog::new()),
            recent: Recent::new(workers),
            traces,
            host: Host::default(),
            cuts: Cuts::default(),
            resolver,
            started: Instant::now(),
            started_unix_ns: AtomicU64::new(unix_ns(Timestamp::now())),
            steady_unix_ns: AtomicU64::new(unix_ns(Timestamp::now())),
            instance: format!("{:08x}", fastrand::u32(..)),
            runtime,
            pauses: Arc::new(Pauses::new(PAUSE_TOLERANCE, Instant::now())),
            told: Mutex::default(),
            log_watch: Mutex::default(),
            blocked: Sampler::new(SAMPLED_ROUTES + 1),
            limited: Sampler::new(SAMPLED_ROUTES + 1),
            shadowed: Sampler::new(SAMPLED_ROUTES + 1),
            turned_away: Sampler::new(SAMPLED_ROUTES + 1),
            places: Mutex::default(),
            secret: OnceLock::new(),
            overdue_told: Mutex::default(),
            is_in_charge: watch::Sender::new(true),
        })
    }

    /// Leaves it to the other process of an upgrade to tell what both see, or takes it over.
    pub fn set_in_charge(&self, is_in_charge: bool) {
        self.is_in_charge.send_replace(is_in_charge);
    }

    pub fn is_in_charge(&self) -> bool {
        *self.is_in_charge.borrow()
    }

    /// Ready when this process is in charge.
    pub async fn comes_into_charge(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_in_charge.subscribe().wait_for(|it| *it).await;
    }

    /// Tells what every process on these files and endpoints sees, unless that is another one's business.
    pub fn tell(&self, event: Event) {
        if self.is_in_charge() {
            self.events.emit(event);
        }
    }

    /// Takes the key of a state folder for cookies, or makes it. To be called before anything is built.
    ///
    /// # Errors
    /// The file can neither be read nor written.
    pub fn open_state(&self, folder: &Path) -> io::Result<()> {
        // A second state folder, after a reload, does not make the first one's cookies worthless.
        let _ = self.secret.set(Secret::of_folder(folder)?);
        Ok(())
    }

    /// As [`Self::open_state`], for who only looks: makes nothing.
    pub fn look_at_state(&self, folder: &Path) {
        if let Some(secret) = Secret::look_at(folder) {
            let _ = self.secret.set(secret);
        }
    }

    /// What signs cookies.
    pub(crate) fn secret(&self) -> &Secret {
        self.secret.get_or_init(Secret::random)
    }

    /// What signs the admin side's cookies.
    pub fn session_key(&self) -> aws_lc_rs::hmac::Key {
        self.secret().key_for("admin cookie")
    }

    /// The seed of the limiters' keys.
    pub fn limit_seed(&self) -> crate::policy::limit::Seed {
        self.secret().seed_for("limit")
    }

    /// Now, as the limiters count it: nanoseconds since an hour before the start, for they may look back.
    pub fn nanos(&self) -> Nanos {
        self.nanos_at(Instant::now())
    }

    /// The same for a moment that was read from the clock before.
    pub(crate) fn nanos_at(&self, now: Instant) -> Nanos {
        const HOUR_NS: u64 = 3_600_000_000_000;
        let elapsed = u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX);
        Nanos(elapsed.saturating_add(HOUR_NS))
    }

    /// The wall clock at a moment that was read from the other clock, in Unix milliseconds. One that is set shows so
    /// within a second.
    pub(crate) fn unix_ms_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_nanos() as u64;
        self.started_unix_ns.load(Relaxed).saturating_add(since) / 1_000_000
    }

    /// The wall clock at a moment of the other clock, past or to come; the same for the same moment, unless the wall
    /// clock was set.
    pub fn timestamp_at(&self, moment: Instant) -> Timestamp {
        let since = moment.saturating_duration_since(self.started).as_nanos();
        let unix_ns = u128::from(self.steady_unix_ns.load(Relaxed)) + since;
        i128::try_from(unix_ns).ok().and_then(|ns| Timestamp::from_nanosecond(ns).ok()).unwrap_or(Timestamp::MAX)
    }

    /// A route's place in the samplers.
    pub(crate) fn place(&self, route: &str) -> usize {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let next = places.len();
        match places.get(route) {
            Some(place) => *place,
            None if next < SAMPLED_ROUTES => *places.entry(route.to_owned()).or_insert(next),
            None => SAMPLED_ROUTES,
        }
    }

    fn name_at(&self, place: usize) -> String {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places.iter().find(|(_, other)| **other == place);
        found.map_or_else(|| NO_ROUTE.to_owned(), |(name, _)| name.clone())
    }

    /// What a breaker of the upstream `name` calls when its state changes.
    pub(crate) fn breaker_observer(&self, name: &str) -> Box<dyn Fn(Transition) + Send + Sync> {
        let (events, metrics, upstream) = (Arc::clone(&self.events), self.metrics.upstream(name), name.to_owned());
        Box::new(move |transition| {
            let to = breaker_state(transition.to);
            metrics.transition(to);
            if transition.message().is_some() {
                let reason = transition.reason.as_str().to_owned();
                let failure = transition.failure.map(|cause| cause.to_string()).unwrap_or_default();
                events.emit(Event::BreakerChanged { upstream: upstream.clone(), to, reason, failure });
            }
        })
    }

    /// What the endpoints of the upstream `name` call when they are ejected, come back or fail requests.
    pub(crate) fn endpoint_observer(&self, name: &str) -> Observer {
        let (events, upstream) = (Arc::clone(&self.events), name.to_owned());
        Arc::new(move |endpoint, change| {
            let (upstream, endpoint) = (upstream.clone(), endpoint.to_owned());
            events.emit(match change {
                EndpointChange::Ejected { reason } => {
                    Event::EndpointEjected { upstream, endpoint, reason: reason.to_owned() }
                }
                EndpointChange::Restored => Event::EndpointRestored { upstream, endpoint },
                EndpointChange::Unreachable { error, count } => {
                    Event::EndpointUnreachable { upstream, endpoint, error, count }
                }
                EndpointChange::Unanswered { error, count } => {
                    Event::EndpointUnanswered { upstream, endpoint, error, count }
                }
                EndpointChange::BrokeOff { error, count } => {
                    Event::EndpointBrokeOff { upstream, endpoint, error, count }
                }
            });
        })
    }

    /// Several times a second: notices pauses of the process, ends of ejections and changes of health.
    pub fn beat(&self, live: &Snapshot) {
        let now = Instant::now();
        if let Some(pause) = self.pauses.beat(now) {
            tracing::warn!(?pause, "the process stood still; time-outs of that time are not held against upstreams");
        }
        live.groups.values().for_each(|group| group.tick(now));
        let verdicts = verdicts(live);
        self.metrics.set_health(overall(&verdicts));
        let news = self.told.lock().unwrap_or_else(PoisonError::into_inner).news(&verdicts);
        if let Some((from, to, check)) = news {
            self.tell(Event::HealthChanged { from, to, check });
        }
    }

    /// A request met maintenance. `place` and `route` are the route's, when there is one.
    pub(crate) fn blocked(&self, place: Option<usize>, route: Option<&str>) {
        let (place, route) = sampled(place, route);
        if let Some(count) = self.blocked.hit(place, self.second(), || ()) {
            self.events.emit(Event::OperationBlocked { route: route.to_owned(), count });
        }
    }

    /// A request was over a limit; `enforced` is false where the limit only watches.
    pub(crate) fn rate_limited(&self, place: usize, route: &str, limit: &str, enforced: bool) {
        let sampler = if enforced { &self.limited } else { &self.shadowed };
        let (place, route) = sampled(Some(place), Some(route));
        if let Some(count) = sampler.hit(place, self.second(), || limit.to_owned()) {
            self.events.emit(Event::RateLimited { route: route.to_owned(), limit: limit.to_owned(), enforced, count });
        }
    }

    /// A client was turned away by a route's lists or the block list. `place` and `route` are the route's, when there
    /// is one. The line names the client that it is written for; those counted since the line before may be others.
    pub(crate) fn turned_away(&self, client: IpAddr, place: Option<usize>, route: Option<&str>, reason: &str) {
        let details = || (client, reason.to_owned());
        let (place, route) = sampled(place, route);
        if let Some(count) = self.turned_away.hit(place, self.second(), details) {
            let route = route.to_owned();
            self.events.emit(Event::Blocked { client: Some(client), route, reason: reason.to_owned(), count });
        }
    }

    /// Makes events and metrics of what the flag files' watcher saw.
    pub fn flag_changed(&self, change: &Change) {
        match change {
            Change::Activated(active) => {
                self.cuts.flag_is_on(active, Instant::now().into());
                self.tell(activated(active));
            }
            Change::Changed(active) => {
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
    fn tell_overdue(&self, now: Timestamp) {
        let mut told = self.overdue_told.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Looks after the access log: `current` is the one in use.
    pub fn watch_log(&self, current: &Arc<AccessLog>) {
        let (lost, news) = self.log_watch.lock().unwrap_or_else(PoisonError::into_inner).look(current);
        self.metrics.lost_log_lines(lost);
        match news {
            Some(News::Dropping { error }) => self.events.emit(Event::AccessLogDropping { error }),
            Some(News::Recovered { dropped }) => self.events.emit(Event::AccessLogRecovered { dropped }),
            None => {}
        }
    }

    /// Once a second: closes a second of the live figures and tells what was sampled.
    pub fn tick(&self) {
        let (now, since) = (Timestamp::now(), self.started.elapsed().as_nanos() as u64);
        let started = unix_ns(now).saturating_sub(since);
        self.started_unix_ns.store(started, Relaxed);
        if started.abs_diff(self.steady_unix_ns.load(Relaxed)) > STEADY_NS {
            self.steady_unix_ns.store(started, Relaxed);
        }
        self.metrics.tick(u64::try_from(now.as_second()).unwrap_or(0));
        self.runtime.overrides.expire(now);
        self.runtime.blocked.expire(now);
        self.tell_overdue(now);
        let second = self.second();
        self.blocked.flush(second, |place, count, _| {
            self.events.emit(Event::OperationBlocked { route: self.name_at(place), count });
        });
        for (sampler, enforced) in [(&self.limited, true), (&self.shadowed, false)] {
            sampler.flush(second, |place, count, limit| {
                let limit = limit.unwrap_or_default();
                self.events.emit(Event::RateLimited { route: self.name_at(place), limit, enforced, count });
            });
        }
        self.turned_away.flush(second, |place, count, details| {
            let (client, reason) = details.unzip();
            let reason = reason.unwrap_or_default();
            self.events.emit(Event::Blocked { client, route: self.name_at(place), reason, count });
        });
    }

    /// Drops the counters of what a configuration no longer has.
    pub fn keep_metrics_of(&self, config: &Config) {
        self.metrics.retain(config);
    }

    /// Brings those metrics up to date that are looked up when somebody asks.
    pub fn gauge(&self, live: &Snapshot) {
        self.gauge_maintenance(&live.config);
        let now = Instant::now();
        self.metrics.set_health(overall(&verdicts(live)));
        for (name, group) in &live.groups {
            if let Some(breaker) = &group.breaker {
                let metrics = self.metrics.upstream(name);
                metrics.set_breaker_state(breaker_state(breaker.view(now).state));
                metrics.set_breaker_shadow(breaker.settings().shadow);
            }
            let endpoints = group.iter();
            for configured in &group.settings.endpoints {
                let label = configured.address.to_string();
                let mut own = endpoints.iter().filter(|endpoint| *endpoint.configured == label);
                group.metrics.endpoint(&label).set_healthy(own.any(|endpoint| endpoint.standing.takes(now)));
            }
            let is_configured = |label: &str| group.settings.endpoints.iter().any(|e| e.address.to_string() == label);
            group.metrics.retain_endpoints(is_configured);
        }
        let tls = live.listeners.values().filter_map(|listener| listener.tls.as_ref());
        let facts: Vec<_> = tls.flat_map(|tls| tls.certificates()).collect();
        let named: Vec<_> = facts.iter().map(|facts| (facts.domain(), facts.not_after)).collect();
        self.metrics.set_certificates(named.iter().map(|(domain, end)| (domain.as_str(), *end)));
    }

    /// Only scopes that the configuration knows: whoever may write flags may make up names.
    fn gauge_maintenance(&self, config: &Config) {
        let (state, now) = (self.switch.load(), Timestamp::now());
        for (scope, blocked) in self.switch.blocked_totals() {
            let label = match &scope {
                Scope::Global => GLOBAL_SCOPE,
                // A route of that name would hide the rest; the API tells of it.
                Scope::Route(name) if name == GLOBAL_SCOPE => continue,
                Scope::Route(name) if config.routes.iter().any(|route| route.name == *name) => name,
                Scope::Route(_) => continue,
            };
            let active = state.as_ref().and_then(|state| state.all().find(|active| active.scope == scope));
            let metrics = self.metrics.maintenance(label);
            metrics.show(active.is_some(), active.and_then(|active| active.overdue(now)), blocked);
        }
    }

    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// Zero before 1970.
fn unix_ns(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// What there is to say of every upstream and probe, in the order of their names, and of the machine.
pub fn verdicts(live: &Snapshot) -> Vec<Verdict> {
    let mut verdicts = verdicts_of_services(live);
    // What has the name of an upstream or a probe is that one.
    let machine = live.shared.host.checks(&live.config.host).into_iter();
    let machine = machine.filter(|check| !verdicts.iter().any(|verdict| verdict.name == check.name));
    let machine: Vec<_> = machine.map(verdict_of_machine).collect();
    verdicts.extend(machine);
    verdicts
}

/// The same without the machine.
pub fn verdicts_of_services(live: &Snapshot) -> Vec<Verdict> {
    let now = Instant::now();
    let groups = live.groups.values().map(|group| {
        let fallback = group.settings.breaker.fallback.as_ref().and_then(|name| live.groups.get(name));
        Verdict::of_group(group, fallback.map(|fallback| &**fallback), now)
    });
    let probes = live.probes.iter().map(|(name, probe)| match live.groups.contains_key(name) {
        // Both are told of.
        true => Verdict::of_probe(&format!("probe.{name}"), probe),
        false => Verdict::of_probe(name, probe),
    });
    groups.chain(probes).collect()
}

fn verdict_of_machine(check: Check) -> Verdict {
    let Check { name, percent, bound, is_over } = check;
    Verdict {
        name: name.to_owned(),
        critical: false,
        is_covered: false,
        is_healthy: Some(!is_over),
        is_on_trial: false,
        latency: None,
        error: is_over.then(|| format!("{percent:.1} % in use, more than {bound} %")),
        endpoints: Vec::new(),
        percent: Some(percent),
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

fn breaker_state(state: State) -> BreakerState {
    match state {
        State::Closed | State::Ramp => BreakerState::Closed,
        State::HalfOpen => BreakerState::HalfOpen,
        State::Open => BreakerState::Open,
    }
}

/// Where it is counted, and by what name that is told.
fn sampled(place: Option<usize>, route: Option<&str>) -> (usize, &str) {
    match place.zip(route) {
        Some((place, route)) if place < SAMPLED_ROUTES => (place, route),
        _ => (SAMPLED_ROUTES, NO_ROUTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_follows_the_other_one() {
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let at = |secs| shared.unix_ms_at(shared.started + Duration::from_secs(secs));
        assert_eq!(at(5) - at(0), 5000);
        shared.started_unix_ns.store(0, Relaxed);
        assert_eq!(at(7), 7000);
        shared.tick();
        assert!(at(0) > 1_700_000_000_000, "a clock that was set is noticed");
    }

    #[test]
    fn each_of_many_routes_has_lines_of_its_own() {
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let names: Vec<_> = (0..3_000).map(|number| format!("r{number}")).collect();
        for name in &names {
            assert_eq!(shared.place(name), shared.place(name));
        }
        // The first is told at once, the second by the end of its second.
        for name in [&names[1], &names[2_998], &names[2_999]] {
            for _ in 0..3 {
                shared.blocked(Some(shared.place(name)), Some(name));
            }
        }
        shared.blocked.flush(u64::MAX - 1, |place, count, _| {
            shared.events.emit(Event::OperationBlocked { route: shared.name_at(place), count });
        });
        let mut told = BTreeMap::<String, u64>::new();
        for record in shared.events.recent() {
            if let Event::OperationBlocked { route, count } = &record.event {
                *told.entry(route.clone()).or_default() += count;
            }
        }
        assert_eq!(told, BTreeMap::from(["r1", "r2998", "r2999"].map(|name| (name.to_owned(), 3))));
    }
}
