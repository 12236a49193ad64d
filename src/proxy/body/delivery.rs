//! How the client's delivery of its body goes, for those who wait for the answer.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::coarse_clock;

/// How far a request body has come, and what went wrong with it on the client's side.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// [`FLOWING`], [`WAITING`], or from [`FAILED`] on the place in [`Fault::ALL`].
    state: AtomicU8,
    /// When the upstream's connection last took some of it, or its end: nanoseconds of [`coarse_clock`].
    moved_ns: AtomicU64,
}

const FLOWING: u8 = 0;
const WAITING: u8 = 1;
const FAILED: u8 = 2;

/// How a client failed to deliver its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Timeout,
    TooLarge,
    /// Its framing is malformed.
    Malformed,
    /// The client has closed its side in the middle of it, and may read on.
    Short,
    /// The client went away in the middle of it.
    Left,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Timeout, Self::TooLarge, Self::Malformed, Self::Short, Self::Left];
}

impl Delivery {
    /// What went wrong, if something did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let place = self.state.load(Relaxed).checked_sub(FAILED)?;
        Some(Fault::ALL[usize::from(place)])
    }

    /// Whether the next move is the client's.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING
    }

    /// Of `limit`, how much is left to an upstream that has said nothing for that long: its time counts from the last
    /// moment that it took some of the body, and stands still while the next move is the client's.
    pub(crate) fn leaves(&self, limit: Duration) -> Duration {
        if self.waits_for_client() { limit } else { limit.saturating_sub(self.rests_for()) }
    }

    /// How long ago the upstream's connection took some of the body, or its end, to a hundredth of a second.
    pub(crate) fn rests_for(&self) -> Duration {
        coarse_clock::now().saturating_sub(Duration::from_nanos(self.moved_ns.load(Relaxed)))
    }

    /// The upstream's connection takes some of it, or its end.
    pub(super) fn moves(&self) {
        self.moved_ns.store(u64::try_from(coarse_clock::now().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.state.store(FLOWING, Relaxed);
    }

    pub(super) fn waits(&self) {
        self.state.store(WAITING, Relaxed);
    }

    pub(super) fn fails(&self, fault: Fault) {
        self.state.store(FAILED + fault as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_flows_waits_and_fails_in_the_way_that_it_was_told() {
        let delivery = Delivery::default();
        assert_eq!((delivery.waits_for_client(), delivery.fault()), (false, None));
        delivery.waits();
        assert_eq!((delivery.waits_for_client(), delivery.fault()), (true, None));
        delivery.moves();
        assert_eq!((delivery.waits_for_client(), delivery.fault()), (false, None));
        for fault in Fault::ALL {
            delivery.fails(fault);
            assert_eq!((delivery.waits_for_client(), delivery.fault()), (false, Some(fault)));
        }
    }
}
