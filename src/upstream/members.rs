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
