//! Calls and failures of the last while, in ten buckets. Exact: the sum is that of the current tenth of the window and
//! the nine before it, nothing estimated. Not a rate: it knows no time between its ticks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const BUCKETS: u64 = 10;

/// A bucket is one word, so that counting and taking it over for a new tick are one atomic step:
/// `tick (24 bits) | total (20) | failures (20)`. The tick's low bits are ambiguous only for a bucket without a call for
/// 2²⁴ ticks, 194 days at the default window, and only for two windows then.
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const TICK_MASK: u64 = (1 << (64 - 2 * COUNT_BITS)) - 1;

/// See the module docs.
pub(super) struct Window {
    bucket_ns: u64,
    buckets: [AtomicU64; BUCKETS as usize],
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) total: u64,
    pub(super) failures: u64,
}

/// A tenth of a window, for another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenth {
    /// From its beginning to that of the current one.
    pub ago: Duration,
    pub total: u32,
    pub failures: u32,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { bucket_ns: (length_ns / BUCKETS).max(1), buckets: [const { AtomicU64::new(0) }; BUCKETS as usize] }
    }

    /// Counts one call at `now_ns`. A call so late that its bucket serves a newer tick is outside the window anyway.
    pub(super) fn count(&self, now_ns: u64, failure: bool) {
        let tick = self.tick(now_ns);
        let bucket = &self.buckets[(tick % BUCKETS) as usize];
        // Fails only for `None`, the call that came too late.
        let _ = bucket.fetch_update(Relaxed, Relaxed, |word| counted(word, tick, failure));
    }

    /// The calls in the window that ends with `now_ns`. Those counted by a worker whose clock is ahead belong to it
    /// too.
    pub(super) fn sum(&self, now_ns: u64) -> Sum {
        let tick = self.tick(now_ns);
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Relaxed))
            .filter(|&word| word != 0 && (age(word, tick) < BUCKETS || is_ahead(word, tick)))
            .fold(Sum::default(), |sum, word| Sum {
                total: sum.total + total(word),
                failures: sum.failures + failures(word),
            })
    }

    /// What it holds, for a window in another process.
    pub(super) fn memory(&self, now_ns: u64) -> Vec<Tenth> {
        let tick = self.tick(now_ns);
        let words = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).filter(|word| total(*word) > 0);
        let aged = words.map(|word| (if is_ahead(word, tick) { 0 } else { age(word, tick) }, word));
        aged.filter(|(age, _)| *age < BUCKETS)
            .map(|(age, word)| Tenth {
                ago: Duration::from_nanos(age.saturating_mul(self.bucket_ns)),
                total: total(word) as u32,
                failures: failures(word) as u32,
            })
            .collect()
    }

    /// Goes on with what another one held, to within a tenth. Only what has not counted yet may do so.
    pub(super) fn recall(&self, memory: &[Tenth], now_ns: u64) {
        self.clear();
        let now = self.tick(now_ns);
        for tenth in memory {
            let age = u64::try_from(tenth.ago.as_nanos()).unwrap_or(u64::MAX) / self.bucket_ns;
            if age >= BUCKETS {
                continue;
            }
            let tick = now - age;
            let bucket = &self.buckets[(tick % BUCKETS) as usize];
            // Several fall into one where this window is the longer one.
            let word = bucket.load(Relaxed);
            let mut calls = total(word) + u64::from(tenth.total);
            let mut failed = failures(word) + u64::from(tenth.failures.min(tenth.total));
            while calls > COUNT_MAX {
                (calls, failed) = (calls / 2, failed / 2);
            }
            bucket.store(packed(tick, calls, failed), Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// From `BUCKETS` on, so that what was before the beginning has a tick too: see [`Window::recall`].
    fn tick(&self, now_ns: u64) -> u64 {
        now_ns / self.bucket_ns + BUCKETS
    }
}

fn counted(word: u64, tick: u64, failure: bool) -> Option<u64> {
    let (mut calls, mut failed) = (total(word), failures(word));
    if age(word, tick) != 0 {
        if is_ahead(word, tick) {
            return None;
        }
        (calls, failed) = (0, 0);
    }
    if calls == COUNT_MAX {
        // A million calls in one tenth: halve both, the ratio is what matters.
        (calls, failed) = (calls / 2, failed / 2);
    }
    Some(packed(tick, calls + 1, failed + u64::from(failure)))
}

fn packed(tick: u64, total: u64, failures: u64) -> u64 {
    (tick & TICK_MASK) << (2 * COUNT_BITS) | total << COUNT_BITS | failures
}

fn total(word: u64) -> u64 {
    word >> COUNT_BITS & COUNT_MAX
}

fn failures(word: u64) -> u64 {
    word & COUNT_MAX
}

/// Ticks since the bucket's own, modulo 2²⁴.
fn age(word: u64, tick: u64) -> u64 {
    tick.wrapping_sub(word >> (2 * COUNT_BITS)) & TICK_MASK
}

/// Whether the bucket is newer than `tick` by up to a window: workers' clocks differ by a little. More is an old
/// bucket.
fn is_ahead(word: u64, tick: u64) -> bool {
    age(word, tick) > TICK_MASK - BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn window() -> Window {
        Window::new(Duration::from_secs(10))
    }

    fn sum(total: u64, failures: u64) -> Sum {
        Sum { total, failures }
    }

    #[test]
    fn a_call_leaves_with_its_tenth() {
        let window = window();
        window.count(SECOND / 2, true);
        assert_eq!(window.sum(10 * SECOND - 1), sum(1, 1));
        assert_eq!(window.sum(10 * SECOND), sum(0, 0));
    }

    #[test]
    fn a_bucket_is_emptied_before_it_is_used_again() {
        let window = window();
        window.count(3 * SECOND, true);
        window.count(13 * SECOND, false);
        assert_eq!(window.sum(13 * SECOND), sum(1, 0));
    }

    #[test]
    fn a_jump_over_many_windows_leaves_nothing() {
        let window = window();
        for second in 0..10 {
            window.count(second * SECOND, true);
        }
        assert_eq!(window.sum(9 * SECOND), sum(10, 10));
        assert_eq!(window.sum(1_000_000 * SECOND), sum(0, 0));
        window.count(1_000_000 * SECOND, false);
        assert_eq!(window.sum(1_000_000 * SECOND), sum(1, 0));
    }

    #[test]
    fn a_clock_that_lags_counts_into_its_own_tenth() {
        let window = window();
        window.count(12 * SECOND, false);
        window.count(11 * SECOND, true);
        assert_eq!(window.sum(11 * SECOND), sum(2, 1));
        // 11 s leaves a second before 12 s does
        assert_eq!(window.sum(21 * SECOND), sum(1, 0));
    }

    #[test]
    fn a_bucket_is_ahead_by_a_window_at_most() {
        let is_ahead_by = |ticks: u64| is_ahead(packed(100 + ticks, 1, 0), 100);
        assert!((1..=BUCKETS).all(is_ahead_by));
        // Any more is a bucket of long ago, up to that of a tick ago.
        assert!(![0, BUCKETS + 1, TICK_MASK / 2, TICK_MASK].into_iter().any(is_ahead_by));
    }

    #[test]
    fn a_call_ten_tenths_late_is_not_counted() {
        let window = window();
        window.count(12 * SECOND, false);
        window.count(2 * SECOND, true);
        assert_eq!(window.sum(12 * SECOND), sum(1, 0));
    }

    #[test]
    fn a_full_bucket_keeps_its_ratio() {
        let word = packed(7, COUNT_MAX, COUNT_MAX / 4);
        let next = counted(word, 7, false).unwrap();
        assert_eq!(total(next), COUNT_MAX / 2 + 1);
        assert_eq!(failures(next), COUNT_MAX / 8);
    }

    #[test]
    fn clearing_forgets_everything() {
        let window = window();
        window.count(SECOND, true);
        window.clear();
        assert_eq!(window.sum(SECOND), sum(0, 0));
    }

    #[test]
    fn another_window_goes_on_with_it_and_loses_it_tenth_by_tenth() {
        let old = window();
        old.count(995 * SECOND, true);
        old.count(1000 * SECOND, false);
        old.count(1001 * SECOND, true); // a worker whose clock is ahead
        let memory = old.memory(1000 * SECOND);
        // Its clock has only begun.
        let new = window();
        new.count(0, true);
        new.recall(&memory, SECOND / 2);
        assert_eq!(new.sum(SECOND / 2), sum(3, 2));
        new.count(SECOND, false);
        assert_eq!(new.sum(4 * SECOND), sum(4, 2));
        assert_eq!(new.sum(5 * SECOND), sum(3, 1));
        assert_eq!(new.sum(10 * SECOND), sum(1, 0));
        assert_eq!(new.memory(11 * SECOND), []);
    }

    #[test]
    fn a_window_of_another_length_takes_what_fits() {
        let old = window();
        (991..=1000).for_each(|second| old.count(second * SECOND, true));
        let memory = old.memory(1000 * SECOND);
        let (short, long) = (Window::new(Duration::from_secs(5)), Window::new(Duration::from_secs(100)));
        short.recall(&memory, 0);
        long.recall(&memory, 0);
        assert_eq!((short.sum(0), long.sum(0)), (sum(5, 5), sum(10, 10)));
        assert_eq!(long.sum(99 * SECOND), sum(10, 10));
        assert_eq!(long.sum(100 * SECOND), sum(0, 0));
    }

    #[test]
    fn what_is_too_much_or_impossible_is_made_to_fit() {
        let window = window();
        let ago = Duration::ZERO;
        window.recall(&[Tenth { ago, total: u32::MAX, failures: u32::MAX }, Tenth { ago, total: 0, failures: 9 }], 0);
        let Sum { total, failures } = window.sum(0);
        assert!(total <= COUNT_MAX && total > COUNT_MAX / 2 && failures == total, "{total} {failures}");
        window.recall(&[Tenth { ago: Duration::MAX, total: 1, failures: 1 }], 0);
        assert_eq!(window.sum(0), sum(0, 0));
    }

    #[test]
    fn threads_lose_no_call() {
        let window = window();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let window = &window;
                scope.spawn(move || {
                    for call in 0..10_000 {
                        window.count(SECOND, (call + thread) % 4 == 0);
                    }
                });
            }
        });
        assert_eq!(window.sum(SECOND), sum(40_000, 10_000));
    }
}
