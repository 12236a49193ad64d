//! `hash`: the same key goes to the same endpoint, in every process and after every restart.
//!
//! Weighted rendezvous hashing: each endpoint draws a number `u` in (0, 1) from the key and its own, the least
//! `-ln(u) ÷ weight` wins. So an endpoint that leaves takes only its own keys along, they spread over all others by
//! weight, and one that comes takes only what becomes its own. A ring or Maglev's table moves more.
//!
//! To have that in constant time, keys fall into 16,384 slots and the winner of each is laid out beforehand. Only when
//! the winner cannot take the request, or is in slow start, all endpoints draw again for that slot; so an endpoint that
//! is unavailable sends its keys where its removal would. The price: an endpoint's share is off by about √(endpoints ÷
//! 16,384), 3.5 % at 20 endpoints.

use super::candidate::{Candidates, pickable, pickables, primaries};
use super::random::{GOLDEN, mix};

const SLOT_BITS: u32 = 14;
/// A slot without a primary.
const NOBODY: u32 = u32::MAX;

/// What [`super::Strategy::pick`] wants of a request's key, and an endpoint's key of its label: the same in every
/// process and on every machine, now and later, so it must not change. FNV-1a (draft-eastlake-fnv) in 64 bit, mixed. It
/// is no secret: clients who choose their key can choose their endpoint.
#[must_use]
pub fn hash_of(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

#[derive(Debug)]
pub struct Hash {
    winners: Box<[u32]>,
}

impl Hash {
    pub(super) fn new<C: Candidates + ?Sized>(members: &C) -> Self {
        let primaries: Vec<_> = primaries(members).collect();
        let winner_of = |slot| {
            let drawing = primaries.iter().map(|(index, member)| (*index, member.key, u64::from(member.weight.max(1))));
            winner(slot, drawing).unwrap_or(NOBODY)
        };
        Self { winners: (0..1 << SLOT_BITS).map(winner_of).collect() }
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
    let drawing = pickables(candidates, exclude).map(|(index, candidate)| (index, candidate.key, candidate.share()));
    winner(slot, drawing)
}

/// The least `-ln(u) ÷ share` of all that take part. Only ratios matter, so shares may be in any unit.
fn winner<I>(slot: u64, drawing: impl Iterator<Item = (I, u64, u64)>) -> Option<I> {
    let salt = mix(slot.wrapping_mul(GOLDEN));
    let mut best = f64::INFINITY;
    let mut winner = None;
    for (index, key, share) in drawing {
        let unit = ((mix(key ^ salt) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let share = share as f64;
        // -ln(u) is no less than 1 - u, so most are out of the running without a logarithm.
        if 1.0 - unit >= best * share {
            continue;
        }
        let score = -unit.ln() / share;
        if score < best {
            best = score;
            winner = Some(index);
        }
    }
    winner
}
