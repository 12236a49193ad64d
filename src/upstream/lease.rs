//! A connection while a request is on it, and the request's place at the endpoint.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::connection::{AnswerError, Connection, RequestHead, SendError};
use super::endpoint::{Endpoint, InFlight};
use super::stream::Stream;
use crate::pipe::Pipe;
use crate::proxy::body::RequestBody;

/// A connection while a request is on it. Dropped, it is closed; given back, it may serve another. One that is shared
/// lives on either way, without the stream.
pub(crate) struct Lease {
    in_flight: InFlight,
    connection: Connection,
    worker: usize,
}

impl Lease {
    pub(crate) fn new(in_flight: InFlight, connection: Connection, worker: usize) -> Self {
        Self { in_flight, connection, worker }
    }

    /// Takes a request, to be sent as its answer is asked for.
    ///
    /// # Errors
    /// [`SendError::Unsent`].
    pub(crate) fn begin(&mut self, head: RequestHead<'_>, body: RequestBody) -> Result<(), SendError> {
        self.connection.begin(head, body)
    }

    /// Sends it and waits for the head of its answer. `spare` is a map that nobody needs once there is one.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) fn poll_answer(
        &mut self,
        spare: Option<&mut HeaderMap>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StatusCode, SendError>> {
        self.connection.poll_answer(spare, cx)
    }

    /// Ready when it is `deadline`.
    pub(crate) fn poll_alarm(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.poll_alarm(deadline, cx)
    }

    /// The head of the answer. Once, when there is one.
    pub(crate) fn take_answer(&mut self) -> Option<Response<()>> {
        self.connection.take_answer()
    }

    /// The same, which stays. None on a stream of HTTP/2.
    pub(crate) fn answer(&self) -> Option<&Response<()>> {
        self.connection.answer()
    }

    /// All of the answer's body, where it is there already and its length is known.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        self.connection.take_whole()
    }

    /// What there is of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        self.connection.poll_frame(cx)
    }

    /// Whether what is left of the answer's body can be moved by [`Self::poll_pipe`].
    pub(crate) fn is_pipeable(&self) -> bool {
        self.connection.is_pipeable()
    }

    /// Moves what has come of it into `pipe`, at most `bytes_max`; how much that was. Where it is nothing it is to be
    /// read.
    pub(crate) fn poll_pipe(&mut self, pipe: &mut Pipe, bytes_max: u64, cx: &mut Context<'_>) -> Poll<usize> {
        self.connection.poll_pipe(pipe, bytes_max, cx)
    }

    /// Whether the answer has been read to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.connection.has_ended()
    }

    /// Of what is left of the answer's body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.connection.size_hint()
    }

    /// Lets what is left of the request go on by itself, whether or not anybody reads the answer. When that has ended,
    /// the endpoint may take nothing for as long as `patience`. Whether it means to close before it has everything.
    pub(crate) fn share(&mut self, patience: Duration) -> bool {
        let Connection::Http1(connection) = &mut self.connection else { return false };
        let is_left_unfed = connection.is_left_unfed();
        connection.share(patience);
        is_left_unfed
    }

    /// Leaves its place at the endpoint to others for a while.
    pub(crate) fn set_aside(self) -> Aside {
        Aside { endpoint: Arc::clone(self.endpoint()), connection: self.connection, worker: self.worker }
    }

    /// Closes the connection and keeps the place at the endpoint.
    pub(crate) fn close(self) -> InFlight {
        self.in_flight
    }

    /// The answer has been read to its end, at `now`.
    pub(crate) fn give_back(self, now: Instant) {
        if let Connection::Http1(connection) = self.connection {
            self.in_flight.endpoint().keep(self.worker, connection, now);
        }
    }

    /// All of the answer's data has been read: what may still end it is waited for by itself.
    pub(crate) fn let_end(self, patience: Duration) {
        if let Connection::Http2(stream) = self.connection {
            stream.let_end(patience);
        }
    }

    /// What follows a 101: the stream, and what has been read of it. None where there can be none.
    pub(crate) fn into_upgraded(self) -> Option<Upgraded> {
        let Connection::Http1(connection) = self.connection else { return None };
        let (stream, early) = connection.into_upgraded()?;
        Some(Upgraded { stream, early, _place: self.in_flight })
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }
}

/// A connection without a place at its endpoint. Dropped, it is closed.
pub(crate) struct Aside {
    endpoint: Arc<Endpoint>,
    connection: Connection,
    worker: usize,
}

impl Aside {
    /// With a place again, whether there is one or not.
    pub(crate) fn back(self) -> Lease {
        Lease::new(self.endpoint.enter_again(), self.connection, self.worker)
    }
}

/// A connection that speaks something else now, and its place at the endpoint.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    /// What has been read of it.
    pub(crate) early: Bytes,
    _place: InFlight,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("endpoint", &self.endpoint().label).finish_non_exhaustive()
    }
}
