//! What counts as a failure, and against whom.

use super::*;

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
