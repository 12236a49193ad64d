//! What is counted for every request, in shards of one per worker.
//!
//! Nobody but that worker writes to a shard, so that no addition has to be a locked one. A finished request costs eight:
//! its status, two histograms and the duration's sum, and two in-flight gauges up and down.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::histogram::{FINE, Fine, JOINT, Joint, Reading};
use crate::own::Own;

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
    shards: Box<[Shard]>,
    rare: OnceLock<Box<[AtomicU64]>>,
}

/// One worker's part.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    common: [Own; COMMON.len()],
    duration: Joint,
    in_flight: Own,
    traffic: Arc<Traffic>,
}

/// All routes together, as one worker saw them: what the live view is made from.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Traffic {
    duration: Fine,
    /// Answers of 500 and above.
    errors: Own,
    in_flight: Own,
}

impl RouteMetrics {
    pub(super) fn new(traffic: &[Arc<Traffic>]) -> Self {
        let shard = |traffic: &Arc<Traffic>| Shard {
            common: [const { Own::new() }; COMMON.len()],
            duration: Joint::default(),
            in_flight: Own::new(),
            traffic: Arc::clone(traffic),
        };
        Self { shards: traffic.iter().map(shard).collect(), rare: OnceLock::new() }
    }

    /// Counts a request as in flight until [`Self::end`]. On the thread of `worker`, as there.
    pub fn begin(&self, worker: usize) {
        let shard = self.shard(worker);
        shard.in_flight.add(1);
        shard.traffic.in_flight.add(1);
    }

    /// Counts the answer to a request that has begun: the status the client got (499 when it left first) and how long it
    /// all took.
    pub fn end(&self, worker: usize, status: u16, duration: Duration) {
        let shard = self.shard(worker);
        self.count(shard, status);
        shard.duration.record(duration);
        shard.traffic.duration.record(duration);
        if status >= 500 {
            shard.traffic.errors.add(1);
        }
        shard.in_flight.sub(1);
        shard.traffic.in_flight.sub(1);
    }

    fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker % self.shards.len()]
    }

    fn count(&self, shard: &Shard, status: u16) {
        let status = if (FIRST..=LAST).contains(&status) { status } else { LAST };
        let index = usize::from(status - FIRST);
        match SLOT[index] {
            RARE => {
                let table = || (0..STATUSES).map(|_| AtomicU64::new(0)).collect();
                self.rare.get_or_init(table)[index].fetch_add(1, Relaxed);
            }
            slot => shard.common[usize::from(slot)].add(1),
        }
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.in_flight.get()).sum()
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
            counts.push((status, shards.map(|shard| shard.common[slot].get()).sum()));
        }
        if let Some(rare) = self.rare.get() {
            counts.extend((FIRST..).zip(rare.iter().map(|count| count.load(Relaxed))));
        }
        counts.retain(|&(_, count)| count > 0);
        counts.sort_unstable();
        counts
    }
}

impl Traffic {
    pub(super) fn add_to(&self, durations: &mut [u64; FINE], errors: &mut u64, in_flight: &mut u64) {
        self.duration.add_to(durations);
        *errors += self.errors.get();
        *in_flight += self.in_flight.get();
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
            let worker = usize::from(status);
            route.begin(worker);
            route.end(worker, status, Duration::ZERO);
        }
        assert_eq!(route.statuses(), (FIRST..=LAST).map(|s| (s, 1)).collect::<Vec<_>>());
        assert_eq!(route.finished(), 500);
    }

    #[test]
    fn statuses_no_http_knows_do_not_panic() {
        let route = route(1);
        for status in [0, u16::MAX] {
            route.begin(0);
            route.end(0, status, Duration::ZERO);
        }
        assert_eq!(route.statuses(), [(599, 2)]);
    }

    #[test]
    fn a_request_is_in_flight_until_it_ends() {
        let route = route(2);
        route.begin(0);
        route.begin(1);
        assert_eq!((route.in_flight(), route.finished()), (2, 0));
        route.end(0, 200, Duration::ZERO);
        assert_eq!((route.in_flight(), route.finished()), (1, 1));
        route.end(1, 200, Duration::ZERO);
        assert_eq!((route.in_flight(), route.finished()), (0, 2));
    }
}
