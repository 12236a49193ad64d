use std::thread;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    ejection: Ejection,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let settings = EjectionSettings { failures: NonZeroU32::new(3), base: 30 * SECOND, max: 100 * SECOND };
        Self { ejection: Ejection::new(settings, now), now }
    }

    fn fail(&self) -> Option<EjectionEvent> {
        event(self.ejection.record(false, self.now, || true))
    }

    fn succeed(&self) -> Option<EjectionEvent> {
        event(self.ejection.record(true, self.now, || true))
    }

    /// Three failures, and how long it is ejected for them.
    fn eject(&self) -> (u64, u32) {
        self.fail();
        assert!(!matches!(self.fail(), Some(EjectionEvent::Ejected { .. })));
        match self.fail() {
            Some(EjectionEvent::Ejected { length, in_a_row, .. }) => (length.as_secs(), in_a_row),
            other => panic!("not ejected: {other:?}"),
        }
    }

    fn ejected(&self) -> bool {
        self.ejection.is_ejected(self.now)
    }
}

fn event(news: Option<News<'_>>) -> Option<EjectionEvent> {
    news.map(|news| news.event)
}

#[test]
fn failures_in_a_row_eject_for_base() {
    let mut bench = Bench::new();
    assert_eq!(bench.eject(), (30, 1));
    bench.now += 30 * SECOND - Duration::from_nanos(1);
    assert!(bench.ejected());
    bench.now += Duration::from_nanos(1);
    assert!(!bench.ejected());
}

#[test]
fn an_answer_to_what_was_sent_during_an_ejection_ends_it() {
    let mut bench = Bench::new();
    bench.now += SECOND;
    let before = bench.now - Duration::from_millis(1);
    bench.eject();
    bench.now += SECOND;
    assert_eq!(event(bench.ejection.prove(before, bench.now)), None);
    assert!(bench.ejected(), "what was sent before the ejection says nothing");
    let sent = bench.now;
    bench.now += SECOND;
    assert_eq!(event(bench.ejection.prove(sent, bench.now)), Some(EjectionEvent::Restored));
    assert!(!bench.ejected());
    assert_eq!(event(bench.ejection.prove(sent, bench.now)), None, "said once");
    // It came back less than its last length ago.
    assert_eq!(bench.eject(), (60, 2));
}

#[test]
fn an_answer_that_ends_an_ejection_is_a_success_since() {
    let mut bench = Bench::new();
    bench.eject();
    assert_eq!(event(bench.ejection.prove(bench.now, bench.now)), Some(EjectionEvent::Restored));
    bench.now += 30 * SECOND;
    assert_eq!(bench.eject(), (30, 1), "the row of ejections has ended");
}

#[test]
fn what_was_sent_the_moment_it_was_ejected_was_sent_during_it() {
    let bench = Bench::new();
    bench.eject();
    assert_eq!(event(bench.ejection.prove(bench.now, bench.now)), Some(EjectionEvent::Restored));
}

#[test]
fn an_answer_after_its_return_does_not_bring_it_back_again() {
    let mut bench = Bench::new();
    bench.eject();
    let sent = bench.now + SECOND;
    bench.now += 35 * SECOND;
    assert_eq!(event(bench.ejection.prove(sent, bench.now)), None);
    assert_eq!(bench.ejection.back_since(bench.now), Some(5 * SECOND), "slow start does not begin anew");
    assert_eq!(
        event(bench.ejection.poll(bench.now)),
        Some(EjectionEvent::Restored),
        "its return is said when it is seen"
    );
}

#[test]
fn a_success_ends_the_row_of_failures() {
    let bench = Bench::new();
    for _ in 0..10 {
        assert_eq!([bench.fail(), bench.fail(), bench.succeed()], [None; 3]);
    }
    assert!(!bench.ejected());
}

#[test]
fn the_return_is_said_once() {
    let mut bench = Bench::new();
    bench.eject();
    assert_eq!(event(bench.ejection.poll(bench.now)), None);
    bench.now += 30 * SECOND;
    assert_eq!(event(bench.ejection.poll(bench.now)), Some(EjectionEvent::Restored));
    assert_eq!(event(bench.ejection.poll(bench.now)), None);
    bench.eject();
    bench.now += 60 * SECOND;
    assert_eq!(bench.succeed(), Some(EjectionEvent::Restored));
    assert_eq!(event(bench.ejection.poll(bench.now)), None);
}

#[test]
fn a_return_that_the_next_failure_ends_is_said_with_it() {
    let mut now = Instant::now();
    let settings = EjectionSettings { failures: NonZeroU32::new(1), base: SECOND, max: SECOND };
    let ejection = Ejection::new(settings, now);
    let mut ejected = |in_a_row, was_back| {
        let ejected = event(ejection.record(false, now, || true));
        assert_eq!(ejected, Some(EjectionEvent::Ejected { length: SECOND, in_a_row, was_back }));
        now += SECOND;
        now
    };
    ejected(1, false);
    let back = ejected(2, true);
    assert_eq!(event(ejection.poll(back)), Some(EjectionEvent::Restored));
    ejected(3, false);
}

/// Who looks now and then may have seen that it is back just before a failure ejects it once more.
#[test]
fn one_that_is_ejected_again_meanwhile_is_not_said_to_be_back() {
    let settings = EjectionSettings { failures: NonZeroU32::new(1), base: SECOND, max: SECOND };
    let start = Instant::now();
    let back = start + SECOND;
    for _ in 0..100 {
        let (ejection, looks) = (Ejection::new(settings, start), AtomicBool::new(false));
        drop(ejection.record(false, start, || true));
        thread::scope(|scope| {
            let mut looking = None;
            let again = event(ejection.record(false, back, || {
                looking = Some(scope.spawn(|| {
                    looks.store(true, Relaxed);
                    event(ejection.poll(back))
                }));
                // Until it has come as far as it can, as a rule.
                while !looks.load(Relaxed) {
                    thread::yield_now();
                }
                (0..100).for_each(|_| thread::yield_now());
                true
            }));
            assert_eq!(again, Some(EjectionEvent::Ejected { length: SECOND, in_a_row: 2, was_back: true }));
            assert_eq!(looking.unwrap().join().unwrap(), None);
        });
    }
}

#[test]
fn ejections_in_a_row_last_longer_up_to_max() {
    let mut bench = Bench::new();
    for (length, in_a_row) in [(30, 1), (60, 2), (90, 3), (100, 4), (100, 5)] {
        assert_eq!(bench.eject(), (length, in_a_row));
        // long after the return, but without a success in between
        bench.now += 1000 * SECOND;
    }
}

#[test]
fn a_single_success_does_not_end_the_row_of_ejections() {
    let mut bench = Bench::new();
    bench.eject();
    bench.now += 31 * SECOND;
    bench.succeed();
    assert_eq!(bench.eject(), (60, 2));
}

#[test]
fn a_time_of_good_behaviour_ends_the_row_of_ejections() {
    let mut bench = Bench::new();
    bench.eject();
    bench.now += 30 * SECOND;
    bench.succeed();
    bench.now += 30 * SECOND;
    assert_eq!(bench.eject(), (30, 1));
}

#[test]
fn the_last_endpoint_standing_stays() {
    let bench = Bench::new();
    for _ in 0..10 {
        assert_eq!(event(bench.ejection.record(false, bench.now, || false)), None);
    }
    assert!(!bench.ejected());
    // another one has come: the next failure ejects
    assert!(bench.fail().is_some());
}

#[test]
fn late_outcomes_do_not_count_while_ejected() {
    let mut bench = Bench::new();
    bench.eject();
    assert_eq!([bench.fail(), bench.fail(), bench.succeed()], [None; 3]);
    bench.now += 30 * SECOND;
    assert_eq!(bench.eject(), (60, 2));
}

#[test]
fn restoring_takes_it_back_at_once_and_keeps_the_row() {
    let bench = Bench::new();
    bench.eject();
    assert_eq!(event(bench.ejection.restore(bench.now)), Some(EjectionEvent::Restored));
    assert!(!bench.ejected());
    assert_eq!(bench.eject(), (60, 2));
}

#[test]
fn one_that_is_retired_is_back_and_stays() {
    let bench = Bench::new();
    bench.eject();
    assert_eq!(event(bench.ejection.retire(bench.now)), Some(EjectionEvent::Restored));
    assert_eq!(event(bench.ejection.retire(bench.now)), None, "said once");
    for _ in 0..10 {
        assert_eq!(bench.fail(), None);
    }
    assert!(!bench.ejected());
}

#[test]
fn slow_start_is_told_when_it_came_back() {
    let mut bench = Bench::new();
    assert_eq!(bench.ejection.back_since(bench.now), None);
    bench.eject();
    assert_eq!(bench.ejection.back_since(bench.now), None);
    bench.now += 32 * SECOND;
    assert_eq!(bench.ejection.back_since(bench.now), Some(2 * SECOND));
}

#[test]
fn without_failures_configured_nothing_is_ejected() {
    let now = Instant::now();
    let settings = EjectionSettings { failures: None, base: SECOND, max: SECOND };
    let ejection = Ejection::new(settings, now);
    for _ in 0..100 {
        assert_eq!(event(ejection.record(false, now, || true)), None);
    }
    assert!(!ejection.is_ejected(now));
}

#[test]
fn another_process_leaves_it_alone_for_as_long() {
    let mut bench = Bench::new();
    bench.eject();
    bench.now += 10 * SECOND;
    let memory = bench.ejection.memory(bench.now);
    let mut other = Bench::new();
    other.ejection.recall(&memory, other.now);
    other.now += 20 * SECOND - Duration::from_nanos(1);
    assert!(other.ejected());
    other.now += Duration::from_nanos(1);
    assert_eq!(other.ejection.memory(other.now).away_for, None, "it is back");
    assert_eq!(event(other.ejection.poll(other.now)), Some(EjectionEvent::Restored));
    assert_eq!(other.eject(), (60, 2));
}

#[test]
fn a_success_ends_the_row_of_failures_that_another_process_has_begun() {
    let (bench, other) = (Bench::new(), Bench::new());
    assert_eq!([bench.fail(), bench.fail()], [None; 2]);
    other.ejection.recall(&bench.ejection.memory(bench.now), other.now);
    assert_eq!([other.succeed(), other.fail(), other.fail()], [None; 3]);
    assert!(!other.ejected());
    assert!(matches!(other.fail(), Some(EjectionEvent::Ejected { .. })));
}

#[test]
fn another_process_knows_since_when_it_is_back() {
    let mut bench = Bench::new();
    bench.eject();
    bench.now += 32 * SECOND;
    bench.succeed();
    let mut other = Bench::new();
    other.ejection.recall(&bench.ejection.memory(bench.now), other.now);
    assert_eq!(event(other.ejection.poll(other.now)), None, "it was said already");
    assert_eq!(other.ejection.back_since(other.now), Some(2 * SECOND));
    other.now += 27 * SECOND;
    assert_eq!(other.eject(), (60, 2), "it flaps");
}
