//! `least_requests` and `peak_ewma`: two endpoints drawn by weight, the one with the lesser load wins. Equal loads go
//! to the first drawn, so that an idle group is used exactly by weight.
//!
//! Not the least of all: to look at every endpoint costs more and herds all workers onto the same one.

use super::candidate::{Candidate, Candidates, by_share, pickable};
use super::random::{SplitMix, chance};
use super::sampler::Sampler;

/// Draws before all endpoints are looked at. With half of them away, one request in 28 comes so far.
const DRAWS: u32 = 8;
/// The load of an endpoint that was never observed and is busy: it gets one request, then the others' turn it is until
/// the first answer tells more (Finagle's penalty).
const UNKNOWN_BUSY_NS: f64 = 1e15;

/// Requests in flight by weight.
#[derive(Debug)]
pub struct LeastRequests {
    sampler: Sampler,
}

/// Latency × load: `ewma × (1 + in_flight ÷ weight)`. At weight 1 this is Finagle's `ewma × (in_flight + 1)`; an idle
/// endpoint's weight decides how often it is drawn, not how it compares, or lesser ones would starve.
#[derive(Debug)]
pub struct PeakEwma {
    sampler: Sampler,
}

impl LeastRequests {
    pub(super) fn new<C: Candidates + ?Sized>(members: &C) -> Self {
        Self { sampler: Sampler::new(members) }
    }

    pub(super) fn pick<C: Candidates + ?Sized>(&self, candidates: &C, seed: u64, exclude: &[usize]) -> Option<usize> {
        // a ÷ share(a) <= b ÷ share(b), without dividing
        let first_wins =
            |a: &Candidate, b: &Candidate| u64::from(a.in_flight) * b.share() <= u64::from(b.in_flight) * a.share();
        pick(&self.sampler, candidates, seed, exclude, first_wins)
    }
}

impl PeakEwma {
    pub(super) fn new<C: Candidates + ?Sized>(members: &C) -> Self {
        Self { sampler: Sampler::new(members) }
    }

    pub(super) fn pick<C: Candidates + ?Sized>(&self, candidates: &C, seed: u64, exclude: &[usize]) -> Option<usize> {
        let first_wins = |a: &Candidate, b: &Candidate| ewma_load(a) <= ewma_load(b);
        pick(&self.sampler, candidates, seed, exclude, first_wins)
    }
}

fn ewma_load(candidate: &Candidate) -> f64 {
    let queue = f64::from(candidate.in_flight) * 1000.0 / candidate.share() as f64;
    if candidate.ewma_ns == 0 && candidate.in_flight > 0 {
        return UNKNOWN_BUSY_NS * (1.0 + queue);
    }
    candidate.ewma_ns as f64 * (1.0 + queue)
}

fn pick<C: Candidates + ?Sized>(
    sampler: &Sampler,
    candidates: &C,
    seed: u64,
    exclude: &[usize],
    first_wins: impl Fn(&Candidate, &Candidate) -> bool,
) -> Option<usize> {
    let mut random = SplitMix(seed);
    let mut first: Option<(usize, Candidate)> = None;
    for _ in 0..DRAWS {
        let Some(drawn) = draw(sampler, candidates, &mut random, exclude) else {
            continue;
        };
        match &first {
            None => first = Some(drawn),
            Some(first) if first.0 == drawn.0 => (),
            Some(first) => {
                return Some(if first_wins(&first.1, &drawn.1) { first.0 } else { drawn.0 });
            }
        }
    }
    scan(candidates, &mut random, exclude, first, first_wins)
}

fn draw<C: Candidates + ?Sized>(
    sampler: &Sampler,
    candidates: &C,
    random: &mut SplitMix,
    exclude: &[usize],
) -> Option<(usize, Candidate)> {
    let index = sampler.draw(random.next())?;
    let candidate = pickable(candidates, index, exclude)?;
    let drawn = !candidate.is_ramping() || chance(random.next(), candidate.ramp_permille);
    drawn.then_some((index, candidate))
}

/// Few can be picked, or one outweighs all: look at everyone.
#[cold]
fn scan<C: Candidates + ?Sized>(
    candidates: &C,
    random: &mut SplitMix,
    exclude: &[usize],
    first: Option<(usize, Candidate)>,
    first_wins: impl Fn(&Candidate, &Candidate) -> bool,
) -> Option<usize> {
    let first = first.or_else(|| by_share(candidates, exclude, None, random.next()))?;
    let Some(second) = by_share(candidates, exclude, Some(first.0), random.next()) else {
        return Some(first.0);
    };
    Some(if first_wins(&first.1, &second.1) { first.0 } else { second.0 })
}
