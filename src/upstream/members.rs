//! The endpoints of an upstream at one time, and how the balancer sees them. Replaced as a whole when a name's addresses
//! change.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

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
        let strategy = Strategy::new(kind, &View { endpoints: &endpoints, now: Instant::now() });
        Self { endpoints, strategy }
    }

    /// A place at an endpoint that can take a request; those with a key in `tried` only when there is no other.
    pub(super) fn claim(&self, hash: u64, tried: &[u64], now: Instant) -> Option<InFlight> {
        let view = View { endpoints: &self.endpoints, now };
        let exclude = self.indices(tried);
        for _ in 0..PICKS_MAX {
            let pick = |exclude: &[usize]| self.strategy.pick(&view, fastrand::u64(..), hash, exclude);
            let index = match pick(&exclude) {
                None if !exclude.is_empty() => pick(&[]),
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
struct View<'a> {
    endpoints: &'a [Arc<Endpoint>],
    now: Instant,
}

impl Candidates for View<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn at(&self, index: usize) -> Candidate {
        self.endpoints[index].candidate(self.now)
    }
}
