//! The latency of an endpoint as `peak_ewma` sees it: up at once, down slowly.
//!
//! Finagle's peak EWMA: an observation above the average replaces it, one below pulls it down by the weight of the time
//! since the one before, `1 - e^(-Δt ÷ DECAY)`. Time alone pulls it down as well, so a slow endpoint is tried again.
//!
//! What fails at once must not look fast, or a broken endpoint gets most of the requests. So a failure counts as an answer
//! that took [`Ewma::FAILURE_MIN`] at least, and never pulls the average down. linkerd2-proxy has such a penalty as well.
//! Finagle and Envoy leave it all to ejection, but that is for failures in a row.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The average of one endpoint, shared by all workers. Costs 8 bytes of state and no lock.
#[derive(Debug)]
pub struct Ewma {
    epoch: Instant,
    /// In one word, so that both change together: nanoseconds as the bits of an `f32`, and the millisecond of
    /// the last change. The milliseconds wrap after 49 days, which an idle endpoint survives with an older value.
    word: AtomicU64,
}

impl Ewma {
    /// After so much quiet 37 % are left. Finagle's default.
    pub const DECAY: Duration = Duration::from_secs(10);
    /// Longer than most answers take, so that an endpoint that fails gets little. Not so long that one failure among
    /// thousands of answers leaves all the work to the others for minutes.
    pub const FAILURE_MIN: Duration = Duration::from_secs(1);

    /// Nothing observed yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, word: AtomicU64::new(0) }
    }

    pub fn observe(&self, latency: Duration, now: Instant) {
        let now_ms = self.millis(now);
        let observed = latency.as_nanos() as f32;
        // Never fails: the closure always has an answer.
        let _ = self.word.fetch_update(Relaxed, Relaxed, |word| {
            let (old, then_ms) = unpacked(word);
            if word == 0 || observed >= old {
                return Some(packed(observed, now_ms));
            }
            let kept = kept(then_ms, now_ms);
            Some(packed(old * kept + observed * (1.0 - kept), now_ms))
        });
    }

    /// A request failed after `elapsed`.
    pub fn observe_failure(&self, elapsed: Duration, now: Instant) {
        let now_ms = self.millis(now);
        let observed = elapsed.max(Self::FAILURE_MIN).as_nanos() as f32;
        // As in `observe`.
        let _ = self.word.fetch_update(Relaxed, Relaxed, |word| Some(packed(observed.max(unpacked(word).0), now_ms)));
    }

    /// Nanoseconds; 0 = nothing observed.
    #[must_use]
    pub fn value(&self, now: Instant) -> u64 {
        let word = self.word.load(Relaxed);
        if word == 0 {
            return 0;
        }
        let (value, then_ms) = unpacked(word);
        ((value * kept(then_ms, self.millis(now))) as u64).max(1)
    }

    fn millis(&self, at: Instant) -> u32 {
        at.saturating_duration_since(self.epoch).as_millis() as u32
    }
}

/// How much of a value is left, of 1.
fn kept(then_ms: u32, now_ms: u32) -> f32 {
    const DECAY_MS: f32 = Ewma::DECAY.as_millis() as f32;
    match now_ms.wrapping_sub(then_ms) {
        0 => 1.0,
        // another worker's clock was ahead
        passed if passed > u32::MAX / 2 => 1.0,
        passed => (-(passed as f32) / DECAY_MS).exp(),
    }
}

fn packed(value: f32, ms: u32) -> u64 {
    // at least 1 ns, so that no observation looks like none
    u64::from(value.max(1.0).to_bits()) << 32 | u64::from(ms)
}

fn unpacked(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn close(value_ns: u64, expected_ms: f64) -> bool {
        (value_ns as f64 / 1e6 - expected_ms).abs() < expected_ms / 1000.0
    }

    #[test]
    fn a_peak_is_taken_at_once() {
        let start = Instant::now();
        let ewma = Ewma::new(start);
        assert_eq!(ewma.value(start), 0);
        ewma.observe(10 * MS, start);
        ewma.observe(500 * MS, start);
        assert!(close(ewma.value(start), 500.0));
    }

    #[test]
    fn a_lower_latency_counts_by_the_time_passed() {
        let start = Instant::now();
        let ewma = Ewma::new(start);
        ewma.observe(100 * MS, start);
        let later = start + Ewma::DECAY;
        ewma.observe(10 * MS, later);
        assert!(close(ewma.value(later), 100.0 * 0.367_88 + 10.0 * 0.632_12));
    }

    #[test]
    fn a_failure_is_a_slow_answer_however_fast_it_came() {
        let start = Instant::now();
        let ewma = Ewma::new(start);
        ewma.observe_failure(MS, start);
        assert!(close(ewma.value(start), 1000.0), "also the first that is heard of an endpoint");
        ewma.observe_failure(3000 * MS, start);
        assert!(close(ewma.value(start), 3000.0));
        // What was slow before does not become faster by failing.
        ewma.observe_failure(MS, start + Ewma::DECAY);
        assert!(close(ewma.value(start + Ewma::DECAY), 3000.0));
    }

    #[test]
    fn quiet_decays_but_never_to_unknown() {
        let start = Instant::now();
        let ewma = Ewma::new(start);
        ewma.observe(100 * MS, start);
        assert!(close(ewma.value(start + Ewma::DECAY), 36.788));
        assert_eq!(ewma.value(start + 1000 * Ewma::DECAY), 1);
    }

    #[test]
    fn a_clock_that_lags_changes_nothing() {
        let start = Instant::now();
        let ewma = Ewma::new(start);
        ewma.observe(100 * MS, start + 50 * MS);
        assert!(close(ewma.value(start + 40 * MS), 100.0));
    }
}
