//! Serves one HTTP/2 connection: streams, bounds, timeouts, the goodbye (RFC 9113).
//!
//! | file | what it is |
//! |---|---|
//! | `drive` | the turns of the connection, and what ends it |
//! | `arrive` | a request made to look as one of HTTP/1 |
//! | `stream` | one stream, from its request to the end of its answer or of its tunnel |
//! | `body`, `sending`, `answer` | a request's body, an answer's body, an answer's head |
//! | `upgraded` | a stream that became a byte stream |
//! | `streams` | all of a connection's streams, polled in its own task |
//! | `wire`, `frames` | what lies under h2: the socket, what is gathered to be sent, an eye on floods |
//!
//! h2 speaks the protocol; all that happens on a connection happens in one task.

pub(crate) mod arrive;
pub(crate) mod body;

mod answer;
mod drive;
mod frames;
mod sending;
mod stream;
mod streams;
mod upgraded;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, Handshake};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use self::answer::Said;
use self::arrive::Arrivals;
use self::drive::Drive;
use self::streams::Streams;
use self::wire::{SharedWire, Wire};
use super::connection::{Connection, Phase};
use super::serve::{Settings, linger};
use super::stream::Stream;
use super::timer::End;
use crate::config::model::Timeouts;
use crate::live::Live;
use crate::worker::Place;

/// What a client may send ahead of us, on one stream and on all of them.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// h2 counts what a small frame that nobody has taken yet lacks to 256 bytes, and ends the connection when that is more
/// than this. One stream's window full of the smallest messages there are (seven bytes, of gRPC and of WebSocket) is no
/// flood, nor are all of the windows full of thirty-two bytes each.
const SMALL_FRAMES_BYTES: usize = 5 * 1024 * 1024;
/// What is kept of one answer for a client that reads slowly.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// The least that a client must let us set (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a client may reset before we have looked at them; more at once than this ends the connection. `frames`
/// bounds them over time.
const RESETS_AT_ONCE_MAX: usize = 100;
/// Streams that a client may make us reset in all the life of its connection, which may be that of a proxy in front of
/// us: h2 counts them, and takes none off. Here too `frames` has the say, but sees them only when they are sent.
const ERRORS_MAX: usize = 10_000;
/// How long a client that has no stream open may take to agree to the end of the connection, and then to end its side.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often streams and h2 take turns before the worker's other tasks have theirs.
const ROUNDS_MAX: u32 = 4;

/// Serves `stream`, of which `early` has been read already, to its end.
pub(super) async fn serve(
    stream: Stream,
    early: Vec<u8>,
    connection: Arc<Connection>,
    settings: Settings,
    timeouts: &Timeouts,
    place: &Place,
) {
    let wire = Arc::new(Mutex::new(Wire::new(stream, early, Arc::clone(&connection))));
    let end = {
        let shared = Arc::clone(&place.live.load_full().shared);
        let http = Http::new(&wire, connection, Arc::clone(&place.live), settings, timeouts.response_body);
        let mut drive = Drive::new(http, timeouts, place, &shared.cuts);
        poll_fn(|cx| drive.poll(cx)).await
    };
    // h2 has let go of its half, and no stream has one.
    let Some(wire) = Arc::into_inner(wire) else { return };
    let is_broken = matches!(end, End::Broken);
    let (mut stream, last_words) = wire.into_inner().end(is_broken);
    if !last_words.is_empty() {
        // Whoever is sent away is told why, but not waited for.
        let _ = timeout(LAST_WORDS, stream.write_all(&last_words)).await;
    }
    if !is_broken {
        // It says of each piece of an answer that it has taken it, and may be in the middle of one: closed at once, the
        // connection would be reset under what it has not read yet.
        linger(stream, LAST_WORDS).await;
    }
}

/// One connection: h2, its streams, and the wire under it.
struct Http {
    state: State,
    streams: Streams,
    /// Wakes the connection for h2.
    waker: Waker,
    wire: Arc<Mutex<Wire>>,
    connection: Arc<Connection>,
    live: Arc<Live>,
    arrivals: Arrivals,
    said: Arc<Said>,
    /// For a client that takes nothing of its answer.
    patience: Duration,
}

enum State {
    Greeting { handshake: Handshake<SharedWire, Bytes>, is_ending: bool },
    Open(server::Connection<SharedWire, Bytes>),
}

impl Http {
    fn new(
        wire: &Arc<Mutex<Wire>>,
        connection: Arc<Connection>,
        live: Arc<Live>,
        settings: Settings,
        patience: Duration,
    ) -> Self {
        let bounds = settings.bounds;
        let mut builder = server::Builder::new();
        builder
            // Beyond the bound for heads, which `arrive` keeps: what h2 refuses itself it answers with a bare 431, and
            // nobody else hears of it.
            .max_header_list_size(u32::try_from(bounds.head_bytes_max.saturating_mul(2)).unwrap_or(u32::MAX))
            .max_frame_size(FRAME_BYTES_MAX)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(SMALL_FRAMES_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(RESETS_AT_ONCE_MAX)
            .max_local_error_reset_streams(Some(ERRORS_MAX))
            .enable_connect_protocol();
        if let Some(streams_max) = settings.http2 {
            builder.max_concurrent_streams(streams_max);
        }
        let handshake = builder.handshake(SharedWire(Arc::clone(wire)));
        let streams = Streams::new();
        let waker = streams.connection_waker();
        let state = State::Greeting { handshake, is_ending: false };
        Self {
            state,
            streams,
            waker,
            wire: Arc::clone(wire),
            connection,
            live,
            arrivals: Arrivals::new(bounds),
            said: Arc::default(),
            patience,
        }
    }

    /// Polls what is ready, then sends what has been written meanwhile, together.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.streams.begin_turn(cx.waker());
        for _ in 0..ROUNDS_MAX {
            // The streams first: what they have to say goes out with what h2 has.
            let had_streams = self.streams.poll();
            if self.streams.take_connection() {
                if let Poll::Ready(result) = self.poll_h2() {
                    return Poll::Ready(self.end_of(result));
                }
            } else if !had_streams {
                break;
            }
        }
        // By h2's waker: once there is room, it may go on as well.
        let sent = self.wire.lock().poll_send(&mut Context::from_waker(&self.waker));
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(self.end_of(Err(error)));
        }
        self.streams.end_turn();
        Poll::Pending
    }

    /// Has h2 read and write, and takes in the streams that have come.
    fn poll_h2(&mut self) -> Poll<Result<(), h2::Error>> {
        let mut cx = Context::from_waker(&self.waker);
        self.wire.lock().look_again();
        // Of all that come in one turn.
        let mut snapshot = None;
        loop {
            match &mut self.state {
                State::Greeting { handshake, is_ending } => {
                    let mut open = ready!(Pin::new(handshake).poll(&mut cx))?;
                    if *is_ending {
                        open.graceful_shutdown();
                    }
                    self.state = State::Open(open);
                }
                State::Open(open) => match ready!(open.poll_accept(&mut cx)) {
                    None => return Poll::Ready(Ok(())),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    Some(Ok((request, respond))) => {
                        self.connection.head_passed(false);
                        let arrived = self.arrivals.take_in(request);
                        let snapshot = Arc::clone(snapshot.get_or_insert_with(|| self.live.load_full()));
                        let (connection, said) = (Arc::clone(&self.connection), Arc::clone(&self.said));
                        // Made where it stays: it is large.
                        let served = Box::write(
                            Box::new_uninit(),
                            stream::serve(arrived, respond, connection, snapshot, said, self.patience),
                        );
                        self.streams.push(Box::into_pin(served));
                    }
                },
            }
        }
    }

    /// What the client has not taken yet of answers that h2 has wholly, for want of a window, it is waited for as well.
    /// Where a body is on its way behind its answer, that is a stream, too.
    fn phase(&self) -> Phase {
        let has_streams = || matches!(&self.state, State::Open(open) if open.has_streams());
        match self.connection.phase_of_streams() {
            Phase::Idle if self.connection.may_rest() && has_streams() => Phase::WriteBlocked,
            phase => phase,
        }
    }

    /// Says GOAWAY, and waits for the client to have heard it before it names the last stream (RFC 9113, section 6.8).
    fn end_gracefully(&mut self) {
        match &mut self.state {
            State::Greeting { is_ending, .. } => *is_ending = true,
            State::Open(open) => open.graceful_shutdown(),
        }
        self.waker.wake_by_ref();
    }

    fn end_of(&self, result: Result<(), impl std::error::Error>) -> End {
        match result {
            Ok(()) => End::Finished,
            Err(error) => {
                tracing::debug!(%error, peer = ?self.connection.peer, "HTTP/2 connection ended early");
                End::Broken
            }
        }
    }
}
