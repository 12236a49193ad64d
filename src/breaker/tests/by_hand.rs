//! What operators do to a breaker, and one in shadow.

use super::*;

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
    assert_eq!(rejected.retry_after, secs(30));
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
    let said = bench.said.lock();
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
    crosses::<Permit<'static>>();
}
