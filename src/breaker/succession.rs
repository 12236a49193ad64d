//! What a breaker hands on: to the one that a reload puts in its place, and to that of another process.

use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::{Breaker, Memory, Reason, State, Statistics, generation, nanos_of};

impl Breaker {
    /// Where it stands, for a breaker in another process.
    #[must_use]
    pub fn memory(&self, now: Instant) -> Memory {
        let now = self.nanos(now);
        let inner = self.inner.lock();
        let since = |then: u64| Duration::from_nanos(now.saturating_sub(then));
        Memory {
            state: State::of(self.word.load(SeqCst)),
            failures: self.failures.load(Relaxed),
            opens: inner.opens,
            forced: inner.forced,
            open_for: inner.open_until.map(|until| Duration::from_nanos(until.saturating_sub(now))),
            ramping_for: since(inner.ramp_since),
            statistics: self.statistics(),
            window: self.window.memory(now),
        }
    }

    /// Goes on where another one stood; nobody is told. Only what has not served yet may do so.
    pub fn recall(&self, memory: &Memory, now: Instant) {
        let now = self.nanos(now);
        let mut inner = self.inner.lock();
        let Statistics { successful, failed, rejected } = memory.statistics;
        self.successful.store(successful, Relaxed);
        self.failed.store(failed, Relaxed);
        self.rejected.store(rejected, Relaxed);
        self.failures.store(memory.failures, Relaxed);
        self.window.recall(&memory.window, now);
        inner.opens = memory.opens;
        inner.forced = memory.forced;
        inner.open_until = memory.open_for.map(|left| now.saturating_add(nanos_of(left)));
        // A breaker that opened without an end was forced; any other would stay open for ever.
        if memory.state == State::Open && memory.open_for.is_none() && !memory.forced {
            inner.open_until = Some(now);
        }
        inner.begin_half_open();
        inner.begin_ramp(now.saturating_sub(nanos_of(memory.ramping_for)));
        let generation = generation(self.word.load(SeqCst)) + 1;
        self.word.store(generation << State::BITS | memory.state.bits(), SeqCst);
    }

    /// Is open as `other` is, if an operator wants it so; all else begins anew, and nobody is told. Only what has not
    /// served yet may do so.
    pub fn stay_forced(&self, other: &Self, now: Instant) {
        let known = other.memory(now);
        if known.state == State::Open && known.forced {
            let statistics = Statistics::default();
            self.recall(&Memory { failures: 0, statistics, window: Vec::new(), ..known }, now);
        }
    }

    /// Closes for good, for another breaker has begun in its place, or none: requests of before that ask it only now
    /// open it no more. Whoever was told that it opened is told; that a ramp began was told as closed.
    pub fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.is_retired = true;
        let was = State::of(self.word.load(SeqCst));
        let transition = self.close(&mut inner, Reason::Reload);
        drop(inner);
        if matches!(was, State::Open | State::HalfOpen) {
            (self.observer)(transition);
        }
    }
}
