//! Building a group from its settings, with what the one before it knew.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Group;
use crate::balance::RetryBudget;
use crate::breaker::{Breaker, Pauses, Transition};
use crate::config::model::{self, Address};
use crate::secret::Secret;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::tls::Fault;
use crate::upstream::affinity::Affinity;
use crate::upstream::connect::Connector;
use crate::upstream::endpoint::{Endpoint, Observer, Plan};
use crate::upstream::hold::Hold;
use crate::upstream::members::Members;
use crate::upstream::names;
use crate::upstream::resolve::Resolver;
use crate::upstream::tls::{self, Originator, UpstreamTlsError};

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
            doubts: settings.endpoints.iter().map(|_| Arc::default()).collect(),
            settings: settings.clone(),
        };
        let left = previous.map(Self::once_known).unwrap_or_default();
        let mut slots = Vec::with_capacity(settings.endpoints.len());
        for (slot, configured) in settings.endpoints.iter().enumerate() {
            slots.push(match names::name_of(&configured.address) {
                Some(_) => group.inherited_addresses(slot, previous)?,
                None => vec![group.endpoint(slot, configured.address.clone(), previous, &left)?],
            });
        }
        let named = settings.endpoints.iter().zip(&slots);
        let unknown =
            named.filter(|(configured, slot)| slot.is_empty() && names::name_of(&configured.address).is_some());
        group.names_unknown.store(unknown.count(), Relaxed);
        let mut arrangement = group.arranging.lock();
        arrangement.slots = slots;
        arrangement.left = left;
        group.rearrange(&arrangement);
        drop(arrangement);
        Ok(group)
    }

    /// `previous` is the upstream before a reload: what is known of the address stays known. In `left` it may be as it
    /// was before it was left out for a while: of that, only what is open there is of interest.
    pub(super) fn endpoint(
        &self,
        slot: usize,
        address: Address,
        previous: Option<&Self>,
        left: &[Weak<Endpoint>],
    ) -> Result<Arc<Endpoint>, UpstreamTlsError> {
        let configured = &self.settings.endpoints[slot];
        let server_name = |tls: &Arc<Originator>| tls.server_name(&configured.address);
        let tls = self.tls.clone().zip(self.tls.as_ref().map(server_name).transpose()?);
        let before = previous.map(Self::endpoints).unwrap_or_default();
        let known = before.iter().filter(|known| known.connector.address == address);
        // Two names may have an address in common.
        let own = configured.address.to_string();
        let left = left.iter().filter_map(Weak::upgrade).find(|left| left.connector.address == address);
        let known = known.max_by_key(|known| *known.configured == *own);
        let connector = Connector::new(address, tls, self.settings.http2);
        Ok(Arc::new(Endpoint::new(Plan {
            known: known.and_then(|known| Some((&**known, &previous?.settings))),
            connector: match names::name_of(&configured.address) {
                Some(_) => connector.of_name(Arc::clone(&self.doubts[slot])),
                None => connector,
            },
            configured,
            settings: &self.settings,
            affinity: self.affinity.as_ref(),
            workers: self.workers,
            hold: &self.hold,
            observer: Arc::clone(&self.observer),
            left: left.as_deref(),
        })))
    }

    /// What a name resolved to before a reload changed other settings.
    fn inherited_addresses(
        &self,
        slot: usize,
        previous: Option<&Self>,
    ) -> Result<Vec<Arc<Endpoint>>, UpstreamTlsError> {
        let text = self.settings.endpoints[slot].address.to_string();
        let known = previous.map(Self::endpoints).unwrap_or_default();
        let known = known.iter().filter(|endpoint| *endpoint.configured == text);
        known.map(|known| self.endpoint(slot, known.connector.address.clone(), previous, &[])).collect()
    }
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
