//! At most one line a second and route for what a flood of requests repeats.
//!
//! The first hit of a quiet route is told at once; the hits after it are counted, and told with their number by the
//! first hit a second later or by [`Sampler::flush`], whichever comes first. No hit is told twice. None is left out but
//! those of a process's last second, which has no line to spare for them. What is flushed has the details of the first of
//! its hits.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;

/// Counters for a fixed number of routes. Its owner numbers them, and may use one for "no route". `D` is what a line
/// says beside route and number.
#[derive(Debug)]
pub struct Sampler<D = ()> {
    /// Made as they are used: there may be far more places than routes.
    blocks: Box<[OnceLock<Block<D>>]>,
    routes: usize,
    /// There may be something to flush: to look through all counters each second would empty the processor's cache.
    has_untold: AtomicBool,
}

type Block<D> = Box<[Counter<D>]>;

/// Alone on its cache lines: under a flood every worker adds here.
#[derive(Debug)]
#[repr(align(128))]
struct Counter<D> {
    /// The millisecond of the last line; [`NEVER`] before the first.
    told: AtomicU64,
    untold: AtomicU64,
    /// Of the first hit that is not told.
    details: Mutex<Option<D>>,
}

const NEVER: u64 = u64::MAX;
/// Between two lines of a route, in milliseconds.
const REST: u64 = 1000;
/// Counters in a block: 128 KiB of them.
const BLOCK_LENGTH: usize = 1024;

impl<D> Sampler<D> {
    pub fn new(routes: usize) -> Self {
        let blocks = std::iter::repeat_with(OnceLock::new).take(routes.div_ceil(BLOCK_LENGTH)).collect();
        Self { blocks, routes, has_untold: AtomicBool::new(false) }
    }

    fn counter(&self, route: usize) -> Option<&Counter<D>> {
        let counter = || Counter { told: AtomicU64::new(NEVER), untold: AtomicU64::new(0), details: Mutex::new(None) };
        let start = route / BLOCK_LENGTH * BLOCK_LENGTH;
        let block = self.blocks.get(route / BLOCK_LENGTH)?;
        let make = || std::iter::repeat_with(counter).take(BLOCK_LENGTH.min(self.routes - start)).collect();
        block.get_or_init(make).get(route - start)
    }

    /// Counts a hit at `now`, by any clock. `Some(count)`: emit a line for that many hits.
    /// A route beyond those announced is not counted.
    pub fn hit(&self, route: usize, now: Duration, details: impl FnOnce() -> D) -> Option<u64> {
        let counter = self.counter(route)?;
        let before = counter.untold.fetch_add(1, SeqCst);
        let told = counter.tell(now);
        if told.is_none() {
            if before == 0 {
                *counter.details.lock() = Some(details());
            }
            self.note_untold();
        }
        told
    }

    /// Calls `emit(route, count, details)` for what was counted since lines that are a second old. To be called once a
    /// second. The details are missing where a hit is just being counted.
    pub fn flush(&self, now: Duration, mut emit: impl FnMut(usize, u64, Option<D>)) {
        if !self.has_untold.swap(false, SeqCst) {
            return;
        }
        let blocks = self.blocks.iter().enumerate().filter_map(|(at, block)| Some((at * BLOCK_LENGTH, block.get()?)));
        let counters = blocks.flat_map(|(start, block)| (start..).zip(block));
        for (route, counter) in counters {
            if counter.untold.load(SeqCst) == 0 {
                continue;
            }
            match counter.tell(now) {
                Some(count) => {
                    emit(route, count, counter.details.lock().take());
                }
                None => self.note_untold(),
            }
        }
    }

    /// After the hit has been counted. Either it finds the flag taken down, or whoever takes it down finds the hit:
    /// hence one order of all four steps.
    fn note_untold(&self) {
        // Under a flood it is set already, and stays in every worker's cache.
        if !self.has_untold.load(SeqCst) {
            self.has_untold.store(true, SeqCst);
        }
    }
}

impl<D> Counter<D> {
    /// Takes the count if the last line is a second old; one caller wins.
    fn tell(&self, now: Duration) -> Option<u64> {
        let now = u64::try_from(now.as_millis()).unwrap_or(NEVER).min(NEVER - 1);
        let told = self.told.load(Relaxed);
        // Another thread may have read its clock later, and told already.
        if told != NEVER && now.saturating_sub(told) < REST {
            return None;
        }
        self.told.compare_exchange(told, now, Relaxed, Relaxed).ok()?;
        // Another thread's line may have taken this hit with its own between the two steps.
        Some(self.untold.swap(0, Relaxed)).filter(|&count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_first_hit_speaks_and_the_tail_is_flushed() {
        let sampler = Sampler::new(2);
        assert_eq!(sampler.hit(1, ms(10_900), || "a"), Some(1));
        assert_eq!(sampler.hit(1, ms(10_900), || "b"), None);
        assert_eq!(sampler.hit(1, ms(11_200), || "c"), None);
        let mut lines = Vec::new();
        sampler.flush(ms(11_899), |route, count, details| lines.push((route, count, details)));
        assert_eq!(lines, [], "less than a second ago there was a line");
        sampler.flush(ms(11_900), |route, count, details| lines.push((route, count, details)));
        assert_eq!(lines, [(1, 2, Some("b"))]);
        assert_eq!(sampler.hit(1, ms(12_000), || "d"), None, "and now there was one again");
        assert_eq!(sampler.hit(1, ms(12_900), || "e"), Some(2));
        assert_eq!(sampler.hit(1, ms(12_800), || "f"), None, "whose clock is read before another's line");
    }

    #[test]
    fn routes_do_not_share_a_second() {
        let sampler = Sampler::new(2);
        assert_eq!(sampler.hit(0, ms(5), || ()), Some(1));
        assert_eq!(sampler.hit(1, ms(5), || ()), Some(1));
        assert_eq!(sampler.hit(2, ms(5), || ()), None, "unknown");
    }

    #[test]
    fn there_is_a_place_for_each_of_many() {
        let places = [0, BLOCK_LENGTH - 1, BLOCK_LENGTH, 2 * BLOCK_LENGTH, 2 * BLOCK_LENGTH + 1];
        let sampler = Sampler::new(2 * BLOCK_LENGTH + 2);
        for place in places {
            assert_eq!((sampler.hit(place, ms(5), || place), sampler.hit(place, ms(5), || place)), (Some(1), None));
        }
        assert_eq!(sampler.hit(2 * BLOCK_LENGTH + 2, ms(5), || 0), None, "unknown");
        let mut told = Vec::new();
        sampler.flush(ms(1005), |route, count, details| told.push((route, count, details)));
        assert_eq!(told, places.map(|place| (place, 1, Some(place))));
    }

    #[test]
    fn no_hit_is_lost_between_threads() {
        let sampler = Sampler::new(1);
        let told = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for hit in 0..10_000 {
                        told.fetch_add(sampler.hit(0, ms(hit * 10), || ()).unwrap_or(0), Relaxed);
                    }
                });
            }
            for second in 0..100 {
                sampler.flush(ms(second * 1000), |_, count, _| {
                    told.fetch_add(count, Relaxed);
                });
            }
        });
        sampler.flush(Duration::MAX, |_, count, _| {
            told.fetch_add(count, Relaxed);
        });
        assert_eq!(told.into_inner(), 40_000);
    }
}
