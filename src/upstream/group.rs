//! A named upstream: its endpoints, how one is picked, and its breaker.

mod build;
mod succession;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub(crate) use self::build::Surroundings;
pub use self::succession::EndpointMemory;
use super::affinity::{Affinity, Token};
use super::endpoint::{Aborting, Endpoint, InFlight, Observer};
use super::hold::Hold;
use super::members::{Members, Wish};
use super::resolve::Resolver;
use super::standing::{Health, Standing};
use super::tls::Originator;
use super::{check, names};
use crate::balance::{Retry, RetryBudget};
use crate::breaker::{Breaker, Pauses};
use crate::config::model::{self, Address};
use crate::telemetry::metrics::UpstreamMetrics;

/// How long requests wait for the first answer about a name.
const FIRST_NAMES_LIMIT: Duration = Duration::from_secs(5);

/// One `[upstream.NAME]`, alive.
pub struct Group {
    pub name: Arc<str>,
    pub settings: model::Upstream,
    members: ArcSwap<Members>,
    /// Who lays out the members: one at a time.
    arranging: Mutex<Arrangement>,
    /// Names nobody has heard of yet.
    names_unknown: AtomicUsize,
    pub(crate) hold: Arc<Hold>,
    budget: Arc<RetryBudget>,
    /// So that two endpoints are not each ejected because the other one still stands.
    ejecting: Mutex<()>,
    /// `None` when it is not enabled.
    pub breaker: Option<Arc<Breaker>>,
    pub(crate) metrics: Arc<UpstreamMetrics>,
    /// `None` where sessions do not stick.
    pub(crate) affinity: Option<Affinity>,
    pub tls: Option<Arc<Originator>>,
    workers: usize,
    observer: Observer,
    pauses: Arc<Pauses>,
    resolver: Resolver,
    started: Once,
    /// What follows its names, for as long as it lives.
    followers: Mutex<Vec<Aborting>>,
    /// Of each configured endpoint: told when an address that its name led to cannot be reached.
    doubts: Box<[Arc<Notify>]>,
}

/// The endpoints by what is configured: one for an address, any number for a name.
#[derive(Debug, Default)]
struct Arrangement {
    slots: Vec<Vec<Arc<Endpoint>>>,
    runtime: Option<Handle>,
    /// Those that a name, or the configuration, has no more and where requests are open still.
    left: Vec<Weak<Endpoint>>,
    /// A reload has put another group in place of this one, or none.
    is_retired: bool,
}

impl Group {
    /// Begins to check its endpoints and to follow its names, on `runtime`. Once; later calls do nothing.
    pub(crate) fn start(self: &Arc<Self>, runtime: &Handle) {
        self.started.call_once(|| {
            let mut arrangement = self.arranging.lock();
            arrangement.runtime = Some(runtime.clone());
            arrangement.slots.iter().flatten().for_each(|endpoint| self.check(endpoint, runtime));
            let slots = arrangement.slots.iter().enumerate();
            let unknown: Vec<usize> = slots.filter(|(_, slot)| slot.is_empty()).map(|(index, _)| index).collect();
            drop(arrangement);
            let mut followers = self.followers.lock();
            for (slot, configured) in self.settings.endpoints.iter().enumerate() {
                if let Some((host, port)) = names::name_of(&configured.address) {
                    let doubt = Arc::clone(&self.doubts[slot]);
                    let name = names::Name { host: host.to_owned(), port, slot, doubt };
                    let following = names::follow(Arc::downgrade(self), name, unknown.contains(&slot));
                    followers.push(Aborting(runtime.spawn(following).abort_handle()));
                }
            }
        });
    }

    /// A place at an endpoint that can take a request now; those with a key in `tried` only when there is no other.
    pub(crate) fn claim(&self, wish: Wish, tried: &[u64], now: Instant) -> Option<InFlight> {
        self.members.load().claim(wish, tried, now)
    }

    /// The endpoint that clients call `token`, if there is one.
    pub(crate) fn home(&self, token: Token) -> Option<Arc<Endpoint>> {
        self.members.load().home(token).map(Arc::clone)
    }

    /// How long a request waits until it is known how its home stands; `None` when it is known. At the start, whichever
    /// endpoint is known first would else take over all sessions.
    pub(crate) fn patience_for(&self, home: Token) -> Option<Duration> {
        match (self.members.load().home(home), &self.settings.health) {
            (Some(home), Some(health)) => {
                (home.standing.health() == Health::Unknown).then(|| first_check_limit(health))
            }
            (Some(_), None) => None,
            (None, _) => self.has_unknown_names().then_some(FIRST_NAMES_LIMIT),
        }
    }

    /// Takes ejected endpoints back when there is none left that stands; whether that helped.
    pub(crate) fn rally(&self, now: Instant) -> bool {
        let members = self.members.load();
        if members.endpoints.iter().any(|endpoint| endpoint.standing.takes(now)) {
            return false;
        }
        let mut helped = false;
        for endpoint in members.endpoints.iter().filter(|endpoint| endpoint.standing.is_only_ejected(now)) {
            endpoint.ejection_changed(endpoint.standing.ejection.restore(now));
            helped = true;
        }
        helped
    }

    /// Whether some endpoint could take a request right now.
    pub(crate) fn has_room(&self) -> bool {
        let now = Instant::now();
        self.members.load().endpoints.iter().any(|endpoint| endpoint.candidate(false, now).available)
    }

    /// Whether an endpoint whose key is not in `tried` can take a request, as [`Self::claim`] would find it.
    pub(crate) fn has_other(&self, wish: Wish, tried: &[u64], now: Instant) -> bool {
        let can_take = |endpoint: &Endpoint| endpoint.candidate(wish.asks_ejected, now).available;
        self.members.load().endpoints.iter().any(|other| !tried.contains(&other.key) && can_take(other))
    }

    /// How long a request waits that finds no endpoint able to take it: `hold`, and at the start until the first checks
    /// are through and the first names known.
    pub(crate) fn patience(&self) -> Duration {
        let mut patience = self.settings.hold;
        if self.has_unknown_names() {
            patience = patience.max(FIRST_NAMES_LIMIT);
        }
        if let Some(health) = &self.settings.health {
            let members = self.members.load();
            if members.endpoints.iter().any(|endpoint| endpoint.standing.health() == Health::Unknown) {
                patience = patience.max(first_check_limit(health));
            }
        }
        patience
    }

    /// Counts for an endpoint that it answered a request that was sent at `sent`.
    pub(crate) fn succeeded(&self, endpoint: &Endpoint, sent: Instant, now: Instant) {
        if endpoint.is_retired() {
            return;
        }
        let ejection = &endpoint.standing.ejection;
        endpoint.ejection_changed(ejection.record(true, now, || false).or_else(|| ejection.prove(sent, now)));
    }

    /// Counts a failure against an endpoint, which took it `elapsed`. Whether that is the endpoint's own matter, for which
    /// it is ejected, and not the upstream's as a whole: it goes on failing, while what another one did last was well.
    pub(crate) fn failed(&self, endpoint: &Endpoint, elapsed: Duration, now: Instant) -> bool {
        if endpoint.is_retired() {
            return false;
        }
        endpoint.observe_failure(elapsed, now);
        let _one_at_a_time = self.ejecting.lock();
        let ejection = &endpoint.standing.ejection;
        let is_own = ejection.is_failing() && self.stands_without(endpoint, now, Standing::is_sound);
        let news = ejection.record(false, now, || self.stands_without(endpoint, now, |_| true));
        endpoint.ejection_changed(news);
        is_own
    }

    /// Whether another endpoint is left standing, such a one, be it a backup.
    fn stands_without(&self, endpoint: &Endpoint, now: Instant, is_such: impl Fn(&Standing) -> bool) -> bool {
        let members = self.members.load();
        let mut others = members.endpoints.iter().filter(|other| !std::ptr::eq(&raw const ***other, endpoint));
        others.any(|other| other.standing.takes(now) && is_such(&other.standing))
    }

    /// Asks for a further try; `None` when the budget is used up.
    pub(crate) fn retry(&self) -> Option<Retry> {
        let members = self.members.load();
        let live = members.endpoints.iter().map(|endpoint| endpoint.in_flight() as usize).sum();
        self.budget.take(live)
    }

    /// Whether the process stood still between `began` and `now`, so that time-outs mean nothing.
    pub(crate) fn was_paused(&self, began: Instant, now: Instant) -> bool {
        self.pauses.spoil(began, now)
    }

    /// All endpoints there are now.
    pub(crate) fn endpoints(&self) -> Box<[Arc<Endpoint>]> {
        self.members.load().endpoints.clone()
    }

    /// Whether nobody needs to know what becomes of its names.
    pub(super) fn is_over(&self) -> bool {
        self.arranging.lock().is_retired && !self.hold.is_in_use()
    }

    /// Names whose addresses nobody knows yet.
    pub(crate) fn has_unknown_names(&self) -> bool {
        self.names_unknown.load(Relaxed) > 0
    }

    /// Closes connections that one worker has kept for too long.
    pub(crate) fn sweep(&self, worker: usize) {
        self.members.load().endpoints.iter().for_each(|endpoint| endpoint.sweep(worker));
    }

    /// Says of endpoints whose ejection is over that they are back, and why others cannot be reached. For whoever looks
    /// now and then.
    pub(crate) fn tick(&self, now: Instant) {
        self.members.load().endpoints.iter().for_each(|endpoint| endpoint.tick(now));
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// A name has been asked for once, whatever came of it.
    pub(super) fn name_asked(&self) {
        // Never below zero: each follower says it once, and was counted.
        self.names_unknown.fetch_sub(1, Relaxed);
        self.hold.release();
    }

    /// What the name in `slot` resolved to, be it in the group or the process before.
    pub(super) fn addresses(&self, slot: usize) -> Vec<SocketAddr> {
        let arrangement = self.arranging.lock();
        let addresses = arrangement.slots[slot].iter().map(|endpoint| match &endpoint.connector.address {
            Address::Socket(address) => Some(*address),
            _ => None,
        });
        addresses.flatten().collect()
    }

    /// The name in `slot` has these addresses now. Endpoints of others are drained.
    pub(super) fn set_addresses(self: &Arc<Self>, slot: usize, addresses: &[SocketAddr]) {
        let mut arrangement = self.arranging.lock();
        let before = std::mem::take(&mut arrangement.slots[slot]);
        let mut after = Vec::with_capacity(addresses.len());
        for address in addresses {
            let address = Address::Socket(*address);
            match before.iter().find(|endpoint| endpoint.connector.address == address) {
                Some(kept) => after.push(Arc::clone(kept)),
                None => match self.endpoint(slot, address, None, &arrangement.left) {
                    Ok(endpoint) => {
                        if !before.is_empty() {
                            endpoint.standing.join(Instant::now());
                        }
                        after.push(endpoint);
                    }
                    Err(error) => tracing::warn!(upstream = &*self.name, %error, "an address cannot be used"),
                },
            }
        }
        if let Some(runtime) = arrangement.runtime.clone() {
            after.iter().for_each(|endpoint| self.check(endpoint, &runtime));
        }
        if arrangement.is_retired {
            after.iter().for_each(|endpoint| endpoint.retire(&[]));
        }
        arrangement.slots[slot] = after.clone();
        self.rearrange(&arrangement);
        arrangement.left.retain(|left| left.strong_count() > 0);
        for gone in before.iter().filter(|old| !after.iter().any(|new| Arc::ptr_eq(old, new))) {
            gone.retire(&[]);
            arrangement.left.push(Arc::downgrade(gone));
        }
        drop(arrangement);
        self.hold.release();
    }

    fn rearrange(&self, arrangement: &Arrangement) {
        let all = arrangement.slots.iter().flatten().cloned().collect();
        self.members.store(Arc::new(Members::new(all, &self.settings.balance)));
    }

    fn check(self: &Arc<Self>, endpoint: &Arc<Endpoint>, runtime: &Handle) {
        let Some(health) = self.settings.health.clone().filter(|_| !endpoint.has_checker()) else { return };
        let checking = check::endpoint(Arc::downgrade(endpoint), health, Arc::clone(&self.pauses));
        endpoint.set_checker(runtime.spawn(checking).abort_handle());
    }
}

/// The check, and its way to here.
fn first_check_limit(health: &model::Health) -> Duration {
    health.timeout + Duration::from_millis(500)
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.name).field("members", &self.members).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
