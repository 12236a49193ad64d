//! How long to wait before a further try: full jitter, as in Amazon's "Exponential Backoff and Jitter" (2015).

use std::time::Duration;

const BASE: Duration = Duration::from_millis(25);
const CAP: Duration = Duration::from_secs(1);

/// Anything between zero and 25 ms before the first further try (`retry` = 0), 50 ms before the second, and so on up to
/// one second. `random` is fresh randomness.
#[must_use]
pub fn full_jitter(retry: u32, random: u64) -> Duration {
    let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
    let longest = BASE.saturating_mul(factor).min(CAP);
    let nanos = (u128::from(random) * (longest.as_nanos() + 1)) >> 64;
    Duration::from_nanos(nanos as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_doubles_up_to_a_second() {
        let longest = [0, 1, 2, 5, 6, 31, 32, u32::MAX].map(|retry| full_jitter(retry, u64::MAX));
        let expected = [25, 50, 100, 800, 1000, 1000, 1000, 1000].map(Duration::from_millis);
        assert_eq!(longest, expected);
    }

    #[test]
    fn the_wait_is_anything_from_zero() {
        assert_eq!(full_jitter(3, 0), Duration::ZERO);
        assert_eq!(full_jitter(0, 1 << 63), Duration::from_nanos(12_500_000));
    }
}
