//! What a group hands on: to the one that a reload puts in its place, and to that of another process.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::Group;
use crate::breaker::{Breaker, State};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::names;
use crate::upstream::standing;

/// An endpoint as another process knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointMemory {
    pub configured: String,
    pub label: String,
    pub standing: standing::Memory,
}

impl Group {
    /// What its names resolve to and how its endpoints stand, for the same upstream in another process.
    pub fn memory(&self, now: Instant) -> Vec<EndpointMemory> {
        let endpoints = self.endpoints();
        let memories = endpoints.iter().map(|endpoint| EndpointMemory {
            configured: endpoint.configured.to_string(),
            label: endpoint.label.to_string(),
            standing: endpoint.standing.memory(now),
        });
        memories.collect()
    }

    /// Goes on where the same upstream stood in another process: what its names resolved to, how its endpoints stood.
    pub fn recall(self: &Arc<Self>, endpoints: &[EndpointMemory]) {
        for (slot, configured) in self.settings.endpoints.iter().enumerate() {
            let own = configured.address.to_string();
            let known = endpoints.iter().filter(|endpoint| endpoint.configured == own);
            let known: Vec<SocketAddr> = known.filter_map(|endpoint| endpoint.label.parse().ok()).collect();
            let is_unknown =
                names::name_of(&configured.address).is_some() && self.arranging.lock().slots[slot].is_empty();
            if is_unknown && !known.is_empty() {
                self.set_addresses(slot, &known);
                self.names_unknown.fetch_sub(1, Relaxed);
            }
        }
        let now = Instant::now();
        for endpoint in self.endpoints() {
            if let Some(memory) = endpoints.iter().find(|memory| *memory.label == *endpoint.label) {
                endpoint.standing.recall(&memory.standing, now);
            }
        }
    }

    /// Its endpoints and those that it no longer has, as far as something may be open there. Whoever follows may have
    /// them back.
    pub(super) fn once_known(&self) -> Vec<Weak<Endpoint>> {
        let arrangement = self.arranging.lock();
        let left = arrangement.left.iter().filter(|left| left.strong_count() > 0).cloned();
        left.chain(arrangement.slots.iter().flatten().map(Arc::downgrade)).collect()
    }

    /// Keeps its breaker open if an operator has forced the one of before open. To be called as late as there is still
    /// no request.
    pub(crate) fn stay_forced(&self, previous: &Self, now: Instant) {
        if let (Some(breaker), Some(before)) = (&self.breaker, &previous.breaker)
            && !Arc::ptr_eq(breaker, before)
        {
            breaker.stay_forced(before, now);
        }
    }

    /// Ends the breaker of before, if another one has begun in its place, or none: requests pass again, and whoever was
    /// told that it opened is told so.
    pub(crate) fn relieve(&self, previous: &Self, now: Instant) {
        let Some(before) = &previous.breaker else { return };
        let goes_on = |own: &Arc<Breaker>| Arc::ptr_eq(own, before) || own.view(now).state != State::Closed;
        if !self.breaker.as_ref().is_some_and(goes_on) {
            before.retire();
        }
    }

    /// Lets go of its endpoints: a reload has put `successor` in its place, or none. What is open finishes here, and as
    /// long as a request waits here, its endpoints are checked and its names followed.
    pub(crate) fn retire(&self, successor: Option<&Self>) {
        let after = successor.map(Self::endpoints).unwrap_or_default();
        let mut arrangement = self.arranging.lock();
        arrangement.is_retired = true;
        for endpoint in arrangement.slots.iter().flatten() {
            endpoint.retire(&after);
        }
    }
}
