//! Numbers that one thread writes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number of one thread's own: it adds by a load and a store, which is a tenth of what a locked addition costs. If two
/// threads add at once, what one of them adds may be lost.
#[derive(Debug, Default)]
pub(crate) struct Own(AtomicU64);

impl Own {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Wraps around, as atomics do.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Relaxed);
    }

    /// See [`Self::add`].
    #[inline]
    pub(crate) fn sub(&self, count: u64) {
        self.0.store(self.get().wrapping_sub(count), Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
