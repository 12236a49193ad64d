//! What outlives every generation: the maintenance switch, counters, the event log, the clock's origin.

mod maintenance;
mod observers;
mod samples;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::verdicts::{verdicts, verdicts_of_services};
use crate::breaker::{Pauses, State};
use crate::config::model::Config;
use crate::policy::limit::Nanos;
use crate::policy::maintenance::{Scope, Switch};
use crate::proxy::cut::Cuts;
use crate::runtime::Runtime;
use crate::secret::Secret;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::access_log::watch::{LogWatch, News};
use crate::telemetry::events::{Event, EventLog, Sampler};
use crate::telemetry::host::Host;
use crate::telemetry::metrics::{BreakerState, Metrics};
use crate::telemetry::recent::Recent;
use crate::telemetry::traces::Traces;
use crate::upstream::Resolver;
use crate::upstream::verdict::{LastTold, overall};

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
    /// Told when maintenance, the block list or a feature has changed, for requests that wait.
    pub switched: Notify,
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
        let traces = Arc::new(Traces::new(metrics.clone()));
        Arc::new(Self {
            workers,
            switch: Arc::default(),
            switched: Notify::new(),
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
        // The process keeps its state folder until it ends, and so its key.
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

    /// From now on [`Self::beat`] is called. A start may have taken its time, as for a store of limits that does not answer.
    pub fn begin_to_beat(&self) {
        self.pauses.begin(Instant::now());
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
        let news = self.told.lock().news(&verdicts);
        if let Some((from, to, check)) = news {
            self.tell(Event::HealthChanged { from, to, check });
        }
    }

    /// Looks after the access log: `current` is the one in use.
    pub fn watch_log(&self, current: &Arc<AccessLog>) {
        let (lost, news) = self.log_watch.lock().look(current);
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
        self.flush_samples();
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
        // By their handles: a name that a reload has just taken out would be made anew, and stay.
        for group in live.groups.values() {
            if let Some(breaker) = &group.breaker {
                group.metrics.set_breaker_state(breaker_state(breaker.view(now).state));
                group.metrics.set_breaker_shadow(breaker.settings().shadow);
            }
            let endpoints = group.endpoints();
            for configured in &group.settings.endpoints {
                let label = configured.address.to_string();
                let mut own = endpoints.iter().filter(|endpoint| *endpoint.configured == label);
                group.metrics.endpoint(&label).set_healthy(own.any(|endpoint| endpoint.standing.takes(now)));
            }
            let is_configured = |label: &str| group.settings.endpoints.iter().any(|e| e.address.to_string() == label);
            group.metrics.retain_endpoints(is_configured);
        }
        for limit in live.limits.values() {
            limit.metrics.set_store(limit.store.as_ref().map(|store| store.is_up()));
        }
        let tls = live.listeners.values().filter_map(|listener| listener.tls.as_ref());
        let facts: Vec<_> = tls.flat_map(|tls| tls.certificates()).collect();
        let named: Vec<_> = facts.iter().map(|facts| (facts.domain(), facts.not_after)).collect();
        self.metrics.set_certificates(named.iter().map(|(domain, end)| (domain.as_str(), *end)));
    }
}

/// Zero before 1970.
fn unix_ns(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

fn breaker_state(state: State) -> BreakerState {
    match state {
        State::Closed | State::Ramp => BreakerState::Closed,
        State::HalfOpen => BreakerState::HalfOpen,
        State::Open => BreakerState::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_by_the_generation_before_brings_nothing_back() {
        let toml = |upstream: &str| {
            let text = format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n\
                 [[route]]\nname = \"{upstream}\"\nupstream = \"{upstream}\"\n\
                 [upstream.{upstream}]\nendpoints = [\"127.0.0.1:1\"]\n"
            );
            crate::config::parse(&text, Path::new("flagstone.toml"), &|_| None).unwrap().config
        };
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let before = Snapshot::build(toml("before"), None, &shared).unwrap();
        shared.keep_metrics_of(&toml("now"));
        shared.gauge(&before);
        let scrape = shared.metrics.encode();
        assert!(!scrape.contains("upstream=\"before\""), "{scrape}");
    }

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
}
