//! `round_robin`: smooth and weighted. Weights 5, 1, 1 give a a b a c a a, as in nginx, but the sequence is laid out
//! beforehand, so that taking the next place is one atomic addition.
//!
//! When the place belongs to an endpoint that cannot take the request, the place goes round among all others by weight.
//! To go to the next in the sequence would give an absent endpoint's whole share to its successor.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::candidate::{Candidates, by_share, pickable, weights};
use super::random::{GOLDEN, chance};

/// Longest sequence. Weights whose sum is higher are scaled down to it, none below one place.
const PLACES_MAX: u64 = 4096;

#[derive(Debug)]
pub struct RoundRobin {
    sequence: Box<[u32]>,
    place: AtomicU64,
    /// Places given away so far.
    detours: AtomicU64,
}

impl RoundRobin {
    pub(super) fn new<C: Candidates + ?Sized>(members: &C) -> Self {
        Self { sequence: smooth(&places(&weights(members))), place: AtomicU64::new(0), detours: AtomicU64::new(0) }
    }

    pub(super) fn pick<C: Candidates + ?Sized>(&self, candidates: &C, seed: u64, exclude: &[usize]) -> Option<usize> {
        if !self.sequence.is_empty() {
            let place = self.place.fetch_add(1, Relaxed) % self.sequence.len() as u64;
            let index = self.sequence[place as usize] as usize;
            if let Some(candidate) = pickable(candidates, index, exclude)
                && (!candidate.is_ramping() || chance(seed, candidate.ramp_permille))
            {
                return Some(index);
            }
        }
        self.detour(candidates, exclude)
    }

    /// The multiples of the golden ratio visit the shares evenly, whoever takes part, and with no state but a count.
    fn detour<C: Candidates + ?Sized>(&self, candidates: &C, exclude: &[usize]) -> Option<usize> {
        let detour = self.detours.fetch_add(1, Relaxed);
        by_share(candidates, exclude, None, detour.wrapping_mul(GOLDEN)).map(|(index, _)| index)
    }
}

/// Weights as numbers of places: without their common divisor, and scaled down where there are too many.
fn places(members: &[(u32, u64)]) -> Vec<(u32, i64)> {
    let divisor = members.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight)).max(1);
    let total: u64 = members.iter().map(|(_, weight)| weight / divisor).sum();
    let scaled = |weight: u64| match weight / divisor {
        weight if total <= PLACES_MAX => weight,
        weight => ((weight * PLACES_MAX + total / 2) / total).max(1),
    };
    members.iter().map(|&(index, weight)| (index, scaled(weight) as i64)).collect()
}

/// At each place everyone earns its weight; the richest takes the place and pays the sum of all.
fn smooth(members: &[(u32, i64)]) -> Box<[u32]> {
    let total: i64 = members.iter().map(|(_, weight)| weight).sum();
    let mut earned = vec![0_i64; members.len()];
    let mut next = |_| {
        let mut richest = 0;
        for (slot, (_, weight)) in members.iter().enumerate() {
            earned[slot] += weight;
            if earned[slot] > earned[richest] {
                richest = slot;
            }
        }
        earned[richest] -= total;
        members[richest].0
    };
    (0..total).map(&mut next).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_five_one_one_are_spread_smoothly() {
        assert_eq!(*smooth(&[(0, 5), (1, 1), (2, 1)]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_one_place_each() {
        let members: Vec<_> = (0..200).map(|index| (index, 65_535)).collect();
        assert_eq!(smooth(&places(&members)).len(), 200);
    }

    #[test]
    fn heavy_weights_are_scaled_and_none_is_lost() {
        let places = places(&[(0, 65_535), (1, 65_534), (2, 1)]);
        assert_eq!(places, [(0, 2048), (1, 2048), (2, 1)]);
    }
}
