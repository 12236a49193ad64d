//! A breaker and its clock, and the settings that most tests go by.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;

mod by_hand;
mod counting;
mod half_open;
mod memory;
mod transitions;

const OK: Outcome = Outcome::Success { latency: Duration::from_millis(5) };
const FAILURE: Outcome = Outcome::Failure(Cause::Status(503));
const LIMITED: Outcome = Outcome::TooManyRequests;

/// A breaker, its clock and what it said.
struct Bench {
    /// Leaked: the clock goes on beside its permits.
    breaker: &'static Breaker,
    start: Instant,
    now: Instant,
    said: Arc<Mutex<Vec<Transition>>>,
}

fn count(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

fn secs(value: u64) -> Duration {
    Duration::from_secs(value)
}

/// Only the rule of three failures in a row.
fn in_a_row() -> Settings {
    Settings { failures: Some(count(3)), failure_ratio: None, ..Settings::default() }
}

/// Only the rule of half of at least four.
fn ratio() -> Settings {
    Settings { failures: None, failure_ratio: Some(0.5), min_requests: count(4), ..Settings::default() }
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let start = Instant::now();
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let observer = move |transition| sink.lock().push(transition);
        let breaker = Box::leak(Box::new(Breaker::with_observer(settings, start, observer)));
        Self { breaker, start, now: start, said }
    }

    fn acquire(&self) -> Result<Permit<'static>, Rejected> {
        self.breaker.try_acquire(self.now)
    }

    fn permit(&self) -> Permit<'static> {
        self.acquire().expect("a permit was due")
    }

    fn rejected(&self) -> Rejected {
        self.acquire().expect_err("a rejection was due")
    }

    fn call(&self, outcome: Outcome) {
        self.permit().record(outcome, self.now);
    }

    fn calls(&self, outcome: Outcome, times: u32) {
        for _ in 0..times {
            self.call(outcome);
        }
    }

    fn view(&self) -> View {
        self.breaker.view(self.now)
    }

    fn state(&self) -> State {
        self.view().state
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// To the very end of the open time.
    fn pass_open(&mut self) {
        let left = self.view().next_attempt.expect("it is open");
        self.pass(left);
    }

    /// What was said since the last question.
    fn said(&self) -> Vec<(State, State, Reason)> {
        let said = std::mem::take(&mut *self.said.lock());
        said.iter().map(|t| (t.from, t.to, t.reason)).collect()
    }
}
