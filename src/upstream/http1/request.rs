//! A request on its way to an endpoint: its head as bytes, and its body as it comes (RFC 9112, sections 3, 5, 6.3 and
//! 7.1).
//!
//! | body | framing |
//! |---|---|
//! | none | none; a `Content-Length` stays |
//! | the client told its length | `Content-Length` as it came |
//! | its length is known | `Content-Length` |
//! | otherwise | `Transfer-Encoding: chunked` |

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite as _;

use super::super::connection::RequestHead;
use super::super::stream::Stream;
use crate::message::answer::content_length;
use crate::message::{field_line, hop_by_hop, trailers};
use crate::pieces::Queue;
use crate::proxy::body::BodyError;

/// One request after the other. One without a body whose first write fails has not been sent at all.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    queue: Queue,
    /// `None` where there is none, or nothing more of it is wanted.
    body: Option<B>,
    framing: Framing,
    /// It says that it is the last one of its connection.
    is_last: bool,
    /// The names that the request's `Trailer` announces.
    announced: Vec<HeaderName>,
    state: State,
    /// Some of it has been written, or some of its body asked for.
    is_touched: bool,
    /// Some has been written since that was last asked.
    has_progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So much is still to come.
    Length(u64),
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More of the body may come.
    Open,
    /// All that there is stands in the queue.
    Ended,
    Sent,
    /// It never comes to its end.
    Broken,
}

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The endpoint does not take it.
    Refused(io::Error),
    /// The client did not deliver it.
    Lost(BodyError),
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Outgoing<B> {
    pub(super) fn new() -> Self {
        Self {
            queue: Queue::default(),
            body: None,
            framing: Framing::Length(0),
            is_last: false,
            announced: Vec::new(),
            state: State::Sent,
            is_touched: false,
            has_progress: false,
        }
    }

    /// Puts the next request's head in line. The one before has been sent.
    pub(super) fn begin(&mut self, head: RequestHead<'_>, body: B) {
        self.body = Some(body).filter(|body| !body.is_end_stream());
        (self.framing, self.is_last) = write_head(self.queue.head(), head, self.body.as_ref());
        self.state = if self.body.is_some() { State::Open } else { State::Ended };
        self.announced.clear();
        if self.framing == Framing::Chunked {
            self.announced.extend(trailers::announced(&head.parts.headers));
        }
        self.is_touched = self.body.is_some();
    }

    /// Whether it says that its connection is to end with it.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Whether all of it has been written.
    pub(super) fn is_sent(&self) -> bool {
        self.state == State::Sent
    }

    /// Whether nothing more of it is to be sent.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Sent | State::Broken)
    }

    /// Whether nothing of it has been taken, and it has no body: it may go anywhere else.
    pub(super) fn is_untouched(&self) -> bool {
        !self.is_touched
    }

    /// Whether the endpoint has taken some of it since this was last asked.
    pub(super) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.has_progress)
    }

    /// Whether all that has come of it is written: what is to be sent next is the client's to deliver.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state == State::Open && self.queue.is_empty()
    }

    /// Lets go of what is still to be sent; the body's reader is gone, and the client is told where it can be.
    pub(super) fn give_up(&mut self) {
        self.queue = Queue::default();
        self.body = None;
        self.state = State::Broken;
    }

    /// Lets go of its buffer.
    pub(super) fn doze(&mut self) {
        self.queue.doze();
    }

    /// Writes what can be written; ready when all of it is.
    pub(super) fn poll_send(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            // Before the first write, so that what is there of the body goes with the head.
            let more = self.poll_gather(cx).map_err(Unsent::Lost)?;
            while !self.queue.is_empty() {
                ready!(self.queue.poll_write(Pin::new(stream), cx)).map_err(Unsent::Refused)?;
                (self.is_touched, self.has_progress) = (true, true);
            }
            if self.state == State::Ended || more.is_pending() {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(Unsent::Refused)?;
            }
            if self.state == State::Ended {
                self.state = State::Sent;
                self.body = None;
            } else {
                ready!(more);
            }
        }
    }

    /// Puts pieces of the body in line until those are enough for one write. Pending when there is nothing more for
    /// now.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while self.state == State::Open && self.queue.has_room() {
            let Some(body) = &mut self.body else { return Poll::Ready(self.end(None)) };
            match ready!(Pin::new(body).poll_frame(cx)).transpose()? {
                Some(frame) => self.put(frame)?,
                None => self.end(None)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, frame: Frame<Bytes>) -> Result<(), BodyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok()),
        };
        let is_last = self.body.as_ref().is_none_or(Body::is_end_stream);
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(BodyError::Misframed)?;
                self.queue.push(data);
            }
            Framing::Chunked => self.queue.push_chunk(data),
        }
        if is_last { self.end(None) } else { Ok(()) }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), BodyError> {
        self.state = State::Ended;
        match self.framing {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(BodyError::Misframed),
            Framing::Chunked => {
                self.queue.push_last_chunk(trailers::section(trailers.as_ref(), &self.announced));
                Ok(())
            }
        }
    }
}

/// Writes the request line and the fields, in the order they have and in lower case, and settles the framing. Also
/// whether the connection is to end with it.
fn write_head(text: &mut Vec<u8>, head: RequestHead<'_>, body: Option<&impl Body>) -> (Framing, bool) {
    let RequestHead { parts: head, told } = head;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    let length = body.and_then(|_| head.headers.get(CONTENT_LENGTH));
    let length = length.and_then(|length| content_length(length.as_bytes()));
    let mut is_last = false;
    for (name, value) in &head.headers {
        // Ours is written where there is need of one.
        let is_ours = *name == TRANSFER_ENCODING || (body.is_some() && length.is_none() && *name == CONTENT_LENGTH);
        is_last |= *name == CONNECTION && hop_by_hop::lists(value, "close");
        if !is_ours {
            field_line::write(text, name.as_str(), value.as_bytes());
        }
    }
    for (name, value) in told {
        field_line::write(text, name.as_str(), value.as_bytes());
    }
    let framing = match (body, length) {
        (None, _) => Framing::Length(0),
        (Some(_), Some(length)) => Framing::Length(length),
        (Some(body), None) => match body.size_hint().exact() {
            Some(length) => {
                field_line::write(text, CONTENT_LENGTH.as_str(), itoa::Buffer::new().format(length).as_bytes());
                Framing::Length(length)
            }
            None => {
                field_line::write(text, TRANSFER_ENCODING.as_str(), b"chunked");
                Framing::Chunked
            }
        },
    };
    text.extend_from_slice(b"\r\n");
    (framing, is_last)
}
