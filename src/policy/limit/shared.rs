//! The arithmetic of a bucket that is counted elsewhere: what to send there, and what its answer means here.
//!
//! The other side keeps, per key, what is owed and when that was so; it decays, charges and refuses as `gcra` does,
//! in the same ticks. Its clock counts, not ours: only durations cross.

use std::num::NonZeroU32;
use std::time::Duration;

use super::gcra::Gcra;
use super::{Decision, Reservation};

/// A rate and burst in whole ticks, as a store elsewhere needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub(super) Gcra);

/// What a key owes, in the ticks of the [`Shape`] that it was asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owes {
    shape: Shape,
    ticks: u64,
}

impl Shape {
    /// Of a rate that no limiter has.
    pub fn new(count: NonZeroU32, period: Duration, burst: NonZeroU32) -> Self {
        Self(Gcra::new(count, period, burst))
    }

    /// Ticks one request costs.
    pub fn interval_ticks(&self) -> u64 {
        self.0.interval
    }

    /// The most ticks a key may owe without waiting.
    pub fn tolerance_ticks(&self) -> u64 {
        self.0.tolerance
    }

    /// The most ticks a key may owe when `queue_max` requests may wait.
    pub fn ceiling_ticks(&self, queue_max: u32) -> u64 {
        self.0.ceiling(queue_max)
    }

    /// 1 to 8.
    pub fn ticks_per_nano(&self) -> u64 {
        self.0.ticks_per_nano
    }

    pub fn owes(self, ticks: u64) -> Owes {
        Owes { shape: self, ticks }
    }

    /// What the store's verdict means: `owed` is what the key owes after it.
    pub fn reservation(&self, is_charged: bool, owed: u64, queue_max: u32) -> Reservation {
        match is_charged {
            true if owed <= self.0.tolerance => Reservation::Now(self.0.allowed(owed)),
            true => Reservation::Wait(self.0.turn(owed)),
            false => Reservation::Refused(self.0.refused(owed, self.0.ceiling(queue_max))),
        }
    }

    /// Where a key that owes `owed` stands, without asking for anything.
    pub fn standing(&self, owed: u64) -> Decision {
        self.0.allowed(owed)
    }
}

impl Owes {
    pub(super) fn in_ticks_of(self, gcra: &Gcra) -> u64 {
        match self.shape.0 == *gcra {
            true => self.ticks,
            false => gcra.convert(&self.shape.0, self.ticks),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::policy::limit::{Limiter, Nanos, Settings};

    fn limiter() -> Limiter {
        let count = NonZeroU32::new(10).unwrap();
        Limiter::new(Settings {
            rate_count: count,
            period: Duration::from_secs(10),
            burst: NonZeroU32::new(3).unwrap(),
            keys_max: NonZeroUsize::new(16).unwrap(),
            ipv6_prefix: 64,
        })
    }

    #[test]
    fn what_is_noted_decides_from_then_on() {
        let limiter = limiter();
        let key = limiter.key().finish();
        let shape = limiter.shape();
        let full = shape.owes(shape.tolerance_ticks());
        limiter.note(key, full, Nanos(1_000));
        let refused = limiter.foresee(key, Nanos(1_000), 0);
        assert_eq!((refused.allowed, refused.wait), (false, Duration::from_secs(1)));
        assert!(limiter.foresee(key, Nanos(1_000), 1).allowed, "one may wait");
        assert!(limiter.foresee(key, Nanos(1_000_001_000), 0).allowed, "a second later");
        limiter.note(key, shape.owes(0), Nanos(1_000));
        assert_eq!(limiter.peek(key, Nanos(1_000)).remaining, 3);
    }

    #[test]
    fn an_answer_elsewhere_means_what_it_would_here() {
        let shape = limiter().shape();
        let second = shape.interval_ticks();
        assert!(
            matches!(shape.reservation(true, 2 * second, 0), Reservation::Now(decision) if decision.remaining == 1)
        );
        assert_eq!(shape.reservation(true, 5 * second, 4), Reservation::Wait(Duration::from_secs(2)));
        let Reservation::Refused(decision) = shape.reservation(false, 3 * second, 0) else { panic!("it was refused") };
        assert_eq!(decision.wait, Duration::from_secs(1));
    }
}
