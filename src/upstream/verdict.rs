//! What `/api/health` says of one check and of the whole.

use std::time::{Duration, Instant};

use super::group::Group;
use super::probe::Probe;
use super::standing::Health;
use crate::breaker::State;
use crate::telemetry::metrics::HealthStatus;

/// One upstream or probe, or a figure of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub name: String,
    pub critical: bool,
    /// Its fallback takes what it does not.
    pub is_covered: bool,
    /// `None` while nobody can tell yet.
    pub is_healthy: Option<bool>,
    /// Nothing but the time that has passed speaks for it: its breaker waits for a request to show how it is. It is to
    /// get requests, for without them that never comes; but that it is well again is not to be told yet.
    pub is_on_trial: bool,
    pub latency: Option<Duration>,
    pub error: Option<String>,
    /// Of an upstream.
    pub endpoints: Vec<EndpointVerdict>,
    /// Of the machine: how much is in use.
    pub percent: Option<f64>,
}

/// One endpoint of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointVerdict {
    pub label: String,
    pub is_healthy: Option<bool>,
    pub latency: Option<Duration>,
    pub error: Option<String>,
}

impl Verdict {
    /// An upstream is down when no endpoint can take a request, or its breaker keeps everybody out. In the latter case
    /// it has a `fallback`, perhaps.
    pub(crate) fn of_group(group: &Group, fallback: Option<&Group>, now: Instant) -> Self {
        let endpoints: Vec<_> = group.endpoints().iter().map(|endpoint| EndpointVerdict::of(endpoint, now)).collect();
        let breaker = group.breaker.as_ref().filter(|breaker| !breaker.settings().shadow);
        let breaker_state = breaker.map(|breaker| breaker.view(now).state);
        let is_open = breaker_state == Some(State::Open);
        let any = |wanted: Option<bool>| endpoints.iter().any(|endpoint| endpoint.is_healthy == wanted);
        let is_healthy = match () {
            () if is_open => Some(false),
            () if any(Some(true)) => Some(true),
            () if any(None) || group.has_unknown_names() => None,
            () => Some(false),
        };
        let cover = fallback.filter(|_| is_open).map(|fallback| Self::of_group(fallback, None, now));
        let cover = cover.filter(|cover| !cover.is_down());
        let error = match (is_healthy, &cover) {
            (Some(false), Some(cover)) => {
                Some(format!("the circuit breaker is open: {} takes the requests", cover.name))
            }
            (Some(false), None) if is_open => Some("the circuit breaker is open".to_owned()),
            (Some(false), None) if endpoints.is_empty() => Some("no name has an address".to_owned()),
            (Some(false), None) => endpoints.iter().find_map(|endpoint| endpoint.error.clone()),
            _ => None,
        };
        let latency = endpoints.iter().filter_map(|endpoint| endpoint.latency).min();
        Self {
            name: group.name.to_string(),
            critical: group.settings.critical,
            is_covered: cover.is_some(),
            is_healthy,
            is_on_trial: breaker_state == Some(State::HalfOpen),
            latency,
            error,
            endpoints,
            percent: None,
        }
    }

    pub(crate) fn of_probe(name: &str, probe: &Probe) -> Self {
        let last = probe.last();
        Self {
            name: name.to_owned(),
            critical: probe.settings.critical,
            is_covered: false,
            is_healthy: last.as_ref().map(Result::is_ok),
            is_on_trial: false,
            latency: last.as_ref().and_then(|last| last.as_ref().ok().copied()),
            error: last.and_then(Result::err),
            endpoints: Vec::new(),
            percent: None,
        }
    }

    fn is_down(&self) -> bool {
        self.is_healthy == Some(false)
    }

    /// Down, it takes the whole along.
    fn is_vital(&self) -> bool {
        self.critical && !self.is_covered
    }
}

impl EndpointVerdict {
    fn of(endpoint: &super::endpoint::Endpoint, now: Instant) -> Self {
        let standing = &endpoint.standing;
        let (latency, error) = standing.last_check();
        let error = match () {
            () if endpoint.is_looked_for() => Some("refuses connections".to_owned()),
            () if standing.health() == Health::Unhealthy => error,
            () if !standing.takes(now) && standing.health() != Health::Unknown => {
                Some("ejected after failures in a row".to_owned())
            }
            () => None,
        };
        let is_healthy = match standing.health() {
            Health::Unknown => None,
            _ => Some(standing.takes(now) && !endpoint.is_looked_for()),
        };
        Self { label: endpoint.label.to_string(), is_healthy, latency, error }
    }
}

/// The whole: unhealthy when a critical check is down that nobody stands in for, degraded when another is. What is not
/// known yet does not count.
pub fn overall(verdicts: &[Verdict]) -> HealthStatus {
    overall_of(verdicts.iter().filter(|verdict| verdict.is_down()).map(Verdict::is_vital))
}

/// By whether each that is down takes the whole along.
fn overall_of(down: impl Iterator<Item = bool>) -> HealthStatus {
    down.fold(HealthStatus::Healthy, |status, vital| match (status, vital) {
        (HealthStatus::Unhealthy, _) | (_, true) => HealthStatus::Unhealthy,
        (_, false) => HealthStatus::Degraded,
    })
}

/// The overall status as it was last told, and what was down then.
#[derive(Debug)]
pub(crate) struct LastTold {
    status: HealthStatus,
    down: Vec<Down>,
}

/// A check that is down.
#[derive(Clone, Debug)]
struct Down {
    name: String,
    vital: bool,
}

impl Default for LastTold {
    fn default() -> Self {
        Self { status: HealthStatus::Healthy, down: Vec::new() }
    }
}

impl LastTold {
    /// What is to be told now: from, to and the check whose change it was.
    pub(crate) fn news(&mut self, verdicts: &[Verdict]) -> Option<(HealthStatus, HealthStatus, String)> {
        let down = verdicts.iter().filter_map(|verdict| match () {
            () if verdict.is_down() => Some(Down { name: verdict.name.clone(), vital: verdict.is_vital() }),
            // What was told of it stands.
            () if verdict.is_on_trial => self.down.iter().find(|down| down.name == verdict.name).cloned(),
            () => None,
        });
        let down: Vec<Down> = down.collect();
        let status = overall_of(down.iter().map(|down| down.vital));
        let worsens = status as u8 > self.status as u8;
        // Only a critical check makes it unhealthy, or ends that.
        let critical_first = (if worsens { status } else { self.status }) == HealthStatus::Unhealthy;
        let went = first_missing(&down, &self.down, critical_first);
        let came = first_missing(&self.down, &down, critical_first);
        let check = if worsens { went.or(came) } else { came.or(went) };
        let check = check.map(|check| check.name.clone()).unwrap_or_default();
        self.down = down;
        let before = std::mem::replace(&mut self.status, status);
        (before != status).then_some((before, status, check))
    }
}

/// Of those that are not among `others`: a critical one, where that is what counts and there is one, else the first.
fn first_missing<'d>(checks: &'d [Down], others: &[Down], critical_first: bool) -> Option<&'d Down> {
    let missing = || checks.iter().filter(|check| !others.iter().any(|other| other.name == check.name));
    missing().find(|check| check.vital || !critical_first).or_else(|| missing().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, critical: bool, is_healthy: Option<bool>) -> Verdict {
        let name = name.to_owned();
        let (latency, error, endpoints, percent) = (None, None, Vec::new(), None);
        Verdict {
            name,
            critical,
            is_covered: false,
            is_healthy,
            is_on_trial: false,
            latency,
            error,
            endpoints,
            percent,
        }
    }

    #[test]
    fn a_critical_check_makes_it_unhealthy_and_another_degraded() {
        let cases = [
            (vec![], HealthStatus::Healthy),
            (vec![check("a", true, Some(true)), check("b", true, None)], HealthStatus::Healthy),
            (vec![check("a", true, Some(true)), check("b", false, Some(false))], HealthStatus::Degraded),
            (vec![check("a", false, Some(false)), check("b", true, Some(false))], HealthStatus::Unhealthy),
        ];
        for (verdicts, expected) in cases {
            assert_eq!(overall(&verdicts), expected, "{verdicts:?}");
        }
    }

    #[test]
    fn news_names_the_check_that_changed() {
        let mut told = LastTold::default();
        let both = |a, b| [check("a", true, Some(a)), check("b", false, Some(b))];
        assert_eq!(told.news(&both(true, true)), None);
        let degraded = Some((HealthStatus::Healthy, HealthStatus::Degraded, "b".to_owned()));
        assert_eq!(told.news(&both(true, false)), degraded);
        let unhealthy = Some((HealthStatus::Degraded, HealthStatus::Unhealthy, "a".to_owned()));
        assert_eq!(told.news(&both(false, false)), unhealthy);
        assert_eq!(told.news(&both(false, true)), None);
        let healthy = Some((HealthStatus::Unhealthy, HealthStatus::Healthy, "a".to_owned()));
        assert_eq!(told.news(&both(true, true)), healthy);
    }

    #[test]
    fn that_one_is_well_again_is_not_told_while_it_is_on_trial() {
        let mut told = LastTold::default();
        let on_trial = || Verdict { is_on_trial: true, ..check("a", true, Some(true)) };
        assert_eq!(told.news(&[on_trial()]), None);
        assert!(told.news(&[check("a", true, Some(false))]).is_some());
        assert_eq!(told.news(&[on_trial()]), None);
        assert_eq!(told.news(&[check("a", true, Some(false))]), None);
        assert_eq!(told.news(&[on_trial()]), None);
        let healthy = (HealthStatus::Unhealthy, HealthStatus::Healthy, "a".to_owned());
        assert_eq!(told.news(&[check("a", true, Some(true))]), Some(healthy));
    }

    #[test]
    fn what_makes_it_unhealthy_or_ends_that_is_a_critical_check() {
        let mut told = LastTold::default();
        let both = |a, z| [check("aa", false, Some(a)), check("zz", true, Some(z))];
        let news = |before, after, name: &str| Some((before, after, name.to_owned()));
        let (healthy, degraded, unhealthy) = (HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy);
        assert_eq!(told.news(&both(false, false)), news(healthy, unhealthy, "zz"));
        assert_eq!(told.news(&both(true, true)), news(unhealthy, healthy, "zz"));
        assert_eq!(told.news(&both(false, true)), news(healthy, degraded, "aa"));
        assert_eq!(told.news(&both(true, false)), news(degraded, unhealthy, "zz"));
        assert_eq!(told.news(&both(false, true)), news(unhealthy, degraded, "zz"));
    }
}
