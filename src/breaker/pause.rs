//! Notices that the process itself stood still: SIGSTOP, a suspended or starved machine. Everything on its way then
//! seems to have taken too long at once, which says nothing about any upstream.
//!
//! It stops nothing and judges nothing: whoever is about to report a time-out or a slow call asks [`Pauses::spoil`],
//! and drops the permit instead if so.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use super::nanos_of;

/// One per process. Somebody has to call [`Pauses::beat`] well within the tolerance, all the time.
#[derive(Debug)]
pub struct Pauses {
    epoch: Instant,
    tolerance_ns: u64,
    last_beat_ns: AtomicU64,
    /// The end of the latest pause; 0 = there was none.
    resumed_ns: AtomicU64,
}

impl Pauses {
    /// A gap between beats longer than `tolerance` is a pause.
    #[must_use]
    pub fn new(tolerance: Duration, now: Instant) -> Self {
        Self {
            epoch: now,
            tolerance_ns: nanos_of(tolerance),
            last_beat_ns: AtomicU64::new(0),
            resumed_ns: AtomicU64::new(0),
        }
    }

    /// From now on there are beats. What passed before, as while the process was built, is no pause.
    pub fn begin(&self, now: Instant) {
        self.last_beat_ns.fetch_max(self.nanos(now), Release);
    }

    /// Returns how long the process stood still if it did since the last beat.
    pub fn beat(&self, now: Instant) -> Option<Duration> {
        let now = self.nanos(now);
        let gap = now.saturating_sub(self.last_beat_ns.load(Relaxed));
        let pause = (gap > self.tolerance_ns).then(|| Duration::from_nanos(gap));
        if pause.is_some() {
            self.resumed_ns.fetch_max(now, Relaxed);
        }
        // Behind the end of the pause: whoever no longer sees the gap sees that.
        self.last_beat_ns.fetch_max(now, Release);
        pause
    }

    /// Whether the time from `started` to `now` has a pause in it, so that its length means nothing. Two loads.
    #[must_use]
    pub fn spoil(&self, started: Instant, now: Instant) -> bool {
        // After a pause the beat may not be the first to run, and may run between these two.
        let unnoticed = self.nanos(now).saturating_sub(self.last_beat_ns.load(Acquire));
        let resumed = self.resumed_ns.load(Relaxed);
        (resumed != 0 && self.nanos(started) < resumed) || unnoticed > self.tolerance_ns
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos_of(at.saturating_duration_since(self.epoch))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_pause_spoils_what_began_before_its_end() {
        let start = Instant::now();
        let pauses = Pauses::new(1000 * MS, start);
        assert_eq!(pauses.beat(start + 500 * MS), None);
        assert!(!pauses.spoil(start, start + 600 * MS));

        let resumed = start + 5500 * MS;
        // before the beat, and after it
        assert!(pauses.spoil(start + 400 * MS, resumed));
        assert_eq!(pauses.beat(resumed), Some(5000 * MS));
        assert!(pauses.spoil(start + 400 * MS, resumed + MS));
        assert!(!pauses.spoil(resumed, resumed + 900 * MS));
    }

    #[test]
    fn what_passed_before_the_first_beat_is_no_pause() {
        let start = Instant::now();
        let pauses = Pauses::new(1000 * MS, start);
        pauses.begin(start + 3000 * MS);
        assert_eq!(pauses.beat(start + 3000 * MS), None);
        assert!(!pauses.spoil(start, start + 3500 * MS));
        assert_eq!(pauses.beat(start + 5000 * MS), Some(2000 * MS));
    }

    #[test]
    fn a_pause_is_known_in_the_very_moment_of_its_beat() {
        const ROUNDS: usize = 1000;
        let start = Instant::now();
        let resumed = start + 5000 * MS;
        let rounds: Vec<_> = (0..ROUNDS).map(|_| Pauses::new(1000 * MS, start)).collect();
        let (begun, beaten) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut is_always_known = true;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (round, pauses) in rounds.iter().enumerate() {
                    while begun.load(Acquire) <= round {
                        std::hint::spin_loop();
                    }
                    pauses.beat(resumed);
                    beaten.store(round + 1, Release);
                }
            });
            for (round, pauses) in rounds.iter().enumerate() {
                begun.store(round + 1, Release);
                while beaten.load(Acquire) <= round {
                    is_always_known &= pauses.spoil(start, resumed);
                }
            }
        });
        assert!(is_always_known);
    }

    #[test]
    fn a_beat_in_time_is_no_pause() {
        let start = Instant::now();
        let pauses = Pauses::new(1000 * MS, start);
        for beat in 1..100 {
            assert_eq!(pauses.beat(start + beat * 1000 * MS), None);
        }
        // a worker whose clock lags
        assert_eq!(pauses.beat(start + 98_500 * MS), None);
        assert!(!pauses.spoil(start, start + 100_000 * MS), "a second without a beat is within the tolerance");
        assert!(pauses.spoil(start, start + 100_001 * MS));
    }
}
