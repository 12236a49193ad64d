//! The last fifteen minutes at one-second steps, and the last minute as one figure.
//!
//! Fed by a tick a second with running totals, and by those of now when somebody asks: whoever has just sent a request
//! finds it. Costs requests nothing. The rings are bounded: about
//! 100 KiB for the minute's histograms and 40 KiB for the history.

use std::collections::VecDeque;
use std::time::Duration;

use super::histogram::{FINE, quantile_ms};

/// Seconds in the rolling figures of `GET /api/metrics`.
const MINUTE: usize = 60;

/// Ticks of one second that come faster than this make up for a process that was stopped, or a disk that hung.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Seconds of history: 15 minutes.
pub const HISTORY: usize = 900;

/// One second as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// When it ended, in Unix seconds.
    pub unix_seconds: u64,
    /// Requests finished, and those of them answered with 500 or above.
    pub requests: u64,
    pub errors: u64,
    /// Percentiles of the duration in milliseconds; 0 without requests.
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// Requests being served when it ended.
    pub in_flight: u64,
}

impl Second {
    /// Counts what finished in the same second, whose percentiles are those of most of its requests.
    fn add(&mut self, further: &Self) {
        if further.requests > self.requests {
            (self.p50_ms, self.p95_ms, self.p99_ms) = (further.p50_ms, further.p95_ms, further.p99_ms);
        }
        self.requests += further.requests;
        self.errors += further.errors;
        self.in_flight = further.in_flight;
    }
}

/// The last minute, or as much of it as the process has lived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LastMinute {
    pub requests_per_second: f64,
    /// Milliseconds; 0 without requests.
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// The share of answers of 500 and above, 0 to 1.
    pub error_rate: f64,
}

/// Running totals since the start.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) durations: [u64; FINE],
    pub(super) errors: u64,
    pub(super) in_flight: u64,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    before: Option<Box<Totals>>,
    /// Per second: durations and errors.
    minute: VecDeque<(Box<[u32; FINE]>, u64)>,
    history: VecDeque<Second>,
}

impl Window {
    /// Takes the totals at the end of a second, which is `since_tick` after the last one. Where the clock was set back,
    /// what it told before lies in the future now: that is forgotten, as charts go by the time. Ticks that were missed
    /// come all at once: they count as seconds of the last minute, and are one in the history.
    pub(super) fn tick(&mut self, unix_seconds: u64, since_tick: Duration, now: Totals) {
        let (counts, errors) = self.since_tick(&now);
        let mut step = if self.minute.len() == MINUTE {
            self.minute.pop_front().expect("a full minute has a front").0
        } else {
            Box::new([0; FINE])
        };
        for (stored, &count) in step.iter_mut().zip(&counts) {
            *stored = u32::try_from(count).unwrap_or(u32::MAX);
        }
        self.minute.push_back((step, errors));
        while self.history.back().is_some_and(|last| last.unix_seconds > unix_seconds) {
            self.history.pop_back();
        }
        let requests = counts.iter().sum();
        let second = Second {
            unix_seconds,
            requests,
            errors,
            p50_ms: quantile_ms(&counts, 0.50),
            p95_ms: quantile_ms(&counts, 0.95),
            p99_ms: quantile_ms(&counts, 0.99),
            in_flight: now.in_flight,
        };
        match self.history.back_mut() {
            Some(last) if last.unix_seconds == unix_seconds && since_tick < CATCH_UP => last.add(&second),
            _ => self.push(second),
        }
        self.before = Some(Box::new(now));
    }

    fn push(&mut self, second: Second) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(second);
    }

    /// What finished since the last tick: durations and errors.
    fn since_tick(&self, now: &Totals) -> ([u64; FINE], u64) {
        let Some(before) = &self.before else { return (now.durations, now.errors) };
        let counts = std::array::from_fn(|index| now.durations[index].saturating_sub(before.durations[index]));
        (counts, now.errors.saturating_sub(before.errors))
    }

    /// The last minute with the totals of `now`, which is `since_tick` after the last tick.
    pub(super) fn last_minute(&self, now: &Totals, since_tick: Duration) -> LastMinute {
        let (mut counts, mut errors) = self.since_tick(now);
        for (step, step_errors) in &self.minute {
            for (total, &count) in counts.iter_mut().zip(step.iter()) {
                *total += u64::from(count);
            }
            errors += step_errors;
        }
        let requests: u64 = counts.iter().sum();
        let seconds = self.minute.len() as f64 + since_tick.as_secs_f64();
        LastMinute {
            requests_per_second: requests as f64 / seconds.max(1.0),
            p50_ms: quantile_ms(&counts, 0.50),
            p95_ms: quantile_ms(&counts, 0.95),
            p99_ms: quantile_ms(&counts, 0.99),
            error_rate: errors as f64 / requests.max(1) as f64,
        }
    }

    pub(super) fn last_second(&self) -> Option<Second> {
        self.history.back().copied()
    }

    /// How many seconds of the last minute the process has lived.
    pub(super) fn lived_seconds(&self) -> u64 {
        self.minute.len() as u64
    }

    /// Oldest first; at most [`HISTORY`].
    pub(super) fn history(&self) -> Vec<Second> {
        self.history.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn totals(requests: u64, errors: u64) -> Totals {
        let mut durations = [0; FINE];
        durations[50] = requests;
        Totals { durations, errors, in_flight: 3 }
    }

    #[test]
    fn the_last_minute_forgets_what_is_older() {
        let mut window = Window::default();
        window.tick(1, SECOND, totals(1000, 1000));
        for second in 2..=61 {
            window.tick(second, SECOND, totals(1000 + second * 10, 1000));
        }
        let minute = window.last_minute(&totals(1610, 1000), Duration::ZERO);
        assert_eq!(minute.error_rate, 0.0);
        assert!((10.0..10.4).contains(&minute.requests_per_second));
        assert!(minute.p50_ms > 0.0 && minute.p50_ms == minute.p99_ms);
    }

    #[test]
    fn a_young_process_is_not_averaged_over_a_whole_minute() {
        let mut window = Window::default();
        assert_eq!(window.last_minute(&totals(0, 0), Duration::from_millis(10)), LastMinute::default());
        window.tick(1, SECOND, totals(100, 25));
        let minute = window.last_minute(&totals(100, 25), Duration::ZERO);
        assert_eq!((minute.requests_per_second, minute.error_rate), (100.0, 0.25));
    }

    #[test]
    fn the_running_second_counts_as_far_as_it_has_come() {
        let mut window = Window::default();
        let first = window.last_minute(&totals(8, 2), Duration::from_millis(100));
        assert_eq!((first.requests_per_second, first.error_rate), (8.0, 0.25));
        assert!(first.p50_ms > 0.0);
        window.tick(1, SECOND, totals(100, 0));
        assert_eq!(window.last_minute(&totals(150, 0), Duration::from_millis(500)).requests_per_second, 100.0);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_back_what_lies_ahead() {
        let mut window = Window::default();
        for (step, second) in [100, 101, 102, 103, 101, 102].into_iter().enumerate() {
            window.tick(second, SECOND, totals(step as u64, 0));
        }
        let seconds: Vec<_> = window.history().iter().map(|second| second.unix_seconds).collect();
        assert_eq!(seconds, [100, 101, 101, 102]);
        assert_eq!(window.last_second().unwrap().requests, 1);
    }

    /// Whoever was stopped for twelve seconds ticks twelve times at once.
    #[test]
    fn ticks_that_were_missed_are_one_second_of_history() {
        let mut window = Window::default();
        window.tick(100, SECOND, totals(12, 0));
        window.tick(112, 12 * SECOND, totals(24, 0));
        for more in 1..12 {
            window.tick(112, Duration::ZERO, totals(24 + more, 1));
        }
        window.tick(113, SECOND, totals(36, 1));
        let seconds: Vec<_> = window.history().iter().map(|one| (one.unix_seconds, one.requests, one.errors)).collect();
        assert_eq!(seconds, [(100, 12, 0), (112, 23, 1), (113, 1, 0)]);
        assert_eq!(window.lived_seconds(), 14, "they are seconds of the last minute");
        // Ticks a second apart may fall into one second of the clock.
        window.tick(113, SECOND, totals(40, 1));
        assert_eq!(window.history().len(), 4);
    }

    #[test]
    fn history_is_bounded_and_in_order() {
        let mut window = Window::default();
        for second in 0..1000 {
            window.tick(second, SECOND, totals(second * 2, second));
        }
        let history = window.history();
        assert_eq!(history.len(), HISTORY);
        assert_eq!(history[0].unix_seconds, 100);
        assert_eq!((history[899].requests, history[899].errors), (2, 1));
        assert_eq!(history[899].in_flight, 3);
    }
}
