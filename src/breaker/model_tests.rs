//! Random outcomes and times against a reference that keeps every event and looks through all of them each time.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::inner::PROBE_PATIENCE;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Acquire,
    /// Which of the permits at hand, and what became of it; `None` = dropped.
    Finish(usize, Option<Outcome>),
    ForceOpen(Option<u64>),
    Reset,
}

/// One admission of a chapter.
#[derive(Clone, Copy)]
struct Held {
    chapter: usize,
    /// Where its `ProbeOut` is among the chapter's events.
    probe: Option<usize>,
}

/// What happened within a chapter.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    ProbeOut {
        at_ns: u64,
    },
    ProbeBack {
        out: usize,
    },
    /// Those that are out lose their places.
    Overdue,
    Finished {
        at_ms: u64,
        outcome: Outcome,
        out: Option<usize>,
    },
}

/// Closed, Open, … in the order of history; Ramp is a part of the closed chapter that it begins.
enum Chapter {
    Closed { ramp_since_ms: Option<u64> },
    Open { until_ns: Option<u64> },
    HalfOpen,
}

struct Reference {
    settings: Settings,
    chapters: Vec<(Chapter, Vec<Event>)>,
    /// Opens since the last time it was closed and done ramping.
    opens: u32,
    totals: [u64; 3],
}

impl Reference {
    fn state(&mut self, now_ns: u64) -> State {
        let ramp_ms = self.settings.ramp.as_millis() as u64;
        match self.chapters.last().unwrap().0 {
            Chapter::Open { until_ns: Some(until) } if until <= now_ns => {
                self.turn(Chapter::HalfOpen);
                State::HalfOpen
            }
            Chapter::Open { .. } => State::Open,
            Chapter::HalfOpen => State::HalfOpen,
            Chapter::Closed { ramp_since_ms: Some(since) } if now_ns / 1_000_000 < since + ramp_ms => State::Ramp,
            Chapter::Closed { .. } => {
                self.opens = 0;
                State::Closed
            }
        }
    }

    fn turn(&mut self, chapter: Chapter) {
        self.chapters.push((chapter, Vec::new()));
    }

    fn events(&mut self) -> &mut Vec<Event> {
        &mut self.chapters.last_mut().unwrap().1
    }

    fn failed(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Success { latency } => self.settings.slow_call.is_some_and(|slow| latency > slow),
            _ => true,
        }
    }

    /// Whether a request may pass; `None` where a ramp has the choice.
    fn may_pass(&mut self, now_ns: u64) -> Option<bool> {
        match self.state(now_ns) {
            State::Closed => Some(true),
            State::Open => Some(false),
            State::Ramp => None,
            State::HalfOpen => {
                let probes = self.settings.probes.get() as usize;
                if self.places_taken() >= probes && now_ns - self.last_out_ns() >= PROBE_PATIENCE.as_nanos() as u64 {
                    self.events().push(Event::Overdue);
                }
                Some(self.places_taken() < probes)
            }
        }
    }

    /// By probes that are out and not overdue, and by those that succeeded.
    fn places_taken(&mut self) -> usize {
        let events = self.events();
        let round = events.iter().rposition(|event| *event == Event::Overdue).unwrap_or(0);
        let is_back = |at: usize| {
            events.iter().any(|event| match event {
                Event::ProbeBack { out } => *out == at,
                Event::Finished { out, .. } => *out == Some(at),
                _ => false,
            })
        };
        let is_out = |at: usize| matches!(events[at], Event::ProbeOut { .. }) && !is_back(at);
        let succeeded = events.iter().filter(|event| matches!(event, Event::Finished { .. })).count();
        (round..events.len()).filter(|at| is_out(*at)).count() + succeeded
    }

    fn last_out_ns(&mut self) -> u64 {
        let outs = self.events().iter().rev().filter_map(|event| match event {
            Event::ProbeOut { at_ns } => Some(*at_ns),
            _ => None,
        });
        outs.max().unwrap_or(0)
    }

    /// Returns whether it opened by this.
    fn finish(&mut self, held: Held, outcome: Option<Outcome>, now_ns: u64) -> bool {
        if let Some(outcome) = outcome {
            self.totals[usize::from(self.failed(outcome))] += 1;
        }
        if held.chapter != self.chapters.len() - 1 {
            return false;
        }
        let Some(outcome) = outcome else {
            if let Some(out) = held.probe {
                self.events().push(Event::ProbeBack { out });
            }
            return false;
        };
        let at_ms = now_ns / 1_000_000;
        self.events().push(Event::Finished { at_ms, outcome, out: held.probe });
        if held.probe.is_some() { self.judge_probe(outcome, at_ms) } else { self.judge(at_ms) }
    }

    fn judge_probe(&mut self, outcome: Outcome, at_ms: u64) -> bool {
        let spared = outcome == Outcome::TooManyRequests;
        if self.failed(outcome) && !spared {
            return true;
        }
        let finished = self.outcomes().len();
        if finished == self.settings.probes.get() as usize {
            let ramp_since_ms = (!self.settings.ramp.is_zero()).then_some(at_ms);
            self.turn(Chapter::Closed { ramp_since_ms });
        }
        false
    }

    fn judge(&self, at_ms: u64) -> bool {
        let bucket_ms = self.settings.window.as_millis() as u64 / 10;
        let outcomes = self.outcomes();
        let in_a_row = self.in_a_row();
        let last = outcomes.last().unwrap().1;
        let counts = self.failed(last) && last != Outcome::TooManyRequests;
        if counts && self.settings.failures.is_some_and(|limit| in_a_row >= limit.get()) {
            return true;
        }
        let recent: Vec<_> = outcomes.iter().filter(|(then, _)| at_ms / bucket_ms - then / bucket_ms < 10).collect();
        let bad = recent.iter().filter(|(_, outcome)| self.failed(*outcome)).count();
        self.settings.failure_ratio.is_some_and(|ratio| {
            bad > 0
                && recent.len() >= self.settings.min_requests.get() as usize
                && bad as f64 / recent.len() as f64 >= ratio
        })
    }

    fn outcomes(&self) -> Vec<(u64, Outcome)> {
        let events = &self.chapters.last().unwrap().1;
        let finished = events.iter().filter_map(|event| match event {
            Event::Finished { at_ms, outcome, .. } => Some((*at_ms, *outcome)),
            _ => None,
        });
        finished.collect()
    }

    fn in_a_row(&self) -> u32 {
        let outcomes = self.outcomes();
        let row = outcomes.iter().rev().map(|(_, outcome)| *outcome);
        row.filter(|outcome| *outcome != Outcome::TooManyRequests).take_while(|outcome| self.failed(*outcome)).count()
            as u32
    }

    fn open_ns(&self) -> u64 {
        let doubled = (0..self.opens).fold(self.settings.open, |length, _| (length * 2).min(self.settings.max_open));
        doubled.as_nanos() as u64
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => (1_u64..150).prop_map(|ms| Outcome::Success { latency: Duration::from_millis(ms) }),
        3 => Just(Outcome::Failure(Cause::NoAnswer("connect_failed"))),
        1 => Just(Outcome::TooManyRequests),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..300).prop_map(Step::Wait),
        1 => (300_u64..20_000).prop_map(Step::Wait),
        10 => Just(Step::Acquire),
        9 => (any::<usize>(), proptest::option::weighted(0.9, outcome()))
            .prop_map(|(which, outcome)| Step::Finish(which, outcome)),
        // rare: what no operator touches is what matters
        1 => prop_oneof![
            6 => Just(Step::Acquire),
            1 => proptest::option::of(0_u64..5_000).prop_map(Step::ForceOpen),
            1 => Just(Step::Reset),
        ],
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let count = |max: u32| (1..=max).prop_map(|value| NonZeroU32::new(value).unwrap());
    (
        proptest::option::of(count(5)),
        proptest::option::of((1_u32..=10).prop_map(|tenths| f64::from(tenths) / 10.0)),
        count(8),
        (1_u64..100).prop_map(|bucket_ms| Duration::from_millis(bucket_ms * 10)),
        proptest::option::of(Just(Duration::from_millis(100))),
        (1_u64..1000, 1_u32..8),
        count(3),
        prop_oneof![Just(0_u64), 1_u64..3000],
        any::<bool>(),
    )
        .prop_map(|(failures, failure_ratio, min_requests, window, slow_call, open, probes, ramp_ms, shadow)| {
            Settings {
                failures,
                failure_ratio,
                min_requests,
                window,
                slow_call,
                open: Duration::from_millis(open.0),
                max_open: Duration::from_millis(open.0) * open.1,
                probes,
                ramp: Duration::from_millis(ramp_ms),
                shadow,
            }
        })
}

/// The breaker, the reference, and the permits at hand.
struct Pair {
    start: Instant,
    now_ms: u64,
    breaker: Breaker,
    reference: Reference,
}

type Permits<'a> = Vec<(Permit<'a>, Option<Held>)>;

impl Pair {
    fn new(settings: Settings) -> Self {
        let start = Instant::now();
        Self {
            start,
            now_ms: 0,
            breaker: Breaker::new(settings.clone(), start),
            reference: Reference {
                settings,
                chapters: vec![(Chapter::Closed { ramp_since_ms: None }, Vec::new())],
                opens: 0,
                totals: [0; 3],
            },
        }
    }
}

fn now_of(start: Instant, now_ms: u64) -> Instant {
    start + Duration::from_millis(now_ms)
}

fn acquire<'a>(
    breaker: &'a Breaker,
    reference: &mut Reference,
    permits: &mut Permits<'a>,
    now: Instant,
    now_ns: u64,
) -> Result<(), TestCaseError> {
    let expected = reference.may_pass(now_ns);
    let answer = breaker.try_acquire(now);
    let rejected = match &answer {
        Ok(permit) => permit.would_reject(),
        Err(rejected) => Some(*rejected),
    };
    prop_assert!(answer.is_ok() || !reference.settings.shadow);
    if let Some(expected) = expected {
        prop_assert_eq!(rejected.is_none(), expected);
    }
    if let Some(rejected) = rejected {
        reference.totals[2] += 1;
        prop_assert_eq!(rejected.state, reference.state(now_ns));
        if let Chapter::Open { until_ns: Some(until) } = reference.chapters.last().unwrap().0 {
            prop_assert_eq!(rejected.retry_after.as_nanos() as u64, until - now_ns);
        }
    }
    if let Ok(permit) = answer {
        prop_assert_eq!(permit.is_probe(), rejected.is_none() && reference.state(now_ns) == State::HalfOpen);
        let probe = permit.is_probe().then(|| {
            reference.events().push(Event::ProbeOut { at_ns: now_ns });
            reference.events().len() - 1
        });
        let held = Held { chapter: reference.chapters.len() - 1, probe };
        permits.push((permit, rejected.is_none().then_some(held)));
    }
    Ok(())
}

fn run(settings: Settings, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let Pair { start, mut now_ms, breaker, mut reference } = Pair::new(settings);
    let mut permits: Permits<'_> = Vec::new();
    for step in steps {
        let (now, now_ns) = (now_of(start, now_ms), now_ms * 1_000_000);
        match step {
            Step::Wait(ms) => now_ms += ms,
            Step::Acquire => acquire(&breaker, &mut reference, &mut permits, now, now_ns)?,
            Step::Finish(..) if permits.is_empty() => (),
            Step::Finish(which, outcome) => {
                let (permit, held) = permits.swap_remove(which % permits.len());
                match outcome {
                    Some(outcome) => permit.record(outcome, now),
                    None => drop(permit),
                }
                if held.is_some_and(|held| reference.finish(held, outcome, now_ns)) {
                    let open_ns = reference.open_ns();
                    let left = breaker.view(now).next_attempt.map(|left| left.as_nanos() as u64);
                    prop_assert_eq!(left, Some(open_ns));
                    reference.opens += 1;
                    reference.turn(Chapter::Open { until_ns: left.map(|left| now_ns + left) });
                }
            }
            Step::ForceOpen(ms) => {
                breaker.force_open(now, ms.map(|ms| now_of(start, now_ms + ms)));
                reference.opens = reference.opens.max(1);
                reference.turn(Chapter::Open { until_ns: ms.map(|ms| now_ns + ms * 1_000_000) });
            }
            Step::Reset => {
                breaker.reset();
                reference.opens = 0;
                reference.turn(Chapter::Closed { ramp_since_ms: None });
            }
        }
        let (now, now_ns) = (now_of(start, now_ms), now_ms * 1_000_000);
        let view = breaker.view(now);
        prop_assert_eq!(view.state, reference.state(now_ns));
        let [successful, failed, rejected] = reference.totals;
        prop_assert_eq!(view.statistics, Statistics { successful, failed, rejected });
        prop_assert_eq!(view.statistics.total(), successful + failed + rejected);
        if view.state == State::Closed {
            prop_assert_eq!(view.failures, reference.in_a_row());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_reference(
        settings in settings(),
        steps in vec(step(), 1..300),
    ) {
        run(settings, steps)?;
    }
}
