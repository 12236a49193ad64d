//! A shared value that is not there most of the time.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwapOption, Guard};

/// Asked for by every request. While nothing is there that is one read of shared memory; to find it out by `ArcSwapOption`
/// alone takes two locked instructions.
#[derive(Debug)]
pub(crate) struct Seldom<T> {
    is_there: AtomicBool,
    value: ArcSwapOption<T>,
}

/// A value that stays while it is held. Not to be held across an await: it may keep one alive that has been replaced.
pub struct Loaded<T>(Guard<Option<Arc<T>>>);

impl<T> Seldom<T> {
    #[inline]
    pub(crate) fn load(&self) -> Option<Loaded<T>> {
        let value = self.is_there.load(Ordering::Acquire).then(|| self.value.load())?;
        value.is_some().then_some(Loaded(value))
    }

    /// For one writer: of two at once, `load` may miss the later one.
    pub(crate) fn store(&self, value: Option<Arc<T>>) {
        if value.is_some() {
            self.value.store(value);
            self.is_there.store(true, Ordering::Release);
        } else {
            self.is_there.store(false, Ordering::Release);
            self.value.store(None);
        }
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("made only of a value that is there")
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self { is_there: AtomicBool::new(false), value: ArcSwapOption::empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_last_is_found() {
        let seldom = Seldom::default();
        let load = || seldom.load().map(|value| *value);
        assert_eq!(load(), None);
        for value in [Some(1), Some(2), None, None, Some(3)] {
            seldom.store(value.map(Arc::new));
            assert_eq!(load(), value);
        }
    }
}
