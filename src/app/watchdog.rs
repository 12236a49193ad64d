//! What systemd's watchdog is told of this process.

use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Control;
use crate::systemd;

/// A worker that looks up from its work less often than this is stuck. Twice what it does when all is well.
const ROUND_MAX: Duration = Duration::from_secs(2);

impl Control {
    /// Tells that this process is well, as long as all of its workers are. Of two processes, it is for the one to tell
    /// that has taken over.
    pub(super) async fn tell_that_alive(&self) {
        let Some(interval) = systemd::watchdog_interval() else { return std::future::pending().await };
        let mut pulse = Pulse::new(interval);
        let mut interval = tokio::time::interval(interval);
        // After a pause of the whole process the workers get their time, too.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if self.has_handed_over() {
                return std::future::pending().await;
            }
            match pulse.is_felt(&self.rounds, !self.is_ready()) {
                true => systemd::alive(),
                false => tracing::error!("a worker is stuck; the watchdog is told nothing"),
            }
        }
    }
}

/// Whether workers go on counting their rounds, by looks rather than by the clock, which a pause moves on as well.
struct Pulse {
    /// So many looks in a row that find a worker where it was are too many.
    looks_max: u128,
    /// What each worker had counted (`None` = it has left), and how many looks have found that since.
    seen: Vec<(Option<usize>, u128)>,
}

impl Pulse {
    fn new(interval: Duration) -> Self {
        Self { looks_max: ROUND_MAX.as_nanos().div_ceil(interval.as_nanos()) + 1, seen: Vec::new() }
    }

    fn is_felt(&mut self, rounds: &[Weak<AtomicUsize>], may_leave: bool) -> bool {
        self.seen.resize(rounds.len(), (None, 0));
        for (seen, rounds) in self.seen.iter_mut().zip(rounds) {
            let counted = rounds.upgrade().map(|rounds| rounds.load(Relaxed));
            let is_well = counted != seen.0 || (counted.is_none() && may_leave);
            *seen = (counted, if is_well { 0 } else { seen.1 + 1 });
        }
        self.seen.iter().all(|(_, looks)| *looks < self.looks_max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// How many looks in a row find all well, of ten.
    fn looks(pulse: &mut Pulse, rounds: &[Weak<AtomicUsize>], may_leave: bool) -> usize {
        (0..10).take_while(|_| pulse.is_felt(rounds, may_leave)).count()
    }

    #[test]
    fn a_worker_is_stuck_after_two_looks_and_two_seconds() {
        for (interval, expected) in [(15_000, 2), (2_000, 2), (1_000, 3), (500, 5)] {
            let mut pulse = Pulse::new(Duration::from_millis(interval));
            let counters = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
            let rounds = counters.each_ref().map(Arc::downgrade);
            assert_eq!(looks(&mut pulse, &rounds, false), expected, "{interval} ms");
            // One that goes on does not speak for the other.
            counters[0].fetch_add(1, Relaxed);
            assert!(!pulse.is_felt(&rounds, false));
            counters[1].fetch_add(1, Relaxed);
            assert!(pulse.is_felt(&rounds, false));
        }
    }

    #[test]
    fn a_worker_may_leave_only_in_a_drain() {
        for may_leave in [false, true] {
            let mut pulse = Pulse::new(Duration::from_secs(15));
            let counter = Arc::new(AtomicUsize::new(7));
            let rounds = [Arc::downgrade(&counter)];
            assert!(pulse.is_felt(&rounds, may_leave));
            drop(counter);
            assert_eq!(looks(&mut pulse, &rounds, may_leave), if may_leave { 10 } else { 2 });
        }
    }

    #[test]
    fn one_that_is_stuck_in_a_drain_is_stuck() {
        let mut pulse = Pulse::new(Duration::from_secs(15));
        let counter = Arc::new(AtomicUsize::new(7));
        assert_eq!(looks(&mut pulse, &[Arc::downgrade(&counter)], true), 2);
    }
}
