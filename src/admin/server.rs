//! Accepts admin connections and serves the calls on them.
//!
//! axum's own server bounds nothing. Here connections are so many at most, and one that neither sends nor takes a
//! byte for a while is closed: a stuck scraper or a forgotten `nc` must not keep others out. Where all places are taken,
//! a newcomer gets that of whoever has been silent for longest, so that nobody without the token keeps the probes out.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::worker::Drain;

/// A request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Open connections.
const CONNECTIONS_MAX: usize = 256;

/// How long is waited for an admin client.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the first byte, and for a request's head from its first byte on.
    head: Duration,
    /// Without a byte in either direction.
    silence: Duration,
}

/// The silence is above the interval of any scraper that keeps its connection.
const PATIENCE: Patience = Patience { head: Duration::from_secs(10), silence: Duration::from_secs(90) };
/// After an accept that failed for want of descriptors or memory, and for a place to become free.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where admin connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Whose request it is; `None` on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// Serves until dropped, and then cuts every connection; or until the end begins, of which `stopped` is told when the
/// listener is closed, and every connection has come to its own.
pub(super) async fn serve(listener: Listener, router: Router, closing: watch::Receiver<Drain>, stopped: impl FnOnce()) {
    serve_with(PATIENCE, listener, router, closing, stopped).await;
}

async fn serve_with(
    patience: Patience,
    listener: Listener,
    router: Router,
    closing: watch::Receiver<Drain>,
    stopped: impl FnOnce(),
) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(patience, listener, router, closing.clone(), &mut connections) => {}
        _ = begun(closing) => {}
    }
    stopped();
    while connections.join_next().await.is_some() {}
}

/// How long connections without a request may stay, as soon as the end begins; a sender that is gone will not begin it.
async fn begun(mut closing: watch::Receiver<Drain>) -> Duration {
    let begun = closing.wait_for(|drain| drain.has_begun()).await.map(|drain| *drain);
    match begun {
        Ok(Drain::Begun { idle }) => idle,
        Ok(Drain::No) | Err(_) => std::future::pending().await,
    }
}

async fn accept(
    patience: Patience,
    listener: Listener,
    router: Router,
    closing: watch::Receiver<Drain>,
    connections: &mut JoinSet<()>,
) {
    let mut seats = Seats::new();
    loop {
        let (router, closing) = (router.clone(), closing.clone());
        let accepted = match &listener {
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, peer)) => {
                    let (seat, peer) = (seats.take().await, Peer(Some(peer.ip().to_canonical())));
                    connections.spawn(connection(stream, seat, peer, router, patience, closing));
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Listener::Unix(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    let seat = seats.take().await;
                    connections.spawn(connection(stream, seat, Peer(None), router, patience, closing));
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        while connections.try_join_next().is_some() {}
        if let Err(error) = accepted {
            tracing::debug!(%error, "the admin side cannot accept connections at the moment");
            tokio::time::sleep(BACK_OFF).await;
        }
    }
}

async fn connection<S>(
    stream: S,
    seat: Arc<Seat>,
    peer: Peer,
    router: Router,
    patience: Patience,
    closing: watch::Receiver<Drain>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let worker = Arc::clone(&seat);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (mut router, seat) = (router.clone(), Arc::clone(&worker));
        let request = request.map(|body| Awaited { body, seat: Arc::clone(&seat) });
        async move {
            seat.begin_call();
            let answer = router.call(request).await;
            seat.end_call();
            answer
        }
    });
    let served = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        // That of hyper begins with the pause before a head.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(Impatient::new(stream, Arc::clone(&seat), patience)), service);
    let mut served = std::pin::pin!(served);
    let served = tokio::select! {
        served = &mut served => served,
        () = seat.is_wanted.notified() => return,
        idle = begun(closing) => match tokio::time::timeout(idle, &mut served).await {
            Ok(served) => served,
            Err(_) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, ?peer, "an admin connection ended early");
    }
}

/// The places for connections.
struct Seats {
    free: Arc<Semaphore>,
    taken: Vec<Weak<Seat>>,
}

/// The place of one connection.
struct Seat {
    times: Mutex<Times>,
    /// A call has no answer yet: the silence is not the client's.
    is_at_work: AtomicBool,
    /// Somebody else is to have it.
    is_wanted: Notify,
    _slot: OwnedSemaphorePermit,
}

/// By what the client is waited for.
struct Times {
    last_byte: Instant,
    /// When a head was begun that is not there to its end; of the first one, when the connection was.
    head_began: Option<Instant>,
    /// What comes belongs to a call.
    is_in_call: bool,
}

impl Times {
    /// When the client has been waited for.
    fn deadline(&self, patience: Patience) -> Instant {
        self.head_began.map_or(self.last_byte + patience.silence, |began| began + patience.head)
    }
}

impl Seat {
    fn new(slot: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let times = Times { last_byte: now, head_began: Some(now), is_in_call: false };
        let (times, is_at_work, is_wanted) = (Mutex::new(times), AtomicBool::new(false), Notify::new());
        Self { times, is_at_work, is_wanted, _slot: slot }
    }

    fn begin_call(&self) {
        self.is_at_work.store(true, Relaxed);
        let mut times = self.times.lock();
        (times.head_began, times.is_in_call) = (None, true);
    }

    fn end_call(&self) {
        self.is_at_work.store(false, Relaxed);
        self.times.lock().is_in_call = false;
    }
}

impl Seats {
    fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(CONNECTIONS_MAX)), taken: Vec::new() }
    }

    /// One that is free, or else that of whoever has been silent for longest.
    async fn take(&mut self) -> Arc<Seat> {
        self.taken.retain(|seat| seat.strong_count() > 0);
        let slot = loop {
            if let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
                break slot;
            }
            if let Some(seat) = self.most_silent() {
                seat.is_wanted.notify_one();
            }
            let freed = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(slot)) = tokio::time::timeout(BACK_OFF, freed).await {
                break slot;
            }
        };
        let seat = Arc::new(Seat::new(slot));
        self.taken.push(Arc::downgrade(&seat));
        seat
    }

    fn most_silent(&self) -> Option<Arc<Seat>> {
        let seats = self.taken.iter().filter_map(Weak::upgrade);
        seats.filter(|seat| !seat.is_at_work.load(Relaxed)).min_by_key(|seat| seat.times.lock().last_byte)
    }
}

/// A request's body. While it is waited for, the silence is the client's.
struct Awaited {
    body: Incoming,
    seat: Arc<Seat>,
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        self.seat.is_at_work.store(poll.is_ready(), Relaxed);
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails when nothing has gone through it for too long, or a head takes too long.
struct Impatient<S> {
    stream: S,
    seat: Arc<Seat>,
    patience: Patience,
    /// Until then at least.
    waiting: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, seat: Arc<Seat>, patience: Patience) -> Self {
        let waiting = Box::pin(tokio::time::sleep(patience.head));
        Self { stream, seat, patience, waiting }
    }

    /// `Ready` passes through, and is noted by `note`; `Pending` becomes an error in the end.
    fn watched<T>(
        &mut self,
        poll: Poll<io::Result<T>>,
        note: impl FnOnce(&mut Times, Instant),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            let mut times = self.seat.times.lock();
            times.last_byte = Instant::now();
            let now = times.last_byte;
            note(&mut times, now);
            self.waiting.as_mut().reset(times.deadline(self.patience));
            return poll;
        }
        while self.waiting.as_mut().poll(cx).is_ready() {
            // It may have become another one since: the head has come to its end.
            let deadline = self.seat.times.lock().deadline(self.patience);
            if deadline <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.waiting.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        let note = |times: &mut Times, now| {
            if !times.is_in_call {
                times.head_began.get_or_insert(now);
            }
        };
        self.watched(poll, note, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(poll, |_, _| {}, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A flush of a socket is always ready: no sign of life.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What comes back until the connection ends, which it must do by itself.
    async fn ending(said: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(|| async { "ok" }));
        let patience = Patience { head: Duration::from_millis(100), silence: Duration::from_millis(300) };
        let server =
            tokio::spawn(serve_with(patience, Listener::Tcp(listener), router, watch::channel(Drain::No).1, || ()));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(said).await.unwrap();
        let mut bytes = Vec::new();
        // An end by reset is an end too.
        let reading = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut bytes));
        let _ = reading.await.expect("the connection ends");
        server.abort();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        assert_eq!(ending(b"").await, "");
    }

    #[tokio::test]
    async fn half_a_head_is_not_waited_for() {
        assert_eq!(ending(b"GET / HTTP/1.1\r\nHost: ").await, "");
    }

    #[tokio::test]
    async fn a_kept_connection_ends_after_a_long_silence() {
        let text = ending(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(text.ends_with("ok"), "{text}");
    }

    /// How long a head may take, and a little more.
    const HEAD: Duration = Duration::from_secs(1);
    const LONGER: Duration = Duration::from_millis(1_200);

    /// A server whose answer to a POST is its body, after a while; and a client that has asked it for something already.
    async fn kept(patience: Patience) -> (tokio::task::JoinHandle<()>, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = async |body: Bytes| {
            tokio::time::sleep(LONGER).await;
            body
        };
        let router = Router::new().route("/", axum::routing::get(|| async { "ok" }).post(echo));
        let server =
            tokio::spawn(serve_with(patience, Listener::Tcp(listener), router, watch::channel(Drain::No).1, || ()));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert!(answer(&mut client).await.ends_with("ok"));
        (server, client)
    }

    /// Up to what a body here ends with; nothing where the connection has ended.
    async fn answer(client: &mut tokio::net::TcpStream) -> String {
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with("ok") && client.read(&mut byte).await.is_ok_and(|read| read > 0) {
            text.push(char::from(byte[0]));
        }
        text
    }

    /// Neither the pause before a request, nor its body, nor the call itself is the head.
    #[tokio::test]
    async fn what_takes_longer_than_a_head_may_is_waited_for() {
        let (server, mut client) = kept(Patience { head: HEAD, silence: Duration::from_secs(600) }).await;
        for part in ["POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n", "o", "k"] {
            tokio::time::sleep(LONGER).await;
            client.write_all(part.as_bytes()).await.unwrap();
        }
        let text = answer(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("ok"), "{text}");
        server.abort();
    }

    #[tokio::test]
    async fn half_a_head_is_not_waited_for_on_a_kept_connection_either() {
        let (server, mut client) = kept(Patience { head: HEAD, silence: Duration::from_secs(600) }).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), answer(&mut client));
        assert!(!ended.await.expect("the connection ends").contains("200"));
        server.abort();
    }

    /// Takes all places with clients that say `said` and no more; then one more comes and is answered.
    async fn one_more_beside(said: &[u8]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = axum::routing::get(|| async { "ok" }).post(|_: Bytes| async { "ok" });
        let router = Router::new().route("/", routes);
        let long = Duration::from_secs(600);
        let patience = Patience { head: long, silence: long };
        let server =
            tokio::spawn(serve_with(patience, Listener::Tcp(listener), router, watch::channel(Drain::No).1, || ()));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client.write_all(said).await.unwrap();
            silent.push(client);
        }
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        let reading = tokio::time::timeout(long / 10, client.read_to_string(&mut text));
        reading.await.expect("it is answered while the others stay").unwrap();
        assert!(text.ends_with("ok"), "{text}");
        server.abort();
    }

    #[tokio::test]
    async fn where_all_places_are_taken_the_most_silent_one_gives_up_its_own() {
        one_more_beside(b"").await;
    }

    #[tokio::test]
    async fn who_owes_the_rest_of_a_body_is_silent_too() {
        one_more_beside(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf").await;
    }
}
