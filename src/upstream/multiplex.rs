//! HTTP/2 connections to one endpoint, each shared by many requests.
//!
//! Per worker there are as few as the endpoint lets us have: another is made when all take as many streams as the
//! endpoint allows. Those who want one at the same time wait for those that are being made, as long as these will have
//! places for all: what one has shows as it is made, and the last one goes for the next.
//!
//! The way to an endpoint may be cut without a word: TCP finds out after a quarter of an hour, and each request that is
//! sent meanwhile is lost. So a connection takes no more streams once one has gone that nothing was heard after, for
//! whomever: its time was over, or its client left. That costs a healthy endpoint one connection more. A PING would
//! tell for certain, but servers of gRPC send whoever sends more than a few in five minutes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

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
    books: Mutex<Books>,
    /// A connection was made, or came to nothing.
    changed: Notify,
}

struct Books {
    open: Vec<Shared>,
    /// Requests without a place, with those that make a connection.
    wanting: usize,
    /// Connections on the way.
    making: usize,
    /// Those that came to be.
    made: usize,
    /// Places on the last of them.
    places_each: usize,
}

impl Default for Books {
    fn default() -> Self {
        Self { open: Vec::new(), wanting: 0, making: 0, made: 0, places_each: STREAMS_MAX }
    }
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
            *self.load.idle_since.lock() = Instant::now();
        }
    }
}

impl Multiplexed {
    pub(super) fn new(workers: usize, idle_timeout: Duration) -> Self {
        Self { shelves: (0..workers).map(|_| Shelf::default()).collect(), idle_timeout }
    }

    /// A place on an open connection.
    pub(super) fn take(&self, worker: usize) -> Option<Connection> {
        self.shelf(worker).books.lock().take()
    }

    /// A place on an open connection, or else on a new one: that another request makes, within `limit` since one came
    /// to be, or that `connect` makes.
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
        let shelf = self.shelf(worker);
        let mut wanting = Wanting::new(shelf);
        let (mut since, mut made_before) = (Instant::now(), 0);
        loop {
            // Before the look, so that nothing is missed between it and the wait.
            let changed = shelf.changed.notified();
            match wanting.turn() {
                Turn::Place(place) => return Ok(place),
                Turn::Make => return connect.await.map(|connection| shelf.add(connection)),
                // Others had its places. That it took time is not the endpoint's fault.
                Turn::Wait { made } if made != made_before => (since, made_before) = (Instant::now(), made),
                Turn::Wait { .. } => {}
            }
            let left = limit.saturating_sub(since.elapsed());
            tokio::time::timeout(left, changed).await.map_err(|_| ConnectError::Timeout { limit })?;
        }
    }

    /// Closes what one worker has left alone for too long.
    pub(super) fn sweep(&self, worker: usize) {
        self.shelf(worker).books.lock().open.retain(|shared| {
            let is_idle = shared.load.streams.load(Relaxed) == 0;
            let is_old = || shared.load.idle_since.lock().elapsed() >= self.idle_timeout;
            shared.takes_streams() && !(is_idle && is_old())
        });
    }

    /// Takes no more requests on any of them; those that are open finish.
    pub(super) fn clear(&self) {
        self.shelves.iter().for_each(|shelf| shelf.books.lock().open.clear());
    }

    fn shelf(&self, worker: usize) -> &Shelf {
        &self.shelves[worker % self.shelves.len()]
    }
}

impl Shelf {
    /// Keeps a connection that has been made; a place on it.
    fn add(&self, connection: Connection) -> Connection {
        let Connection::Http2(stream) = connection else {
            unreachable!("the connector of an HTTP/2 upstream makes HTTP/2 connections");
        };
        let shared = Shared::new(stream.into_connection());
        let place = shared.begin();
        let mut books = self.books.lock();
        books.made += 1;
        // One that takes no streams has its maker's.
        books.places_each = shared.places().max(1);
        books.open.push(shared);
        place
    }
}

impl Books {
    fn take(&mut self) -> Option<Connection> {
        self.open.retain(Shared::takes_streams);
        self.open.iter().find_map(Shared::enter)
    }
}

/// A request that wants a place.
struct Wanting<'a> {
    shelf: &'a Shelf,
    /// It makes a connection.
    is_making: bool,
}

/// What it is to do.
enum Turn {
    Place(Connection),
    Make,
    /// For one of those that are being made.
    Wait {
        made: usize,
    },
}

impl<'a> Wanting<'a> {
    fn new(shelf: &'a Shelf) -> Self {
        shelf.books.lock().wanting += 1;
        Self { shelf, is_making: false }
    }

    fn turn(&mut self) -> Turn {
        let mut books = self.shelf.books.lock();
        if let Some(place) = books.take() {
            return Turn::Place(place);
        }
        self.is_making = books.making * books.places_each < books.wanting;
        if self.is_making {
            books.making += 1;
            return Turn::Make;
        }
        Turn::Wait { made: books.made }
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        let mut books = self.shelf.books.lock();
        books.wanting -= 1;
        if self.is_making {
            books.making -= 1;
            drop(books);
            self.shelf.changed.notify_waiters();
        }
    }
}

impl Shared {
    fn new(connection: Http2) -> Self {
        let load = Load {
            heard: connection.heard.clone(),
            streams: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
        };
        Self { connection, load: Arc::new(load) }
    }

    /// Streams at a time, by what the endpoint said last.
    fn places(&self) -> usize {
        self.connection.heard.streams_max().min(STREAMS_MAX)
    }

    fn takes_streams(&self) -> bool {
        !self.connection.sender.is_closed() && !self.load.is_draining.load(Relaxed)
    }

    fn enter(&self) -> Option<Connection> {
        (self.load.streams.load(Relaxed) < self.places()).then(|| self.begin())
    }

    fn begin(&self) -> Connection {
        self.load.streams.fetch_add(1, Relaxed);
        let place = StreamPlace { load: Arc::clone(&self.load), heard_times: self.load.heard.times() };
        Connection::Http2(Box::new(Http2Stream::at(place, self.connection.clone())))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use http::uri::Scheme;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::net::UnixStream;

    use super::*;
    use crate::upstream::hello::Hello;
    use crate::upstream::stream::Stream;

    const MINUTE: Duration = Duration::from_secs(60);
    /// An empty SETTINGS frame.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    async fn on(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        heard: Heard,
    ) -> Connection {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        Connection::Http2(Box::new(Http2Stream::alone(Http2 { sender, scheme: Scheme::HTTP, heard })))
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_together_make_as_few_connections_as_have_places_for_all() {
        for (requests, expected) in [(1, 1), (STREAMS_MAX, 1), (STREAMS_MAX + 1, 2)] {
            let multiplexed = Multiplexed::new(1, MINUTE);
            let ends = Mutex::new(Vec::<DuplexStream>::new());
            let connect = || async {
                tokio::task::yield_now().await;
                let (own, end) = duplex(1024);
                ends.lock().push(end);
                Ok(on(own, Heard::default()).await)
            };
            let all = (0..requests).map(|_| multiplexed.take_or_make(0, MINUTE, connect()));
            let places = join_all(all).await;
            assert!(places.iter().all(Result::is_ok), "whoever waits is told of the connection");
            assert_eq!(ends.lock().len(), expected, "{requests}");
        }
    }

    #[tokio::test]
    async fn a_connection_takes_more_streams_only_if_something_was_heard_during_one() {
        let (own, mut end) = UnixStream::pair().unwrap();
        let (hello, told) = Hello::new(Stream::Unix(own));
        let heard = hello.heard();
        end.write_all(&SETTINGS).await.unwrap();
        let connection = on(hello, heard.clone()).await;
        told.await.unwrap().unwrap();
        let multiplexed = Multiplexed::new(1, MINUTE);
        let place = multiplexed.take_or_make(0, MINUTE, async { Ok(connection) }).await.unwrap();
        let times = heard.times();
        end.write_all(&SETTINGS).await.unwrap();
        while heard.times() == times {
            tokio::task::yield_now().await;
        }
        drop(place);
        let place = multiplexed.take(0);
        assert!(place.is_some(), "it was heard");
        drop(place);
        assert!(multiplexed.take(0).is_none(), "nothing was heard since the last stream began");
    }
}
