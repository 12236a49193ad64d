//! Which endpoint of an upstream takes the next request, which it should leave alone for a while, and how many more
//! tries there may be.
//!
//! It is not health checking, connection keeping or name resolution: it is told who is available. Pure: no clock, no
//! task, no randomness of its own, no lock on the way of a request. May import std and smallvec.
//!
//! | strategy | source |
//! |---|---|
//! | [`RoundRobin`] | smooth weighted round robin as in nginx, its sequence laid out beforehand |
//! | [`LeastRequests`] | the power of two random choices: Mitzenmacher, 2001 |
//! | [`PeakEwma`] | Finagle's peak-sensitive moving average, by the same two choices |
//! | [`Hash`] | weighted rendezvous hashing (Thaler and Ravishankar, 1998), laid out in a table |
//!
//! What a pick costs in nanoseconds, by the number of endpoints (`benches/balance.rs`; medians, one shared core of a
//! virtual machine): all available, and with every tenth away.
//!
//! | strategy | 2 | 20 | 200 | 2, one away | 20, two away | 200, 20 away |
//! |---|---|---|---|---|---|---|
//! | round robin | 4 | 4 | 4 | 8 | 9 | 61 |
//! | least requests | 31 | 19 | 18 | 97 | 22 | 21 |
//! | peak EWMA | 37 | 23 | 22 | 95 | 25 | 25 |
//! | hash | 6 | 4 | 6 | 15 | 17 | 81 |
//!
//! Common to all of them: a backup is picked only when no primary can take the request; what is in `exclude` was tried
//! already and is not picked; an endpoint in slow start takes its weight × `ramp_permille` ÷ 1000. The share of an
//! endpoint that cannot be picked goes to all the others by their weights, not to its successor.

mod backoff;
mod candidate;
mod ejection;
mod ewma;
mod hash;
mod random;
mod retry_budget;
mod round_robin;
mod sampler;
mod two_choices;

#[cfg(test)]
mod tests;

pub use backoff::full_jitter;
pub use candidate::{Candidate, Candidates, RAMP_FULL, slow_start_permille};
pub use ejection::{Ejection, EjectionEvent, EjectionMemory, EjectionSettings, News as EjectionNews, epoch};
pub use ewma::Ewma;
pub use hash::{Hash, hash_of};
pub use retry_budget::{Retry, RetryBudget};
pub use round_robin::RoundRobin;
pub use two_choices::{LeastRequests, PeakEwma};

/// A strategy by name, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    RoundRobin,
    LeastRequests,
    PeakEwma,
    Hash,
}

/// A strategy laid out for one membership. Endpoints that come or go, or change weight, backup or key, need a new one.
/// Building a [`Hash`] takes some milliseconds (2 at 20 endpoints, 30 at 200): not on the way of a request.
#[derive(Debug)]
pub enum Strategy {
    RoundRobin(RoundRobin),
    LeastRequests(LeastRequests),
    PeakEwma(PeakEwma),
    Hash(Hash),
}

impl Strategy {
    /// Lays out `kind` for these members; only their `weight`, `backup` and `key` matter.
    #[must_use]
    pub fn new<C: Candidates + ?Sized>(kind: Kind, members: &C) -> Self {
        match kind {
            Kind::RoundRobin => Self::RoundRobin(RoundRobin::new(members)),
            Kind::LeastRequests => Self::LeastRequests(LeastRequests::new(members)),
            Kind::PeakEwma => Self::PeakEwma(PeakEwma::new(members)),
            Kind::Hash => Self::Hash(Hash::new(members)),
        }
    }

    /// The index of the endpoint to use, or `None` when none can take the request. `candidates` are the members it was
    /// built for, in the same order. `seed` is fresh randomness; `hash` is the request's key, well mixed, and matters
    /// for [`Hash`] only; `exclude` holds the few already tried.
    pub fn pick<C: Candidates + ?Sized>(
        &self,
        candidates: &C,
        seed: u64,
        hash: u64,
        exclude: &[usize],
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(strategy) => strategy.pick(candidates, seed, exclude),
            Self::LeastRequests(strategy) => strategy.pick(candidates, seed, exclude),
            Self::PeakEwma(strategy) => strategy.pick(candidates, seed, exclude),
            Self::Hash(strategy) => strategy.pick(candidates, hash, exclude),
        }
    }
}
