//! One endpoint: its address, how it stands, what is in flight to it, and the connections kept to it.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::affinity::{Affinity, Token};
use super::connect::{ConnectError, Connector};
use super::connection::Connection;
use super::failures::{Failures, Lack};
use super::hold::Hold;
use super::http1::Http1;
use super::multiplex::Multiplexed;
use super::pool::Pool;
use super::standing::{Health, Standing};
use crate::balance::{Candidate, EjectionEvent, EjectionNews, Ewma, hash_of};
use crate::config::model::{self, Address};

mod scout;

/// What happened to an endpoint, for whoever keeps the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is left alone for a while.
    Ejected {
        reason: &'static str,
        /// What the check found; empty where requests have told of theirs.
        error: String,
    },
    Restored,
    /// `count` requests found that it takes no connection. Sampled.
    Unreachable {
        error: String,
        count: u64,
    },
    /// `count` requests got no answer from it. Sampled.
    Unanswered {
        error: String,
        count: u64,
    },
    /// `count` requests got an answer from it that has no end. Sampled.
    BrokeOff {
        error: String,
        count: u64,
    },
}

/// Told of every change: the endpoint's label, and what it was.
pub(crate) type Observer = Arc<dyn Fn(&str, Change) + Send + Sync>;

/// One address of an upstream.
pub struct Endpoint {
    /// Its address: as written in the file, or one of the addresses of the name that is.
    pub(crate) label: Arc<str>,
    /// As written in the file.
    pub(crate) configured: Arc<str>,
    /// The `Host` for `preserve_host = false`.
    pub(crate) host: HeaderValue,
    /// Hash of the label, stable over restarts, for consistent hashing.
    pub(crate) key: u64,
    /// Names it to clients, where sessions stick.
    pub(crate) token: Option<Token>,
    weight: u32,
    is_backup: bool,
    pub(crate) standing: Standing,
    incident: scout::Incident,
    /// Its upstream holds requests while it takes no connection.
    is_waited_for: bool,
    /// Shared with the same address before: what is at the app stays there.
    in_flight: Arc<AtomicU32>,
    in_flight_max: u32,
    /// For `peak_ewma` only; shared as well.
    ewma: Option<Arc<Ewma>>,
    pub(super) connector: Connector,
    pool: Arc<Pool>,
    /// Where the upstream speaks HTTP/2.
    multiplexed: Option<Arc<Multiplexed>>,
    /// Requests that begin now find another one in its place, or none: only those that began before need to know how it
    /// stands.
    replaced: AtomicBool,
    /// Besides, nobody shares its connections: what comes back from it is not kept.
    retired: AtomicBool,
    hold: Arc<Hold>,
    observer: Observer,
    failures: Arc<Failures>,
    /// When it last dropped a request that was held against it.
    fell: Mutex<Option<Instant>>,
    /// What checks it, at most for as long as it lives.
    checker: OnceLock<Aborting>,
}

/// What an [`Endpoint`] is made from.
pub(super) struct Plan<'a> {
    pub(super) connector: Connector,
    /// As written in the file.
    pub(super) configured: &'a model::Endpoint,
    pub(super) settings: &'a model::Upstream,
    pub(super) affinity: Option<&'a Affinity>,
    pub(super) workers: usize,
    /// Of its upstream.
    pub(super) hold: &'a Arc<Hold>,
    pub(super) observer: Observer,
    /// The same address before a reload, and the settings it had.
    pub(super) known: Option<(&'a Endpoint, &'a model::Upstream)>,
    /// The same address before it was left out for a while.
    pub(super) left: Option<&'a Endpoint>,
}

impl Endpoint {
    pub(super) fn new(plan: Plan<'_>) -> Self {
        let Plan { connector, configured, settings, affinity, workers, hold, observer, known, left } = plan;
        let (label, now): (Arc<str>, _) = (connector.address.to_string().into(), Instant::now());
        let pools = known.filter(|(_, before)| connects_alike(before, settings)).map(|(known, _)| known);
        let observes = settings.balance == model::Balance::PeakEwma;
        let before = known.map(|(known, _)| known).or(left);
        Self {
            key: hash_of(label.as_bytes()),
            token: affinity.map(|affinity| affinity.token(&label)),
            host: host_of(&configured.address),
            configured: configured.address.to_string().into(),
            label,
            weight: configured.weight.get(),
            is_backup: configured.backup,
            standing: Standing::new(settings, known.map(|(known, before)| (&known.standing, before)), now),
            incident: scout::Incident::default(),
            is_waited_for: !settings.hold.is_zero(),
            in_flight: before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default(),
            in_flight_max: settings.max_in_flight.map_or(u32::MAX, std::num::NonZeroU32::get),
            ewma: observes.then(|| {
                let known = before.and_then(|before| before.ewma.clone());
                known.unwrap_or_else(|| Arc::new(Ewma::new(now)))
            }),
            connector,
            pool: match pools {
                Some(known) => Arc::clone(&known.pool),
                None => Arc::new(Pool::new(workers, settings.max_idle, settings.idle_timeout)),
            },
            multiplexed: match pools {
                Some(known) => known.multiplexed.clone(),
                None => settings.http2.then(|| Arc::new(Multiplexed::new(workers, settings.idle_timeout))),
            },
            replaced: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            hold: Arc::clone(hold),
            observer,
            failures: match known {
                Some((known, _)) => Arc::clone(&known.failures),
                None => Arc::new(Failures::new(now)),
            },
            fell: Mutex::new(None),
            checker: OnceLock::new(),
        }
    }

    /// Requests that have been sent and not been answered to the end.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts in again one that was let out for a while, although it may be one too many.
    pub(super) fn enter_again(self: Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self)
    }

    /// Counts a request in for as long as the guard lives; `None` when it would be one too many.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Relaxed);
        if before >= self.in_flight_max {
            self.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(InFlight(Arc::clone(self)))
    }

    /// As a balancer sees it at `now`; with `asks_ejected` as if it were not ejected.
    pub(super) fn candidate(&self, asks_ejected: bool, now: Instant) -> Candidate {
        let in_flight = self.in_flight();
        Candidate {
            weight: self.weight,
            in_flight,
            ewma_ns: self.ewma.as_ref().map_or(0, |ewma| ewma.value(now)),
            backup: self.is_backup,
            available: in_flight < self.in_flight_max
                && (self.standing.takes(now) || (asks_ejected && self.standing.is_only_ejected(now))),
            key: self.key,
            ramp_permille: self.standing.ramp_permille(now),
        }
    }

    /// It answered, whatever it was.
    pub(crate) fn answered(&self) {
        self.incident.answered();
    }

    /// How long it took to do what it was asked, unless that `is_spoilt`: nobody's time.
    pub(crate) fn observe(&self, latency: Duration, now: Instant, is_spoilt: impl FnOnce() -> bool) {
        if let Some(ewma) = self.ewma.as_ref().filter(|_| !is_spoilt()) {
            ewma.observe(latency, now);
        }
    }

    /// How long it took not to do what it was asked.
    pub(crate) fn observe_failure(&self, elapsed: Duration, now: Instant) {
        if let Some(ewma) = &self.ewma {
            ewma.observe_failure(elapsed, now);
        }
    }

    /// A kept connection, or a place on one.
    pub(crate) fn kept(&self, worker: usize, now: Instant) -> Option<Connection> {
        match &self.multiplexed {
            None => self.pool.take(worker, now).map(Connection::Http1),
            Some(multiplexed) => multiplexed.take(worker),
        }
    }

    /// A new connection, or a place on one that has just been made for another request.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect(&self, worker: usize, limit: Duration) -> Result<Connection, ConnectError> {
        let connect = self.connector.connect(limit);
        match &self.multiplexed {
            None => connect.await,
            Some(multiplexed) => {
                let made = multiplexed.take_or_make(worker, limit, connect).await;
                if self.is_retired() {
                    multiplexed.clear();
                }
                made
            }
        }
    }

    /// Keeps a connection for the next request; it has been idle since `now`.
    pub(super) fn keep(&self, worker: usize, connection: Http1, now: Instant) {
        self.pool.keep(worker, connection, now);
        // In this order: of both, `retire` and this, the later one closes it.
        if self.is_retired() {
            self.pool.clear();
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, worker: usize) {
        self.pool.sweep(worker);
        self.multiplexed.iter().for_each(|multiplexed| multiplexed.sweep(worker));
    }

    /// It took no connection, and its upstream holds requests: it is left alone until one succeeds, which is tried
    /// from here on again and again. Must be called on a runtime.
    pub(crate) fn refuse(self: &Arc<Self>) {
        self.standing.set_refusing(true);
        scout::send(self);
    }

    /// Whether it refused connections, and has not shown yet that it is back.
    pub(super) fn is_looked_for(&self) -> bool {
        self.incident.is_on()
    }

    /// Tells why no connection could be made, or keeps it for [`Self::tick`].
    pub(crate) fn unreachable(&self, error: &ConnectError, now: Instant) {
        self.lacks(Lack::Connection, error, now);
    }

    /// Tells why it gave no answer, or keeps it for [`Self::tick`].
    pub(crate) fn unanswered(&self, error: &(dyn Error + 'static), now: Instant) {
        self.lacks(Lack::Answer, error, now);
    }

    /// Tells why its answer did not come to its end, or keeps it for [`Self::tick`].
    pub(crate) fn broke_off(&self, error: &(dyn Error + 'static), now: Instant) {
        self.lacks(Lack::Rest, error, now);
    }

    /// It dropped a request that it was sent at `began`. False when it has dropped another since then: requests that go
    /// down together have one cause.
    pub(crate) fn falls(&self, began: Instant, now: Instant) -> bool {
        let mut fell = self.fell.lock();
        let is_new = fell.is_none_or(|fell| fell < began);
        if is_new {
            *fell = Some(now);
        }
        is_new
    }

    fn lacks(&self, lack: Lack, error: &(dyn Error + 'static), now: Instant) {
        if let Some(change) = self.failures.hit(lack, error, now) {
            (self.observer)(&self.label, change);
        }
    }

    /// Tells what has come to be told. For whoever looks now and then.
    pub(super) fn tick(&self, now: Instant) {
        self.ejection_changed(self.standing.ejection.poll(now));
        self.failures.flush(now, |change| (self.observer)(&self.label, change));
    }

    /// Tells of an ejection or its end, and lets those go on that waited for it.
    pub(super) fn ejection_changed(&self, news: Option<EjectionNews<'_>>) {
        let Some(news) = news else { return };
        match news.event {
            EjectionEvent::Ejected { was_back, .. } => {
                if was_back {
                    (self.observer)(&self.label, Change::Restored);
                }
                (self.observer)(&self.label, Change::Ejected { reason: "consecutive_failures", error: String::new() });
            }
            EjectionEvent::Restored => {
                (self.observer)(&self.label, Change::Restored);
                drop(news);
                self.hold.queues().release();
            }
        }
    }

    /// Active checks have changed their mind.
    pub(super) fn health_changed(&self, after: Health, error: Option<String>) {
        // Else it is told of the one in its place.
        if !self.replaced.load(Relaxed) {
            self.tell_of_checks((after == Health::Unhealthy).then(|| error.unwrap_or_default()));
        }
        // Also when it is away: who waits for the first check has nothing to wait for any more.
        self.hold.queues().release();
    }

    /// Tells whether checks find it away, and why, where that is news.
    fn tell_of_checks(&self, away: Option<String>) {
        if self.standing.set_told_away(away.is_some()) {
            let ejected = |error| Change::Ejected { reason: "health_check", error };
            (self.observer)(&self.label, away.map_or(Change::Restored, ejected));
        }
    }

    /// Its upstream has the endpoints `after` from now on: open requests finish, and kept connections close, unless the
    /// same address has them there.
    pub(super) fn retire(&self, after: &[Arc<Self>]) {
        let was_replaced = self.replaced.swap(true, Relaxed);
        let same = after.iter().filter(|other| other.label == self.label);
        // Two names may have an address in common.
        let successor = same.max_by_key(|other| other.configured == self.configured);
        if let Some(successor) = successor.filter(|_| !was_replaced) {
            self.hand_on(successor, after);
        }
        if after.iter().any(|other| Arc::ptr_eq(&other.pool, &self.pool)) {
            return;
        }
        self.retired.store(true, Relaxed);
        self.pool.clear();
        self.multiplexed.iter().for_each(|multiplexed| multiplexed.clear());
    }

    /// That it was told to be away goes on to what a reload has put in its place; where that is not away for the same
    /// reason, it is told to be back. Or an alarm would stay.
    fn hand_on(&self, successor: &Arc<Self>, after: &[Arc<Self>]) {
        scout::hand_on(self, successor);
        if !after.iter().any(|other| Arc::ptr_eq(&other.standing.ejection, &self.standing.ejection)) {
            self.ejection_changed(self.standing.ejection.retire(Instant::now()));
        }
        if successor.standing.health() == Health::Unchecked {
            successor.tell_of_checks(None);
        }
    }

    /// Whether it has no part in what is to come: nothing is kept for it, and nothing told of it.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Whether nobody needs to know how it stands.
    pub(super) fn is_over(&self) -> bool {
        self.replaced.load(Relaxed) && !self.hold.is_in_use()
    }

    /// Stops this task when the endpoint goes. The first one counts.
    pub(super) fn set_checker(&self, checker: AbortHandle) {
        // A second one would be aborted at once, by its own drop.
        drop(self.checker.set(Aborting(checker)));
    }

    pub(super) fn has_checker(&self) -> bool {
        self.checker.get().is_some()
    }

    /// Whether a request waits for a place at an endpoint of its upstream.
    pub(super) fn is_awaited(&self) -> bool {
        self.hold.queues().is_anyone_waiting()
    }
}

/// Ends a task when dropped.
#[derive(Debug)]
pub(super) struct Aborting(pub(super) AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a request out when dropped.
pub(crate) struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Before the look at who waits; see `Hold::wait`.
        self.0.in_flight.fetch_sub(1, SeqCst);
        self.0.hold.queues().release_one();
    }
}

/// Whether connections made under one of these settings are good for the other.
fn connects_alike(one: &model::Upstream, other: &model::Upstream) -> bool {
    let rules = |settings: &model::Upstream| (settings.http2, settings.max_idle, settings.idle_timeout);
    one.tls == other.tls && rules(one) == rules(other)
}

/// As a client of that address alone would write it; a unix socket has no name of its own.
fn host_of(address: &Address) -> HeaderValue {
    let text = match address {
        Address::Unix(_) => "localhost".to_owned(),
        address => address.to_string(),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("localhost"))
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("label", &self.label)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("endpoint", &self.0.label).finish()
    }
}
