//! The counters of limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

/// One limit.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LimitMetrics {
    allowed: AtomicU64,
    limited: AtomicU64,
    queued: AtomicU64,
    /// Over the limit, let through because of `shadow`.
    shadowed: AtomicU64,
    /// 0 = it is counted here alone; 1 and 2 = its shared store is out of reach, can be asked.
    store: AtomicU8,
    /// What else counts requests within the limit.
    together: Mutex<Vec<Arc<Passed>>>,
}

/// Counts for several limits at once: what passes one of them passes all.
#[derive(Debug)]
pub struct PassedAll {
    passed: Arc<Passed>,
    limits: Box<[Arc<LimitMetrics>]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Passed(AtomicU64);

impl PassedAll {
    pub fn new(limits: impl IntoIterator<Item = Arc<LimitMetrics>>) -> Self {
        let all = Self { passed: Arc::default(), limits: limits.into_iter().collect() };
        all.limits.iter().for_each(|limit| limit.together().push(Arc::clone(&all.passed)));
        all
    }

    /// Counts one request within every limit.
    #[inline]
    pub fn count(&self) {
        self.passed.0.fetch_add(1, Relaxed);
    }
}

/// What was counted stays counted.
impl Drop for PassedAll {
    fn drop(&mut self) {
        for limit in &self.limits {
            let mut together = limit.together();
            if let Some(place) = together.iter().position(|passed| Arc::ptr_eq(passed, &self.passed)) {
                together.swap_remove(place);
                limit.allowed.fetch_add(self.passed.0.load(Relaxed), Relaxed);
            }
        }
    }
}

impl LimitMetrics {
    pub fn allowed(&self) {
        self.allowed.fetch_add(1, Relaxed);
    }

    /// Counts a request over the limit; `enforced` is false where the limit only watches.
    pub fn limited(&self, enforced: bool) {
        let counter = if enforced { &self.limited } else { &self.shadowed };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a request that waits for its turn.
    pub fn queued(&self) {
        self.queued.fetch_add(1, Relaxed);
    }

    /// Requests that have waited or are waiting for their turn.
    pub fn queued_count(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    /// Notes whether its shared store can be asked; `None` = it has none.
    pub fn set_store(&self, is_up: Option<bool>) {
        self.store.store(is_up.map_or(0, |is_up| 1 + u8::from(is_up)), Relaxed);
    }

    pub(super) fn store_is_up(&self) -> Option<bool> {
        self.store.load(Relaxed).checked_sub(1).map(|up| up > 0)
    }

    /// Requests within the limit so far.
    pub fn allowed_count(&self) -> u64 {
        let together = self.together();
        let counted_together: u64 = together.iter().map(|passed| passed.0.load(Relaxed)).sum();
        self.allowed.load(Relaxed) + counted_together
    }

    /// Requests over the limit so far, refused (`enforced`) or only counted.
    pub fn limited_count(&self, enforced: bool) -> u64 {
        let counter = if enforced { &self.limited } else { &self.shadowed };
        counter.load(Relaxed)
    }

    /// A count moves from here to `allowed` under this lock, so that it is seen once.
    fn together(&self) -> MutexGuard<'_, Vec<Arc<Passed>>> {
        self.together.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_together_is_counted_by_each_and_stays_so() {
        let [a, b] = [(); 2].map(|()| Arc::<LimitMetrics>::default());
        let both = PassedAll::new([Arc::clone(&a), Arc::clone(&b)]);
        let after_reload = PassedAll::new([Arc::clone(&a)]);
        a.allowed();
        both.count();
        both.count();
        after_reload.count();
        assert_eq!((a.allowed_count(), b.allowed_count()), (4, 2));
        drop(both);
        assert_eq!((a.allowed_count(), b.allowed_count()), (4, 2));
        after_reload.count();
        assert_eq!((a.allowed_count(), b.allowed_count()), (5, 2));
        assert!(b.together().is_empty(), "nothing is left of a route that is gone");
    }
}
