//! A connection to an endpoint, in the version of HTTP that its upstream speaks.

use std::error::Error as _;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::http1::{Broken, Http1};
use super::http2::Http2Stream;
use crate::pipe::Pipe;
use crate::proxy::body::RequestBody;

/// What a request is sent on.
#[derive(Debug)]
pub(crate) enum Connection {
    /// One request at a time.
    Http1(Http1),
    /// One of many streams.
    Http2(Box<Http2Stream>),
}

/// The head of a request, in the form of HTTP/1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) parts: &'a Parts,
    /// Fields beside those of `parts`, which has none of these names.
    pub(crate) told: &'a [(&'static HeaderName, HeaderValue)],
}

impl<'a> RequestHead<'a> {
    pub(super) fn of(parts: &'a Parts) -> Self {
        Self { parts, told: &[] }
    }

    /// The first value of a field.
    pub(crate) fn field(&self, name: &HeaderName) -> Option<&'a HeaderValue> {
        let told = || self.told.iter().find(|(told, _)| *told == name).map(|(_, value)| value);
        self.parts.headers.get(name).or_else(told)
    }
}

/// Why a request brought no answer's head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing of it was sent: here is its body again.
    #[error("nothing was sent")]
    Unsent(RequestBody),
    /// The endpoint says that it has not looked at it: a stream refused, or above the last one of a GOAWAY (RFC 9113,
    /// section 8.7). It may be sent again whatever its method.
    #[error("the endpoint refused the stream")]
    Unprocessed,
    /// This one request came to nothing, and its connection lives on: the endpoint reset its stream, or what it answered
    /// there is no answer.
    #[error("the stream was reset: {0}")]
    StreamReset(#[source] hyper::Error),
    /// The endpoint closed the connection, and nothing of an answer had come.
    #[error("no answer from the upstream: {0}")]
    Closed(#[source] AnswerError),
    #[error("no answer from the upstream: {0}")]
    Failed(#[source] AnswerError),
}

/// Why an answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    Http1(#[from] Broken),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    #[error("the stream was reset before its end")]
    Reset,
    /// The connection speaks what nobody asked for.
    #[error("it switched to a protocol that it was not asked for")]
    Switched,
}

impl AnswerError {
    /// What there was to send broke off: no fault of the endpoint.
    pub(crate) fn is_of_request(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, Broken::Request(_) | Broken::Unfed),
            // A reset of ours that is for no rule broken is for a body that cannot be sent to its end.
            Self::Http2(error) => error
                .source()
                .and_then(|error| error.downcast_ref::<h2::Error>())
                .is_some_and(|end| end.is_reset() && !end.is_remote() && !end.is_library()),
            Self::Reset | Self::Switched => false,
        }
    }
}

impl From<Broken> for SendError {
    fn from(error: Broken) -> Self {
        match error {
            Broken::Unsent(_) => Self::Unsent(RequestBody::Empty),
            Broken::Silent(_) => Self::Closed(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

impl Connection {
    /// Takes a request, to be sent as its answer is asked for.
    ///
    /// # Errors
    /// [`SendError::Unsent`]: the endpoint has closed the connection.
    pub(crate) fn begin(&mut self, head: RequestHead<'_>, body: RequestBody) -> Result<(), SendError> {
        match self {
            Self::Http1(connection) => connection.begin(head, body).map_err(SendError::Unsent),
            Self::Http2(stream) => {
                stream.begin(head, body);
                Ok(())
            }
        }
    }

    /// Sends, and waits for the head of the answer. `spare` is a map that nobody needs once there is one.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) fn poll_answer(
        &mut self,
        spare: Option<&mut HeaderMap>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StatusCode, SendError>> {
        match self {
            Self::Http1(connection) => connection.poll_answer(spare, cx).map_err(SendError::from),
            Self::Http2(stream) => stream.poll_answer(cx),
        }
    }

    /// Ready when it is `deadline`.
    pub(crate) fn poll_alarm(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(connection) => connection.poll_alarm(deadline, cx),
            Self::Http2(stream) => stream.alarm.poll(deadline, cx),
        }
    }

    /// The head of the answer that has come.
    pub(crate) fn take_answer(&mut self) -> Option<Response<()>> {
        match self {
            Self::Http1(connection) => connection.take_answer(),
            Self::Http2(stream) => stream.take_answer(),
        }
    }

    /// The same, which stays. None on a stream of HTTP/2.
    pub(crate) fn answer(&self) -> Option<&Response<()>> {
        match self {
            Self::Http1(connection) => connection.answer(),
            Self::Http2(_) => None,
        }
    }

    /// All of the answer's body, where it is there already and its length is known.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(connection) => connection.take_whole(),
            Self::Http2(_) => None,
        }
    }

    /// What there is of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self {
            Self::Http1(connection) => connection.poll_frame(cx).map_err(AnswerError::from),
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }

    /// Whether what is left of the answer's body can be moved by [`Self::poll_pipe`].
    pub(crate) fn is_pipeable(&self) -> bool {
        matches!(self, Self::Http1(connection) if connection.is_pipeable())
    }

    /// Moves what has come of it into `pipe`, at most `bytes_max`; how much that was. Where it is nothing it is to be
    /// read.
    pub(crate) fn poll_pipe(&mut self, pipe: &mut Pipe, bytes_max: u64, cx: &mut Context<'_>) -> Poll<usize> {
        match self {
            Self::Http1(connection) => connection.poll_pipe(pipe, bytes_max, cx),
            Self::Http2(_) => Poll::Ready(0),
        }
    }

    /// Whether the answer has been read to its end.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.has_ended(),
            Self::Http2(stream) => stream.has_ended(),
        }
    }

    /// Of what is left of the answer's body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(connection) => connection.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }

    /// Sends one request without a body and waits for the head of its answer.
    ///
    /// # Errors
    /// See [`SendError`].
    ///
    /// # Cancel safety
    /// Dropped, it gives the request up, and the connection is of no use any more.
    pub(super) async fn ask(&mut self, head: &Parts) -> Result<StatusCode, SendError> {
        self.begin(RequestHead::of(head), RequestBody::Empty)?;
        poll_fn(|cx| self.poll_answer(None, cx)).await
    }
}
