//! The generation that serves now. The only swap of a whole configuration in the crate.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use parking_lot::Mutex;

use crate::snapshot::Snapshot;

/// Points to the current [`Snapshot`].
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
    /// Earlier ones, which requests and streams may still hold.
    earlier: Mutex<Vec<Weak<Snapshot>>>,
}

impl Live {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot), earlier: Mutex::default() }
    }

    /// The generation to hold for the length of one request.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// What one reader holds of it between requests, for who asks again and again: where nothing has changed that is one
    /// read of shared memory. While it is kept, so is the generation that it saw last.
    pub(crate) fn cache(&self) -> Cache<&ArcSwap<Snapshot>, Arc<Snapshot>> {
        Cache::new(&self.current)
    }

    /// From now on, new requests see `snapshot`. What earlier ones do not share with it only serves what is open there.
    pub fn store(&self, snapshot: Snapshot) {
        let current = Arc::new(snapshot);
        let before = self.current.swap(Arc::clone(&current));
        let mut earlier = self.earlier.lock();
        earlier.retain(|snapshot| snapshot.strong_count() > 0);
        earlier.push(Arc::downgrade(&before));
        // All of them: what the one before shared with those before it may end only now.
        earlier.iter().filter_map(Weak::upgrade).for_each(|snapshot| snapshot.retire(&current));
    }

    /// How many generations are in use, the current one included.
    pub fn alive(&self) -> usize {
        let mut earlier = self.earlier.lock();
        earlier.retain(|snapshot| snapshot.strong_count() > 0);
        earlier.len() + 1
    }
}
