//! Connections kept to one endpoint.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::http1::Http1;

/// Per worker, so that no worker waits for another.
pub(super) struct Pool {
    /// Newest last.
    shelves: Box<[Mutex<Vec<Idle>>]>,
    idle_timeout: Duration,
    /// Each worker's share of `max_idle`.
    idle_max: usize,
}

/// A kept connection.
struct Idle {
    connection: Http1,
    since: Instant,
}

impl Pool {
    /// `idle_max` is over all workers.
    pub(super) fn new(workers: usize, idle_max: usize, idle_timeout: Duration) -> Self {
        Self {
            shelves: (0..workers).map(|_| Mutex::new(Vec::new())).collect(),
            idle_timeout,
            idle_max: idle_max.div_ceil(workers),
        }
    }

    /// A kept connection, the most recently used first: the others may then grow old and be closed. Whether its
    /// endpoint has closed it shows as it is used.
    pub(super) fn take(&self, worker: usize, now: Instant) -> Option<Http1> {
        let mut shelf = self.shelf(worker);
        let idle = shelf.pop()?;
        if now.saturating_duration_since(idle.since) >= self.idle_timeout {
            // All below it are older still.
            shelf.clear();
            return None;
        }
        Some(idle.connection)
    }

    /// Takes a connection back at `now`, if it can take another request.
    pub(super) fn keep(&self, worker: usize, connection: Http1, now: Instant) {
        let Some(connection) = connection.kept() else { return };
        let mut shelf = self.shelf(worker);
        if shelf.len() < self.idle_max {
            shelf.push(Idle { connection, since: now });
        }
    }

    /// Closes what one worker has kept for too long, and what its endpoint has closed; the others let go of their
    /// buffers.
    pub(super) fn sweep(&self, worker: usize) {
        let mut shelf = self.shelf(worker);
        let old = shelf.iter().take_while(|idle| idle.since.elapsed() >= self.idle_timeout).count();
        shelf.drain(..old);
        shelf.retain_mut(|idle| !idle.connection.doze());
    }

    /// Closes everything that is kept.
    pub(super) fn clear(&self) {
        (0..self.shelves.len()).for_each(|worker| self.shelf(worker).clear());
    }

    fn shelf(&self, worker: usize) -> MutexGuard<'_, Vec<Idle>> {
        let shelf = &self.shelves[worker % self.shelves.len()];
        shelf.lock()
    }
}
