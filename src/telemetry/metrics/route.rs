//! What is counted for every request, in shards of one per worker.
//!
//! A finished request costs six uncontended atomic additions: its status, two histograms and the duration's sum,
//! and the in-flight gauge up and down. A shard is an `Arc` of its own so that the guard's reference count, too, is
//! touched by one worker only.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::histogram::{FINE, Fine, JOINT, Joint, Reading};

/// Statuses that have a counter in every shard; the others share one table per route, made when first needed.
const COMMON: [u16; 62] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400,
    401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425,
    426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 510, 511,
];

/// Statuses counted under their own number. Anything else is counted as 599.
const FIRST: u16 = 100;
const LAST: u16 = 599;
const STATUSES: usize = (LAST - FIRST + 1) as usize;

/// Says "not common" in [`SLOT`].
const RARE: u8 = u8::MAX;

/// The place in [`COMMON`] of each status from 100 on.
static SLOT: [u8; STATUSES] = {
    let mut slots = [RARE; STATUSES];
    let mut slot = 0;
    while slot < COMMON.len() {
        slots[(COMMON[slot] - FIRST) as usize] = slot as u8;
        slot += 1;
    }
    slots
};

/// The counters of one route. Resolve once per configuration generation, with [`super::Metrics::route`].
#[derive(Debug)]
pub struct RouteMetrics {
    shards: Box<[Arc<Shard>]>,
}

/// One worker's part.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    common: [AtomicU64; COMMON.len()],
    duration: Joint,
    in_flight: AtomicI64,
    rare: Arc<OnceLock<Box<[AtomicU64]>>>,
    traffic: Arc<Traffic>,
}

/// All routes together, as one worker saw them: what the live view is made from.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Traffic {
    duration: Fine,
    /// Answers of 500 and above.
    errors: AtomicU64,
    in_flight: AtomicI64,
}

/// A request being served; dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it takes the request out of the gauge"]
pub struct InFlight(Arc<Shard>);

impl RouteMetrics {
    pub(super) fn new(traffic: &[Arc<Traffic>]) -> Self {
        let rare = Arc::new(OnceLock::new());
        let shard = |traffic: &Arc<Traffic>| {
            Arc::new(Shard {
                common: [const { AtomicU64::new(0) }; COMMON.len()],
                duration: Joint::default(),
                in_flight: AtomicI64::new(0),
                rare: Arc::clone(&rare),
                traffic: Arc::clone(traffic),
            })
        };
        Self { shards: traffic.iter().map(shard).collect() }
    }

    /// Counts a request as in flight until the guard is dropped. Workers beyond those announced share shards.
    pub fn begin(&self, worker: usize) -> InFlight {
        let shard = Arc::clone(&self.shards[worker % self.shards.len()]);
        shard.in_flight.fetch_add(1, Relaxed);
        shard.traffic.in_flight.fetch_add(1, Relaxed);
        InFlight(shard)
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> i64 {
        let shards = self.shards.iter();
        shards.map(|shard| shard.in_flight.load(Relaxed)).sum()
    }

    /// Requests finished so far, over all statuses.
    pub fn finished(&self) -> u64 {
        self.duration().count()
    }

    pub(super) fn duration(&self) -> Reading {
        let mut reading = Reading::default();
        for shard in &self.shards {
            shard.duration.add_to(&mut reading);
        }
        reading
    }

    /// Durations so far in the pieces of a joint histogram.
    pub(super) fn pieces(&self) -> [u64; JOINT] {
        let mut totals = [0; JOINT];
        for shard in &self.shards {
            shard.duration.add_pieces_to(&mut totals);
        }
        totals
    }

    /// Answers of 500 and above so far.
    pub(super) fn errors(&self) -> u64 {
        let failed = self.statuses().into_iter().filter(|&(status, _)| status >= 500);
        failed.map(|(_, count)| count).sum()
    }

    /// Every status that was answered at least once, ascending, with how often.
    pub(super) fn statuses(&self) -> Vec<(u16, u64)> {
        let mut counts: Vec<(u16, u64)> = Vec::new();
        for (slot, &status) in COMMON.iter().enumerate() {
            let shards = self.shards.iter();
            counts.push((status, shards.map(|s| s.common[slot].load(Relaxed)).sum()));
        }
        if let Some(rare) = self.shards.first().and_then(|shard| shard.rare.get()) {
            counts.extend((FIRST..).zip(rare.iter().map(|count| count.load(Relaxed))));
        }
        counts.retain(|&(_, count)| count > 0);
        counts.sort_unstable();
        counts
    }
}

impl InFlight {
    /// Counts the answer: the status the client got (499 when it left first) and how long it all took.
    /// The request stays in flight until the guard is dropped.
    pub fn finish(&self, status: u16, duration: Duration) {
        let shard = &*self.0;
        shard.count(status);
        shard.duration.record(duration);
        shard.traffic.duration.record(duration);
        if status >= 500 {
            shard.traffic.errors.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
        self.0.traffic.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Shard {
    fn count(&self, status: u16) {
        let status = if (FIRST..=LAST).contains(&status) { status } else { LAST };
        let index = usize::from(status - FIRST);
        match SLOT[index] {
            RARE => {
                let table = || (0..STATUSES).map(|_| AtomicU64::new(0)).collect();
                self.rare.get_or_init(table)[index].fetch_add(1, Relaxed);
            }
            slot => {
                self.common[usize::from(slot)].fetch_add(1, Relaxed);
            }
        }
    }
}

impl Traffic {
    pub(super) fn add_to(&self, durations: &mut [u64; FINE], errors: &mut u64, in_flight: &mut i64) {
        self.duration.add_to(durations);
        *errors += self.errors.load(Relaxed);
        *in_flight += self.in_flight.load(Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(workers: usize) -> RouteMetrics {
        let traffic: Vec<_> = (0..workers).map(|_| Arc::default()).collect();
        RouteMetrics::new(&traffic)
    }

    #[test]
    fn every_status_is_counted_under_its_number() {
        let route = route(2);
        for status in FIRST..=LAST {
            let request = route.begin(usize::from(status));
            request.finish(status, Duration::ZERO);
        }
        assert_eq!(route.statuses(), (FIRST..=LAST).map(|s| (s, 1)).collect::<Vec<_>>());
        assert_eq!(route.finished(), 500);
    }

    #[test]
    fn statuses_no_http_knows_do_not_panic() {
        let route = route(1);
        route.begin(0).finish(0, Duration::ZERO);
        route.begin(0).finish(u16::MAX, Duration::ZERO);
        assert_eq!(route.statuses(), [(599, 2)]);
    }

    #[test]
    fn a_request_is_in_flight_until_its_guard_is_dropped() {
        let route = route(2);
        let one = route.begin(0);
        let two = route.begin(1);
        assert_eq!(route.in_flight(), 2);
        one.finish(200, Duration::ZERO);
        assert_eq!(route.in_flight(), 2);
        drop(one);
        drop(two);
        assert_eq!(route.in_flight(), 0);
        assert_eq!(route.finished(), 1, "a dropped guard counts no answer");
    }
}
