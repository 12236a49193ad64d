//! The last fifteen minutes of each route at one-second steps, and its last minute as one figure.
//!
//! Made once a second from the differences of the counters that are scraped: costs requests nothing. Percentiles are
//! read within the scraped buckets, straight between their bounds. Only seconds with requests are kept, of so many
//! routes at most: about 2 MiB when all of them are busy all the time.

use std::collections::{BTreeMap, VecDeque};

use super::histogram::{BUCKETS, coarse_quantile_ms};
use super::window::{HISTORY, LastMinute};

/// Routes with a series. Further ones wait until one of these has had no request for 15 minutes.
pub const SERIES_MAX: usize = 64;

/// Seconds in the figures of [`Series::last_minutes`].
const MINUTE: u64 = 60;

/// One second of one route, in which at least one request finished.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RouteSecond {
    /// When it ended, in Unix seconds.
    pub unix_seconds: u64,
    pub requests: u32,
    /// Those of them answered with 500 or above.
    pub errors: u32,
    /// Percentiles of the duration in milliseconds.
    pub p50_ms: f32,
    pub p95_ms: f32,
    pub p99_ms: f32,
}

/// A route's running totals since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RouteTotals {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) errors: u64,
}

#[derive(Debug, Default)]
pub(super) struct Series {
    now: u64,
    routes: BTreeMap<String, Route>,
    with_ring: usize,
}

#[derive(Debug, Default)]
struct Route {
    before: RouteTotals,
    /// Allocated with the first request.
    ring: Option<Ring>,
    seen: bool,
}

#[derive(Debug, Default)]
struct Ring {
    seconds: VecDeque<RouteSecond>,
    /// The buckets of the last minute's seconds.
    minute: VecDeque<(u64, [u32; BUCKETS])>,
}

impl Series {
    /// Begins the step that ends at `unix_seconds`; every route is to be [`Series::note`]d, then [`Series::end`].
    ///
    /// Where the clock was set back, what it told before lies in the future now, and would count as recent until then:
    /// that is forgotten.
    pub(super) fn begin(&mut self, unix_seconds: u64) {
        if unix_seconds < self.now {
            self.routes
                .values_mut()
                .filter_map(|route| route.ring.as_mut())
                .for_each(|ring| ring.forget_after(unix_seconds));
        }
        self.now = unix_seconds;
    }

    /// Takes a route's totals. `errors` is only asked for when there were requests.
    pub(super) fn note(&mut self, name: &str, buckets: [u64; BUCKETS], errors: impl FnOnce() -> u64) {
        let route = match self.routes.get_mut(name) {
            Some(route) => route,
            None => self.routes.entry(name.to_owned()).or_default(),
        };
        route.seen = true;
        let mut step = [0_u32; BUCKETS];
        for (index, count) in step.iter_mut().enumerate() {
            let difference = buckets[index].saturating_sub(route.before.buckets[index]);
            *count = u32::try_from(difference).unwrap_or(u32::MAX);
        }
        let requests = step.iter().fold(0_u32, |sum, &count| sum.saturating_add(count));
        if requests == 0 {
            return;
        }
        let totals = RouteTotals { buckets, errors: errors() };
        let errors = u32::try_from(totals.errors.saturating_sub(route.before.errors)).unwrap_or(u32::MAX);
        route.before = totals;
        if route.ring.is_none() && self.with_ring < SERIES_MAX {
            self.with_ring += 1;
            route.ring = Some(Ring::default());
        }
        if let Some(ring) = &mut route.ring {
            ring.push(self.now, requests, errors, step);
        }
    }

    /// Forgets what is old, and the routes that are gone.
    pub(super) fn end(&mut self) {
        let now = self.now;
        self.routes.retain(|_, route| std::mem::take(&mut route.seen));
        for route in self.routes.values_mut() {
            if let Some(ring) = &mut route.ring {
                ring.forget(now);
            }
            if route.ring.as_ref().is_some_and(|ring| ring.seconds.is_empty()) {
                route.ring = None;
            }
        }
        self.with_ring = self.routes.values().filter(|route| route.ring.is_some()).count();
    }

    /// A route's seconds, oldest first.
    pub(super) fn history(&self, name: &str) -> Vec<RouteSecond> {
        let ring = self.routes.get(name).and_then(|route| route.ring.as_ref());
        ring.map(|ring| ring.seconds.iter().copied().collect()).unwrap_or_default()
    }

    /// Every route that has a series, in the order of the names.
    pub(super) fn last_minutes(&self, lived_seconds: u64) -> Vec<(String, LastMinute)> {
        let span = lived_seconds.clamp(1, MINUTE);
        let rings = self.routes.iter().filter_map(|(name, route)| Some((name, route.ring.as_ref()?)));
        rings.map(|(name, ring)| (name.clone(), ring.last_minute(self.now, span))).collect()
    }
}

impl Ring {
    fn push(&mut self, now: u64, requests: u32, errors: u32, step: [u32; BUCKETS]) {
        if self.seconds.len() == HISTORY {
            self.seconds.pop_front();
        }
        let wide = step.map(u64::from);
        let quantile = |q| coarse_quantile_ms(&wide, q) as f32;
        let (p50_ms, p95_ms, p99_ms) = (quantile(0.50), quantile(0.95), quantile(0.99));
        self.seconds.push_back(RouteSecond { unix_seconds: now, requests, errors, p50_ms, p95_ms, p99_ms });
        self.minute.push_back((now, step));
    }

    fn forget(&mut self, now: u64) {
        while self.seconds.front().is_some_and(|second| second.unix_seconds + HISTORY as u64 <= now) {
            self.seconds.pop_front();
        }
        while self.minute.front().is_some_and(|(at, _)| at + MINUTE <= now) || self.minute.len() > MINUTE as usize {
            self.minute.pop_front();
        }
    }

    fn forget_after(&mut self, now: u64) {
        self.seconds.retain(|second| second.unix_seconds <= now);
        self.minute.retain(|(at, _)| *at <= now);
    }

    fn last_minute(&self, now: u64, span: u64) -> LastMinute {
        let mut counts = [0_u64; BUCKETS];
        for (_, step) in &self.minute {
            for (total, &count) in counts.iter_mut().zip(step) {
                *total += u64::from(count);
            }
        }
        let requests: u64 = counts.iter().sum();
        let recent = self.seconds.iter().rev().take_while(|second| second.unix_seconds + MINUTE > now);
        let errors: u64 = recent.map(|second| u64::from(second.errors)).sum();
        LastMinute {
            requests_per_second: requests as f64 / span as f64,
            p50_ms: coarse_quantile_ms(&counts, 0.50),
            p95_ms: coarse_quantile_ms(&counts, 0.95),
            p99_ms: coarse_quantile_ms(&counts, 0.99),
            error_rate: errors as f64 / requests.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(index: usize, count: u64) -> [u64; BUCKETS] {
        let mut buckets = [0; BUCKETS];
        buckets[index] = count;
        buckets
    }

    fn step(series: &mut Series, second: u64, totals: &[(&str, u64, u64)]) {
        series.begin(second);
        for &(name, requests, errors) in totals {
            series.note(name, buckets(3, requests), || errors);
        }
        series.end();
    }

    #[test]
    fn a_step_is_the_difference_of_totals() {
        let mut series = Series::default();
        step(&mut series, 10, &[("api", 100, 10)]);
        step(&mut series, 11, &[("api", 100, 10)]);
        step(&mut series, 12, &[("api", 104, 11)]);
        let history = series.history("api");
        let counts: Vec<_> =
            history.iter().map(|second| (second.unix_seconds, second.requests, second.errors)).collect();
        assert_eq!(counts, [(10, 100, 10), (12, 4, 1)], "a second without requests is left out");
        assert!((2.5..=5.0).contains(&history[0].p50_ms), "{history:?}");
        let minute = &series.last_minutes(2)[0].1;
        assert_eq!((minute.requests_per_second, minute.error_rate), (52.0, 11.0 / 104.0));
    }

    #[test]
    fn what_is_old_goes_and_a_quiet_route_gives_up_its_place() {
        let mut series = Series::default();
        step(&mut series, 1, &[("api", 1, 1)]);
        step(&mut series, 61, &[("api", 1, 1)]);
        assert_eq!(series.last_minutes(60)[0].1, LastMinute::default());
        assert_eq!(series.history("api").len(), 1);
        step(&mut series, 901, &[("api", 1, 1)]);
        assert!(series.history("api").is_empty() && series.last_minutes(60).is_empty());
        step(&mut series, 902, &[]);
        assert!(series.routes.is_empty(), "a route that the configuration no longer has is forgotten");
    }

    #[test]
    fn a_clock_that_is_set_back_or_forward_leaves_no_wrong_minute() {
        let mut series = Series::default();
        for second in 0..120 {
            step(&mut series, 10_000 + second, &[("api", (second + 1) * 5, 0)]);
        }
        // Two seconds back, as a time server may ask for: what was in them is not counted twice.
        step(&mut series, 10_117, &[("api", 601, 0)]);
        let minute = |series: &Series| series.last_minutes(60)[0].1.requests_per_second;
        assert_eq!(minute(&series), (58.0 * 5.0 + 1.0) / 60.0);
        // An hour back: it begins anew.
        step(&mut series, 6_000, &[("api", 607, 0)]);
        assert_eq!((series.history("api").len(), minute(&series)), (1, 0.1));
        // A year forward: that is past, and not all of it at once.
        step(&mut series, 6_000 + 31_536_000, &[("api", 613, 0)]);
        assert_eq!((series.history("api").len(), minute(&series)), (1, 0.1));
    }

    #[test]
    fn series_are_bounded_in_number_and_length() {
        let mut series = Series::default();
        for second in 1..=1000 {
            series.begin(second);
            for route in 0..100 {
                series.note(&format!("route-{route:02}"), buckets(0, second), || 0);
            }
            series.end();
        }
        assert_eq!(series.last_minutes(60).len(), SERIES_MAX);
        assert_eq!(series.history("route-00").len(), HISTORY);
        assert!(series.history("route-99").is_empty());
    }
}
