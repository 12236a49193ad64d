//! The circuit breaker of one upstream as a whole.
//!
//! It decides whether a request may go to the upstream, from what the upstream did with the requests before. It is not
//! passive ejection (one endpoint: `balance::ejection`), knows nothing of status codes or sockets (the caller turns
//! an answer into an [`Outcome`]), reads no clock and starts no task: [`State::Open`] becomes [`State::HalfOpen`] when
//! somebody comes and looks after its time is over. May import std.
//!
//! # Transitions
//!
//! | from | to | when | [`Reason`] |
//! |---|---|---|---|
//! | Closed, Ramp | Open | `failures` failures in a row | `ConsecutiveFailures` |
//! | Closed, Ramp | Open | a share of `failure_ratio` of at least `min_requests` in `window` failed | `FailureRatio` |
//! | Open | HalfOpen | its time is over and a request or [`Breaker::view`] looks | `Elapsed` |
//! | HalfOpen | Open, for twice as long | one probe failed | `ProbeFailed` |
//! | HalfOpen | Ramp | all `probes` succeeded, `ramp` is above zero | `ProbesSucceeded` |
//! | HalfOpen | Closed | all `probes` succeeded, `ramp` is zero | `ProbesSucceeded` |
//! | Ramp | Closed | `ramp` is over and somebody looks | `Elapsed` |
//! | any | Open | [`Breaker::force_open`] | `Forced` |
//! | any but Closed | Closed | [`Breaker::reset`] | `Reset` |
//! | any but Closed | Closed, for good | [`Breaker::retire`] | `Reload` |
//!
//! A re-open out of Ramp belongs to the same outage, so it doubles as well; only Closed ends the doubling.
//!
//! # What counts
//!
//! | outcome | in a row | ratio | as a probe |
//! |---|---|---|---|
//! | [`Outcome::Success`] | ends the row | success | success |
//! | … slower than `slow_call` | failure | failure | failure |
//! | [`Outcome::Failure`] | failure | failure | failure |
//! | [`Outcome::TooManyRequests`] | neither adds nor ends | failure | success |
//! | [`Permit`] dropped | nothing | nothing | frees its slot |
//!
//! A probe that has no verdict after five seconds gives its slot to another, so that one slow client keeps nobody from a
//! site that has recovered. Its verdict counts all the same if it comes while half-open.
//!
//! Any other 4xx is an answer the upstream chose to give: a success. A client that leaves is a dropped permit. What a
//! request admitted before a change of state reports after it goes into the statistics and moves nothing: it tells of
//! another time.
//!
//! # Concurrency
//!
//! Closed, the state nearly always: one load to admit; to record, an addition to the statistics and, with the ratio
//! rule, a compare-and-swap on the window's bucket. That is 21 ns for both together (16 without the ratio rule), and
//! 9 ns to turn a request away while open (`benches/breaker.rs`). Everything else takes a mutex that is held for some
//! ten nanoseconds. The observer is called once that is released, so it may call back; [`Transition::sequence`] tells
//! the order.

mod inner;
mod pause;
mod permit;
mod settings;
mod state;
mod succession;
mod window;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use inner::{Admission, Inner};
pub use pause::Pauses;
use permit::Ticket;
pub use permit::{Cause, Outcome, Permit};
pub use settings::Settings;
pub use state::{Memory, Reason, Rejected, State, Statistics, Transition, View};
pub use window::Tenth;
use window::Window;

/// The breaker of one upstream; shared by all workers.
///
/// `now` may run a little behind what another worker passed already. One before that of construction is taken
/// for that one.
pub struct Breaker {
    settings: Settings,
    /// The zero of all nanosecond times in here.
    epoch: Instant,
    /// `generation << 2 | state`. Every transition but the end of a ramp begins a generation: a permit's outcome
    /// moves only the one it was admitted in. Written with `inner` locked.
    word: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    window: Window,
    successful: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    /// Nothing under it can panic half-way.
    inner: Mutex<Inner>,
    observer: Box<dyn Fn(Transition) + Send + Sync>,
}

impl Breaker {
    /// A closed breaker that tells nobody of its transitions.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self::with_observer(settings, now, |_| ())
    }

    /// A closed breaker that calls `observer` once per transition, on the thread that caused it and without a lock
    /// held.
    #[must_use]
    pub fn with_observer(
        settings: Settings,
        now: Instant,
        observer: impl Fn(Transition) + Send + Sync + 'static,
    ) -> Self {
        Self {
            window: Window::new(settings.window),
            settings,
            epoch: now,
            word: AtomicU64::new(State::Closed.bits()),
            failures: AtomicU32::new(0),
            successful: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            inner: Mutex::new(Inner::new()),
            observer: Box::new(observer),
        }
    }

    /// Asks to send one request. With [`Settings::shadow`] the answer is always a permit.
    ///
    /// # Errors
    /// [`Rejected`] while open, and while half-open or ramping for those beyond what is let through.
    pub fn try_acquire(&self, now: Instant) -> Result<Permit<'_>, Rejected> {
        self.admit(now).map(|ticket| Permit::new(self, ticket))
    }

    /// Opens whatever the state and the rules say, until the time given, or until [`Breaker::reset`]. After the time
    /// it becomes half-open like any other.
    pub fn force_open(&self, now: Instant, until: Option<Instant>) {
        let mut inner = self.inner.lock();
        inner.open_until = until.map(|end| self.nanos(end).max(self.nanos(now)));
        inner.forced = true;
        inner.opens = inner.opens.max(1);
        let transition = self.enter(&mut inner, State::Open, Reason::Forced);
        drop(inner);
        (self.observer)(transition);
    }

    /// Closes and forgets failures, window and doubling; the statistics stay.
    pub fn reset(&self) {
        let mut inner = self.inner.lock();
        let was = State::of(self.word.load(SeqCst));
        let transition = self.close(&mut inner, Reason::Reset);
        drop(inner);
        if was != State::Closed {
            (self.observer)(transition);
        }
    }

    /// What the status page shows. Looking counts: a breaker whose open time is over becomes half-open here.
    #[must_use]
    pub fn view(&self, now: Instant) -> View {
        let now = self.nanos(now);
        let mut inner = self.inner.lock();
        let transition = self.advance(&mut inner, now);
        let state = State::of(self.word.load(SeqCst));
        let open = state == State::Open;
        let view = View {
            state,
            forced: open && inner.forced,
            failures: self.failures.load(Relaxed),
            next_attempt: inner
                .open_until
                .filter(|_| open)
                .map(|until| Duration::from_nanos(until.saturating_sub(now))),
            statistics: self.statistics(),
        };
        drop(inner);
        self.tell(transition);
        view
    }

    /// Calls so far, by what became of them.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            successful: self.successful.load(Relaxed),
            failed: self.failed.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }

    /// What it was built with; a reload keeps a breaker whose settings are equal.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn admit(&self, now: Instant) -> Result<Ticket, Rejected> {
        let word = self.word.load(SeqCst);
        if State::of(word) == State::Closed {
            return Ok(Ticket::request(word));
        }
        self.admit_slowly(self.nanos(now))
    }

    #[cold]
    fn admit_slowly(&self, now: u64) -> Result<Ticket, Rejected> {
        let mut inner = self.inner.lock();
        let transition = self.advance(&mut inner, now);
        let word = self.word.load(SeqCst);
        let state = State::of(word);
        let admission = match state {
            State::Closed => Admission::Request,
            State::Open => inner.refuse_open(self.settings.open, now),
            State::HalfOpen => inner.admit_probe(self.settings.probes.get(), now),
            State::Ramp => {
                let share = inner.ramp_share(self.settings.ramp, now);
                inner.admit_share(share)
            }
        };
        drop(inner);
        self.tell(transition);
        match admission {
            Admission::Request => Ok(Ticket::request(word)),
            Admission::Probe(round) => Ok(Ticket::probe(word, round)),
            Admission::Refused(retry_after) => {
                self.rejected.fetch_add(1, Relaxed);
                let rejected = Rejected { retry_after, state };
                if self.settings.shadow { Ok(Ticket::bystander(word, rejected)) } else { Err(rejected) }
            }
        }
    }

    fn record(&self, ticket: &Ticket, outcome: Outcome, now: Instant) {
        if ticket.would_reject.is_some() {
            return; // counted as rejected, as if it had been
        }
        let failure = outcome.failure(self.settings.slow_call);
        let counter = if failure.is_some() { &self.failed } else { &self.successful };
        counter.fetch_add(1, Relaxed);

        let word = self.word.load(SeqCst);
        if generation(word) != generation(ticket.word) {
            return;
        }
        let now = self.nanos(now);
        match (State::of(word), ticket.probe) {
            (State::Closed | State::Ramp, _) => self.record_request(word, outcome, failure, now),
            (State::HalfOpen, Some(round)) => self.record_probe(word, round, outcome, failure, now),
            // Nothing is admitted in the generation of an open state.
            (State::Open, _) | (State::HalfOpen, None) => (),
        }
    }

    fn record_request(&self, word: u64, outcome: Outcome, failure: Option<Cause>, now: u64) {
        let in_a_row = self.count_in_a_row(outcome, failure.is_some());
        let reason = if self.too_many_in_a_row(in_a_row) {
            Reason::ConsecutiveFailures
        } else if self.ratio_reached(failure.is_some(), now) {
            Reason::FailureRatio
        } else {
            return;
        };
        let mut inner = self.inner.lock();
        let current = self.word.load(SeqCst);
        if generation(current) != generation(word) || inner.is_retired {
            return; // another request opened it meanwhile, or nobody is to any more
        }
        let transition = self.open(&mut inner, reason, failure, now);
        drop(inner);
        (self.observer)(transition);
    }

    fn record_probe(&self, word: u64, round: u32, outcome: Outcome, failure: Option<Cause>, now: u64) {
        let mut inner = self.inner.lock();
        if self.word.load(SeqCst) != word {
            return;
        }
        self.count_in_a_row(outcome, failure.is_some());
        inner.end_probe(round);
        // An app that turns away one client too many is back. To stay open for that would let that client turn away all.
        let is_back = outcome == Outcome::TooManyRequests;
        let transition = if failure.is_some() && !is_back {
            Some(self.open(&mut inner, Reason::ProbeFailed, failure, now))
        } else {
            inner.probes_succeeded += 1;
            (inner.probes_succeeded >= self.settings.probes.get()).then(|| self.recover(&mut inner, now))
        };
        drop(inner);
        self.tell(transition);
    }

    /// A permit dropped without a verdict. Only a probe occupies anything.
    fn cancel(&self, ticket: &Ticket) {
        let Some(round) = ticket.probe else { return };
        let mut inner = self.inner.lock();
        if self.word.load(SeqCst) == ticket.word {
            inner.end_probe(round);
        }
    }

    fn count_in_a_row(&self, outcome: Outcome, failure: bool) -> u32 {
        if outcome == Outcome::TooManyRequests {
            return 0; // decides nothing about the row
        }
        if failure {
            return self.failures.fetch_add(1, Relaxed).saturating_add(1);
        }
        // Nearly always zero already: keep the cache line shared.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        0
    }

    fn too_many_in_a_row(&self, in_a_row: u32) -> bool {
        self.settings.failures.is_some_and(|limit| in_a_row >= limit.get())
    }

    /// Counts into the window and weighs it. A success can complete `min_requests`, so it is asked as well.
    fn ratio_reached(&self, failure: bool, now: u64) -> bool {
        let Some(ratio) = self.settings.failure_ratio else {
            return false;
        };
        self.window.count(now, failure);
        let sum = self.window.sum(now);
        // Divided, not multiplied: 3 of 30 is then exactly the 0.1 of the file.
        sum.failures > 0
            && sum.total >= u64::from(self.settings.min_requests.get())
            && sum.failures as f64 / sum.total as f64 >= ratio
    }

    /// The arrows that only time draws.
    fn advance(&self, inner: &mut Inner, now: u64) -> Option<Transition> {
        match State::of(self.word.load(SeqCst)) {
            State::Open if inner.open_until.is_some_and(|until| now >= until) => {
                inner.begin_half_open();
                Some(self.enter(inner, State::HalfOpen, Reason::Elapsed))
            }
            State::Ramp if now.saturating_sub(inner.ramp_since) >= nanos_of(self.settings.ramp) => {
                inner.opens = 0;
                Some(self.enter(inner, State::Closed, Reason::Elapsed))
            }
            _ => None,
        }
    }

    fn open(&self, inner: &mut Inner, reason: Reason, failure: Option<Cause>, now: u64) -> Transition {
        let length = self.settings.open_time(inner.opens);
        inner.opens = inner.opens.saturating_add(1);
        inner.open_until = Some(now.saturating_add(nanos_of(length)));
        inner.forced = false;
        Transition { failure, ..self.enter(inner, State::Open, reason) }
    }

    fn recover(&self, inner: &mut Inner, now: u64) -> Transition {
        if self.settings.ramp.is_zero() {
            return self.close(inner, Reason::ProbesSucceeded);
        }
        self.forget();
        inner.begin_ramp(now);
        self.enter(inner, State::Ramp, Reason::ProbesSucceeded)
    }

    fn close(&self, inner: &mut Inner, reason: Reason) -> Transition {
        self.forget();
        inner.opens = 0;
        self.enter(inner, State::Closed, reason)
    }

    fn forget(&self) {
        self.failures.store(0, Relaxed);
        self.window.clear();
    }

    fn enter(&self, inner: &mut Inner, to: State, reason: Reason) -> Transition {
        let word = self.word.load(SeqCst);
        let from = State::of(word);
        // What was admitted while ramping is of the same kind as what comes after: it keeps counting.
        // A reset cuts it off as any other.
        let same = from == State::Ramp && reason == Reason::Elapsed;
        let step = u64::from(!same);
        self.word.store((generation(word) + step) << State::BITS | to.bits(), SeqCst);
        inner.sequence += 1;
        Transition { from, to, reason, failure: None, sequence: inner.sequence }
    }

    fn tell(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            (self.observer)(transition);
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos_of(at.saturating_duration_since(self.epoch))
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &State::of(self.word.load(SeqCst)))
            .field("failures", &self.failures.load(Relaxed))
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

fn generation(word: u64) -> u64 {
    word >> State::BITS
}

/// 584 years fit.
fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
