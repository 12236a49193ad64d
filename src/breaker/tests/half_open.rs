//! Probes, the wait before them, and the ramp behind them.

use super::*;
use crate::breaker::inner::PROBE_PATIENCE;

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
    assert_eq!(bench.view().next_attempt, Some(secs(300)));
}

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

#[test]
fn of_the_first_ten_requests_of_a_ramp_only_the_first_passes() {
    let mut bench = Bench::new(Settings { ramp: secs(100_000), ..in_a_row() });
    bench.calls(FAILURE, 3);
    bench.pass_open();
    bench.call(OK);
    let passed: Vec<_> = (0..10).filter(|_| bench.acquire().is_ok()).collect();
    assert_eq!(passed, [0]);
}
