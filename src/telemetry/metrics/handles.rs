//! The counters of upstreams, endpoints, listeners and maintenance windows.
//!
//! Unlike a route's these are not sharded, but for an upstream's durations: they move rarely, or once a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::Family;
use super::histogram::{Histogram, Reading};

/// A breaker's state as the metric `flagstone_breaker_state` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

impl BreakerState {
    pub(super) const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// `closed`, `half-open`, `open`: as the label `to` and the events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// One upstream. Resolve once per configuration generation, with [`super::Metrics::upstream`].
#[derive(Debug)]
pub struct UpstreamMetrics {
    shards: Box<[Shard]>,
    retries: AtomicU64,
    breaker_state: AtomicU8,
    breaker_rejected: AtomicU64,
    breaker_shadow: AtomicBool,
    transitions: [AtomicU64; 3],
    endpoints: Family<EndpointMetrics>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Histogram);

impl UpstreamMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers).map(|_| Shard::default()).collect(),
            retries: AtomicU64::new(0),
            breaker_state: AtomicU8::new(BreakerState::Closed as u8),
            breaker_rejected: AtomicU64::new(0),
            breaker_shadow: AtomicBool::new(false),
            transitions: Default::default(),
            endpoints: Family::default(),
        }
    }

    /// Counts one answer of the upstream, from sending the request to the response head.
    pub fn answered(&self, worker: usize, duration: Duration) {
        self.shards[worker % self.shards.len()].0.record(duration);
    }

    /// Counts one further try.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Counts a request that the breaker turned away, or would have but for its shadow.
    pub fn rejected(&self) {
        self.breaker_rejected.fetch_add(1, Relaxed);
    }

    /// Counts a transition.
    pub fn count_transition(&self, to: BreakerState) {
        self.transitions[to as usize].fetch_add(1, Relaxed);
    }

    /// Shows a state.
    pub fn set_breaker_state(&self, state: BreakerState) {
        self.breaker_state.store(state as u8, Relaxed);
    }

    /// Whether the breaker only watches.
    pub fn set_breaker_shadow(&self, shadow: bool) {
        self.breaker_shadow.store(shadow, Relaxed);
    }

    /// The handle of an endpoint, healthy when new. `name` must come from the configuration: a name that
    /// resolves to many addresses is one endpoint here.
    pub fn endpoint(&self, name: &str) -> Arc<EndpointMetrics> {
        self.endpoints.handle(name, Default::default)
    }

    /// Forgets the endpoints whose name `keep` denies.
    pub fn retain_endpoints(&self, keep: impl FnMut(&str) -> bool) {
        self.endpoints.retain(keep);
    }

    pub(super) fn endpoints(&self) -> Vec<(String, Arc<EndpointMetrics>)> {
        self.endpoints.all()
    }

    pub(super) fn duration(&self) -> Reading {
        let mut reading = Reading::default();
        self.shards.iter().for_each(|s| s.0.add_to(&mut reading));
        reading
    }

    pub(super) fn retry_count(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    pub(super) fn rejected_count(&self) -> u64 {
        self.breaker_rejected.load(Relaxed)
    }

    pub(super) fn breaker_is_shadow(&self) -> bool {
        self.breaker_shadow.load(Relaxed)
    }

    pub(super) fn breaker_number(&self) -> u64 {
        u64::from(self.breaker_state.load(Relaxed))
    }

    pub(super) fn transitions(&self, to: BreakerState) -> u64 {
        self.transitions[to as usize].load(Relaxed)
    }
}

/// One endpoint of one upstream.
#[derive(Debug)]
pub struct EndpointMetrics(AtomicBool);

impl Default for EndpointMetrics {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl EndpointMetrics {
    pub fn set_healthy(&self, healthy: bool) {
        self.0.store(healthy, Relaxed);
    }

    pub fn is_healthy(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// One listener, and all of them together: what came in at one that is gone is open still.
#[derive(Debug)]
pub struct ListenerMetrics {
    own: AtomicI64,
    all: Arc<AtomicI64>,
}

/// A downstream connection; dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it takes the connection out of the gauge"]
pub struct OpenConnection(Arc<ListenerMetrics>);

impl ListenerMetrics {
    pub(super) fn new(all: &Arc<AtomicI64>) -> Self {
        Self { own: AtomicI64::new(0), all: Arc::clone(all) }
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        self.own.fetch_add(1, Relaxed);
        self.all.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// Connections open now.
    pub fn connections(&self) -> i64 {
        self.own.load(Relaxed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Relaxed);
        self.0.all.fetch_sub(1, Relaxed);
    }
}

/// One maintenance window. Nothing is shown of a window that has not run yet.
#[derive(Debug, Default)]
pub struct WindowMetrics(Mutex<WindowRuns>);

/// What is known of the last runs: one that has begun may not have ended, and then the duration is of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WindowRuns {
    /// Unix seconds.
    pub(super) began: Option<u64>,
    pub(super) took: Option<Duration>,
}

impl WindowMetrics {
    /// A run begins, or is known to have begun.
    pub fn began(&self, unix_seconds: u64) {
        self.0.lock().began = Some(unix_seconds);
    }

    /// A run has ended.
    pub fn took(&self, duration: Duration) {
        self.0.lock().took = Some(duration);
    }

    pub(super) fn runs(&self) -> WindowRuns {
        *self.0.lock()
    }
}
