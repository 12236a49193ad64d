//! Accepts admin connections and serves the calls on them.
//!
//! axum's own server bounds nothing. Here connections are so many at most, and one that neither sends nor takes a
//! byte for a while is closed: a stuck scraper or a forgotten `nc` must not keep others out.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::worker::Drain;

/// A request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Open connections. More wait in the kernel's queue.
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
/// After an accept that failed for want of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where admin connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Whose request it is; `None` on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// Serves until dropped, and then cuts every connection; or until the end begins and every connection has come to its
/// own.
pub(super) async fn serve(listener: Listener, router: Router, closing: watch::Receiver<Drain>) {
    serve_with(PATIENCE, listener, router, closing).await;
}

async fn serve_with(patience: Patience, listener: Listener, router: Router, closing: watch::Receiver<Drain>) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(patience, listener, router, closing.clone(), &mut connections) => {}
        _ = begun(closing) => {}
    }
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
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let (router, closing) = (router.clone(), closing.clone());
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                let peer = Peer(Some(peer.ip().to_canonical()));
                connections.spawn(async move {
                    connection(stream, peer, router, patience, closing).await;
                    drop(slot);
                });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    connection(stream, Peer(None), router, patience, closing).await;
                    drop(slot);
                });
            }),
        };
        if let Err(error) = accepted {
            tracing::debug!(%error, "the admin side cannot accept connections at the moment");
            tokio::time::sleep(BACK_OFF).await;
        }
    }
}

async fn connection<S>(stream: S, peer: Peer, router: Router, patience: Patience, closing: watch::Receiver<Drain>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_BYTES_MAX)
        .header_read_timeout(patience.head)
        .serve_connection(TokioIo::new(Impatient::new(stream, patience)), service);
    let mut served = std::pin::pin!(served);
    let served = tokio::select! {
        served = &mut served => served,
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

/// A stream that fails when nothing has gone through it for too long.
struct Impatient<S> {
    stream: S,
    silence_max: Duration,
    silence: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Patience) -> Self {
        let silence = Box::pin(tokio::time::sleep(patience.head));
        Self { stream, silence_max: patience.silence, silence }
    }

    /// `Ready` passes through and begins the waiting anew; `Pending` becomes an error in the end.
    fn watched<T>(&mut self, poll: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.silence.as_mut().reset(Instant::now() + self.silence_max);
            return poll;
        }
        self.silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watched(poll, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(poll, cx)
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
        let server = tokio::spawn(serve_with(patience, Listener::Tcp(listener), router, watch::channel(Drain::No).1));
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
}
