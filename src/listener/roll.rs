//! The roll of a worker's connections: their tasks, to be woken all at once when something begins that concerns each of
//! them, a drain or a round of cuts. They then look for themselves.
//!
//! One that is new is woken once, at its worker's next round: what it may have put off until then it does now.
//!
//! A connection enters once and for all, whatever it speaks later: that is cheaper than to listen for each kind of
//! news.

use std::mem;
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;

/// The tasks that wait for news.
#[derive(Debug, Default)]
pub(crate) struct Roll(Mutex<Slab<Entry>>);

#[derive(Debug)]
struct Entry {
    task: Waker,
    is_new: bool,
}

impl Roll {
    /// Enters a task; what is returned takes it off again.
    pub(crate) fn enter(&self, task: &Waker) -> usize {
        self.lock().insert(Entry { task: task.clone(), is_new: true })
    }

    /// Takes off what was entered as `index`.
    pub(crate) fn leave(&self, index: usize) {
        self.lock().remove(index);
    }

    pub(crate) fn wake_all(&self) {
        self.lock().iter().for_each(|(_, entry)| entry.task.wake_by_ref());
    }

    /// Wakes those that have entered since this was last done.
    pub(crate) fn wake_new(&self) {
        for (_, entry) in self.lock().iter_mut() {
            if mem::take(&mut entry.is_new) {
                entry.task.wake_by_ref();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.0.lock()
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
    fn who_is_new_is_woken_once() {
        let (roll, one, other) = (Roll::default(), Arc::new(Count::default()), Arc::new(Count::default()));
        roll.enter(&Waker::from(Arc::clone(&one)));
        roll.wake_new();
        roll.enter(&Waker::from(Arc::clone(&other)));
        roll.wake_new();
        roll.wake_new();
        assert_eq!((one.0.load(Relaxed), other.0.load(Relaxed)), (1, 1));
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
