//! Histograms of durations: the coarse one Prometheus scrapes, a fine one behind the live percentiles, and a joint one
//! that is both.
//!
//! Each lives in a worker's shard and is written by that worker alone; readers sum over shards. A read is not a
//! snapshot: a request recorded meanwhile may be in the sum and not yet in its bucket.

use std::time::Duration;

use crate::own::Own;

/// Upper bounds of the scraped buckets in microseconds, inclusive: 0.5 ms to 60 s.
pub const BOUNDS_MICROS: [u32; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// The buckets above, and the one without a bound.
pub(super) const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// Durations in the scraped buckets.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Own; BUCKETS],
    sum_nanos: Own,
}

/// What one or several histograms held when they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Not cumulative.
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum_nanos: u64,
}

impl Histogram {
    pub(super) fn record(&self, duration: Duration) {
        self.buckets[bucket(duration)].add(1);
        self.sum_nanos.add(nanos(duration));
    }

    /// Adds what is here to `reading`.
    pub(super) fn add_to(&self, reading: &mut Reading) {
        for (total, bucket) in reading.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        let sum = self.sum_nanos.get();
        reading.sum_nanos = reading.sum_nanos.wrapping_add(sum);
    }
}

impl Reading {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The bucket whose bound is the first at or above `duration`.
fn bucket(duration: Duration) -> usize {
    // Rounded up, so that a duration above a bound by a nanosecond is above it.
    let micros = u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
    bounds_below(micros)
}

fn bounds_below(micros: u64) -> usize {
    BOUNDS_MICROS.iter().filter(|&&bound| micros > u64::from(bound)).count()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sub-buckets per power of two: a value is known to one part in eight, read in the middle to one in sixteen.
const SUB_BITS: u32 = 3;

/// Powers of two covered: up to 2^27 µs, a little over two minutes.
const OCTAVES: u32 = 27;

/// Buckets of the fine histogram.
pub(super) const FINE: usize = ((OCTAVES - SUB_BITS + 1) << SUB_BITS) as usize;

/// Log-linear buckets of microseconds, as in HdrHistogram.
#[derive(Debug)]
pub(super) struct Fine([Own; FINE]);

impl Default for Fine {
    fn default() -> Self {
        Self([const { Own::new() }; FINE])
    }
}

impl Fine {
    pub(super) fn record(&self, duration: Duration) {
        self.0[fine_bucket(duration)].add(1);
    }

    pub(super) fn add_to(&self, totals: &mut [u64; FINE]) {
        for (total, bucket) in totals.iter_mut().zip(&self.0) {
            *total += bucket.get();
        }
    }
}

fn fine_bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.min((1 << OCTAVES) - 1);
    let Some(shift) = (64 - micros.leading_zeros()).checked_sub(SUB_BITS + 1) else {
        return micros as usize;
    };
    ((shift as usize) << SUB_BITS) + (micros >> shift) as usize
}

/// The middle of a fine bucket, in milliseconds.
fn fine_middle_ms(index: usize) -> f64 {
    (fine_start(index) + fine_start(index + 1)) as f64 / 2000.0
}

/// Where a fine bucket begins, in microseconds.
const fn fine_start(index: usize) -> u64 {
    let shift = (index >> SUB_BITS).saturating_sub(1);
    ((index - (shift << SUB_BITS)) as u64) << shift
}

/// The buckets of a joint histogram: the fine ones, each cut where a scraped bucket ends within it. As both only ever
/// rise with the duration, the sum of their numbers is the number of the piece.
pub(super) const JOINT: usize = FINE + BUCKETS - 1;

/// Durations in pieces that make up the fine buckets as well as the scraped ones, for the price of one of the two.
#[derive(Debug)]
pub(super) struct Joint {
    pieces: [Own; JOINT],
    sum_nanos: Own,
}

impl Default for Joint {
    fn default() -> Self {
        Self { pieces: [const { Own::new() }; JOINT], sum_nanos: Own::new() }
    }
}

impl Joint {
    pub(super) fn record(&self, duration: Duration) {
        self.pieces[fine_bucket(duration) + bucket(duration)].add(1);
        self.sum_nanos.add(nanos(duration));
    }

    /// Adds what is here to `reading`.
    pub(super) fn add_to(&self, reading: &mut Reading) {
        for (&(_, bucket), piece) in PIECES.iter().zip(&self.pieces) {
            reading.buckets[usize::from(bucket)] += piece.get();
        }
        reading.sum_nanos = reading.sum_nanos.wrapping_add(self.sum_nanos.get());
    }

    pub(super) fn add_pieces_to(&self, totals: &mut [u64; JOINT]) {
        for (total, piece) in totals.iter_mut().zip(&self.pieces) {
            *total += piece.get();
        }
    }
}

/// Of every piece its fine bucket and its scraped one.
pub(super) static PIECES: [(u8, u8); JOINT] = {
    let mut pieces = [(0, 0); JOINT];
    let (mut piece, mut fine, mut bucket) = (0, 0, 0);
    while piece < JOINT {
        pieces[piece] = (fine as u8, bucket as u8);
        if bucket < BOUNDS_MICROS.len() && (BOUNDS_MICROS[bucket] as u64) < fine_start(fine + 1) {
            bucket += 1;
        } else {
            fine += 1;
        }
        piece += 1;
    }
    pieces
};

/// The duration in milliseconds that a share `q` of the counted requests did not exceed; 0 without requests.
pub(super) fn quantile_ms(counts: &[u64; FINE], q: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let rank = ((total as f64 * q).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    let index = counts.iter().position(|&count| {
        seen += count;
        seen >= rank
    });
    fine_middle_ms(index.expect("the rank is at most the total"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_to_the_nanosecond() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_micros(500)), 0);
        assert_eq!(bucket(Duration::from_nanos(500_001)), 1);
        assert_eq!(bucket(Duration::from_millis(1)), 1);
        assert_eq!(bucket(Duration::from_secs(60)), BUCKETS - 2);
        assert_eq!(bucket(Duration::from_nanos(60_000_000_001)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn readings_add_up_over_shards() {
        let shards = [Histogram::default(), Histogram::default()];
        shards[0].record(Duration::from_millis(2));
        shards[1].record(Duration::from_millis(2));
        shards[1].record(Duration::from_secs(90));
        let mut reading = Reading::default();
        shards.iter().for_each(|shard| shard.add_to(&mut reading));
        assert_eq!(reading.count(), 3);
        assert_eq!(reading.buckets[2], 2);
        assert_eq!(reading.sum_nanos, 90_004_000_000);
    }

    #[test]
    fn fine_buckets_are_ordered_and_within_an_eighth() {
        let mut last = 0;
        for micros in (0..2000).chain((2000..140_000_000).step_by(7919)) {
            let index = fine_bucket(Duration::from_micros(micros));
            assert!(index >= last && index < FINE);
            last = index;
            if micros > 0 && micros < 1 << OCTAVES {
                let error = fine_middle_ms(index) * 1000.0 / micros as f64;
                assert!((0.93..=1.07).contains(&error) || micros < 16, "{micros}: {error}");
            }
        }
        assert_eq!(fine_bucket(Duration::MAX), FINE - 1);
    }

    #[test]
    fn a_joint_histogram_is_both_to_the_nanosecond() {
        let bounds = BOUNDS_MICROS.iter().flat_map(|&bound| {
            let nanos = u64::from(bound) * 1000;
            [nanos - 1, nanos, nanos + 1]
        });
        for nanos in bounds.chain((0..200_000_000_000).step_by(7_919_317)) {
            let duration = Duration::from_nanos(nanos);
            let (fine, bucket) = (fine_bucket(duration), bucket(duration));
            assert_eq!(PIECES[fine + bucket], (fine as u8, bucket as u8), "{nanos}");
        }
    }

    #[test]
    fn quantiles_of_a_uniform_second() {
        let fine = Fine::default();
        for millis in 1..=1000 {
            fine.record(Duration::from_millis(millis));
        }
        let mut counts = [0; FINE];
        fine.add_to(&mut counts);
        for q in [0.5, 0.95, 0.99] {
            let found = quantile_ms(&counts, q);
            assert!((found / (q * 1000.0) - 1.0).abs() < 0.08, "{q}: {found}");
        }
        assert_eq!(quantile_ms(&[0; FINE], 0.5), 0.0);
    }
}
