//! What a strategy sees of an endpoint, and the slow way to choose by weight among all that can take a request.

use std::time::Duration;

/// `ramp_permille` of an endpoint that takes its whole share.
pub const RAMP_FULL: u16 = 1000;
/// Slow start begins here: at nothing, an endpoint would never warm up.
const RAMP_START: u16 = 100;

/// One endpoint at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1 to 65,535.
    pub weight: u32,
    /// Requests it has now.
    pub in_flight: u32,
    /// Its latency as [`super::Ewma::value`] tells it; 0 = never observed. For `peak_ewma` only.
    pub ewma_ns: u64,
    pub backup: bool,
    /// Healthy, not ejected, below its `max_in_flight`.
    pub available: bool,
    /// A hash of its address, the same in every process. For `hash` only.
    pub key: u64,
    /// Slow start, 1 to [`RAMP_FULL`].
    pub ramp_permille: u16,
}

impl Candidate {
    /// In thousandths of a weight, at least 1.
    pub(super) fn share(&self) -> u64 {
        (u64::from(self.weight) * u64::from(self.ramp_permille.min(RAMP_FULL))).max(1)
    }

    pub(super) fn is_ramping(&self) -> bool {
        self.ramp_permille < RAMP_FULL
    }
}

/// Endpoints in a fixed order. Lets a live group show one endpoint at a time, so that two choices read two only.
pub trait Candidates {
    fn len(&self) -> usize;

    /// The endpoint at `index`, which is below [`Candidates::len`].
    fn at(&self, index: usize) -> Candidate;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Candidates for [Candidate] {
    fn len(&self) -> usize {
        <[Candidate]>::len(self)
    }

    fn at(&self, index: usize) -> Candidate {
        self[index]
    }
}

impl Candidates for Vec<Candidate> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn at(&self, index: usize) -> Candidate {
        self[index]
    }
}

/// How much of its share an endpoint takes `since` it came back, when slow start lasts `slow_start`: a tenth at first,
/// then growing evenly.
#[must_use]
pub fn slow_start_permille(since: Duration, slow_start: Duration) -> u16 {
    if since >= slow_start {
        return RAMP_FULL;
    }
    let done = since.as_secs_f64() / slow_start.as_secs_f64();
    RAMP_START + (f64::from(RAMP_FULL - RAMP_START) * done) as u16
}

/// The members that are no backups, with their indices.
pub(super) fn primaries<C: Candidates + ?Sized>(members: &C) -> impl Iterator<Item = (u32, Candidate)> {
    (0..members.len()).map(|index| (index as u32, members.at(index))).filter(|(_, member)| !member.backup)
}

/// The primaries' indices and weights.
pub(super) fn weights<C: Candidates + ?Sized>(members: &C) -> Vec<(u32, u64)> {
    primaries(members).map(|(index, member)| (index, u64::from(member.weight.max(1)))).collect()
}

/// The candidate at `index` if it can be picked. An index beyond the members is none.
pub(super) fn pickable<C: Candidates + ?Sized>(candidates: &C, index: usize, exclude: &[usize]) -> Option<Candidate> {
    if index >= candidates.len() || exclude.contains(&index) {
        return None;
    }
    Some(candidates.at(index)).filter(|candidate| candidate.available)
}

/// All primaries that can be picked, or all such backups when there is no primary. Looks at every endpoint.
pub(super) fn pickables<C: Candidates + ?Sized>(
    candidates: &C,
    exclude: &[usize],
) -> impl Iterator<Item = (usize, Candidate)> {
    let all = move || {
        (0..candidates.len())
            .filter_map(move |index| pickable(candidates, index, exclude).map(|candidate| (index, candidate)))
    };
    let backups = all().all(|(_, candidate)| candidate.backup);
    all().filter(move |(_, candidate)| candidate.backup == backups)
}

/// The pickable endpoint in which `fraction` (of 2⁶⁴) of all their shares ends, leaving out `skip`.
pub(super) fn by_share<C: Candidates + ?Sized>(
    candidates: &C,
    exclude: &[usize],
    skip: Option<usize>,
    fraction: u64,
) -> Option<(usize, Candidate)> {
    let total = others(candidates, exclude, skip).map(|(_, candidate)| candidate.share()).sum::<u64>();
    let mut point = ((u128::from(fraction) * u128::from(total)) >> 64) as u64;
    let found = others(candidates, exclude, skip).find(|(_, candidate)| {
        let share = candidate.share();
        let here = point < share;
        point = point.saturating_sub(share);
        here
    });
    // A live group may have changed since the shares were added up.
    found.or_else(|| others(candidates, exclude, skip).next())
}

fn others<C: Candidates + ?Sized>(
    candidates: &C,
    exclude: &[usize],
    skip: Option<usize>,
) -> impl Iterator<Item = (usize, Candidate)> {
    pickables(candidates, exclude).filter(move |(index, _)| Some(*index) != skip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_grows_from_a_tenth_to_all() {
        let at = |ms| slow_start_permille(Duration::from_millis(ms), Duration::from_secs(10));
        assert_eq!([at(0), at(5_000), at(9_999), at(10_000)], [100, 550, 999, 1000]);
        assert_eq!(slow_start_permille(Duration::ZERO, Duration::ZERO), 1000);
    }
}
