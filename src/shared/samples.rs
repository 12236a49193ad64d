//! What happens to many requests and is told at most once a second for each route.

use std::net::IpAddr;

use super::{SAMPLED_ROUTES, Shared};
use crate::telemetry::events::Event;
use crate::telemetry::metrics::NO_ROUTE;

impl Shared {
    /// A route's place in the samplers.
    pub(crate) fn place(&self, route: &str) -> usize {
        let mut places = self.places.lock();
        let next = places.len();
        match places.get(route) {
            Some(place) => *place,
            None if next < SAMPLED_ROUTES => *places.entry(route.to_owned()).or_insert(next),
            None => SAMPLED_ROUTES,
        }
    }

    fn name_at(&self, place: usize) -> String {
        let places = self.places.lock();
        let found = places.iter().find(|(_, other)| **other == place);
        found.map_or_else(|| NO_ROUTE.to_owned(), |(name, _)| name.clone())
    }

    /// A request met maintenance. `place` and `route` are the route's, when there is one.
    pub(crate) fn blocked(&self, place: Option<usize>, route: Option<&str>) {
        let (place, route) = sampled(place, route);
        if let Some(count) = self.blocked.hit(place, self.started.elapsed(), || ()) {
            self.events.emit(Event::OperationBlocked { route: route.to_owned(), count });
        }
    }

    /// A request was over a limit; `enforced` is false where the limit only watches.
    pub(crate) fn rate_limited(&self, place: usize, route: &str, limit: &str, enforced: bool) {
        let sampler = if enforced { &self.limited } else { &self.shadowed };
        let (place, route) = sampled(Some(place), Some(route));
        if let Some(count) = sampler.hit(place, self.started.elapsed(), || limit.to_owned()) {
            self.events.emit(Event::RateLimited { route: route.to_owned(), limit: limit.to_owned(), enforced, count });
        }
    }

    /// A client was turned away by a route's lists or the block list. `place` and `route` are the route's, when there
    /// is one. The line names the client that it is written for; those counted since the line before may be others.
    pub(crate) fn turned_away(&self, client: IpAddr, place: Option<usize>, route: Option<&str>, reason: &str) {
        let details = || (client, reason.to_owned());
        let (place, route) = sampled(place, route);
        if let Some(count) = self.turned_away.hit(place, self.started.elapsed(), details) {
            let route = route.to_owned();
            self.events.emit(Event::Blocked { client: Some(client), route, reason: reason.to_owned(), count });
        }
    }

    /// Tells what was counted since the last line of each.
    pub(super) fn flush_samples(&self) {
        let now = self.started.elapsed();
        self.blocked.flush(now, |place, count, _| {
            self.events.emit(Event::OperationBlocked { route: self.name_at(place), count });
        });
        for (sampler, enforced) in [(&self.limited, true), (&self.shadowed, false)] {
            sampler.flush(now, |place, count, limit| {
                let limit = limit.unwrap_or_default();
                self.events.emit(Event::RateLimited { route: self.name_at(place), limit, enforced, count });
            });
        }
        self.turned_away.flush(now, |place, count, details| {
            let (client, reason) = details.unzip();
            let reason = reason.unwrap_or_default();
            self.events.emit(Event::Blocked { client, route: self.name_at(place), reason, count });
        });
    }
}

/// Where it is counted, and by what name that is told.
fn sampled(place: Option<usize>, route: Option<&str>) -> (usize, &str) {
    match place.zip(route) {
        Some((place, route)) if place < SAMPLED_ROUTES => (place, route),
        _ => (SAMPLED_ROUTES, NO_ROUTE),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::Runtime;
    use crate::upstream::Resolver;

    #[test]
    fn each_of_many_routes_has_lines_of_its_own() {
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let names: Vec<_> = (0..3_000).map(|number| format!("r{number}")).collect();
        for name in &names {
            assert_eq!(shared.place(name), shared.place(name));
        }
        // The first is told at once, the second by the end of its second.
        for name in [&names[1], &names[2_998], &names[2_999]] {
            for _ in 0..3 {
                shared.blocked(Some(shared.place(name)), Some(name));
            }
        }
        shared.blocked.flush(std::time::Duration::MAX, |place, count, _| {
            shared.events.emit(Event::OperationBlocked { route: shared.name_at(place), count });
        });
        let mut told = BTreeMap::<String, u64>::new();
        for record in shared.events.recent() {
            if let Event::OperationBlocked { route, count } = &record.event {
                *told.entry(route.clone()).or_default() += count;
            }
        }
        assert_eq!(told, BTreeMap::from(["r1", "r2998", "r2999"].map(|name| (name.to_owned(), 3))));
    }
}
