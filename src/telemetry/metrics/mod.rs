//! The metrics of docs/logs-and-metrics.md: handles the rest of the proxy counts with, the scrape, and the live view.
//!
//! Handles are looked up by name once per configuration generation and are plain atomics from then on. They
//! outlive generations: the same name is the same counter. [`Metrics::retain`] forgets what the configuration no
//! longer names, which bounds the number of series.

mod encode;
mod handles;
mod histogram;
mod limit;
mod process;
mod route;
mod series;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::encode::CONTENT_TYPE;
pub use self::handles::{
    BreakerState, EndpointMetrics, ListenerMetrics, OpenConnection, UpstreamMetrics, WindowMetrics,
};
pub use self::histogram::BOUNDS_MICROS;
use self::histogram::FINE;
pub use self::limit::{LimitMetrics, PassedAll};
pub use self::process::Process;
pub use self::route::RouteMetrics;
use self::route::Traffic;
use self::series::Series;
pub use self::series::{RouteSecond, SERIES_MAX};
pub use self::window::{HISTORY, LastMinute, Second};
use self::window::{Totals, Window};
use crate::config::model::Config;

/// The scope of the global maintenance flag in `flagstone_maintenance_active`.
pub const GLOBAL_SCOPE: &str = "global";

/// The route name under which requests that no route matched are counted.
pub const NO_ROUTE: &str = "-";

/// `flagstone_health_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    Healthy = 0,
    Degraded = 1,
    Unhealthy = 2,
}

impl HealthStatus {
    /// As the API and the events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One maintenance scope, as it is when somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeFigures {
    pub is_active: bool,
    /// Since it should have ended; 0 = in time, or off.
    pub overdue_seconds: u64,
    /// Requests answered by maintenance so far.
    pub blocked: u64,
}

/// All metrics of the process. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    traffic: Box<[Arc<Traffic>]>,
    routes: Family<RouteMetrics>,
    upstreams: Family<UpstreamMetrics>,
    listeners: Family<ListenerMetrics>,
    /// Downstream, over all listeners.
    connections: Arc<AtomicI64>,
    limits: Family<LimitMetrics>,
    scopes: Mutex<BTreeMap<String, ScopeFigures>>,
    windows: Family<WindowMetrics>,
    /// Unix seconds by domain.
    certificates: Mutex<BTreeMap<String, i64>>,
    health: AtomicU8,
    generation: AtomicU64,
    log_lines_lost: AtomicU64,
    spans_exported: AtomicU64,
    spans_dropped: AtomicU64,
    reload_success: AtomicBool,
    reload_unix_seconds: AtomicU64,
    /// And when its last step ended.
    window: Mutex<(Window, Instant)>,
    series: Mutex<Series>,
    /// Unix seconds of the last step of the live view.
    ticks: watch::Sender<u64>,
}

impl Metrics {
    /// `workers` is the number of shards of what is counted per request; at least one is made.
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Inner {
            traffic: (0..workers.max(1)).map(|_| Arc::default()).collect(),
            routes: Family::default(),
            upstreams: Family::default(),
            listeners: Family::default(),
            connections: Arc::default(),
            limits: Family::default(),
            scopes: Mutex::default(),
            windows: Family::default(),
            certificates: Mutex::default(),
            health: AtomicU8::new(HealthStatus::Healthy as u8),
            generation: AtomicU64::new(0),
            log_lines_lost: AtomicU64::new(0),
            spans_exported: AtomicU64::new(0),
            spans_dropped: AtomicU64::new(0),
            reload_success: AtomicBool::new(true),
            reload_unix_seconds: AtomicU64::new(0),
            window: Mutex::new((Window::default(), Instant::now())),
            series: Mutex::default(),
            ticks: watch::Sender::new(0),
        }))
    }

    /// The counters of a route, made when the name is new. [`NO_ROUTE`] is a route like any other.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let inner = &self.0;
        inner.routes.handle(name, || RouteMetrics::new(&inner.traffic))
    }

    /// The counters of an upstream, made when the name is new.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        let inner = &self.0;
        let new = || UpstreamMetrics::new(inner.traffic.len());
        inner.upstreams.handle(name, new)
    }

    /// The counters of a listener, made when the name is new.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.0.listeners.handle(name, || ListenerMetrics::new(&self.0.connections))
    }

    /// The counters of a limit, made when the name is new.
    pub fn limit(&self, name: &str) -> Arc<LimitMetrics> {
        self.0.limits.handle(name, Default::default)
    }

    /// The figures of a maintenance window, made when the name is new.
    pub fn window(&self, name: &str) -> Arc<WindowMetrics> {
        self.0.windows.handle(name, Default::default)
    }

    /// Replaces all maintenance scopes, which are routes' names and [`GLOBAL_SCOPE`]. That is there in any case: an alert on
    /// a series that does not exist never fires.
    pub fn set_scopes(&self, scopes: impl IntoIterator<Item = (String, ScopeFigures)>) {
        let global = (GLOBAL_SCOPE.to_owned(), ScopeFigures::default());
        *self.0.scopes.lock() = std::iter::once(global).chain(scopes).collect();
    }

    /// Replaces all certificates: domain and `notAfter` in Unix seconds. Of several with one domain the
    /// earliest end counts.
    pub fn set_certificates<'a>(&self, certificates: impl IntoIterator<Item = (&'a str, i64)>) {
        let mut expiries = BTreeMap::new();
        for (domain, expiry) in certificates {
            let earliest = expiries.entry(domain.to_owned()).or_insert(expiry);
            *earliest = expiry.min(*earliest);
        }
        *self.0.certificates.lock() = expiries;
    }

    pub fn set_health(&self, status: HealthStatus) {
        self.0.health.store(status as u8, Relaxed);
    }

    /// Notes the outcome of a load: the generation that serves now, and whether it is the one just loaded.
    pub fn reloaded(&self, success: bool, generation: u64, unix_seconds: u64) {
        self.0.reload_success.store(success, Relaxed);
        self.0.generation.store(generation, Relaxed);
        if success {
            self.0.reload_unix_seconds.store(unix_seconds, Relaxed);
        }
    }

    /// Counts lines that the access log could not take.
    pub fn lost_log_lines(&self, count: u64) {
        self.0.log_lines_lost.fetch_add(count, Relaxed);
    }

    /// Lines that access logs could not take since the start, as of the last [`Self::lost_log_lines`].
    pub fn log_lines_lost(&self) -> u64 {
        self.0.log_lines_lost.load(Relaxed)
    }

    /// Counts spans that the collector has taken.
    pub fn spans_exported(&self, count: u64) {
        self.0.spans_exported.fetch_add(count, Relaxed);
    }

    /// Counts spans that nobody will see.
    pub fn spans_dropped(&self, count: u64) {
        self.0.spans_dropped.fetch_add(count, Relaxed);
    }

    /// Forgets every series that `config` no longer names. Guards and handles still held stay usable.
    pub fn retain(&self, config: &Config) {
        let inner = &self.0;
        let is_route = |name: &str| config.routes.iter().any(|route| route.name == name);
        inner.routes.retain(|name| name == NO_ROUTE || is_route(name));
        inner.upstreams.retain(|name| config.upstreams.contains_key(name));
        inner.limits.retain(|name| config.limits.contains_key(name));
        inner.listeners.retain(|name| config.listeners.iter().any(|l| l.name == name));
        let windows = &config.maintenance.windows;
        inner.windows.retain(|name| windows.iter().any(|w| w.name == name));
    }

    /// Requests being served now.
    pub fn active_requests(&self) -> u64 {
        self.totals().in_flight
    }

    /// Downstream connections open now, over all listeners, those among them that are gone.
    pub fn active_connections(&self) -> i64 {
        self.0.connections.load(Relaxed)
    }

    /// Ends a second of the live view. To be called once a second, with the time in Unix seconds.
    pub fn tick(&self, unix_seconds: u64) {
        let totals = self.totals();
        let mut guard = self.0.window.lock();
        let (window, ticked) = &mut *guard;
        window.tick(unix_seconds, ticked.elapsed(), totals);
        *ticked = Instant::now();
        drop(guard);
        let mut series = self.0.series.lock();
        series.begin(unix_seconds);
        for (name, route) in self.0.routes.0.lock().iter() {
            series.note(name, &route.pieces(), || route.errors());
        }
        series.end();
        drop(series);
        self.0.ticks.send_replace(unix_seconds);
    }

    /// Tells of every step of the live view, once it can be read.
    pub fn ticks(&self) -> watch::Receiver<u64> {
        self.0.ticks.subscribe()
    }

    /// The last second, once there was one.
    pub fn last_second(&self) -> Option<Second> {
        self.0.window.lock().0.last_second()
    }

    /// The last [`HISTORY`] seconds of a route in which requests finished, oldest first. Of [`SERIES_MAX`] routes at
    /// most there is such a series.
    pub fn route_history(&self, name: &str) -> Vec<RouteSecond> {
        self.0.series.lock().history(name)
    }

    /// The last minute of every route that has a series, in the order of the names.
    pub fn routes_last_minute(&self) -> Vec<(String, LastMinute)> {
        let lived = self.0.window.lock().0.lived_seconds();
        self.0.series.lock().last_minutes(lived)
    }

    /// The rolling figures of `GET /api/metrics`, up to now.
    pub fn last_minute(&self) -> LastMinute {
        let guard = self.0.window.lock();
        let (window, ticked) = &*guard;
        window.last_minute(&self.totals(), ticked.elapsed())
    }

    /// The last [`HISTORY`] seconds at most, oldest first.
    pub fn history(&self) -> Vec<Second> {
        self.0.window.lock().0.history()
    }

    /// The scrape, in the text format that [`CONTENT_TYPE`] names.
    pub fn encode(&self) -> String {
        encode::scrape(self)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals { durations: [0; FINE], errors: 0, in_flight: 0 };
        for traffic in &self.0.traffic {
            traffic.add_to(&mut totals.durations, &mut totals.errors, &mut totals.in_flight);
        }
        totals
    }
}

/// The handles of one kind by name.
#[derive(Debug)]
struct Family<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Default for Family<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Family<T> {
    fn handle(&self, name: &str, new: impl FnOnce() -> T) -> Arc<T> {
        let mut handles = self.0.lock();
        match handles.get(name) {
            Some(handle) => Arc::clone(handle),
            None => Arc::clone(handles.entry(name.to_owned()).or_insert_with(|| Arc::new(new()))),
        }
    }

    fn retain(&self, mut keep: impl FnMut(&str) -> bool) {
        self.0.lock().retain(|name, _| keep(name));
    }

    /// All of them, in the order of their names.
    fn all(&self) -> Vec<(String, Arc<T>)> {
        let handles = self.0.lock();
        handles.iter().map(|(name, handle)| (name.clone(), Arc::clone(handle))).collect()
    }
}
