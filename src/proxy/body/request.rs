//! The request's body on its way upstream, and what those who wait for the answer must know of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::super::coarse_clock;
use super::super::replay::Tap;
use super::{BodyError, Patience};
use crate::listener::connection::{Connection, OpenBody};
use crate::listener::incoming::{self, Lost};
use crate::message::trailers;

/// How far a request body has come and what went wrong with it on the client's side, for those who wait for the answer.
#[derive(Debug, Default)]
pub(crate) struct BodyFault {
    state: AtomicU8,
    /// When the upstream's connection last took some of it, or its end: nanoseconds of [`coarse_clock`].
    moved_ns: AtomicU64,
}

const FLOWING: u8 = 0;
const WAITING: u8 = 1;
const FAULT_TIMEOUT: u8 = 3;
const FAULT_TOO_LARGE: u8 = 4;
const FAULT_BROKEN: u8 = 5;
const FAULT_LEFT: u8 = 6;

impl BodyFault {
    /// The fault, if there was one.
    pub(crate) fn kind(&self) -> Option<Fault> {
        match self.state.load(Relaxed) {
            FAULT_TIMEOUT => Some(Fault::Timeout),
            FAULT_TOO_LARGE => Some(Fault::TooLarge),
            FAULT_BROKEN => Some(Fault::Broken),
            FAULT_LEFT => Some(Fault::Left),
            _ => None,
        }
    }

    /// Whether the next move is the client's.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING
    }

    /// How long ago the upstream's connection took some of the body, or its end, to a hundredth of a second.
    pub(crate) fn rests_for(&self) -> Duration {
        coarse_clock::now().saturating_sub(Duration::from_nanos(self.moved_ns.load(Relaxed)))
    }

    fn moves(&self) {
        self.moved_ns.store(u64::try_from(coarse_clock::now().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn is_now(&self, state: u8) {
        self.state.store(state, Relaxed);
    }
}

/// How a client failed to deliver its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Timeout,
    TooLarge,
    /// Its framing is malformed.
    Broken,
    /// The client went away in the middle of it.
    Left,
}

/// A request's body on its way upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Streaming(Box<Streaming>),
    /// Kept as it flows, for a further try.
    Kept(Tap),
}

/// A body that is read from the client as the upstream takes it.
#[derive(Debug)]
pub(crate) struct Streaming {
    incoming: incoming::Incoming,
    left: Option<u64>,
    patience: Patience,
    fault: Arc<BodyFault>,
    _open: OpenBody,
}

impl RequestBody {
    /// Wraps a client's body. `bytes_max` bounds it as it flows; the returned fault tells why it stopped.
    pub(crate) fn new(
        incoming: incoming::Incoming,
        bytes_max: Option<u64>,
        read_timeout: Duration,
        connection: &Arc<Connection>,
    ) -> (Self, Option<Arc<BodyFault>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let fault = Arc::new(BodyFault::default());
        let body = Self::Streaming(Box::new(Streaming {
            incoming,
            left: bytes_max,
            patience: Patience::new(read_timeout),
            fault: Arc::clone(&fault),
            _open: connection.open_body(),
        }));
        (body, Some(fault))
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Streaming {
    fn fail(&self, code: u8, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.fault.is_now(code);
        Poll::Ready(Some(Err(error)))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Streaming(body) => body,
            Self::Kept(tap) => return tap.poll_frame(cx),
        };
        match Pin::new(&mut body.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::strip_request(trailers);
                }
                body.patience.rest();
                body.fault.moves();
                body.fault.is_now(FLOWING);
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match body.left.map(|left| left.checked_sub(bytes)) {
                    Some(None) => body.fail(FAULT_TOO_LARGE, BodyError::TooLarge),
                    left => {
                        body.left = left.flatten();
                        Poll::Ready(Some(Ok(frame)))
                    }
                }
            }
            Poll::Ready(Some(Err(error))) => {
                let fault = match error {
                    Lost::Malformed => FAULT_BROKEN,
                    Lost::Left(_) => FAULT_LEFT,
                };
                body.fail(fault, BodyError::Broken(error.into()))
            }
            Poll::Ready(None) => {
                body.fault.moves();
                body.fault.is_now(FLOWING);
                Poll::Ready(None)
            }
            Poll::Pending if body.patience.poll_waiting(cx).is_ready() => body.fail(FAULT_TIMEOUT, BodyError::Timeout),
            Poll::Pending => {
                body.fault.is_now(WAITING);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body) => body.incoming.is_end_stream(),
            Self::Kept(tap) => tap.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body) => body.incoming.size_hint(),
            Self::Kept(tap) => tap.size_hint(),
        }
    }
}
