//! What a check costs: `cargo bench --bench limiter`.
//!
//! `hit` takes its keys in random order, the worst there is: past the caches a check costs one read of main memory
//! on top, which at a million keys (20 MB) is most of it. `hit_mostly_regulars` is nearer to what clients do.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use flagstone::policy::limit::headers::{self, Policy};
use flagstone::policy::limit::{Ask, Limiter, Nanos, Seed, Settings, Slots, check_all};

fn main() {
    divan::main();
}

fn settings(keys_max: usize) -> Settings {
    Settings {
        rate_count: NonZeroU32::new(1_000_000).unwrap(),
        period: Duration::from_secs(60),
        burst: NonZeroU32::new(1_000_000).unwrap(),
        keys_max: NonZeroUsize::new(keys_max).unwrap(),
        ipv6_prefix: 64,
    }
}

/// Addresses in an order that no prefetcher guesses.
fn address(step: u32, keys: u32) -> IpAddr {
    IpAddr::from((step.wrapping_mul(2_654_435_769) % keys).to_be_bytes())
}

/// A limiter with all its keys in use.
fn full(keys: u32) -> Limiter {
    let limiter = Limiter::new(settings(keys as usize));
    for step in 0..keys {
        limiter.check(limiter.key_ip(IpAddr::from(step.to_be_bytes())), Nanos(1));
    }
    limiter
}

/// The request path: hash the address, find the key, charge it.
#[divan::bench(args = [1, 1_000, 100_000, 1_000_000])]
fn hit(bencher: Bencher<'_, '_>, keys: u32) {
    let limiter = full(keys);
    let mut step = 0u32;
    bencher.bench_local(|| {
        step = step.wrapping_add(1);
        let key = limiter.key_ip(black_box(address(step, keys)));
        limiter.check(key, Nanos(u64::from(step) * 100_000))
    });
}

/// As clients come: a million keys in the table, nine requests of ten from a thousand of them.
#[divan::bench(args = [1_000_000])]
fn hit_mostly_regulars(bencher: Bencher<'_, '_>, keys: u32) {
    let limiter = full(keys);
    let mut step = 0u32;
    bencher.bench_local(|| {
        step = step.wrapping_add(1);
        let client = address(step, if step.is_multiple_of(10) { keys } else { 1_000 });
        limiter.check(limiter.key_ip(black_box(client)), Nanos(u64::from(step) * 100_000))
    });
}

#[divan::bench(args = [1_000, 1_000_000])]
fn refused(bencher: Bencher<'_, '_>, keys: u32) {
    let limiter = Limiter::new(Settings { burst: NonZeroU32::MIN, ..settings(keys as usize) });
    for step in 0..keys {
        limiter.check(limiter.key_ip(IpAddr::from(step.to_be_bytes())), Nanos(1));
    }
    let mut step = 0u32;
    bencher.bench_local(|| {
        step = step.wrapping_add(1);
        limiter.check(limiter.key_ip(black_box(address(step, keys))), Nanos(1))
    });
}

/// A flood of keys never seen before against a full table: each pushes one out.
#[divan::bench(args = [100_000, 1_000_000])]
fn newcomer(bencher: Bencher<'_, '_>, keys: u32) {
    let limiter = full(keys);
    let mut step = keys;
    bencher.bench_local(|| {
        step = step.wrapping_add(1);
        limiter.check(limiter.key_ip(black_box(IpAddr::from(step.to_be_bytes()))), Nanos(1))
    });
}

/// So many limits of one route, while another 64 KiB are read between two requests, as whatever else they need is.
#[divan::bench(args = [1, 2, 8, 100], sample_size = 1, sample_count = 20_000)]
fn of_a_route(bencher: Bencher<'_, '_>, limits: usize) {
    let seed = Seed::default();
    let limiters: Vec<_> = (0..limits).map(|_| Limiter::with_seed(settings(100_000), seed)).collect();
    let asks = |key| {
        let asks = limiters.iter().enumerate();
        asks.map(move |(index, limiter)| Ask { index, limiter, key })
    };
    let others = vec![1_u8; 64 * 1024];
    let mut step = 0u32;
    let turn = || {
        step = step.wrapping_add(1);
        black_box(others.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>());
        Nanos(u64::from(step) * 100_000)
    };
    bencher.with_inputs(turn).bench_local_values(|now| {
        let key = limiters[0].key_ip(black_box(IpAddr::from([192, 0, 2, 1])));
        check_all(asks(key), now)
    });
}

#[divan::bench]
fn key_ipv4(bencher: Bencher<'_, '_>) {
    let limiter = full(1);
    bencher.bench_local(|| limiter.key_ip(black_box(IpAddr::from([192, 0, 2, 1]))));
}

#[divan::bench]
fn key_ipv6(bencher: Bencher<'_, '_>) {
    let limiter = full(1);
    bencher.bench_local(|| limiter.key_ip(black_box(IpAddr::V6(Ipv6Addr::LOCALHOST))));
}

#[divan::bench]
fn key_ip_and_header(bencher: Bencher<'_, '_>) {
    let limiter = full(1);
    bencher.bench_local(|| {
        let key = limiter.key().ip(black_box(IpAddr::from([192, 0, 2, 1])));
        key.bytes(black_box(b"6f1ed002ab5595859014ebf0951522d9")).finish()
    });
}

#[divan::bench]
fn slot(bencher: Bencher<'_, '_>) {
    let limiter = full(1);
    let bound = NonZeroU32::new(10).unwrap();
    let slots = Arc::<Slots>::default();
    let key = limiter.key_ip(IpAddr::from([192, 0, 2, 1]));
    bencher.bench_local(|| slots.acquire(black_box(key), bound).is_some());
}

#[divan::bench]
fn rate_limit_field(bencher: Bencher<'_, '_>) {
    let limiter = full(1);
    let policy = Policy::new("per_ip", &limiter.settings());
    let decision = limiter.check(limiter.key().finish(), Nanos(1));
    bencher.bench_local(|| headers::rate_limit([(black_box(&policy), black_box(&decision))]));
}
