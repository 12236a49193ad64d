//! The arrows of the table in the module docs, in its order.

use super::*;

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
fn half_open_reopens_for_twice_as_long_up_to_the_longest_when_a_probe_fails() {
    let mut bench = Bench::new(in_a_row());
    bench.calls(FAILURE, 3);
    for base in [30, 60, 120, 240, 300, 300] {
        let left = bench.view().next_attempt.unwrap();
        assert_eq!(left, secs(base));
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
        assert_eq!(bench.view().next_attempt, Some(secs(60)));
    }
}

/// From closed.
fn bring(bench: &mut Bench, state: State) {
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
}

#[test]
fn every_state_can_be_forced_open_and_reset() {
    let mut bench = Bench::new(Settings { ramp: secs(10), ..in_a_row() });
    for state in [State::Closed, State::Open, State::HalfOpen, State::Ramp] {
        bench.breaker.reset();
        bring(&mut bench, state);
        bench.breaker.force_open(bench.now, None);
        assert!(bench.view().forced);
        assert_eq!(bench.said(), [(state, State::Open, Reason::Forced)]);

        bench.breaker.reset();
        bring(&mut bench, state);
        bench.breaker.reset();
        assert_eq!(bench.state(), State::Closed);
        let expected = [(state, State::Closed, Reason::Reset)];
        assert_eq!(bench.said(), expected[usize::from(state == State::Closed)..]);
        bench.call(OK);
    }
}

#[test]
fn a_breaker_that_another_one_replaces_is_told_as_closed() {
    // A ramp has been told as closed.
    for (state, is_told) in [(State::Closed, false), (State::Open, true), (State::HalfOpen, true), (State::Ramp, false)]
    {
        let mut bench = Bench::new(Settings { ramp: secs(10), ..in_a_row() });
        bring(&mut bench, state);
        bench.breaker.retire();
        let expected = [(state, State::Closed, Reason::Reload)];
        assert_eq!(bench.said(), expected[usize::from(!is_told)..], "{state:?}");
    }
}

/// Requests that waited for their turn in a limit's queue ask the breaker of the generation that they came in.
#[test]
fn a_breaker_that_another_one_has_replaced_opens_no_more() {
    for settings in [in_a_row(), ratio()] {
        let bench = Bench::new(settings);
        bench.breaker.retire();
        bench.calls(FAILURE, 10);
        assert_eq!((bench.state(), bench.said()), (State::Closed, vec![]));
    }
}
