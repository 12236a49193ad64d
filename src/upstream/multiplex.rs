//! HTTP/2 connections to one endpoint, each shared by many requests.
//!
//! Per worker there are as few as the endpoint lets us have: another is made when all take as many streams as the
//! endpoint allows. Those who want one at the same time wait for the one that is being made.
//!
//! The way to an endpoint may be cut without a word: TCP finds out after a quarter of an hour, and each request that is
//! sent meanwhile is lost. So a connection takes no more streams once one has gone that nothing was heard after, for
//! whomever: its time was over, or its client left. That costs a healthy endpoint one connection more. A PING would
//! tell for certain, but servers of gRPC send whoever sends more than a few in five minutes away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connect::ConnectError;
use super::connection::Connection;
use super::hello::Heard;
use super::http2::{Http2, Http2Stream};

/// Streams on one connection, whatever the endpoint allows: what one slow connection holds up is bounded.
pub(super) const STREAMS_MAX: usize = 128;

/// Per worker, so that no worker waits for another.
pub(super) struct Multiplexed {
    shelves: Box<[Shelf]>,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Shelf {
    open: Mutex<Vec<Shared>>,
    /// Held while a connection is made.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Shared {
    connection: Http2,
    load: Arc<Load>,
}

#[derive(Debug)]
struct Load {
    heard: Heard,
    streams: AtomicUsize,
    /// It takes no more of them.
    is_draining: AtomicBool,
    idle_since: Mutex<Instant>,
}

/// One stream's place on a connection.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    load: Arc<Load>,
    /// When the stream began.
    heard_times: usize,
}

impl StreamPlace {
    /// Its connection takes no more streams: the endpoint is closing it, has had enough, or cannot be heard.
    pub(super) fn retire(&self) {
        self.load.is_draining.store(true, Relaxed);
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        if self.load.heard.times() == self.heard_times {
            self.retire();
        }
        if self.load.streams.fetch_sub(1, Relaxed) == 1 {
            *lock(&self.load.idle_since) = Instant::now();
        }
    }
}

impl Multiplexed {
    pub(super) fn new(workers: usize, idle_timeout: Duration) -> Self {
        Self { shelves: (0..workers).map(|_| Shelf::default()).collect(), idle_timeout }
    }

    /// A place on an open connection.
    pub(super) fn take(&self, worker: usize) -> Option<Connection> {
        let mut open = lock(&self.shelf(worker).open);
        open.retain(Shared::takes_streams);
        open.iter().find_map(Shared::enter)
    }

    /// A place on an open connection, or else on a new one that `connect` makes within `limit`.
    ///
    /// # Errors
    /// There is none, and none could be made.
    pub(super) async fn take_or_make<F>(
        &self,
        worker: usize,
        limit: Duration,
        connect: F,
    ) -> Result<Connection, ConnectError>
    where
        F: Future<Output = Result<Connection, ConnectError>>,
    {
        let making = tokio::time::timeout(limit, self.shelf(worker).making.lock());
        let _turn = making.await.map_err(|_| ConnectError::Timeout { limit })?;
        if let Some(place) = self.take(worker) {
            return Ok(place);
        }
        match connect.await? {
            Connection::Http2(stream) => {
                let connection = stream.into_connection();
                let load = Load {
                    heard: connection.heard.clone(),
                    streams: AtomicUsize::new(0),
                    is_draining: AtomicBool::new(false),
                    idle_since: Mutex::new(Instant::now()),
                };
                let shared = Shared { connection, load: Arc::new(load) };
                let place = shared.begin();
                lock(&self.shelf(worker).open).push(shared);
                Ok(place)
            }
            Connection::Http1(_) => unreachable!("the connector of an HTTP/2 upstream makes HTTP/2 connections"),
        }
    }

    /// Closes what one worker has left alone for too long.
    pub(super) fn sweep(&self, worker: usize) {
        lock(&self.shelf(worker).open).retain(|shared| {
            let is_idle = shared.load.streams.load(Relaxed) == 0;
            let is_old = || lock(&shared.load.idle_since).elapsed() >= self.idle_timeout;
            shared.takes_streams() && !(is_idle && is_old())
        });
    }

    /// Takes no more requests on any of them; those that are open finish.
    pub(super) fn clear(&self) {
        self.shelves.iter().for_each(|shelf| lock(&shelf.open).clear());
    }

    fn shelf(&self, worker: usize) -> &Shelf {
        &self.shelves[worker % self.shelves.len()]
    }
}

impl Shared {
    fn takes_streams(&self) -> bool {
        !self.connection.sender.is_closed() && !self.load.is_draining.load(Relaxed)
    }

    fn enter(&self) -> Option<Connection> {
        let streams_max = self.connection.streams_max.min(STREAMS_MAX);
        (self.load.streams.load(Relaxed) < streams_max).then(|| self.begin())
    }

    fn begin(&self) -> Connection {
        self.load.streams.fetch_add(1, Relaxed);
        let place = StreamPlace { load: Arc::clone(&self.load), heard_times: self.load.heard.times() };
        Connection::Http2(Box::new(Http2Stream::at(place, self.connection.clone())))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
