use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::inner::PROBE_PATIENCE;
use super::*;

const OK: Outcome = Outcome::Success { latency: Duration::from_millis(5) };
const FAILURE: Outcome = Outcome::Failure(Cause::Status(503));
const LIMITED: Outcome = Outcome::TooManyRequests;

/// A breaker, its clock and what it said.
struct Bench {
    breaker: Arc<Breaker>,
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
        let observer = move |transition| sink.lock().unwrap().push(transition);
        Self { breaker: Arc::new(Breaker::with_observer(settings, start, observer)), start, now: start, said }
    }

    fn acquire(&self) -> Result<OwnedPermit, Rejected> {
        self.breaker.try_acquire_owned(self.now)
    }

    fn permit(&self) -> OwnedPermit {
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
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        said.iter().map(|t| (t.from, t.to, t.reason)).collect()
    }
}

// The arrows of the table, in its order.

#[test]
fn closed_opens_at_consecutive_failures() {
    let bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 2);
    assert_eq!(bench.state(), State::Closed);
    bench.call(FAILURE);
    assert_eq!(bench.state(), State::Open);
    assert_eq!(bench.view().failures, 3);
    assert_eq!(bench.said(), [(State::Closed, State::Open, Reason::ConsecutiveFailures)]);
}

#[test]
fn closed_opens_at_the_failure_ratio() {
    let bench = Bench::new(ratio());
    bench.call(OK);
    bench.call(OK);
    bench.call(FAILURE);
    assert_eq!(bench.state(), State::Closed);
    bench.call(FAILURE);
    assert_eq!(bench.said(), [(State::Closed, State::Open, Reason::FailureRatio)]);
}

#[test]
fn open_becomes_half_open_when_its_time_is_over() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    let left = bench.view().next_attempt.unwrap();
    bench.pass(left - Duration::from_nanos(1));
    assert_eq!(bench.rejected().state, State::Open);
    bench.pass(Duration::from_nanos(1));
    assert!(bench.permit().is_probe());
    assert_eq!(bench.said()[1..], [(State::Open, State::HalfOpen, Reason::Elapsed)]);
}

#[test]
fn looking_is_enough_to_become_half_open() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    bench.pass_open();
    let view = bench.view();
    assert_eq!((view.state, view.next_attempt), (State::HalfOpen, None));
    assert_eq!(bench.said().len(), 2);
}

#[test]
fn half_open_reopens_for_twice_as_long_when_a_probe_fails() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    for base in [30, 60, 120, 240, 300, 300] {
        let left = bench.view().next_attempt.unwrap();
        assert!(left >= secs(base) && left <= secs(base).mul_f64(1.1), "{left:?}");
        bench.pass(left);
        bench.call(FAILURE);
    }
    assert_eq!(
        bench.said()[1..3],
        [(State::Open, State::HalfOpen, Reason::Elapsed), (State::HalfOpen, State::Open, Reason::ProbeFailed)]
    );
}

#[test]
fn half_open_ramps_when_all_probes_succeeded() {
    let mut bench = Bench::new(Settings { ramp: secs(10), probes: count(2), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.call(OK);
    assert_eq!(bench.state(), State::Ramp);
    assert_eq!(bench.said()[2..], [(State::HalfOpen, State::Ramp, Reason::ProbesSucceeded)]);
}

#[test]
fn half_open_closes_when_all_probes_succeeded() {
    let mut bench = Bench::new(Settings { probes: count(3), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.calls(OK, 3);
    assert_eq!(bench.view().failures, 0);
    assert_eq!(bench.said()[2..], [(State::HalfOpen, State::Closed, Reason::ProbesSucceeded)]);
}

#[test]
fn ramp_closes_when_its_time_is_over() {
    let mut bench = Bench::new(Settings { ramp: secs(10), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    bench.pass(secs(10) - Duration::from_nanos(1));
    assert_eq!(bench.state(), State::Ramp);
    bench.pass(Duration::from_nanos(1));
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.said()[3..], [(State::Ramp, State::Closed, Reason::Elapsed)]);
}

#[test]
fn ramp_reopens_by_the_rules_and_for_twice_as_long() {
    for (settings, reason) in [(in_a_row(), Reason::ConsecutiveFailures), (ratio(), Reason::FailureRatio)] {
        let mut bench = Bench::new(Settings { ramp: secs(10), ..settings });
        bench.calls(FAILURE, if reason == Reason::FailureRatio { 4 } else { 3 });
        bench.pass_open();
        bench.call(OK);
        bench.pass(secs(9));
        while bench.state() == State::Ramp {
            if let Ok(permit) = bench.acquire() {
                permit.record(FAILURE, bench.now);
            }
        }
        assert_eq!(bench.said()[3..], [(State::Ramp, State::Open, reason)]);
        assert!(bench.view().next_attempt.unwrap() >= secs(60));
    }
}

#[test]
fn every_state_can_be_forced_open_and_reset() {
    let mut bench = Bench::new(Settings { ramp: secs(10), ..in_a_row() });
    let to = |bench: &mut Bench, state| {
        bench.breaker.reset();
        if state != State::Closed {
            bench.calls(FAILURE, 3);
        }
        if matches!(state, State::HalfOpen | State::Ramp) {
            bench.pass_open();
            assert_eq!(bench.state(), State::HalfOpen);
        }
        if state == State::Ramp {
            bench.call(OK);
        }
        assert_eq!(bench.state(), state);
        bench.said();
    };
    for state in [State::Closed, State::Open, State::HalfOpen, State::Ramp] {
        to(&mut bench, state);
        bench.breaker.force_open(bench.now, None);
        assert!(bench.view().forced);
        assert_eq!(bench.said(), [(state, State::Open, Reason::Forced)]);

        to(&mut bench, state);
        bench.breaker.reset();
        assert_eq!(bench.state(), State::Closed);
        let expected = [(state, State::Closed, Reason::Reset)];
        assert_eq!(bench.said(), expected[usize::from(state == State::Closed)..]);
        bench.call(OK);
    }
}

#[test]
fn a_breaker_that_another_one_replaces_is_told_as_closed() {
    let mut bench = Bench::new(Settings { ramp: secs(10), ..in_a_row() });
    bench.breaker.retire();
    assert_eq!(bench.said(), []);
    bench.calls(FAILURE, 3);
    bench.said();
    bench.breaker.retire();
    assert_eq!(bench.said(), [(State::Open, State::Closed, Reason::Reload)]);
    bench.calls(FAILURE, 3);
    bench.pass_open();
    assert_eq!(bench.state(), State::HalfOpen);
    bench.said();
    bench.breaker.retire();
    assert_eq!(bench.said(), [(State::HalfOpen, State::Closed, Reason::Reload)]);
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    assert_eq!(bench.state(), State::Ramp);
    bench.said();
    bench.breaker.retire();
    assert_eq!(bench.said(), [], "a ramp has been told as closed");
}

// What counts.

#[test]
fn a_success_ends_the_row() {
    let bench = Bench::new(in_a_row());
    for _ in 0..10 {
        bench.calls(FAILURE, 2);
        bench.call(OK);
    }
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn too_many_requests_neither_adds_to_the_row_nor_ends_it() {
    let bench = Bench::new(in_a_row());
    bench.calls(LIMITED, 50);
    assert_eq!((bench.state(), bench.view().failures), (State::Closed, 0));
    bench.calls(FAILURE, 2);
    bench.call(LIMITED);
    assert_eq!(bench.view().failures, 2);
    bench.call(FAILURE);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn too_many_requests_lowers_the_share_of_successes() {
    let bench = Bench::new(ratio());
    bench.calls(OK, 2);
    bench.calls(LIMITED, 2);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn too_many_requests_to_a_probe_says_that_the_app_is_back() {
    for settings in [ratio(), in_a_row()] {
        let mut bench = Bench::new(settings);
        bench.calls(FAILURE, 3);
        if bench.state() == State::Closed {
            bench.call(FAILURE);
        }
        bench.pass_open();
        bench.call(LIMITED);
        assert_eq!(bench.state(), State::Closed);
    }
}

#[test]
fn a_head_later_than_slow_call_is_a_failure() {
    let bench = Bench::new(Settings { slow_call: Some(secs(1)), ..in_a_row() });
    let answer = |latency| Outcome::Success { latency };
    bench.calls(answer(secs(1)), 10);
    assert_eq!(bench.view().statistics.failed, 0);
    bench.calls(answer(secs(1) + Duration::from_nanos(1)), 3);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_success_that_completes_min_requests_can_open() {
    let bench = Bench::new(ratio());
    bench.calls(FAILURE, 3);
    assert_eq!(bench.state(), State::Closed);
    bench.call(OK);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn failures_older_than_the_window_are_forgotten_by_the_ratio() {
    let mut bench = Bench::new(ratio());
    bench.calls(FAILURE, 3);
    bench.pass(secs(10));
    bench.calls(OK, 3);
    bench.call(FAILURE);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_dropped_permit_counts_nothing() {
    let bench = Bench::new(in_a_row());
    for _ in 0..100 {
        drop(bench.permit());
    }
    let view = bench.view();
    assert_eq!((view.failures, view.statistics.total()), (0, 0));
}

#[test]
fn an_outcome_from_an_earlier_state_moves_nothing() {
    let mut bench = Bench::new(in_a_row());
    let late: Vec<_> = (0..5).map(|_| bench.permit()).collect();
    bench.calls(FAILURE, 3);
    bench.pass_open();
    let probe = bench.permit();
    let mut late = late.into_iter();
    late.next().unwrap().record(FAILURE, bench.now);
    late.next().unwrap().record(OK, bench.now);
    assert_eq!(bench.state(), State::HalfOpen);
    probe.record(OK, bench.now);
    late.for_each(|permit| permit.record(FAILURE, bench.now));
    assert_eq!((bench.state(), bench.view().failures), (State::Closed, 0));
    // the statistics have them all: 3 and 4 failures, 1 and 1 successes
    let statistics = bench.view().statistics;
    assert_eq!((statistics.failed, statistics.successful), (7, 2));
}

#[test]
fn failures_admitted_while_ramping_count_once_closed() {
    let mut bench = Bench::new(Settings { ramp: secs(1), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    bench.pass(Duration::from_nanos(999_999_999));
    let late: Vec<_> = std::iter::from_fn(|| bench.acquire().ok()).take(3).collect();
    assert_eq!(late.len(), 3);
    bench.pass(secs(1));
    assert_eq!(bench.state(), State::Closed);
    late.into_iter().for_each(|permit| permit.record(FAILURE, bench.now));
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_reset_while_ramping_cuts_off_what_was_admitted_before() {
    let mut bench = Bench::new(Settings { ramp: secs(10), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    bench.pass(secs(9));
    let late: Vec<_> = (0..3).map(|_| bench.permit()).collect();
    bench.breaker.reset();
    late.into_iter().for_each(|permit| permit.record(FAILURE, bench.now));
    assert_eq!(bench.view().failures, 0);
}

#[test]
fn a_pause_of_five_seconds_opens_nothing_by_itself() {
    let mut bench = Bench::new(Settings { failures: Some(count(3)), ..ratio() });
    bench.call(FAILURE);
    let during: Vec<_> = (0..100).map(|_| bench.permit()).collect();
    bench.pass(secs(5));
    during.into_iter().for_each(|permit| permit.record(OK, bench.now));
    bench.call(OK);
    assert_eq!(bench.state(), State::Closed);
}

// Half-open and open.

#[test]
fn half_open_admits_one_probe() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    bench.pass_open();
    let probe = bench.permit();
    let rejected = bench.rejected();
    assert_eq!(rejected.state, State::HalfOpen);
    assert_eq!(rejected.retry_after, secs(1));
    probe.record(OK, bench.now);
    assert!(!bench.permit().is_probe());
}

#[test]
fn half_open_gives_out_each_probe_once() {
    let mut bench = Bench::new(Settings { probes: count(3), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    let probes = [bench.permit(), bench.permit()];
    bench.rejected();
    for probe in probes {
        probe.record(OK, bench.now);
    }
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_dropped_probe_frees_its_slot() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    bench.pass_open();
    for _ in 0..10 {
        let probe = bench.permit();
        bench.rejected();
        drop(probe);
    }
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn a_probe_that_is_overdue_gives_its_place_to_another() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    bench.pass_open();
    let overdue = bench.permit();
    bench.pass(PROBE_PATIENCE - Duration::from_nanos(1));
    bench.rejected();
    bench.pass(Duration::from_nanos(1));
    let second = bench.permit();
    drop(overdue);
    assert_eq!(bench.rejected().state, State::HalfOpen, "a place that was given away is not freed once more");
    second.record(OK, bench.now);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn the_verdict_of_an_overdue_probe_counts_when_it_comes() {
    for (outcome, state) in [(OK, State::Closed), (FAILURE, State::Open)] {
        let mut bench = Bench::new(in_a_row());
        bench.calls(FAILURE, 3);
        bench.pass_open();
        let overdue = bench.permit();
        bench.pass(PROBE_PATIENCE);
        let _second = bench.permit();
        overdue.record(outcome, bench.now);
        assert_eq!(bench.state(), state);
    }
}

#[test]
fn a_probe_of_an_earlier_half_open_frees_no_slot_in_this_one() {
    let mut bench = Bench::new(Settings { probes: count(2), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    let old = bench.permit();
    bench.call(FAILURE);
    bench.pass_open();
    let _current = [bench.permit(), bench.permit()];
    drop(old);
    bench.rejected();
}

#[test]
fn retry_after_is_the_time_left() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    loop {
        let left = bench.view().next_attempt;
        let Err(rejected) = bench.acquire() else {
            break;
        };
        assert_eq!(Some(rejected.retry_after), left);
        bench.pass(Duration::from_millis(137));
    }
}

#[test]
fn an_open_time_is_that_of_the_settings_up_to_their_longest() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    for open_secs in [30, 60, 120, 240, 300, 300] {
        assert_eq!(bench.view().next_attempt, Some(secs(open_secs)));
        bench.pass_open();
        bench.call(FAILURE);
    }
}

#[test]
fn closing_ends_the_doubling() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(FAILURE);
    bench.pass_open();
    bench.call(OK);
    bench.calls(FAILURE, 3);
    assert_eq!(bench.view().next_attempt, Some(secs(30)));
}

#[test]
fn many_reopens_do_not_overflow() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    for _ in 0..100 {
        bench.pass_open();
        bench.call(FAILURE);
    }
    assert!(bench.view().next_attempt.unwrap() <= secs(330));
}

// Ramp.

#[test]
fn ramp_lets_a_growing_share_through() {
    let mut bench = Bench::new(Settings { ramp: secs(90), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    bench.permit().record(OK, bench.now);
    for step in 0..9_u32 {
        let admitted = (0..1000)
            .filter(|_| {
                let permit = bench.acquire();
                permit.map(|p| p.record(OK, bench.now)).is_ok()
            })
            .count() as i64;
        let expected = 100 + 100 * i64::from(step);
        assert!((admitted - expected).abs() <= 1, "{admitted} of {expected}");
        bench.pass(secs(10));
    }
    assert_eq!(bench.state(), State::Closed);
}

// Operators.

#[test]
fn forced_open_without_end_waits_for_a_reset() {
    let mut bench = Bench::new(in_a_row());
    bench.breaker.force_open(bench.now, None);
    bench.pass(secs(1_000_000));
    // Nobody knows, but nobody is to ask every second either.
    assert_eq!(bench.rejected().retry_after, bench.breaker.settings().open);
    assert_eq!(bench.view().next_attempt, None);
    bench.breaker.reset();
    bench.call(OK);
    assert!(!bench.view().forced);
}

#[test]
fn forced_open_with_an_end_becomes_half_open() {
    let mut bench = Bench::new(in_a_row());
    bench.breaker.force_open(bench.now, Some(bench.now + secs(5)));
    assert_eq!(bench.rejected().retry_after, secs(5));
    bench.pass(secs(5));
    assert!(bench.permit().is_probe());
}

#[test]
fn a_breaker_without_rules_opens_only_by_force() {
    let bench = Bench::new(Settings { failures: None, ..in_a_row() });
    bench.calls(FAILURE, 1000);
    assert_eq!(bench.state(), State::Closed);
    bench.breaker.force_open(bench.now, None);
    bench.rejected();
}

#[test]
fn a_reset_keeps_the_statistics_and_forgets_the_window() {
    let bench = Bench::new(ratio());
    bench.calls(FAILURE, 3);
    bench.breaker.reset();
    bench.call(FAILURE);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.view().statistics.failed, 4);
    assert_eq!(bench.said(), []);
}

// Shadow, statistics, plumbing.

#[test]
fn shadow_rejects_nothing_and_counts_as_if_it_did() {
    let enforced = Bench::new(in_a_row());
    let shadow = Bench::new(Settings { shadow: true, ..in_a_row() });
    for bench in [enforced, shadow] {
        let mut bench = bench;
        for _ in 0..10 {
            if let Ok(permit) = bench.acquire() {
                permit.record(FAILURE, bench.now);
            }
        }
        bench.pass_open();
        bench.call(OK);
        assert_eq!(bench.state(), State::Closed);
        let expected = Statistics { successful: 1, failed: 3, rejected: 7 };
        assert_eq!(bench.view().statistics, expected);
    }
}

#[test]
fn shadow_tells_what_it_would_have_done() {
    let bench = Bench::new(Settings { shadow: true, ..in_a_row() });
    bench.calls(FAILURE, 3);
    let rejected = bench.permit().would_reject().unwrap();
    assert_eq!(rejected.state, State::Open);
    assert!(rejected.retry_after >= secs(30));
}

#[test]
fn an_observer_may_look_at_its_breaker() {
    let now = Instant::now();
    let shared: Arc<std::sync::OnceLock<Arc<Breaker>>> = Arc::default();
    let inside = Arc::clone(&shared);
    let breaker = Arc::new(Breaker::with_observer(in_a_row(), now, move |t| {
        assert_eq!(inside.get().unwrap().view(now).state, t.to);
    }));
    shared.set(Arc::clone(&breaker)).unwrap();
    for _ in 0..3 {
        breaker.try_acquire(now).unwrap().record(FAILURE, now);
    }
}

#[test]
fn transitions_are_numbered_and_the_end_of_a_ramp_is_not_said_twice() {
    let mut bench = Bench::new(Settings { ramp: secs(1), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    bench.pass(secs(1));
    bench.view();
    let said = bench.said.lock().unwrap();
    let numbers: Vec<_> = said.iter().map(|t| t.sequence).collect();
    let messages: Vec<_> = said.iter().filter_map(Transition::message).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(messages, ["Circuit breaker opened", "Circuit breaker half-open", "Circuit breaker closed"]);
}

#[test]
fn a_now_before_the_construction_is_harmless() {
    let bench = Bench::new(in_a_row());
    let before = bench.start.checked_sub(secs(60)).unwrap_or(bench.start);
    let permit = bench.breaker.try_acquire(before).unwrap();
    permit.record(FAILURE, before);
    assert_eq!(bench.view().failures, 1);
}

#[test]
fn threads_lose_no_call_and_open_once() {
    let now = Instant::now();
    let opened = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&opened);
    let breaker = Breaker::with_observer(Settings::default(), now, move |_| {
        counter.fetch_add(1, Relaxed);
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if let Ok(permit) = breaker.try_acquire(now) {
                        permit.record(FAILURE, now);
                    }
                }
            });
        }
    });
    assert_eq!(breaker.statistics().total(), 20_000);
    assert_eq!(opened.load(Relaxed), 1);
}

#[test]
fn permits_and_breakers_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Breaker>();
    crosses::<OwnedPermit>();
}

#[test]
fn another_breaker_goes_on_where_this_one_stood_and_says_nothing() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(OK, 2);
    bench.calls(FAILURE, 3);
    bench.pass(secs(10));
    let memory = bench.breaker.memory(bench.now);
    // The other process's clock began elsewhere.
    let mut other = Bench::new(in_a_row());
    other.pass(secs(1000));
    other.breaker.recall(&memory, other.now);
    assert_eq!(other.said(), []);
    assert_eq!((other.state(), other.breaker.statistics()), (State::Open, bench.breaker.statistics()));
    let (left, left_there) = (bench.rejected().retry_after, other.rejected().retry_after);
    assert_eq!(left, left_there);
    other.pass(left);
    assert_eq!(other.state(), State::HalfOpen);
    // It belongs to the same outage: the next time is twice as long.
    other.call(FAILURE);
    assert!(other.rejected().retry_after >= secs(60), "{:?}", other.rejected());
}

#[test]
fn failures_in_a_row_and_a_forced_open_without_end_are_remembered() {
    let bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 2);
    let other = Bench::new(in_a_row());
    other.breaker.recall(&bench.breaker.memory(bench.now), other.now);
    other.call(FAILURE);
    assert_eq!(other.state(), State::Open);
    bench.breaker.force_open(bench.now, None);
    let mut forced = Bench::new(in_a_row());
    forced.breaker.recall(&bench.breaker.memory(bench.now), forced.now);
    forced.pass(secs(100_000));
    assert!(forced.view().forced && forced.state() == State::Open);
}

#[test]
fn under_other_rules_only_what_was_forced_stays_open() {
    let bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    let under_other_rules = || {
        let other = Bench::new(ratio());
        other.breaker.stay_forced(&bench.breaker, other.now);
        other
    };
    assert_eq!(under_other_rules().state(), State::Closed);
    bench.breaker.force_open(bench.now, Some(bench.now + secs(5)));
    let mut other = under_other_rules();
    other.pass(secs(4));
    assert!(other.view().forced && other.view().statistics == Statistics::default(), "{:?}", other.view());
    other.pass(secs(1));
    assert_eq!(other.state(), State::HalfOpen);
    bench.breaker.force_open(bench.now, None);
    let mut other = under_other_rules();
    other.pass(secs(100_000));
    assert!(other.view().forced && other.state() == State::Open);
    other.breaker.reset();
    assert_eq!(other.state(), State::Closed);
}

#[test]
fn whoever_is_told_of_an_open_state_without_its_end_tries_at_once() {
    let bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    let memory = Memory { open_for: None, ..bench.breaker.memory(bench.now) };
    let other = Bench::new(in_a_row());
    other.breaker.recall(&memory, other.now);
    assert_eq!(other.state(), State::HalfOpen);
    other.call(OK);
    assert_eq!(other.state(), State::Closed);
}

#[test]
fn the_window_of_the_ratio_rule_is_remembered() {
    let bench = Bench::new(ratio());
    bench.calls(FAILURE, 2);
    let other = Bench::new(ratio());
    other.breaker.recall(&bench.breaker.memory(bench.now), other.now);
    other.call(FAILURE);
    assert_eq!(other.state(), State::Closed);
    other.call(FAILURE);
    assert_eq!(other.state(), State::Open);
}
