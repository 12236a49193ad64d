//! The roll of a worker's connections: their tasks, to be woken all at once when something begins that concerns each of
//! them, a drain or a round of cuts. They then look for themselves.
//!
//! A connection enters once and for all, whatever it speaks later: that is cheaper than to listen for each kind of news.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slab::Slab;

/// The tasks that wait for news.
#[derive(Debug, Default)]
pub(crate) struct Roll(Mutex<Slab<Waker>>);

impl Roll {
    /// Enters a task; what is returned takes it off again.
    pub(crate) fn enter(&self, task: &Waker) -> usize {
        self.lock().insert(task.clone())
    }

    /// Takes off what was entered as `index`.
    pub(crate) fn leave(&self, index: usize) {
        self.lock().remove(index);
    }

    pub(crate) fn wake_all(&self) {
        self.lock().iter().for_each(|(_, task)| task.wake_by_ref());
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn all_are_woken_that_have_not_left() {
        let (roll, one, other) = (Roll::default(), Arc::new(Count::default()), Arc::new(Count::default()));
        let first = roll.enter(&Waker::from(Arc::clone(&one)));
        roll.enter(&Waker::from(Arc::clone(&other)));
        roll.wake_all();
        roll.leave(first);
        roll.wake_all();
        assert_eq!((one.0.load(Relaxed), other.0.load(Relaxed)), (1, 2));
        assert_eq!(Arc::strong_count(&one), 1, "nothing is kept of who has left");
        assert_eq!(roll.enter(&Waker::from(one)), first, "places are used again");
    }
}
