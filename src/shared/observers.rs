//! What is made of the changes that breakers and endpoints tell of.

use std::sync::Arc;

use super::{Shared, breaker_state};
use crate::breaker::Transition;
use crate::telemetry::events::Event;
use crate::upstream::endpoint::{Change, Observer};

impl Shared {
    /// What a breaker of the upstream `name` calls when its state changes.
    pub(crate) fn breaker_observer(&self, name: &str) -> Box<dyn Fn(Transition) + Send + Sync> {
        let (events, metrics, upstream) = (Arc::clone(&self.events), self.metrics.upstream(name), name.to_owned());
        Box::new(move |transition| {
            let to = breaker_state(transition.to);
            metrics.transition(to);
            if transition.message().is_some() {
                let reason = transition.reason.as_str().to_owned();
                let failure = transition.failure.map(|cause| cause.to_string()).unwrap_or_default();
                events.emit(Event::BreakerChanged { upstream: upstream.clone(), to, reason, failure });
            }
        })
    }

    /// What the endpoints of the upstream `name` call when they are ejected, come back or fail requests.
    pub(crate) fn endpoint_observer(&self, name: &str) -> Observer {
        let (events, upstream) = (Arc::clone(&self.events), name.to_owned());
        Arc::new(move |endpoint, change| {
            let (upstream, endpoint) = (upstream.clone(), endpoint.to_owned());
            events.emit(match change {
                Change::Ejected { reason } => Event::EndpointEjected { upstream, endpoint, reason: reason.to_owned() },
                Change::Restored => Event::EndpointRestored { upstream, endpoint },
                Change::Unreachable { error, count } => Event::EndpointUnreachable { upstream, endpoint, error, count },
                Change::Unanswered { error, count } => Event::EndpointUnanswered { upstream, endpoint, error, count },
                Change::BrokeOff { error, count } => Event::EndpointBrokeOff { upstream, endpoint, error, count },
            });
        })
    }
}
