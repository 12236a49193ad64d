//! Connections kept to one endpoint.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

    /// A kept connection that is ready to take a request, the most recently used first: the others may
    /// then grow old and be closed.
    pub(super) async fn take(&self, worker: usize, now: Instant) -> Option<Http1> {
        loop {
            let idle = self.shelf(worker).pop()?;
            if now.saturating_duration_since(idle.since) >= self.idle_timeout {
                // All below it are older still.
                self.shelf(worker).clear();
                return None;
            }
            let mut connection = idle.connection;
            if connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    pub(super) fn keep(&self, worker: usize, connection: Http1) {
        if connection.is_closed() {
            return;
        }
        let mut shelf = self.shelf(worker);
        if shelf.len() < self.idle_max {
            shelf.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes what one worker has kept for too long, and what its endpoint has closed.
    pub(super) fn sweep(&self, worker: usize) {
        let mut shelf = self.shelf(worker);
        let old = shelf.iter().take_while(|idle| idle.since.elapsed() >= self.idle_timeout).count();
        shelf.drain(..old);
        shelf.retain_mut(|idle| !idle.connection.has_ended());
    }

    /// Closes everything that is kept.
    pub(super) fn clear(&self) {
        (0..self.shelves.len()).for_each(|worker| self.shelf(worker).clear());
    }

    fn shelf(&self, worker: usize) -> MutexGuard<'_, Vec<Idle>> {
        let shelf = &self.shelves[worker % self.shelves.len()];
        shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
