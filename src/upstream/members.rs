//! The endpoints of an upstream at one time, and how the balancer sees them. Replaced as a whole when a name's
//! addresses change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::affinity::Token;
use super::endpoint::{Endpoint, InFlight};
use crate::balance::{Candidate, Candidates, Kind, Strategy};
use crate::config::model::Balance;

/// Picks that meet an endpoint which has just been filled up by another worker.
const PICKS_MAX: usize = 4;

/// The endpoints, and the strategy laid out for them.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) endpoints: Box<[Arc<Endpoint>]>,
    strategy: Strategy,
    /// Where sessions stick: the endpoints by what their clients call them.
    homes: HashMap<Token, usize>,
}

/// Which endpoint a request would like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Its key, for `balance = "hash"`.
    pub(crate) hash: u64,
    /// The endpoint that its session began with.
    pub(crate) home: Option<Token>,
    /// One that takes no connection was tried: rather than that, one that is ejected. It may be back long since.
    pub(crate) asks_ejected: bool,
}

impl Members {
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, balance: &Balance) -> Self {
        let kind = match balance {
            Balance::LeastRequests => Kind::LeastRequests,
            Balance::RoundRobin => Kind::RoundRobin,
            Balance::PeakEwma => Kind::PeakEwma,
            Balance::Hash(_) => Kind::Hash,
        };
        let endpoints: Box<[_]> = endpoints.into();
        let strategy = Strategy::new(kind, &View { endpoints: &endpoints, now: Instant::now(), asks_ejected: false });
        let tokens = endpoints.iter().enumerate().filter_map(|(index, endpoint)| Some((endpoint.token?, index)));
        Self { homes: tokens.collect(), endpoints, strategy }
    }

    /// The endpoint that clients call so.
    pub(super) fn home(&self, token: Token) -> Option<&Arc<Endpoint>> {
        self.homes.get(&token).map(|index| &self.endpoints[*index])
    }

    /// A place at an endpoint that can take a request; those with a key in `tried` only when there is no other.
    pub(super) fn claim(&self, wish: Wish, tried: &[u64], now: Instant) -> Option<InFlight> {
        let home = wish.home.and_then(|token| self.home(token)).filter(|home| !tried.contains(&home.key));
        if let Some(place) = home.filter(|home| home.standing.takes(now)).and_then(Endpoint::enter) {
            return Some(place);
        }
        if let [only] = &*self.endpoints {
            // Nothing to choose: neither its share nor whether it was tried matters.
            return if only.standing.takes(now) { only.enter() } else { None };
        }
        let view = View { endpoints: &self.endpoints, now, asks_ejected: false };
        let exclude = self.indices(tried);
        for _ in 0..PICKS_MAX {
            let pick =
                |view: &View<'_>, exclude: &[usize]| self.strategy.pick(view, fastrand::u64(..), wish.hash, exclude);
            let index = match pick(&view, &exclude) {
                None if wish.asks_ejected => pick(&View { asks_ejected: true, ..view }, &exclude),
                picked => picked,
            };
            let index = match index {
                None if !exclude.is_empty() => pick(&view, &[]),
                picked => picked,
            }?;
            if let Some(in_flight) = self.endpoints[index].enter() {
                return Some(in_flight);
            }
        }
        None
    }

    fn indices(&self, tried: &[u64]) -> SmallVec<[usize; 4]> {
        if tried.is_empty() {
            return SmallVec::new();
        }
        let all = self.endpoints.iter().enumerate();
        all.filter(|(_, endpoint)| tried.contains(&endpoint.key)).map(|(index, _)| index).collect()
    }
}

/// The endpoints at one moment.
#[derive(Clone, Copy)]
struct View<'a> {
    endpoints: &'a [Arc<Endpoint>],
    now: Instant,
    /// Those that are ejected can be had, too.
    asks_ejected: bool,
}

impl Candidates for View<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn at(&self, index: usize) -> Candidate {
        self.endpoints[index].candidate(self.asks_ejected, self.now)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroU32;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::shared::Shared;
    use crate::snapshot::Snapshot;
    use crate::upstream::Resolver;
    use crate::upstream::group::Group;
    use crate::upstream::standing::Thresholds;

    /// Of an upstream's lines in the configuration.
    pub(in crate::upstream) fn group_of(lines: &str) -> Arc<Group> {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n\
             [[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n{lines}\n"
        );
        let config = crate::config::parse(&text, Path::new("flagstone.toml"), &|_| None).unwrap().config;
        let snapshot = Snapshot::build(config, None, &Shared::new(1, Resolver::unused(), Runtime::default())).unwrap();
        Arc::clone(&snapshot.groups["app"])
    }

    /// Two endpoints, where sessions stick.
    fn group(extra: &str) -> Arc<Group> {
        group_of(&format!("affinity = \"cookie:sticky\"\nendpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n{extra}"))
    }

    #[test]
    fn a_session_goes_to_its_home_unless_that_was_tried() {
        let (group, now) = (group(""), Instant::now());
        let claimed = |home: &Endpoint, tried: &[u64]| {
            let wish = Wish { home: home.token, ..Wish::default() };
            group.claim(wish, tried, now).map(|place| place.endpoint().key)
        };
        let both = group.endpoints();
        for (home, other) in [(&both[0], &both[1]), (&both[1], &both[0])] {
            for _ in 0..20 {
                assert_eq!(claimed(home, &[]), Some(home.key));
                assert_eq!(claimed(home, &[home.key]), Some(other.key));
            }
        }
    }

    #[test]
    fn an_endpoint_takes_as_many_as_it_may() {
        let (group, now) = (group("max_in_flight = 2\n"), Instant::now());
        let claim = || group.claim(Wish::default(), &[], now);
        let mut places: Vec<_> = (0..4).map(|_| claim().expect("there is room")).collect();
        assert!(claim().is_none());
        assert!(group.endpoints().iter().all(|endpoint| endpoint.in_flight() == 2 && endpoint.enter().is_none()));
        let left = places.pop().map(|place| place.endpoint().key);
        assert_eq!(claim().map(|place| place.endpoint().key), left);
    }

    #[test]
    fn what_one_goes_on_failing_at_is_its_own_matter_while_another_one_is_sound() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // By their places: who succeeds or fails, and whether the failure is its own matter.
        let story = [
            (0, false, false),
            (0, false, false), // the other one has shown nothing yet
            (0, true, false),
            (1, true, false),
            (0, false, false),
            (0, false, true),
            (1, false, false),
            (0, false, false), // nobody is sound any more
            (1, true, false),
            (0, false, true),
        ];
        for (rules, has_own) in [("{ failures = 10 }", true), ("{ failures = 0 }", false)] {
            let group = group(&format!("ejection = {rules}\n"));
            let both = group.endpoints();
            for (step, (place, succeeds, is_own)) in story.into_iter().enumerate() {
                let now = at(step as u64);
                if succeeds {
                    group.succeeded(&both[place], now, now);
                } else {
                    let told = group.failed(&both[place], Duration::ZERO, now);
                    assert_eq!(told, is_own && has_own, "step {step} with ejection = {rules}");
                }
            }
        }
    }

    #[test]
    fn what_passes_its_checks_is_sound_before_it_is_asked_for_more() {
        let (group, now) = (group("[upstream.app.health]\ntcp = true\n"), Instant::now());
        let both = group.endpoints();
        let rules = Thresholds { healthy_after: NonZeroU32::MIN, unhealthy_after: NonZeroU32::MIN };
        let fail = |place: usize| group.failed(&both[place], Duration::ZERO, now);
        assert_eq!([fail(0), fail(0)], [false, false], "nothing is known of the other one");
        both[1].standing.checked(Ok(Duration::ZERO), rules, now);
        assert!(fail(0));
        assert_eq!([fail(1), fail(0)], [false, false], "it passes checks and fails requests");
    }

    #[test]
    fn requests_that_go_down_together_have_one_cause() {
        let group = group("");
        let (endpoint, start) = (&group.endpoints()[0], Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(endpoint.falls(at(0), at(10)));
        assert!(!endpoint.falls(at(5), at(11)), "it was sent before");
        assert!(!endpoint.falls(at(10), at(12)));
        assert!(endpoint.falls(at(13), at(14)));
    }
}
