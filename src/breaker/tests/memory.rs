//! A breaker that goes on where another one stood.

use super::*;

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
    assert_eq!(other.rejected().retry_after, secs(60));
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
        other.breaker.stay_forced(bench.breaker, other.now);
        other
    };
    assert_eq!(under_other_rules().state(), State::Closed);
    bench.breaker.force_open(bench.now, Some(bench.now + secs(5)));
    let mut other = under_other_rules();
    other.pass(secs(4));
    let view = other.view();
    assert_eq!((view.forced, view.failures, view.statistics), (true, 0, Statistics::default()));
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
