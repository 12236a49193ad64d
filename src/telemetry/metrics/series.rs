//! The last fifteen minutes of each route at one-second steps, and its last minute as one figure.
//!
//! Made once a second from the differences of the counters that are scraped: costs requests nothing. Percentiles are
//! read as those of all routes together are, so that an only route has the same ones. Only seconds with requests are
//! kept, of so many routes at most: about 3 MiB when all of them are busy all the time.

use std::collections::{BTreeMap, VecDeque};

use super::histogram::{FINE, JOINT, PIECES, quantile_ms};
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

/// How many requests finished in a second, by fine bucket; those without any are left out.
type Step = Box<[(u8, u32)]>;

#[derive(Debug, Default)]
pub(super) struct Series {
    now: u64,
    routes: BTreeMap<String, Route>,
    with_ring: usize,
}

#[derive(Debug)]
struct Route {
    /// Its running totals at the last second with requests.
    pieces: [u64; JOINT],
    errors: u64,
    /// Allocated with the first request.
    ring: Option<Ring>,
    seen: bool,
}

impl Default for Route {
    fn default() -> Self {
        Self { pieces: [0; JOINT], errors: 0, ring: None, seen: false }
    }
}

#[derive(Debug, Default)]
struct Ring {
    seconds: VecDeque<RouteSecond>,
    /// The last minute's seconds.
    minute: VecDeque<(u64, Step)>,
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
    pub(super) fn note(&mut self, name: &str, totals: &[u64; JOINT], errors: impl FnOnce() -> u64) {
        let route = match self.routes.get_mut(name) {
            Some(route) => route,
            None => self.routes.entry(name.to_owned()).or_default(),
        };
        route.seen = true;
        if route.pieces == *totals {
            return;
        }
        // Taken out and put back by reloads, it counts from nothing.
        if totals.iter().zip(&route.pieces).any(|(now, before)| now < before) {
            (route.pieces, route.errors) = ([0; JOINT], 0);
        }
        let mut counts = [0_u64; FINE];
        for (index, &(fine, _)) in PIECES.iter().enumerate() {
            counts[usize::from(fine)] += totals[index].saturating_sub(route.pieces[index]);
        }
        route.pieces = *totals;
        let errors = errors();
        let failed = errors.saturating_sub(std::mem::replace(&mut route.errors, errors));
        if route.ring.is_none() && self.with_ring < SERIES_MAX {
            self.with_ring += 1;
            route.ring = Some(Ring::default());
        }
        if let Some(ring) = &mut route.ring {
            ring.push(self.now, &counts, failed);
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
    fn push(&mut self, now: u64, counts: &[u64; FINE], errors: u64) {
        if self.seconds.len() == HISTORY {
            self.seconds.pop_front();
        }
        let quantile = |q| quantile_ms(counts, q) as f32;
        self.seconds.push_back(RouteSecond {
            unix_seconds: now,
            requests: saturated(counts.iter().sum()),
            errors: saturated(errors),
            p50_ms: quantile(0.50),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
        });
        let some = (0..).zip(counts).filter(|&(_, &count)| count > 0);
        self.minute.push_back((now, some.map(|(index, &count)| (index, saturated(count))).collect()));
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
        let mut counts = [0_u64; FINE];
        for &(index, count) in self.minute.iter().flat_map(|(_, step)| step) {
            counts[usize::from(index)] += u64::from(count);
        }
        let requests: u64 = counts.iter().sum();
        let recent = self.seconds.iter().rev().take_while(|second| second.unix_seconds + MINUTE > now);
        let errors: u64 = recent.map(|second| u64::from(second.errors)).sum();
        LastMinute {
            requests_per_second: requests as f64 / span as f64,
            p50_ms: quantile_ms(&counts, 0.50),
            p95_ms: quantile_ms(&counts, 0.95),
            p99_ms: quantile_ms(&counts, 0.99),
            error_rate: errors as f64 / requests.max(1) as f64,
        }
    }
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::metrics::histogram::Joint;

    /// Requests of 3 ms.
    fn totals(count: u64) -> [u64; JOINT] {
        let one = Joint::default();
        one.record(Duration::from_millis(3));
        let mut totals = [0; JOINT];
        one.add_pieces_to(&mut totals);
        totals.map(|of_one| of_one * count)
    }

    fn step(series: &mut Series, second: u64, routes: &[(&str, u64, u64)]) {
        series.begin(second);
        for &(name, requests, errors) in routes {
            series.note(name, &totals(requests), || errors);
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
        assert!((2.9..=3.1).contains(&history[0].p50_ms), "{history:?}");
        let minute = &series.last_minutes(2)[0].1;
        assert_eq!((minute.requests_per_second, minute.error_rate), (52.0, 11.0 / 104.0));
    }

    #[test]
    fn totals_that_begin_anew_hide_nothing() {
        let mut series = Series::default();
        step(&mut series, 10, &[("api", 200, 20)]);
        step(&mut series, 11, &[("api", 150, 5)]);
        let counts: Vec<_> = series.history("api").iter().map(|second| (second.requests, second.errors)).collect();
        assert_eq!(counts, [(200, 20), (150, 5)]);
    }

    #[test]
    fn the_figures_of_an_only_route_are_those_of_all() {
        let metrics = Metrics::new(2);
        let route = metrics.route("app");
        for micros in [180, 430, 2_100, 9_700, 10_400, 61_000_000] {
            route.begin(0);
            route.end(0, 200, Duration::from_micros(micros));
        }
        metrics.tick(10);
        let percentiles = |minute: &LastMinute| (minute.p50_ms, minute.p95_ms, minute.p99_ms);
        let [(_, of_route)] = &metrics.routes_last_minute()[..] else { panic!("there is one route") };
        assert_eq!(percentiles(of_route), percentiles(&metrics.last_minute()));
        let (second, of_all) = (metrics.route_history("app")[0], metrics.last_second().unwrap());
        assert_eq!(second.p50_ms, of_all.p50_ms as f32);
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
            let totals = totals(second);
            for route in 0..100 {
                series.note(&format!("route-{route:02}"), &totals, || 0);
            }
            series.end();
        }
        assert_eq!(series.last_minutes(60).len(), SERIES_MAX);
        assert_eq!(series.history("route-00").len(), HISTORY);
        assert!(series.history("route-99").is_empty());
    }
}
