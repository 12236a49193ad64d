//! Draws an index by weight in constant time: the alias method of Walker, laid out as Vose does (1991).

use super::candidate::{Candidates, weights};

/// The primaries of a membership, to be drawn by weight. Availability is not its matter.
#[derive(Debug)]
pub(super) struct Sampler {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// This slot's own member has it for so many of 2³², the alias has the rest.
    own: u32,
    index: u32,
    alias: u32,
}

impl Sampler {
    pub(super) fn new<C: Candidates + ?Sized>(members: &C) -> Self {
        Self { slots: slots(&weights(members)) }
    }

    /// `None` when there is no primary.
    pub(super) fn draw(&self, bits: u64) -> Option<usize> {
        let (high, low) = (bits >> 32, bits as u32);
        let at = ((high * self.slots.len() as u64) >> 32) as usize;
        let slot = self.slots.get(at)?;
        // `own` is at most 2³² - 1, so a full slot names itself as its alias.
        Some(if low < slot.own { slot.index } else { slot.alias } as usize)
    }
}

fn slots(members: &[(u32, u64)]) -> Box<[Slot]> {
    let count = members.len() as u64;
    let total: u64 = members.iter().map(|(_, weight)| weight).sum();
    let mut slots: Vec<_> = members.iter().map(|&(index, _)| Slot { own: u32::MAX, index, alias: index }).collect();
    // Scaled by their number, a slot of average weight holds `total`.
    let mut scaled: Vec<_> = members.iter().map(|(_, weight)| weight * count).collect();
    let (mut small, mut large): (Vec<_>, Vec<_>) = (0..members.len()).partition(|&slot| scaled[slot] < total);
    while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
        slots[poor].own = ((scaled[poor] << 32) / total) as u32;
        slots[poor].alias = slots[rich].index;
        scaled[rich] -= total - scaled[poor];
        if scaled[rich] < total {
            large.pop();
            small.push(rich);
        }
    }
    slots.into()
}
