//! Passive ejection of one endpoint: after failures in a row it is left alone for a while. It is neither the breaker
//! (the upstream as a whole) nor active health (asked, not inferred).
//!
//! | from | to | when |
//! |---|---|---|
//! | in | ejected | `failures` failures in a row since it came (back), and the group can spare it |
//! | ejected | in | its time is over: [`Ejection::is_ejected`] sees it by looking, [`Ejection::poll`] and [`Ejection::record`] say it once |
//! | ejected | in | [`Ejection::restore`], or [`Ejection::prove`]: it answered though it was ejected |
//! | any | in, for good | [`Ejection::retire`] |
//!
//! The time is `base` × the number of ejections in a row, at most `max`. Ejections are in a row when the endpoint had
//! no success since it came back, or came back less than its last ejection's length ago; so an endpoint that flaps
//! stays away longer and longer even if it answers now and then. What a request reports that was sent before the
//! ejection is not counted during it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// How far back another process may have seen what this one goes on from; what was before counts as having been then.
const PAST: Duration = Duration::from_secs(24 * 60 * 60);

/// The rules of one endpoint's ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionSettings {
    /// Failures in a row; `None` = never eject.
    pub failures: Option<NonZeroU32>,
    pub base: Duration,
    pub max: Duration,
}

/// What is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionEvent {
    Ejected {
        length: Duration,
        /// Ejections in a row, this one included.
        in_a_row: u32,
        /// That it was back from the last one is to be said first: nothing but this failure has shown it.
        was_back: bool,
    },
    Restored,
}

/// An event that is to be told. Until this is dropped nothing else becomes of the endpoint, so that whatever is told of
/// it is told in its order.
#[must_use]
#[derive(Debug)]
pub struct News<'a> {
    pub event: EjectionEvent,
    _inner: MutexGuard<'a, Inner>,
}

/// The state of one endpoint, shared by all workers. A success costs two loads, [`Ejection::is_ejected`] one.
#[derive(Debug)]
pub struct Ejection {
    settings: EjectionSettings,
    epoch: Instant,
    /// When it returns or returned, in nanoseconds; 0 = it never was away.
    until_ns: AtomicU64,
    /// A success has something to change in `inner`: there was none yet, or none since the last failure.
    stained: AtomicBool,
    /// Nothing under it can panic half-way but `may_eject`, before which everything is counted.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failures: u32,
    ejections: u32,
    length: Duration,
    succeeded_since: bool,
    /// Its return is still to be said.
    away: bool,
    is_retired: bool,
}

/// How an endpoint's ejection stands, in times that mean the same to every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionMemory {
    pub failures: u32,
    pub ejections: u32,
    pub length: Duration,
    pub succeeded_since: bool,
    /// How long it stays away yet; `None` = it is there.
    pub away_for: Option<Duration>,
    /// How long ago it came back; `None` = it is away, or never was.
    pub back_for: Option<Duration>,
}

impl Ejection {
    #[must_use]
    pub fn new(settings: EjectionSettings, now: Instant) -> Self {
        Self {
            settings,
            epoch: epoch(now),
            until_ns: AtomicU64::new(0),
            stained: AtomicBool::new(true),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Counts what the endpoint did with one request. `may_eject` is asked only when it is about to be ejected: whether
    /// another endpoint is left standing. If not, it is asked again at the next failure.
    pub fn record(&self, success: bool, now: Instant, may_eject: impl FnOnce() -> bool) -> Option<News<'_>> {
        if success && !self.stained.load(Relaxed) {
            return None;
        }
        let limit = self.settings.failures?;
        let mut inner = self.inner.lock();
        if inner.is_retired || self.is_ejected(now) {
            return None;
        }
        let restored = inner.come_back();
        if success {
            inner.failures = 0;
            inner.succeeded_since = true;
            self.stained.store(false, Relaxed);
            return News::of(restored, inner);
        }
        self.stained.store(true, Relaxed);
        inner.failures = inner.failures.saturating_add(1);
        if inner.failures < limit.get() || !may_eject() {
            return News::of(restored, inner);
        }
        let ejected = self.eject(&mut inner, now, restored.is_some());
        News::of(Some(ejected), inner)
    }

    /// Whether what it did last was a success. False as long as it did nothing, and where nothing is ever ejected.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.stained.load(Relaxed)
    }

    /// Whether what it did last was a failure.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        let inner = self.inner.lock();
        inner.failures > 0 || (inner.ejections > 0 && !inner.succeeded_since)
    }

    /// To be left alone at `now`.
    #[must_use]
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.until_ns.load(Relaxed);
        until != 0 && self.nanos(now) < until
    }

    /// Says that the time is over, once, also when no request comes. For whoever looks now and then.
    pub fn poll(&self, now: Instant) -> Option<News<'_>> {
        let is_back = || self.until_ns.load(Relaxed) != 0 && !self.is_ejected(now);
        if !is_back() {
            return None;
        }
        let mut inner = self.inner.lock();
        // Looked at again: a failure may have ejected it anew by now.
        let restored = if is_back() { inner.come_back() } else { None };
        News::of(restored, inner)
    }

    /// Takes it back before its time, as when all endpoints of a group are away. The row of ejections goes on.
    pub fn restore(&self, now: Instant) -> Option<News<'_>> {
        let mut inner = self.inner.lock();
        if self.is_ejected(now) {
            self.until_ns.store(self.nanos(now), Relaxed);
        }
        News::of(inner.come_back(), inner)
    }

    /// Ends for good, for another one has begun in its place: the endpoint is back, and what is still reported of it here
    /// counts for nothing.
    pub fn retire(&self, now: Instant) -> Option<News<'_>> {
        self.inner.lock().is_retired = true;
        self.restore(now)
    }

    /// It answered a request that was sent at `sent`. Where that was during its ejection, for want of another endpoint,
    /// it is taken back; what was sent before says nothing of it now.
    pub fn prove(&self, sent: Instant, now: Instant) -> Option<News<'_>> {
        if !self.is_ejected(now) {
            return None;
        }
        let mut inner = self.inner.lock();
        // From here on, for it may have come back and been ejected anew by now.
        let until = self.until_ns.load(Relaxed);
        let length_ns = u64::try_from(inner.length.as_nanos()).unwrap_or(u64::MAX);
        if self.nanos(sent) < until.saturating_sub(length_ns) {
            return None;
        }
        inner.succeeded_since = true;
        self.until_ns.store(self.nanos(now), Relaxed);
        News::of(inner.come_back(), inner)
    }

    /// How long ago it came back; `None` while it is away, and when it never was. For slow start.
    #[must_use]
    pub fn back_since(&self, now: Instant) -> Option<Duration> {
        let until = self.until_ns.load(Relaxed);
        let since = self.nanos(now).checked_sub(until)?;
        (until != 0).then(|| Duration::from_nanos(since))
    }

    /// How it stands, for the same endpoint in another process.
    #[must_use]
    pub fn memory(&self, now: Instant) -> EjectionMemory {
        let inner = self.inner.lock();
        let away_ns = self.until_ns.load(Relaxed).saturating_sub(self.nanos(now));
        EjectionMemory {
            failures: inner.failures,
            ejections: inner.ejections,
            length: inner.length,
            succeeded_since: inner.succeeded_since,
            away_for: (away_ns > 0).then(|| Duration::from_nanos(away_ns)),
            back_for: self.back_since(now),
        }
    }

    /// Goes on where another one stood; whether it is away is said by nobody.
    pub fn recall(&self, memory: &EjectionMemory, now: Instant) {
        let mut inner = self.inner.lock();
        *inner = Inner {
            failures: memory.failures,
            ejections: memory.ejections,
            length: memory.length,
            succeeded_since: memory.succeeded_since,
            away: memory.away_for.is_some(),
            is_retired: false,
        };
        self.stained.store(true, Relaxed);
        let until = match (memory.away_for, memory.back_for) {
            (Some(left), _) => self.nanos(now).saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
            (None, Some(since)) => self.nanos(now.checked_sub(since).unwrap_or(self.epoch)),
            (None, None) => 0,
        };
        self.until_ns.store(until, Relaxed);
    }

    fn eject(&self, inner: &mut Inner, now: Instant, was_back: bool) -> EjectionEvent {
        let recent = self.back_since(now).is_some_and(|since| since < inner.length);
        let in_a_row = recent || !inner.succeeded_since;
        inner.ejections = if in_a_row { inner.ejections.saturating_add(1) } else { 1 };
        inner.length =
            self.settings.base.saturating_mul(inner.ejections).min(self.settings.max.max(self.settings.base));
        inner.failures = 0;
        inner.succeeded_since = false;
        inner.away = true;
        // The first success after the return has to be noted.
        self.stained.store(true, Relaxed);
        let length_ns = u64::try_from(inner.length.as_nanos()).unwrap_or(u64::MAX);
        self.until_ns.store(self.nanos(now).saturating_add(length_ns), Relaxed);
        EjectionEvent::Ejected { length: inner.length, in_a_row: inner.ejections, was_back }
    }

    /// Begins with 1, since 0 means never.
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).map_or(u64::MAX, |nanos| nanos.saturating_add(1))
    }
}

/// What the times of an endpoint count from that is first known of `now`.
pub fn epoch(now: Instant) -> Instant {
    now.checked_sub(PAST).unwrap_or(now)
}

impl<'a> News<'a> {
    fn of(event: Option<EjectionEvent>, inner: MutexGuard<'a, Inner>) -> Option<Self> {
        event.map(|event| Self { event, _inner: inner })
    }
}

impl Inner {
    fn come_back(&mut self) -> Option<EjectionEvent> {
        std::mem::take(&mut self.away).then_some(EjectionEvent::Restored)
    }
}

#[cfg(test)]
mod tests;
