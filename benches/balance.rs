//! What one pick costs, per strategy, for 2, 20 and 200 endpoints. The bound: below 100 ns at 20.

use std::cell::Cell;

use divan::{Bencher, black_box};
use flagstone::balance::{Candidate, Kind, RAMP_FULL, Strategy};

const SIZES: [usize; 3] = [2, 20, 200];

fn main() {
    divan::main();
}

fn group(size: usize) -> Vec<Candidate> {
    let endpoint = |index: usize| Candidate {
        weight: 1 + index as u32 % 3,
        in_flight: index as u32 % 7,
        ewma_ns: 1_000_000 + index as u64 * 1000,
        backup: false,
        available: true,
        key: (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        ramp_permille: RAMP_FULL,
    };
    (0..size).map(endpoint).collect()
}

fn pick(bencher: Bencher<'_, '_>, kind: Kind, group: &[Candidate]) {
    let strategy = Strategy::new(kind, group);
    let seed = Cell::new(1_u64);
    bencher.bench_local(|| {
        let next = seed.get().wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        seed.set(next);
        strategy.pick(black_box(group), next, next >> 7, &[])
    });
}

/// Every tenth endpoint is away, at least one.
fn pick_with_some_away(bencher: Bencher<'_, '_>, kind: Kind, size: usize) {
    let mut group = group(size);
    for endpoint in group.iter_mut().step_by(10) {
        endpoint.available = false;
    }
    pick(bencher, kind, &group);
}

#[divan::bench(args = SIZES)]
fn round_robin(bencher: Bencher<'_, '_>, size: usize) {
    pick(bencher, Kind::RoundRobin, &group(size));
}

#[divan::bench(args = SIZES)]
fn least_requests(bencher: Bencher<'_, '_>, size: usize) {
    pick(bencher, Kind::LeastRequests, &group(size));
}

#[divan::bench(args = SIZES)]
fn peak_ewma(bencher: Bencher<'_, '_>, size: usize) {
    pick(bencher, Kind::PeakEwma, &group(size));
}

#[divan::bench(args = SIZES)]
fn hash(bencher: Bencher<'_, '_>, size: usize) {
    pick(bencher, Kind::Hash, &group(size));
}

#[divan::bench(args = SIZES)]
fn round_robin_tenth_away(bencher: Bencher<'_, '_>, size: usize) {
    pick_with_some_away(bencher, Kind::RoundRobin, size);
}

#[divan::bench(args = SIZES)]
fn least_requests_tenth_away(bencher: Bencher<'_, '_>, size: usize) {
    pick_with_some_away(bencher, Kind::LeastRequests, size);
}

#[divan::bench(args = SIZES)]
fn peak_ewma_tenth_away(bencher: Bencher<'_, '_>, size: usize) {
    pick_with_some_away(bencher, Kind::PeakEwma, size);
}

#[divan::bench(args = SIZES)]
fn hash_tenth_away(bencher: Bencher<'_, '_>, size: usize) {
    pick_with_some_away(bencher, Kind::Hash, size);
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn hash_laid_out(size: usize) -> Strategy {
    Strategy::new(Kind::Hash, &group(size))
}
