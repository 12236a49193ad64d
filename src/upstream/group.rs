//! A named upstream: its endpoints, how one is picked, and its breaker.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::affinity::{Affinity, Token};
use super::connect::Connector;
use super::endpoint::{Aborting, Endpoint, InFlight, Observer, Plan};
use super::hold::Hold;
use super::members::{Members, Wish};
use super::resolve::Resolver;
use super::standing::Health;
use super::tls::{self, Originator, UpstreamTlsError};
use super::{check, names};
use crate::balance::{Retry, RetryBudget};
use crate::breaker::{Breaker, Pauses, State, Transition};
use crate::config::model::{self, Address};
use crate::secret::Secret;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::tls::Fault;

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
}

/// The endpoints by what is configured: one for an address, any number for a name.
#[derive(Debug, Default)]
struct Arrangement {
    slots: Vec<Vec<Arc<Endpoint>>>,
    runtime: Option<Handle>,
    /// Those that a name has no more and where requests are open still.
    left: Vec<Weak<Endpoint>>,
    /// A reload has put another group in place of this one, or none.
    is_retired: bool,
}

/// What a [`Group`] is built with, beside its settings.
pub(crate) struct Surroundings<'a> {
    pub(crate) workers: usize,
    pub(crate) resolver: &'a Resolver,
    pub(crate) metrics: Arc<UpstreamMetrics>,
    pub(crate) pauses: Arc<Pauses>,
    /// Told of every change of the breaker's state.
    pub(crate) breaker_observer: Box<dyn Fn(Transition) + Send + Sync>,
    /// Told of every change of an endpoint.
    pub(crate) endpoint_observer: Observer,
    /// What signs cookies.
    pub(crate) secret: &'a Secret,
    /// The same upstream before its settings changed: what is known of its endpoints stays known.
    pub(crate) previous: Option<&'a Group>,
}

/// An endpoint as another process knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointMemory {
    pub configured: String,
    pub label: String,
    pub standing: super::standing::Memory,
}

impl Group {
    /// Builds the group; nothing is connected, checked or resolved before [`Group::start`].
    ///
    /// # Errors
    /// A CA, certificate or key of its `tls` can't be used.
    pub(crate) fn build(
        name: &str,
        settings: &model::Upstream,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, Vec<Fault>> {
        let tls = |error| tls::faults(settings.tls.as_ref().expect("without TLS nothing fails"), error);
        Self::try_build(name, settings, surroundings).map_err(tls)
    }

    /// What is wrong with the files of its `tls`.
    pub(crate) fn faults_of_files(settings: &model::Upstream) -> Vec<Fault> {
        match (originator(settings, None), &settings.tls) {
            (Err(error), Some(tls)) => tls::faults(tls, error),
            _ => Vec::new(),
        }
    }

    fn try_build(
        name: &str,
        settings: &model::Upstream,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, UpstreamTlsError> {
        let previous = surroundings.previous;
        let breaker = settings.breaker.enabled.then(|| {
            let (rules, observer) = (breaker_settings(&settings.breaker), surroundings.breaker_observer);
            let known = previous.and_then(|previous| previous.breaker.as_ref());
            match known.filter(|known| *known.settings() == rules) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Breaker::with_observer(rules, Instant::now(), observer)),
            }
        });
        let group = Self {
            name: name.into(),
            members: ArcSwap::from_pointee(Members::new(Vec::new(), &settings.balance)),
            arranging: Mutex::default(),
            names_unknown: AtomicUsize::new(0),
            hold: Hold::after(previous.map(|previous| &*previous.hold)),
            budget: match previous.filter(|previous| previous.settings.retry.budget == settings.retry.budget) {
                Some(previous) => Arc::clone(&previous.budget),
                None => Arc::new(RetryBudget::new(settings.retry.budget)),
            },
            ejecting: Mutex::default(),
            breaker,
            metrics: surroundings.metrics,
            affinity: settings.affinity_cookie.as_ref().map(|cookie| Affinity::new(cookie, name, surroundings.secret)),
            tls: originator(settings, previous)?,
            workers: surroundings.workers,
            observer: surroundings.endpoint_observer,
            pauses: surroundings.pauses,
            resolver: surroundings.resolver.clone(),
            started: Once::new(),
            followers: Mutex::default(),
            settings: settings.clone(),
        };
        let mut slots = Vec::with_capacity(settings.endpoints.len());
        for configured in &settings.endpoints {
            slots.push(match names::name_of(&configured.address) {
                Some(_) => group.inherited_addresses(configured, previous)?,
                None => vec![group.endpoint(configured, configured.address.clone(), previous, None)?],
            });
        }
        let named = settings.endpoints.iter().zip(&slots);
        let unknown =
            named.filter(|(configured, slot)| slot.is_empty() && names::name_of(&configured.address).is_some());
        group.names_unknown.store(unknown.count(), Relaxed);
        let mut arrangement = group.arrangement();
        arrangement.slots = slots;
        group.rearrange(&arrangement);
        drop(arrangement);
        Ok(group)
    }

    /// Begins to check its endpoints and to follow its names, on `runtime`. Once; later calls do nothing.
    pub(crate) fn start(self: &Arc<Self>, runtime: &Handle) {
        self.started.call_once(|| {
            let mut arrangement = self.arrangement();
            arrangement.runtime = Some(runtime.clone());
            arrangement.slots.iter().flatten().for_each(|endpoint| self.check(endpoint, runtime));
            let slots = arrangement.slots.iter().enumerate();
            let unknown: Vec<usize> = slots.filter(|(_, slot)| slot.is_empty()).map(|(index, _)| index).collect();
            drop(arrangement);
            let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
            for (slot, configured) in self.settings.endpoints.iter().enumerate() {
                if let Some((host, port)) = names::name_of(&configured.address) {
                    let is_unknown = unknown.contains(&slot);
                    let following = names::follow(Arc::downgrade(self), slot, host.to_owned(), port, is_unknown);
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
        if self.names_unknown.load(Relaxed) > 0 {
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

    /// Counts a failure against an endpoint.
    pub(crate) fn failed(&self, endpoint: &Endpoint, now: Instant) {
        if endpoint.is_retired() {
            return;
        }
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let event = endpoint.standing.ejection.record(false, now, || self.can_spare(endpoint, now));
        endpoint.ejection_changed(event);
    }

    /// Whether another endpoint is left standing, be it a backup.
    fn can_spare(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let members = self.members.load();
        let mut others = members.endpoints.iter().filter(|other| !std::ptr::eq(&raw const ***other, endpoint));
        others.any(|other| other.standing.takes(now))
    }

    /// Asks for a further try; `None` when the budget is used up.
    pub(crate) fn retry(&self) -> Option<Retry<Arc<RetryBudget>>> {
        let live = self.iter().iter().map(|endpoint| endpoint.in_flight() as usize).sum();
        Retry::take(Arc::clone(&self.budget), live)
    }

    /// Whether the process stood still between `began` and `now`, so that time-outs mean nothing.
    pub(crate) fn was_paused(&self, began: Instant, now: Instant) -> bool {
        self.pauses.spoil(began, now)
    }

    /// All endpoints there are now.
    pub(crate) fn iter(&self) -> Box<[Arc<Endpoint>]> {
        self.members.load().endpoints.clone()
    }

    /// What its names resolve to and how its endpoints stand, for the same upstream in another process.
    pub fn memory(&self, now: Instant) -> Vec<EndpointMemory> {
        let endpoints = self.iter();
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
            let is_unknown = names::name_of(&configured.address).is_some() && self.arrangement().slots[slot].is_empty();
            if is_unknown && !known.is_empty() {
                self.set_addresses(slot, &known);
                self.names_unknown.fetch_sub(1, Relaxed);
            }
        }
        let now = Instant::now();
        for endpoint in self.iter() {
            if let Some(memory) = endpoints.iter().find(|memory| *memory.label == *endpoint.label) {
                endpoint.standing.recall(&memory.standing, now);
            }
        }
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
        let after = successor.map(Self::iter).unwrap_or_default();
        let mut arrangement = self.arrangement();
        arrangement.is_retired = true;
        for endpoint in arrangement.slots.iter().flatten() {
            endpoint.retire(&after);
        }
    }

    /// Whether nobody needs to know what becomes of its names.
    pub(super) fn is_over(&self) -> bool {
        self.arrangement().is_retired && !self.hold.is_in_use()
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

    /// The name in `slot` has been asked for once, whatever came of it.
    pub(super) fn name_asked(&self) {
        // Never below zero: each follower says it once, and was counted.
        self.names_unknown.fetch_sub(1, Relaxed);
        self.hold.release();
    }

    /// What the name in `slot` resolved to, be it in the group or the process before.
    pub(super) fn addresses(&self, slot: usize) -> Vec<SocketAddr> {
        let arrangement = self.arrangement();
        let addresses = arrangement.slots[slot].iter().map(|endpoint| match &endpoint.connector.address {
            Address::Socket(address) => Some(*address),
            _ => None,
        });
        addresses.flatten().collect()
    }

    /// The name in `slot` has these addresses now. Endpoints of others are drained.
    pub(super) fn set_addresses(self: &Arc<Self>, slot: usize, addresses: &[SocketAddr]) {
        let configured = &self.settings.endpoints[slot];
        let mut arrangement = self.arrangement();
        let before = std::mem::take(&mut arrangement.slots[slot]);
        let mut after = Vec::with_capacity(addresses.len());
        for address in addresses {
            let address = Address::Socket(*address);
            match before.iter().find(|endpoint| endpoint.connector.address == address) {
                Some(kept) => after.push(Arc::clone(kept)),
                None => {
                    let mut left = arrangement.left.iter().filter_map(Weak::upgrade);
                    let left = left.find(|left| left.connector.address == address);
                    match self.endpoint(configured, address, None, left.as_deref()) {
                        Ok(endpoint) => {
                            if !before.is_empty() {
                                endpoint.standing.join(Instant::now());
                            }
                            after.push(endpoint);
                        }
                        Err(error) => tracing::warn!(upstream = &*self.name, %error, "an address cannot be used"),
                    }
                }
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

    /// `previous` is the upstream before a reload: what is known of the address stays known. `left` is the same address
    /// before its name left it out: of that, only what is open there is of interest.
    fn endpoint(
        &self,
        configured: &model::Endpoint,
        address: Address,
        previous: Option<&Self>,
        left: Option<&Endpoint>,
    ) -> Result<Arc<Endpoint>, UpstreamTlsError> {
        let server_name = |tls: &Arc<Originator>| tls.server_name(&configured.address);
        let tls = self.tls.clone().zip(self.tls.as_ref().map(server_name).transpose()?);
        let before = previous.map(Self::iter).unwrap_or_default();
        let known = before.iter().filter(|known| known.connector.address == address);
        // Two names may have an address in common.
        let own = configured.address.to_string();
        let known = known.max_by_key(|known| *known.configured == *own);
        Ok(Arc::new(Endpoint::new(Plan {
            known: known.and_then(|known| Some((&**known, &previous?.settings))),
            connector: Connector::new(address, tls, self.settings.http2),
            configured,
            settings: &self.settings,
            affinity: self.affinity.as_ref(),
            workers: self.workers,
            hold: &self.hold,
            observer: Arc::clone(&self.observer),
            left,
        })))
    }

    /// What a name resolved to before a reload changed other settings.
    fn inherited_addresses(
        &self,
        configured: &model::Endpoint,
        previous: Option<&Self>,
    ) -> Result<Vec<Arc<Endpoint>>, UpstreamTlsError> {
        let text = configured.address.to_string();
        let known = previous.map(Self::iter).unwrap_or_default();
        let known = known.iter().filter(|endpoint| *endpoint.configured == text);
        known.map(|known| self.endpoint(configured, known.connector.address.clone(), previous, None)).collect()
    }

    fn arrangement(&self) -> std::sync::MutexGuard<'_, Arrangement> {
        self.arranging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The check, and its way to here.
fn first_check_limit(health: &model::Health) -> Duration {
    health.timeout + Duration::from_millis(500)
}

/// The one of before where its settings did not change: sessions with endpoints go on.
fn originator(
    settings: &model::Upstream,
    previous: Option<&Group>,
) -> Result<Option<Arc<Originator>>, UpstreamTlsError> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    let is_same = |before: &model::Upstream| before.tls == settings.tls && before.http2 == settings.http2;
    if let Some(kept) = previous.filter(|before| is_same(&before.settings)).and_then(|before| before.tls.as_ref()) {
        return Ok(Some(Arc::clone(kept)));
    }
    Originator::build(tls, settings.http2).map(|built| Some(Arc::new(built)))
}

fn breaker_settings(breaker: &model::Breaker) -> crate::breaker::Settings {
    crate::breaker::Settings {
        failures: breaker.failures,
        failure_ratio: breaker.failure_ratio,
        min_requests: breaker.min_requests,
        window: breaker.window,
        slow_call: breaker.slow_call,
        open: breaker.open,
        max_open: breaker.max_open,
        probes: breaker.probes,
        ramp: breaker.ramp,
        shadow: breaker.shadow,
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.name).field("members", &self.members).finish_non_exhaustive()
    }
}
