//! The system's coarse clock: cheaper to read than the precise one, and late by no more than one tick of the kernel, a
//! hundredth of a second. For noting when something last moved, where that is noted far more often than asked for.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Coarse time since a moment that is the same for the whole process.
pub(super) fn now() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec as u32)
}

/// One moment by both clocks, from which later coarse times become instants.
pub(super) struct Anchor {
    instant: Instant,
    pub(super) coarse: Duration,
}

impl Anchor {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), coarse: now() }
    }

    pub(super) fn instant(&self, coarse: Duration) -> Instant {
        self.instant + coarse.saturating_sub(self.coarse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_times_become_the_instants_they_tell_of() {
        let anchor = Anchor::now();
        assert_eq!(
            anchor.instant(anchor.coarse + Duration::from_millis(30)),
            anchor.instant + Duration::from_millis(30)
        );
        assert_eq!(anchor.instant(anchor.coarse.saturating_sub(Duration::from_millis(30))), anchor.instant);
    }
}
