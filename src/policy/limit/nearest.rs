//! Which of many limits a client is told of.

use super::Decision;
use super::gcra::Gcra;
use super::headers::TOLD_MAX;
use super::several::Stands;

/// The [`TOLD_MAX`] limits that are nearest to refusing, in the order that they came in; of equals the first.
///
/// Of a hundred limits most are passed over: whether one is nearer than those that are in is seen without the division
/// that says how much it has left.
pub(super) struct Nearest {
    stands: Stands,
    /// How far the one in here is that would go first, once there is no more room.
    distance_max: u64,
}

impl Nearest {
    pub(super) fn new() -> Self {
        Self { stands: Stands::new(), distance_max: u64::MAX }
    }

    /// One that lets a request through; `used` is what is owed after it.
    #[inline]
    pub(super) fn consider_allowed(&mut self, index: usize, gcra: &Gcra, used: u64) {
        if gcra.has_less_left(used, self.distance_max.saturating_sub(1)) {
            self.insert(index, gcra.allowed(used));
        }
    }

    pub(super) fn consider(&mut self, index: usize, decision: &Decision) {
        if distance(decision) < self.distance_max {
            self.insert(index, *decision);
        }
    }

    pub(super) fn into_stands(self) -> Stands {
        self.stands
    }

    #[inline]
    fn insert(&mut self, index: usize, decision: Decision) {
        if self.stands.len() == TOLD_MAX {
            self.stands.remove(self.last());
        }
        self.stands.push((index, decision));
        if self.stands.len() == TOLD_MAX {
            self.distance_max = distance(&self.stands[self.last()].1);
        }
    }

    /// The last one of those that are the farthest.
    fn last(&self) -> usize {
        let places = 0..self.stands.len();
        places.max_by_key(|&place| distance(&self.stands[place].1)).expect("there is no more room")
    }
}

/// From refusing, which one does that refuses.
fn distance(decision: &Decision) -> u64 {
    if decision.allowed { 1 + u64::from(decision.remaining) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn decision(allowed: bool, remaining: u32) -> Decision {
        let none = Duration::ZERO;
        Decision { allowed, remaining, reset: none, next: none, wait: none }
    }

    proptest! {
        #[test]
        fn those_that_refuse_come_before_those_with_the_least_left(
            remaining in proptest::collection::vec(proptest::option::of(0..20u32), 0..60),
        ) {
            let decisions: Vec<_> = remaining.iter().map(|left| decision(left.is_some(), left.unwrap_or(0))).collect();
            let mut nearest = Nearest::new();
            decisions.iter().enumerate().for_each(|(index, decision)| nearest.consider(index, decision));

            // None is less than any number.
            let mut expected: Vec<_> = remaining.iter().copied().enumerate().collect();
            expected.sort_by_key(|&(_, remaining)| remaining);
            expected.truncate(TOLD_MAX);
            expected.sort_unstable();
            let expected: Vec<_> = expected.iter().map(|&(index, _)| (index, decisions[index])).collect();
            prop_assert_eq!(nearest.into_stands().to_vec(), expected);
        }
    }
}
