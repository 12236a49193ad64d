//! The generation that serves now. The only swap of a whole configuration in the crate.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;

/// Points to the current [`Snapshot`].
#[derive(Debug)]
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    pub fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    /// The generation to hold for the length of one request.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// From now on, new requests see `snapshot`.
    pub(crate) fn store(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
