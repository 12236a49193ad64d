//! What a breaker adds to a request: closed, where it nearly always is, and open, where it should be next to nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use flagstone::breaker::{Breaker, Outcome, Settings};

const ANSWER: Outcome = Outcome::Success { latency: Duration::from_millis(5) };

fn main() {
    divan::main();
}

fn breaker(settings: Settings) -> (Arc<Breaker>, Instant) {
    let now = Instant::now();
    (Arc::new(Breaker::new(settings, now)), now)
}

#[divan::bench(threads = [1, 2])]
fn closed(bencher: Bencher<'_, '_>) {
    let (breaker, now) = breaker(Settings::default());
    bencher.bench(|| {
        let permit = breaker.try_acquire(now);
        permit.map(|permit| permit.record(ANSWER, now)).is_ok()
    });
}

#[divan::bench]
fn closed_without_ratio(bencher: Bencher<'_, '_>) {
    let (breaker, now) = breaker(Settings { failure_ratio: None, ..Settings::default() });
    bencher.bench(|| {
        let permit = breaker.try_acquire(now);
        permit.map(|permit| permit.record(ANSWER, now)).is_ok()
    });
}

#[divan::bench(threads = [1, 2])]
fn open(bencher: Bencher<'_, '_>) {
    let (breaker, now) = breaker(Settings::default());
    breaker.force_open(now, None);
    bencher.bench(|| breaker.try_acquire(now).is_err());
}
