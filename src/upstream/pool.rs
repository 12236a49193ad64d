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

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::upstream::connection::Connection;
    use crate::upstream::stream::Stream;

    const IDLE: Duration = Duration::from_secs(4);

    /// A connection whose first request has been answered, and its other end.
    async fn answered() -> (Http1, UnixStream) {
        let (own, mut end) = UnixStream::pair().unwrap();
        let mut connection = Connection::Http1(Http1::new(Stream::Unix(own)));
        let (head, ()) = Request::get("/").body(()).unwrap().into_parts();
        let answer = end.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        let (asked, written) = tokio::join!(connection.ask(&head), answer);
        asked.unwrap();
        written.unwrap();
        let Connection::Http1(connection) = connection else { unreachable!("it is one of HTTP/1") };
        (connection, end)
    }

    #[tokio::test]
    async fn one_that_has_been_idle_for_as_long_as_it_may_is_closed_with_all_before_it() {
        let (pool, now) = (Pool::new(1, 8, IDLE), Instant::now());
        let (older, _end) = answered().await;
        let (newer, _end) = answered().await;
        pool.keep(0, older, now);
        pool.keep(0, newer, now);
        assert!(pool.take(0, now + IDLE - Duration::from_nanos(1)).is_some());
        assert!(pool.take(0, now + IDLE).is_none());
        assert!(pool.take(0, now).is_none(), "it is not there any more");
    }

    #[tokio::test]
    async fn each_worker_keeps_its_share_and_no_more() {
        let (pool, now) = (Pool::new(2, 3, IDLE), Instant::now());
        for _ in 0..3 {
            pool.keep(1, answered().await.0, now);
        }
        assert_eq!([(); 3].map(|()| pool.take(1, now).is_some()), [true, true, false]);
        assert!(pool.take(0, now).is_none());
    }
}
