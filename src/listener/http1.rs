//! One client's requests over HTTP/1, one after the other (RFC 9112).
//!
//! | file | what it is |
//! |---|---|
//! | `input` | what the client sends, cut into heads and pieces of bodies |
//! | `inflow` | the body of the request at hand, as it is asked for |
//! | `upload` | a request's body between the connection and whoever wants it |
//! | `answer` | an answer's head, and the framing of its body |
//! | `flow` | an answer's body on its way out |
//!
//! [`Wire::converse`] is the whole of it: a head, its answer, the next head. All of it is one future, polled by the
//! connection's task together with what the request waits for, so that nothing has to be handed from one task to
//! another. A head is judged before anything is made of it (`super::head`); what follows it stays here until it has
//! been answered, and only a 101 makes that something other than HTTP.

mod answer;
mod flow;
mod inflow;
mod input;
mod upload;

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use self::answer::{Asked, Length};
use self::flow::{BrokeOff, Flow};
use self::inflow::Inflow;
use self::input::Input;
pub(super) use self::upload::Upload;
use super::connection::Connection;
use super::head::{BadHead, Head, HeadBounds};
use super::stream::Stream;
use crate::live::Live;
use crate::pieces::Queue;
use crate::proxy::body::Body;
use crate::proxy::handle;
use crate::proxy::tunnel::Tunnel;

/// Room for what is read of heads, and of a body while it comes slowly.
const READ_BYTES: usize = 8 * 1024;

/// A connection while it speaks HTTP/1.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    input: Input,
    output: Queue,
    /// Something has been written that TLS may hold back.
    is_unflushed: bool,
    connection: Arc<Connection>,
    /// HTTP/2's preface may come in place of the first request.
    may_switch: bool,
    /// A map to put the fields of the next request in, that has been made already.
    fields: HeaderMap,
    /// The body of the request that was read last, while it is under way.
    upload: Option<Inflow>,
    /// Something has been waited for here before.
    has_waited: bool,
    /// A request has come before the one before it was answered.
    has_pipelined: bool,
}

/// Why the conversation is over.
#[derive(Debug)]
pub(super) enum Over {
    /// Both sides are done: the client has closed, or this was the last answer.
    Done {
        /// The client may be sending still.
        is_unread: bool,
    },
    /// Both sides have agreed to speak something else from here on.
    Upgraded(Box<Tunnel>),
    Refused(BadHead),
    /// The client began with HTTP/2.
    Http2,
    /// An answer broke off, which its client is to see behind what came before it.
    BrokenOff {
        /// The client may be sending still.
        is_unread: bool,
    },
    /// The socket failed, or the client went away.
    Broken,
}

/// What is left of it.
pub(super) struct Rest {
    pub(super) stream: Stream,
    /// Read, and not taken.
    pub(super) bytes: BytesMut,
    /// The first line of the head that was refused, or has not come to its end.
    pub(super) line: Box<[u8]>,
}

impl Wire {
    /// Of `stream`, `early` has been read before.
    pub(super) fn new(stream: Stream, early: &[u8], connection: Arc<Connection>, may_switch: bool) -> Self {
        let mut bytes = BytesMut::with_capacity(READ_BYTES.max(early.len()));
        bytes.extend_from_slice(early);
        let (input, output) = (Input::new(bytes), Queue::default());
        Self {
            stream,
            input,
            output,
            is_unflushed: false,
            connection,
            may_switch,
            fields: HeaderMap::new(),
            upload: None,
            has_waited: false,
            has_pipelined: false,
        }
    }

    pub(super) fn into_rest(self) -> Rest {
        let line = self.input.first_line();
        Rest { stream: self.stream, bytes: self.input.bytes, line }
    }

    /// Answers requests until there are no more.
    ///
    /// # Cancel safety
    /// Between two requests nothing is lost; a request that is being answered is given up.
    pub(super) async fn converse(&mut self, bounds: &HeadBounds, live: &Live) -> Over {
        // From the first request on; not longer than until the connection comes to rest.
        let mut generation = None;
        loop {
            let head = match poll_fn(|cx| self.poll_head(bounds, cx)).await {
                Ok(head) => head,
                Err(over) => return over,
            };
            let mut asked = Asked {
                version: head.parts.version,
                is_head: head.parts.method == Method::HEAD,
                is_kept: head.is_kept,
                takes_trailers: head.takes_trailers,
            };
            let body = self.open(head.framing, head.expects_continue);
            let has_more = self.has_more();
            self.has_pipelined |= has_more;
            self.connection.head_passed(has_more);
            let mut response = None;
            {
                let mut request = Request::from_parts(head.parts, Some(body));
                let connection = Arc::clone(&self.connection);
                let snapshot = generation.get_or_insert_with(|| live.cache()).load();
                // Pinned here and lent on: a future of that size is not to be moved.
                let handling = pin!(handle::handle(&mut request, &mut response, connection, snapshot, None));
                if let Err(over) = self.during(handling).await {
                    return over;
                }
            }
            let is_unread = !self.leave_unwanted();
            asked.is_kept &= !is_unread && !self.connection.is_closing() && !self.outruns(response.as_ref());
            // Held until its 101 is sent: it goes with whoever cannot be told.
            let tunnel = response.as_mut().and_then(|response| response.body_mut().take_tunnel());
            match (self.answer(&mut response, &asked).await, tunnel) {
                (Ok(_), Some(tunnel)) => return Over::Upgraded(tunnel),
                (Ok(true), None) => {}
                (Ok(false), None) => {
                    self.end_sending().await;
                    return Over::Done { is_unread: is_unread || self.is_unread() };
                }
                (Err(over), _) => return over,
            }
        }
    }

    /// Waits for a head, and before it for the rest of the last request's body.
    fn poll_head(&mut self, bounds: &HeadBounds, cx: &mut Context<'_>) -> Poll<Result<Head, Over>> {
        loop {
            if let Err(error) = ready!(self.poll_flush(cx)) {
                return Poll::Ready(Err(self.broken(&error)));
            }
            self.poll_upload(cx);
            if self.upload.is_some() {
                return Poll::Pending;
            }
            if self.input.is_mid_body() {
                return Poll::Ready(Err(Over::Done { is_unread: true }));
            }
            if self.may_switch && self.input.is_http2() {
                return Poll::Ready(Err(Over::Http2));
            }
            match self.input.take_head(bounds, &mut self.fields) {
                Ok(Some(head)) => {
                    self.may_switch = false;
                    self.connection.set_partial_head(false);
                    return Poll::Ready(Ok(head));
                }
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(Over::Refused(why))),
            }
            let is_partial = !self.input.bytes.is_empty();
            self.connection.set_partial_head(is_partial);
            if self.connection.is_closing() && !is_partial {
                return Poll::Ready(Err(Over::Done { is_unread: self.has_pipelined }));
            }
            match ready!(self.poll_read(READ_BYTES, cx)) {
                Ok(0) => return Poll::Ready(Err(Over::Done { is_unread: false })),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            }
        }
    }

    /// Polls the handling of a request, and beside it what it waits for on this connection.
    async fn during<T>(&mut self, mut handling: Pin<&mut impl Future<Output = T>>) -> Result<T, Over> {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                    return Poll::Ready(Ok(response));
                }
                let has_come = self.poll_upload(cx);
                if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                    return Poll::Ready(Err(self.broken(&error)));
                }
                if !has_come {
                    return self.poll_gone(cx).map(Err);
                }
            }
        })
        .await
    }

    /// Sends an answer, which is taken; whether the connection goes on.
    async fn answer(&mut self, response: &mut Option<Response<Body>>, asked: &Asked) -> Result<bool, Over> {
        if let Some(upload) = &mut self.upload {
            // Whoever has an answer knows.
            upload.awaits_continue = false;
        }
        let Some(response) = response.take() else { unreachable!("a request that was handled has an answer") };
        let (parts, body) = response.into_parts();
        self.connection.set_patience(body.patience());
        let length = match body.is_end_stream() {
            true => Length::Known(0),
            false => body.size_hint().exact().map_or(Length::Unknown, Length::Known),
        };
        let out = self.output.head();
        let (framing, is_kept) = answer::write_head(parts.status, &parts.headers, length, asked, out);
        self.fields = parts.headers;
        self.fields.clear();
        let mut flow = Flow::new(body, framing, asked.takes_trailers, !self.stream.is_tls());
        poll_fn(|cx| self.poll_answer(&mut flow, cx)).await?;
        Ok(is_kept)
    }

    fn poll_answer(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        loop {
            let step = flow.poll_gather(&mut self.output, cx);
            if let Poll::Ready(Err(BrokeOff)) = step {
                // What came before goes out, as far as the client takes it: a connection that ends without a word looks
                // as if the request may be sent again.
                let _ = self.poll_flush(cx);
                let is_unread = self.upload.is_some() || self.is_unread();
                return Poll::Ready(Err(Over::BrokenOff { is_unread }));
            }
            let has_come = self.poll_upload(cx);
            let written = match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => flow.poll_drain(&mut self.stream, &self.connection, cx),
                other => other,
            };
            match written {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(&error))),
                Poll::Ready(Ok(())) if flow.has_ended() => return Poll::Ready(Ok(())),
                // There was no room for more, and now there is.
                Poll::Ready(Ok(())) if step.is_ready() => continue,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if !has_come {
                return self.poll_gone(cx).map(Err);
            }
        }
    }

    /// Whether another request has begun to come.
    fn has_more(&self) -> bool {
        !self.input.is_mid_body() && !self.input.bytes.is_empty()
    }

    /// Whether the client may be sending still, as one may that does not wait for an answer before it asks again.
    fn is_unread(&self) -> bool {
        self.has_pipelined || self.has_more() || self.input.is_mid_body()
    }

    /// Ready when the client went away while it was owed an answer. What it sends meanwhile is kept for later: the
    /// beginning of another request, or a little of a body that nobody has asked for yet.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let kept_bytes_max = match &self.upload {
            Some(upload) if upload.is_begun => return Poll::Pending,
            Some(_) => READ_BYTES,
            None if self.input.is_mid_body() => return Poll::Pending,
            None => 1,
        };
        if self.input.bytes.len() >= kept_bytes_max {
            return Poll::Pending;
        }
        // Most answers come before a client could go: a new connection is watched from the second time on that it
        // waits. Its worker wakes it within a second.
        if self.stream.is_fresh() && !mem::replace(&mut self.has_waited, true) {
            return Poll::Pending;
        }
        loop {
            match ready!(self.poll_read(READ_BYTES, cx)) {
                Ok(0) => return Poll::Ready(self.broken(&io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if self.input.bytes.len() >= kept_bytes_max => return Poll::Pending,
                Ok(_) => {}
                Err(error) => return Poll::Ready(self.broken(&error)),
            }
        }
    }

    /// Reads once, into `room` bytes.
    fn poll_read(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let bytes = &mut self.input.bytes;
        if bytes.capacity() - bytes.len() < room / 2 {
            bytes.reserve(room);
        }
        pin!(self.stream.read_buf(bytes)).poll(cx)
    }

    /// Writes everything, and notes how that goes. TLS takes something while the socket takes nothing.
    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As it is at four of five looks.
        if self.output.is_empty() && !self.is_unflushed { Poll::Ready(Ok(())) } else { self.poll_write(cx) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let offered = self.output.len();
            let result = self.output.poll_write(Pin::new(&mut self.stream), cx);
            self.connection.wrote(offered, &result);
            ready!(result)?;
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            let flushed = Pin::new(&mut self.stream).poll_flush(cx);
            self.is_unflushed = flushed.is_pending();
            self.connection.set_write_blocked(self.is_unflushed);
            ready!(flushed)?;
        }
        Poll::Ready(Ok(()))
    }

    fn broken(&self, error: &io::Error) -> Over {
        tracing::debug!(%error, peer = ?self.connection.peer, "connection ended early");
        Over::Broken
    }
}
