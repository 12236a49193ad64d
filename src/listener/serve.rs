//! Drives one downstream connection: handshake, HTTP, timeouts, refusals, upgrades, the last goodbye.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::head::{BadHead, HeadBounds};
use super::http1::{Over, Rest, Wire};
use super::http2;
use super::proxy_header;
use super::rest::{FIRST_BYTES, Woken, rest};
use super::stream::{Socket, Stream, Watched};
use super::timer::{End, Timer};
use crate::config::model::Timeouts;
use crate::live::Live;
use crate::proxy::{https, refused, tunnel};
use crate::snapshot::Snapshot;
use crate::tls::Peer;
use crate::worker::{AcceptedSocket, Drain, Place};

/// How long the goodbye may take in all, and how long it waits for another byte: nginx's `lingering_time` and
/// `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);
/// How long a refusal may take to be written.
const REFUSAL_WRITE: Duration = Duration::from_secs(2);
/// For the first request of a connection that is open when a drain begins.
pub(super) const DRAIN_FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves one connection that the listener `name` has accepted, to its end.
pub(crate) async fn serve(name: Arc<str>, socket: AcceptedSocket, mut place: Place) {
    place.enrol().await;
    let snapshot = place.live.load_full();
    let Some(listener) = snapshot.listener(&name) else { return };
    let _open = listener.metrics.open();
    let speaks_first = !listener.proxy_protocol && listener.tls.is_none();
    let early = if speaks_first { come_already(&socket) } else { Vec::new() };
    let (socket, peer) = match socket_of(socket) {
        Ok(registered) => registered,
        Err(error) => return tracing::debug!(%error, "a connection was lost before it could be served"),
    };
    let (socket, peer) = match listener.proxy_protocol {
        false => (socket, peer),
        true => match Box::pin(behind_proxy(socket, peer, &snapshot)).await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, ?peer, "no PROXY header from a trusted proxy"),
        },
    };
    let timeouts = snapshot.config.timeouts.clone();
    let (stream, tls) = match &listener.tls {
        None => (Stream::Plain(socket), None),
        Some(tls) => {
            let (config, admission) = tls.to_accept();
            let handshake = TlsAcceptor::from(config).accept(socket);
            match Box::pin(timeout(timeouts.tls_handshake, handshake)).await {
                Ok(Ok(stream)) => {
                    let peer = Peer::of(stream.get_ref().1, admission);
                    (Stream::Tls(Box::new(stream)), Some(peer))
                }
                Ok(Err(error)) => return tracing::debug!(%error, ?peer, "TLS handshake failed"),
                Err(_) => return tracing::debug!(?peer, "TLS handshake took too long"),
            }
        }
    };
    let connection = Arc::new(Connection::new(place.worker, peer, name, tls));
    let http2 = listener.http2.then(|| snapshot.config.bounds.h2_streams_max.get());
    let settings = Settings { bounds: snapshot.head_bounds(), http2 };
    // A snapshot kept for the life of a connection would keep a whole generation alive.
    drop(snapshot);
    if stream.speaks_http2() {
        Box::pin(http2::serve(stream, Vec::new(), connection, settings, &timeouts, &place)).await;
    } else {
        http1(stream, early, connection, settings, &timeouts, &place).await;
    }
}

/// What the configuration says of a connection, kept for its life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) bounds: HeadBounds,
    /// Streams at once; `None` = HTTP/1 only.
    pub(super) http2: Option<u32>,
}

/// The client that a trusted proxy speaks for. A peer that is not trusted is a client itself, whatever it sends; one on
/// a unix socket is trusted, for it is on this machine.
async fn behind_proxy(
    mut socket: Socket,
    peer: Option<SocketAddr>,
    snapshot: &Snapshot,
) -> io::Result<(Socket, Option<SocketAddr>)> {
    if !peer.is_none_or(|peer| snapshot.trusted.contains(peer.ip())) {
        return Ok((socket, peer));
    }
    let header = timeout(snapshot.config.timeouts.request_head, proxy_header::read(&mut socket)).await;
    let client = header.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok((socket, client.or(peer)))
}

/// What a client has sent by now, which is its first request more often than not: no need to have it told by the event
/// loop.
fn come_already(socket: &AcceptedSocket) -> Vec<u8> {
    let mut space = [MaybeUninit::uninit(); FIRST_BYTES];
    match rustix::net::recv(socket, &mut space, RecvFlags::empty()) {
        Ok(((bytes, _), _)) => bytes.to_vec(),
        // If it is worse than that nothing has come, the next read tells.
        Err(_) => Vec::new(),
    }
}

/// Of TCP, the event loop hears of it later.
fn socket_of(socket: AcceptedSocket) -> io::Result<(Socket, Option<SocketAddr>)> {
    match socket {
        AcceptedSocket::Tcp(stream, peer) => Ok((Socket::Fresh(Some(stream)), Some(peer))),
        AcceptedSocket::Unix(stream) => Ok((Socket::Watched(Watched::Unix(UnixStream::from_std(stream)?)), None)),
    }
}

/// How a round of HTTP/1 came to its end.
enum Stop {
    Over(Over),
    /// The client kept us waiting, or has been idle for long enough to come to rest.
    Time(End),
}

/// In rounds: one after the other, with rests in between.
async fn http1(
    mut stream: Stream,
    mut early: Vec<u8>,
    connection: Arc<Connection>,
    settings: Settings,
    timeouts: &Timeouts,
    place: &Place,
) {
    let mut idle_until = None;
    loop {
        // Boxed, so that a connection at rest does not hold the room for it. Made where it stays, for it is large.
        let (stop, left) = Box::into_pin(Box::write(
            Box::new_uninit(),
            round((stream, early), &connection, settings, timeouts, idle_until, place),
        ))
        .await;
        let until = match stop {
            Stop::Time(End::Rest { until }) => until,
            // Most end like this: there is to be no room for the others.
            Stop::Over(Over::Done { is_unread }) => return goodbye({ left }.stream, is_unread).await,
            Stop::Over(Over::Upgraded(tunnel)) => {
                return Box::pin(tunnel::run(left.stream, left.bytes.freeze(), *tunnel)).await;
            }
            stop => return Box::pin(end_http1(stop, left, connection, settings, timeouts, place)).await,
        };
        stream = { left }.stream;
        early = match rest(&mut stream, until, place).await {
            Woken::Bytes(bytes) => bytes,
            Woken::Over => return goodbye(stream, false).await,
            Woken::Broken(error) => return tracing::debug!(%error, peer = ?connection.peer, "connection ended early"),
        };
        idle_until = Some(until);
    }
}

/// HTTP from a request on, until something ends it. `early` was read of the stream before.
async fn round(
    (stream, early): (Stream, Vec<u8>),
    connection: &Arc<Connection>,
    settings: Settings,
    timeouts: &Timeouts,
    idle_until: Option<Instant>,
    place: &Place,
) -> (Stop, Rest) {
    // Over TLS the handshake has settled the version, on others the first bytes.
    let may_switch = settings.http2.is_some() && !connection.is_tls() && idle_until.is_none();
    let mut wire = Wire::new(stream, &early, Arc::clone(connection), may_switch);
    drop(early);
    let timer = Timer::with_rest(timeouts, idle_until.map(|until| (connection.requests(), until)));
    let stop = {
        let http = pin!(wire.converse(&settings.bounds, &place.live));
        drive(http, connection, timer, place).await
    };
    (stop, wire.into_rest())
}

/// What is to be done when HTTP/1 is over in one of the rarer ways.
async fn end_http1(
    stop: Stop,
    rest: Rest,
    connection: Arc<Connection>,
    settings: Settings,
    timeouts: &Timeouts,
    place: &Place,
) {
    let Rest { stream, bytes, line } = rest;
    match stop {
        Stop::Over(Over::Http2) => {
            http2::serve(stream, bytes.to_vec(), connection, settings, timeouts, place).await;
        }
        Stop::Over(Over::Refused(why)) => refuse(stream, BadRequest::Head(why), &line, &connection, &place.live).await,
        Stop::Time(End::HeadTimeout) if connection.has_partial_head() => {
            let why = BadRequest::HeadTimeout { waited: timeouts.request_head };
            refuse(stream, why, &line, &connection, &place.live).await;
        }
        Stop::Over(Over::BrokenOff { .. } | Over::Broken) | Stop::Time(End::Broken) if connection.ends_in_reset() => {
            stream.reset();
        }
        // Its framing tells that it is not whole, and a reset would take along the answers before it.
        Stop::Over(Over::BrokenOff { is_unread }) => goodbye(stream, is_unread).await,
        Stop::Over(Over::Broken) | Stop::Time(End::Broken) => {}
        Stop::Time(End::HeadTimeout | End::Idle | End::Finished) => goodbye(stream, false).await,
        Stop::Over(Over::Done { .. } | Over::Upgraded(_)) | Stop::Time(End::Rest { .. }) => {
            unreachable!("`http1` sees to these")
        }
    }
}

/// What is refused before it is a request.
pub(crate) enum BadRequest {
    Head(BadHead),
    HeadTimeout { waited: Duration },
}

/// Polls the conversation, and beside it the one timer of this connection. A drain has the task woken.
async fn drive(
    mut http: Pin<&mut impl Future<Output = Over>>,
    connection: &Connection,
    mut timer: Timer<'_>,
    place: &Place,
) -> Stop {
    let mut last_call = LastCall::default();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(over) = http.as_mut().poll(cx) {
                return Poll::Ready(Stop::Over(over));
            }
            // Only after the socket has been read: what has come by now is served.
            if let Drain::Begun { idle } = place.drain()
                && !connection.is_closing()
            {
                connection.leave();
                if last_call.is_over(connection, idle, cx) {
                    connection.close();
                    continue;
                }
            }
            return timer.poll_phase((connection.phase(), connection.requests()), connection, cx).map(Stop::Time);
        }
    })
    .await
}

/// How long a connection without a request is kept open in a drain.
#[derive(Default)]
struct LastCall(Option<Pin<Box<Sleep>>>);

impl LastCall {
    /// Whether nothing has come for `idle`, or for as long as a client may need that has just begun: it could not know.
    fn is_over(&mut self, connection: &Connection, idle: Duration, cx: &mut Context<'_>) -> bool {
        if !connection.is_answered() || connection.has_partial_head() {
            self.0 = None;
            return false;
        }
        let patience = if connection.requests() == 0 { idle.max(DRAIN_FIRST_REQUEST) } else { idle };
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// Answers what never became a request, notes it in log and counts, then closes. `line` is the beginning of it.
async fn refuse(mut stream: Stream, why: BadRequest, line: &[u8], connection: &Connection, live: &Live) {
    let refused = refused::Refused::new(why, line);
    let snapshot = live.load_full();
    refused.note(connection, &snapshot);
    let answer = refused.answer(https::hsts_over(connection, &snapshot));
    drop(snapshot);
    let written = timeout(REFUSAL_WRITE, stream.write_all(&answer)).await;
    if matches!(written, Ok(Ok(()))) {
        goodbye(stream, true).await;
    }
}

/// Closes so that the client gets all that was written to it: a close with unread bytes would reset the
/// connection and take the answer along (RFC 9112, section 9.6). `unread` says that the client may be sending still;
/// without it, only what has arrived already makes us wait.
pub(super) async fn goodbye(mut stream: Stream, unread: bool) {
    if !unread && poll_fn(|cx| Poll::Ready(parts_at_once(&mut stream, cx))).await {
        return;
    }
    linger(stream, LINGER_SILENCE).await;
}

/// Ends our side, and takes what the client still says, until it ends its own or is silent for so long.
pub(super) async fn linger(mut stream: Stream, silence: Duration) {
    // Boxed: the future of a connection has no room for what happens once, at its end, and not to most.
    let farewell = Box::pin(async {
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while timeout(silence, stream.read(&mut sink)).await.map_err(io::Error::from)?? > 0 {}
        io::Result::Ok(())
    });
    // However it ends, the socket is closed.
    let _ = timeout(LINGER, farewell).await;
}

/// Says goodbye to a client that has sent nothing more, or has gone; false when there is something to wait for. Closing
/// a socket that has nothing unread ends the connection properly: only TLS has words for it.
fn parts_at_once(stream: &mut Stream, cx: &mut Context<'_>) -> bool {
    if let Stream::Tls(stream) = stream {
        match Pin::new(stream).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return true,
            Poll::Pending => return false,
        }
    }
    // A byte tells; and where nothing has come, there is nobody to wait for.
    !matches!(stream.try_read(&mut [0; 64], cx), Some(Ok(1..)))
}
