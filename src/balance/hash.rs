//! `hash`: the same key goes to the same endpoint, in every process and after every restart.
//!
//! Weighted rendezvous hashing: each endpoint draws a number `u` in (0, 1) from the key and its own, the least
//! `-ln(u) ÷ weight` wins. So an endpoint that leaves takes only its own keys along, they spread over all others by weight,
//! and one that comes takes only what becomes its own. A ring or Maglev's table moves more.
//!
//! To have that in constant time, keys fall into 16,384 slots and the winner of each is laid out beforehand. Only when the
//! winner cannot take the request, or is in slow start, all endpoints draw again for that slot; so an endpoint that is
//! unavailable sends its keys where its removal would. The price: an endpoint's share is off by about
//! √(endpoints ÷ 16,384), 3.5 % at 20 endpoints.

use super::candidate::{Candidate, Candidates, pickable, pickables};
use super::random::{GOLDEN, mix};

const SLOT_BITS: u32 = 14;
/// A slot without a primary.
const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
pub struct Hash {
    winners: Box<[u32]>,
}

impl Hash {
    pub(super) fn new<C: Candidates + ?Sized>(members: &C) -> Self {
        let primaries: Vec<_> = (0..members.len())
            .map(|index| (index as u32, members.at(index)))
            .filter(|(_, member)| !member.backup)
            .collect();
        let even = primaries.windows(2).all(|pair| pair[0].1.weight == pair[1].1.weight);
        let winner = |slot| {
            let draw = |member: &Candidate| draw(slot, member.key);
            if even {
                // Without weights the least -ln(u) is the greatest u.
                primaries.iter().rev().max_by_key(|(_, member)| draw(member))
            } else {
                primaries.iter().min_by(|(_, a), (_, b)| {
                    score(slot, a, u64::from(a.weight)).total_cmp(&score(slot, b, u64::from(b.weight)))
                })
            }
        };
        let winners = (0..1 << SLOT_BITS).map(|slot| winner(slot).map_or(NOBODY, |(index, _)| *index));
        Self { winners: winners.collect() }
    }

    pub(super) fn pick<C: Candidates + ?Sized>(&self, candidates: &C, hash: u64, exclude: &[usize]) -> Option<usize> {
        // Mixed once more: the caller's hash may be a mere number.
        let slot = mix(hash.wrapping_add(GOLDEN)) >> (64 - SLOT_BITS);
        let index = self.winners[slot as usize] as usize;
        match pickable(candidates, index, exclude) {
            Some(winner) if !winner.is_ramping() => Some(index),
            _ => draw_again(candidates, slot, exclude),
        }
    }
}

#[cold]
fn draw_again<C: Candidates + ?Sized>(candidates: &C, slot: u64, exclude: &[usize]) -> Option<usize> {
    pickables(candidates, exclude)
        .map(|(index, candidate)| (index, score(slot, &candidate, candidate.share())))
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(index, _)| index)
}

fn draw(slot: u64, key: u64) -> u64 {
    mix(key ^ mix(slot.wrapping_mul(GOLDEN)))
}

/// The least wins. Only ratios matter, so `share` may be in any unit.
fn score(slot: u64, member: &Candidate, share: u64) -> f64 {
    let unit = ((draw(slot, member.key) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -unit.ln() / share.max(1) as f64
}
