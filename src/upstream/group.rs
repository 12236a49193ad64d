//! A named upstream: its endpoints, how one is picked, and its breaker.

use std::sync::Arc;
use std::time::Instant;

use rustls_pki_types::ServerName;

use super::connect::Connector;
use super::endpoint::{Endpoint, Plan};
use super::resolve::Resolver;
use super::tls::{UpstreamTlsError, client_config};
use crate::balance::{Candidate, Candidates, Kind, RAMP_FULL, Strategy};
use crate::breaker::{Breaker, Transition};
use crate::config::model::{self, Address, Balance};
use crate::telemetry::metrics::UpstreamMetrics;

/// One `[upstream.NAME]`, alive.
#[derive(Debug)]
pub struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) settings: model::Upstream,
    pub(crate) endpoints: Endpoints,
    strategy: Strategy,
    /// `None` when it is not enabled.
    pub(crate) breaker: Option<Arc<Breaker>>,
    pub(crate) metrics: Arc<UpstreamMetrics>,
}

/// The endpoints as the balancer sees them.
#[derive(Debug)]
pub(crate) struct Endpoints(Box<[Arc<Endpoint>]>);

/// What a [`Group`] is built with, beside its settings.
pub(crate) struct Surroundings<'a> {
    pub(crate) workers: usize,
    pub(crate) resolver: &'a Resolver,
    pub(crate) metrics: Arc<UpstreamMetrics>,
    /// Told of every change of the breaker's state.
    pub(crate) observer: Box<dyn Fn(Transition) + Send + Sync>,
}

impl Group {
    /// Builds the group; nothing is connected.
    ///
    /// # Errors
    /// A CA, certificate or key of its `tls` can't be used.
    pub(crate) fn build(
        name: &str,
        settings: &model::Upstream,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, UpstreamTlsError> {
        let tls = settings.tls.as_ref().map(client_config).transpose()?;
        let mut endpoints = Vec::with_capacity(settings.endpoints.len());
        for endpoint in &settings.endpoints {
            let tls = match (&tls, &settings.tls) {
                (Some(config), Some(tls)) => Some((Arc::clone(config), server_name(tls, &endpoint.address)?)),
                _ => None,
            };
            endpoints.push(Arc::new(Endpoint::new(Plan {
                connector: Connector {
                    address: endpoint.address.clone(),
                    tls,
                    resolver: surroundings.resolver.clone(),
                },
                weight: endpoint.weight.get(),
                is_backup: endpoint.backup,
                idle_timeout: settings.idle_timeout,
                idle_max: settings.max_idle,
                workers: surroundings.workers,
            })));
        }
        let endpoints = Endpoints(endpoints.into());
        let strategy = strategy(&settings.balance, &endpoints);
        let breaker = settings.breaker.enabled.then(|| {
            let settings = breaker_settings(&settings.breaker);
            Arc::new(Breaker::with_observer(settings, fastrand::u64(..), Instant::now(), surroundings.observer))
        });
        Ok(Self {
            name: name.into(),
            settings: settings.clone(),
            endpoints,
            strategy,
            breaker,
            metrics: surroundings.metrics,
        })
    }

    /// The endpoint for the next request; `tried` is passed over as long as there is another.
    pub(crate) fn pick(&self, hash: u64, tried: &[usize]) -> Option<usize> {
        let pick = |tried| self.strategy.pick(&self.endpoints, fastrand::u64(..), hash, tried);
        pick(tried).or_else(|| if tried.is_empty() { None } else { pick(&[]) })
    }

    pub(crate) fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        &self.endpoints.0[index]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.0.iter()
    }

    /// Closes connections that one worker has kept for too long.
    pub(crate) fn sweep(&self, worker: usize) {
        self.iter().for_each(|endpoint| endpoint.sweep(worker));
    }
}

impl Candidates for Endpoints {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, index: usize) -> Candidate {
        let endpoint = &self.0[index];
        Candidate {
            weight: endpoint.weight,
            in_flight: endpoint.in_flight(),
            ewma_ns: 0,
            backup: endpoint.is_backup,
            available: true,
            key: endpoint.key,
            ramp_permille: RAMP_FULL,
        }
    }
}

fn server_name(tls: &model::UpstreamTls, address: &Address) -> Result<ServerName<'static>, UpstreamTlsError> {
    let name = match (&tls.server_name, address) {
        (Some(name), _) => name.clone(),
        (None, Address::Name { host, .. }) => host.clone(),
        (None, Address::Socket(address)) => address.ip().to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    };
    ServerName::try_from(name).map_err(|_| {
        UpstreamTlsError::Library(rustls::Error::General("server_name is neither a DNS name nor an address".into()))
    })
}

fn strategy(balance: &Balance, endpoints: &Endpoints) -> Strategy {
    let kind = match balance {
        Balance::LeastRequests => Kind::LeastRequests,
        Balance::RoundRobin => Kind::RoundRobin,
        Balance::PeakEwma => Kind::PeakEwma,
        Balance::Hash(_) => Kind::Hash,
    };
    Strategy::new(kind, endpoints)
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
