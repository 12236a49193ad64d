//! The request's body on its way upstream.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::super::replay::Tap;
use super::{BodyError, Delivery, Fault, Patience};
use crate::listener::connection::{Connection, OpenBody};
use crate::listener::incoming::{self, Lost};
use crate::message::trailers;

/// What came while nobody looked, as to a process that was stopped, has been read by then.
const ONE_LOOK: Duration = Duration::from_millis(50);

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
    /// That has come to its end, but for a look.
    is_late: bool,
    delivery: Arc<Delivery>,
    _open: OpenBody,
}

impl RequestBody {
    /// Wraps a client's body. `bytes_max` bounds it as it flows; the returned [`Delivery`] tells how it goes.
    pub(crate) fn new(
        incoming: incoming::Incoming,
        bytes_max: Option<u64>,
        read_timeout: Duration,
        connection: &Arc<Connection>,
    ) -> (Self, Option<Arc<Delivery>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let delivery = Arc::new(Delivery::default());
        let body = Self::Streaming(Box::new(Streaming {
            incoming,
            left: bytes_max,
            patience: Patience::new(read_timeout),
            is_late: false,
            delivery: Arc::clone(&delivery),
            _open: connection.open_body(),
        }));
        (body, Some(delivery))
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Some of what has come of it is on its way once more: the next move is no longer the client's.
    pub(in super::super) fn moves_again(&self) {
        if let Self::Streaming(body) = self {
            body.delivery.moves();
        }
    }
}

impl Streaming {
    fn fail(&self, fault: Fault, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.delivery.fails(fault);
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
                body.is_late = false;
                body.delivery.moves();
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match body.left.map(|left| left.checked_sub(bytes)) {
                    Some(None) => body.fail(Fault::TooLarge, BodyError::TooLarge),
                    left => {
                        body.left = left.flatten();
                        Poll::Ready(Some(Ok(frame)))
                    }
                }
            }
            Poll::Ready(Some(Err(error))) => {
                let fault = match error {
                    Lost::Malformed(_) => Fault::Malformed,
                    Lost::Short => Fault::Short,
                    Lost::Left(_) => Fault::Left,
                };
                body.fail(fault, BodyError::Broken(error.into()))
            }
            Poll::Ready(None) => {
                body.delivery.moves();
                Poll::Ready(None)
            }
            Poll::Pending => loop {
                if body.patience.poll_waiting(cx).is_pending() {
                    body.delivery.waits();
                    return Poll::Pending;
                }
                if mem::replace(&mut body.is_late, true) {
                    return body.fail(Fault::Timeout, BodyError::Timeout);
                }
                body.patience.extend(ONE_LOOK);
            },
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
