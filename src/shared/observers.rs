//! What is made of the changes that breakers and endpoints tell of.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Shared, breaker_state};
use crate::breaker::Transition;
use crate::telemetry::events::Event;
use crate::upstream::endpoint::{Change, Observer};

impl Shared {
    /// What a breaker of the upstream `name` calls when its state changes.
    pub(crate) fn breaker_observer(&self, name: &str) -> Box<dyn Fn(Transition) + Send + Sync> {
        let (events, metrics, upstream) = (Arc::clone(&self.events), self.metrics.upstream(name), name.to_owned());
        let last = Mutex::new(0);
        Box::new(move |transition| {
            let to = breaker_state(transition.to);
            let is_news = transition.message().is_some();
            if is_news {
                metrics.count_transition(to);
            }
            // Held to the end, for what is told last is what is taken to hold.
            let mut last = last.lock();
            if transition.sequence < *last {
                // Another worker was faster to tell of what came after, and this lasted for no time at all.
                return;
            }
            *last = transition.sequence;
            metrics.set_breaker_state(to);
            if is_news {
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
                Change::Ejected { reason, error } => {
                    Event::EndpointEjected { upstream, endpoint, reason: reason.to_owned(), error }
                }
                Change::Restored => Event::EndpointRestored { upstream, endpoint },
                Change::Unreachable { error, count } => Event::EndpointUnreachable { upstream, endpoint, error, count },
                Change::Unanswered { error, count } => Event::EndpointUnanswered { upstream, endpoint, error, count },
                Change::BrokeOff { error, count } => Event::EndpointBrokeOff { upstream, endpoint, error, count },
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{Reason, State};
    use crate::runtime::Runtime;
    use crate::upstream::Resolver;

    #[test]
    fn a_change_that_is_told_late_is_no_news() {
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let observe = shared.breaker_observer("app");
        let changes = [(State::Open, 1), (State::Closed, 3), (State::HalfOpen, 2), (State::Open, 4)];
        for (to, sequence) in changes {
            observe(Transition { from: State::Closed, to, reason: Reason::Forced, failure: None, sequence });
        }
        let told = shared.events.recent();
        let told = told.iter().map(|record| match &record.event {
            Event::BreakerChanged { to, .. } => format!("{to:?}"),
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), ["Open", "Closed", "Open"]);
    }

    /// The two are held against each other: by `grep -c` here, by Prometheus there.
    #[test]
    fn the_end_of_a_ramp_is_counted_as_little_as_it_is_told() {
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let observe = shared.breaker_observer("app");
        let changes = [
            (State::Closed, State::Open, Reason::FailureRatio),
            (State::Open, State::HalfOpen, Reason::Elapsed),
            (State::HalfOpen, State::Ramp, Reason::ProbesSucceeded),
            (State::Ramp, State::Closed, Reason::Elapsed),
        ];
        for (sequence, (from, to, reason)) in (1..).zip(changes) {
            observe(Transition { from, to, reason, failure: None, sequence });
        }
        assert_eq!(shared.events.recent().len(), 3);
        let metrics = shared.metrics.encode();
        for to in ["open", "half-open", "closed"] {
            let line = format!("flagstone_breaker_transitions_total{{upstream=\"app\",to=\"{to}\"}} 1\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
    }
}
