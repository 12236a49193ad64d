//! The arithmetic of one bucket: the generic cell rate algorithm on whole numbers.
//!
//! `T = period / count`, `tau = burst * T`, allow when `max(tat, now) + T - now <= tau`, where `tat` is the
//! theoretical arrival time: the moment at which the bucket is full again. ITU-T I.371 calls this the virtual
//! scheduling algorithm. Nothing here is atomic, shared or keyed.
//!
//! **Precision.** A bucket counts in ticks of `1/d` ns, with `d` from 1 to 8 chosen per rate such that `T` is a
//! whole number of ticks wherever that is possible: 7/1m has `d = 7`, 1/24h and 1000000/1s have `d = 1`, and none
//! of them drifts, ever. Where `count / gcd(count, period)` is above 8, `d` is 8 and `T` is rounded to the nearest
//! tick, wrong by at most 1/16 ns per request: 0.7e-9 of the rate at 11/1s, 0.006 % at a million a second.
//! Rates above one request a tick (8e9 a second) count as that.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Decision, Nanos};

const TICKS_PER_NANO_MAX: u64 = 8;

/// `now` in ticks and what a bucket may owe in ticks stay below this each, so that their sum fits the 63 bits
/// that a stored `tat` has. At 8 ticks a nanosecond it is 18 years.
const TICKS_MAX: u64 = (1 << 62) - 1;

/// One rate and burst, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// `T`, at least 1.
    pub(super) interval: u64,
    /// `tau`, at least `T`.
    pub(super) tolerance: u64,
    /// `d`, 1 to 8.
    pub(super) ticks_per_nano: u64,
}

impl Gcra {
    pub(super) fn new(count: NonZeroU32, period: Duration, burst: NonZeroU32) -> Self {
        let (count, period) = (u128::from(count.get()), period.as_nanos());
        let exact = count / gcd(count, period);
        let ticks_per_nano = exact.min(u128::from(TICKS_PER_NANO_MAX));
        let interval = ((period * ticks_per_nano + count / 2) / count).clamp(1, u128::from(TICKS_MAX));
        let tolerance = (interval * u128::from(burst.get())).min(u128::from(TICKS_MAX));
        Self { interval: interval as u64, tolerance: tolerance as u64, ticks_per_nano: ticks_per_nano as u64 }
    }

    /// `now` in ticks.
    #[inline]
    pub(super) fn ticks(&self, now: Nanos) -> u64 {
        now.0.saturating_mul(self.ticks_per_nano).min(TICKS_MAX)
    }

    /// The most a bucket may owe when `queued` requests may wait beyond the burst.
    #[inline]
    pub(super) fn ceiling(&self, queued: u32) -> u64 {
        let waiting = self.interval.saturating_mul(u64::from(queued));
        self.tolerance.saturating_add(waiting).min(TICKS_MAX)
    }

    /// What is owed after one more request, or `None` when that is more than `ceiling`.
    #[inline]
    pub(super) fn charge(&self, used: u64, ceiling: u64) -> Option<u64> {
        let after = used + self.interval;
        (after <= ceiling).then_some(after)
    }

    /// Whether fewer than `remaining` more would be allowed, seen without a division.
    #[inline]
    pub(super) fn has_less_left(&self, used: u64, remaining: u64) -> bool {
        self.tolerance.saturating_sub(used) < self.interval.saturating_mul(remaining)
    }

    /// What one more request meets. `used` is what is owed after it.
    #[inline]
    pub(super) fn allowed(&self, used: u64) -> Decision {
        let free = self.tolerance.saturating_sub(used);
        let remaining = free / self.interval;
        let next = match used {
            0 => 0,
            _ => ((remaining + 1) * self.interval + used).saturating_sub(self.tolerance),
        };
        Decision {
            allowed: true,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: self.duration(used),
            next: self.duration(next),
            wait: Duration::ZERO,
        }
    }

    /// The refusal of a request that found `used` owed and `ceiling` as the most that may be.
    #[inline]
    pub(super) fn refused(&self, used: u64, ceiling: u64) -> Decision {
        let wait = self.duration((used + self.interval).saturating_sub(ceiling));
        Decision { allowed: false, remaining: 0, reset: self.duration(used), next: wait, wait }
    }

    /// How long the request that brought what is owed to `used` waits for its turn.
    #[inline]
    pub(super) fn turn(&self, used: u64) -> Duration {
        self.duration(used.saturating_sub(self.tolerance))
    }

    /// What is owed under `self` by a key that owed `used` under `old`, the same number of requests.
    ///
    /// A smaller burst forgives what no longer fits: a key owes at most one full bucket, and those that wait.
    pub(super) fn convert(&self, old: &Self, used: u64) -> u64 {
        let in_own_ticks = |ticks: u64| u128::from(ticks) * u128::from(self.interval) / u128::from(old.interval);
        let spent = in_own_ticks(used.min(old.tolerance)).min(u128::from(self.tolerance));
        let waiting = in_own_ticks(used.saturating_sub(old.tolerance));
        (spent + waiting).min(u128::from(TICKS_MAX)) as u64
    }

    /// Rounded up, so that whoever waits this long has waited long enough.
    #[inline]
    fn duration(&self, ticks: u64) -> Duration {
        // A division by a constant is a multiplication; by a variable it is the slowest instruction on this path.
        let nanos = match self.ticks_per_nano {
            1 => ticks,
            2 => ticks.div_ceil(2),
            3 => ticks.div_ceil(3),
            4 => ticks.div_ceil(4),
            5 => ticks.div_ceil(5),
            6 => ticks.div_ceil(6),
            7 => ticks.div_ceil(7),
            _ => ticks.div_ceil(8),
        };
        Duration::from_nanos(nanos)
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcra(count: u32, period: Duration, burst: u32) -> Gcra {
        let nonzero = |n| NonZeroU32::new(n).unwrap();
        Gcra::new(nonzero(count), period, nonzero(burst))
    }

    #[test]
    fn common_rates_are_exact() {
        for (count, period, interval, ticks_per_nano) in [
            (7, Duration::from_secs(60), 60_000_000_000, 7),
            (1, Duration::from_secs(86_400), 86_400_000_000_000, 1),
            (1_000_000, Duration::from_secs(1), 1_000, 1),
            (3_000_000, Duration::from_secs(1), 1_000, 3),
            (100, Duration::from_secs(60), 600_000_000, 1),
        ] {
            let gcra = gcra(count, period, 1);
            assert_eq!((gcra.interval, gcra.ticks_per_nano), (interval, ticks_per_nano), "{count}/{period:?}");
        }
    }

    #[test]
    fn awkward_rates_are_within_a_sixteenth_of_a_nanosecond() {
        for count in [11, 13, 9_973, 999_983, 7_654_321] {
            let gcra = gcra(count, Duration::from_secs(1), 1);
            let exact = 1e9 / f64::from(count);
            let got = gcra.interval as f64 / gcra.ticks_per_nano as f64;
            assert!((exact - got).abs() <= 1.0 / 16.0 + 1e-6, "{count}: {exact} {got}");
        }
    }

    #[test]
    fn extremes_stay_in_range() {
        let slow = gcra(1, Duration::MAX, u32::MAX);
        assert_eq!((slow.interval, slow.tolerance), (TICKS_MAX, TICKS_MAX));
        assert_eq!(slow.ceiling(u32::MAX), TICKS_MAX);
        assert_eq!(slow.charge(0, slow.tolerance), Some(TICKS_MAX));
        assert_eq!(slow.charge(TICKS_MAX, slow.tolerance), None);
        assert_eq!(slow.ticks(Nanos(u64::MAX)), TICKS_MAX);

        let fast = gcra(u32::MAX, Duration::from_nanos(1), 1);
        assert_eq!((fast.interval, fast.tolerance), (1, 1));
    }

    #[test]
    fn the_next_request_comes_back_within_one_interval() {
        let gcra = gcra(10, Duration::from_secs(10), 5);
        let second = gcra.interval;
        for (used, remaining, next_millis) in
            [(0, 5, 0), (second, 4, 1_000), (second * 3 / 2, 3, 500), (second * 5, 0, 1_000), (second * 9 / 2, 0, 500)]
        {
            let decision = gcra.allowed(used);
            assert_eq!(decision.remaining, remaining, "{used}");
            assert_eq!(decision.next, Duration::from_millis(next_millis), "{used}");
        }
    }

    #[test]
    fn conversion_keeps_the_number_of_requests_up_to_a_full_bucket() {
        let hundred = gcra(100, Duration::from_secs(60), 100);
        let ten = gcra(10, Duration::from_secs(60), 10);
        assert_eq!(hundred.convert(&ten, 4 * ten.interval), 4 * hundred.interval);
        assert_eq!(ten.convert(&hundred, 4 * hundred.interval), 4 * ten.interval);
        assert_eq!(ten.convert(&hundred, 40 * hundred.interval), 10 * ten.interval);
        assert_eq!(ten.convert(&hundred, 103 * hundred.interval), 13 * ten.interval, "three wait");
    }
}
