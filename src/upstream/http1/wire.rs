//! One connection's socket and buffers, and how far the request on it and its answer have come.

use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use super::super::connection::RequestHead;
use super::super::stream::Stream;
use super::Broken;
use super::appetite::Appetite;
use super::request::{Outgoing, Unsent};
use super::room;
use crate::alarm::Alarm;
use crate::message::answer::{BodyReader, HeadReader};
use crate::pipe::Pipe;
use crate::proxy::body::{Patience, RequestBody};

#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// Read, and not yet taken. Room of the thread's, unless more is wanted than that has.
    read: BytesMut,
    appetite: Appetite,
    outgoing: Outgoing<RequestBody>,
    head: HeadReader,
    /// A map to put the fields of the next answer in, that has been made already.
    fields: HeaderMap,
    /// The answer's head, until it is taken.
    answer: Option<Response<()>>,
    /// What is left of its body.
    body: BodyReader,
    /// Where the request and its answer are.
    stage: Stage,
    /// The endpoint has reset it, which the request has met: a socket tells that once, and then that it is at its end.
    is_reset: bool,
    /// Nothing of the answer has come.
    is_silent: bool,
    pub(super) alarm: Alarm,
    /// Who reads the answer while somebody else sends the request.
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is on the way.
    Idle,
    /// There is no head yet.
    Asked,
    /// There is one. Whether the connection is kept when all has been read.
    Answered {
        is_kept: bool,
    },
    Broken,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            appetite: Appetite::default(),
            outgoing: Outgoing::new(),
            head: HeadReader::new(false),
            fields: HeaderMap::new(),
            answer: None,
            body: BodyReader::none(),
            stage: Stage::Idle,
            is_reset: false,
            is_silent: true,
            alarm: Alarm::default(),
            reader: None,
        }
    }

    /// Puts a request in line.
    ///
    /// # Errors
    /// Hands the body back when the endpoint has closed the connection, or said something unasked, as far as the event
    /// loop knows of it.
    pub(super) fn begin(&mut self, head: RequestHead<'_>, body: RequestBody) -> Result<(), RequestBody> {
        if self.stage != Stage::Idle || self.stream.has_news() {
            self.stage = Stage::Broken;
            return Err(body);
        }
        self.head = HeadReader::new(head.parts.method == Method::HEAD);
        self.outgoing.begin(head, body);
        self.stage = Stage::Asked;
        self.is_silent = true;
        Ok(())
    }

    /// Sends, and reads until the answer's head is there: an endpoint may answer before it has taken everything, and
    /// will perhaps take nothing more before its answer is read.
    ///
    /// `spare` is a map whose fields nobody needs once there is an answer. It is kept for the next one: this answer may
    /// turn out to be none while its fields are being read.
    pub(super) fn poll_answer(
        &mut self,
        spare: Option<&mut HeaderMap>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StatusCode, Broken>> {
        let result = self.poll_head(spare, cx);
        if matches!(result, Poll::Ready(Err(_))) {
            self.stage = Stage::Broken;
        }
        result
    }

    fn poll_head(&mut self, spare: Option<&mut HeaderMap>, cx: &mut Context<'_>) -> Poll<Result<StatusCode, Broken>> {
        match self.outgoing.poll_send(&mut self.stream, cx) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(Unsent::Lost(error))) => return Poll::Ready(Err(Broken::Request(error))),
            Poll::Ready(Err(Unsent::Refused(error))) if self.outgoing.is_untouched() => {
                return Poll::Ready(Err(Broken::Unsent(error)));
            }
            // It may have answered before it closed.
            Poll::Ready(Err(Unsent::Refused(error))) => self.give_up(&error),
        }
        loop {
            if let Some(head) = self.head.read(&mut self.read, &mut self.fields)? {
                let mut answer = Response::new(());
                *answer.status_mut() = head.status;
                mem::swap(answer.headers_mut(), &mut self.fields);
                // Who is told of a 101 that was not asked for may have to ask again.
                if let Some(spare) = spare.filter(|_| head.status != StatusCode::SWITCHING_PROTOCOLS) {
                    mem::swap(&mut self.fields, spare);
                    // Its values hold on to what was read from the client.
                    self.fields.clear();
                }
                self.answer = Some(answer);
                if let Some(left) = head.body.left() {
                    self.appetite.expects(left.saturating_sub(self.read.len() as u64));
                }
                self.body = head.body;
                self.stage = Stage::Answered { is_kept: head.keeps_alive && !self.outgoing.is_last() };
                return Poll::Ready(Ok(head.status));
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if self.is_silent => {
                    return Poll::Ready(Err(Broken::Silent(io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(0) => return Poll::Ready(Err(Broken::Closed)),
                Ok(_) => self.is_silent = false,
                Err(error) if self.is_silent => return Poll::Ready(Err(Broken::Silent(error))),
                Err(error) => return Poll::Ready(Err(Broken::Io(error))),
            }
        }
    }

    /// The answer's head. Once, when there is one.
    pub(super) fn take_answer(&mut self) -> Option<Response<()>> {
        self.answer.take()
    }

    pub(super) fn answer(&self) -> Option<&Response<()>> {
        self.answer.as_ref()
    }

    /// All of the answer's body, where its length is known, it is there and the request is out of the way.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        if self.is_sending() { None } else { self.body.take_whole(&mut self.read) }
    }

    /// What there is of the answer's body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = self.poll_body(cx);
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.stage = Stage::Broken;
        }
        frame
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            // By what sends the request: nobody asks again after an error.
            if self.stage == Stage::Broken {
                return Poll::Ready(Some(Err(Broken::Unfed)));
            }
            if let Some(frame) = self.body.next(&mut self.read)? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.body.has_ended() {
                return Poll::Ready(None);
            }
            if ready!(self.poll_read(cx)).map_err(Broken::Io)? == 0 {
                if self.is_reset {
                    return Poll::Ready(Some(Err(Broken::Io(io::ErrorKind::ConnectionReset.into()))));
                }
                self.body.close()?;
            }
        }
    }

    /// Whether what is left of the body is still to come, and as the client is to have it.
    pub(super) fn is_pipeable(&self) -> bool {
        self.read.is_empty() && self.body.left().is_some() && self.stream.plain().is_some()
    }

    /// Moves what has come of such a body into `pipe`, at most `bytes_max`; how much that was. Where it is nothing the
    /// body is to be read.
    pub(super) fn poll_pipe(&mut self, pipe: &mut Pipe, bytes_max: u64, cx: &mut Context<'_>) -> Poll<usize> {
        let (Some(left), Some(socket)) = (self.body.left(), self.stream.plain()) else { return Poll::Ready(0) };
        // What is wrong with the connection, or that it is at its end, shows when it is read.
        let moved = ready!(pipe.poll_fill(socket, left.min(bytes_max), cx)).unwrap_or(0);
        self.body.passed(moved as u64);
        Poll::Ready(moved)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.body.has_ended()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Whether some of the request is still on its way.
    pub(super) fn is_sending(&self) -> bool {
        !self.outgoing.is_done()
    }

    /// Whether the endpoint means to close the connection behind its answer, though not all of the request has gone to
    /// it.
    pub(super) fn is_left_unfed(&self) -> bool {
        self.is_sending() && self.stage == Stage::Answered { is_kept: false }
    }

    /// Sends the rest of the request beside its answer, and behind it, as long as the endpoint takes some of it within
    /// `patience`.
    pub(super) fn poll_rest(&mut self, patience: &mut Patience, cx: &mut Context<'_>) -> Poll<()> {
        match self.outgoing.poll_send(&mut self.stream, cx) {
            Poll::Ready(Ok(())) => {}
            // What it does not want to hear keeps nobody from what it says.
            Poll::Ready(Err(Unsent::Refused(error))) => self.give_up(&error),
            Poll::Ready(Err(Unsent::Lost(_))) => {
                self.outgoing.give_up();
                self.stage = Stage::Broken;
                self.reader.take().into_iter().for_each(Waker::wake);
            }
            Poll::Pending => {
                ready!(self.poll_not_taken(patience, cx));
                self.outgoing.give_up();
            }
        }
        Poll::Ready(())
    }

    /// Ready when the endpoint has said everything, and has taken nothing for too long. An endpoint that still answers
    /// is heard, whatever it takes.
    fn poll_not_taken(&mut self, patience: &mut Patience, cx: &mut Context<'_>) -> Poll<()> {
        if self.outgoing.take_progress() || self.outgoing.waits_for_client() {
            patience.rest();
        }
        if self.outgoing.waits_for_client() {
            return Poll::Pending;
        }
        loop {
            ready!(patience.poll_waiting(cx));
            if self.has_ended() {
                return Poll::Ready(());
            }
            patience.rest();
        }
    }

    /// Sends no more of the request. Behind a FIN a reset is another error, and the answer may be whole.
    fn give_up(&mut self, error: &io::Error) {
        self.is_reset |= error.kind() == io::ErrorKind::ConnectionReset;
        self.outgoing.give_up();
    }

    /// To be woken when the request cannot be sent to its end.
    pub(super) fn set_reader(&mut self, waker: &Waker) {
        if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(waker)) {
            self.reader = Some(waker.clone());
        }
    }

    /// Makes it ready for another request; whether it can take one: all of this one has been sent, all of its answer
    /// has been read and nothing behind it, and both sides want to go on.
    pub(super) fn rest(&mut self) -> bool {
        let is_kept = self.stage == Stage::Answered { is_kept: true };
        if !(is_kept && self.body.has_ended() && self.outgoing.is_sent() && self.read.is_empty()) {
            return false;
        }
        self.stage = Stage::Idle;
        self.reader = None;
        if self.appetite.is_large() {
            self.appetite = Appetite::default();
            self.read = BytesMut::new();
        } else if self.appetite.is_least() {
            room::give_back(mem::take(&mut self.read));
        }
        true
    }

    /// Whether its endpoint has closed it while it was kept. What it holds for the next request is let go of.
    pub(super) fn doze(&mut self) -> bool {
        self.read = BytesMut::new();
        self.fields = HeaderMap::new();
        self.outgoing.doze();
        self.alarm.rest();
        self.stream.has_news()
    }

    /// The stream, and what has been read of it behind the head of a 101; `None` when the request is not wholly sent.
    pub(super) fn into_upgraded(self) -> Option<(Stream, Bytes)> {
        self.outgoing.is_sent().then(|| (self.stream, self.read.freeze()))
    }

    /// The last words, where there are any: those of TLS.
    pub(super) fn goodbye(&mut self) {
        if self.stream.is_tls() {
            // Taken by the socket at once, or lost.
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = self.appetite.bytes();
        if self.read.capacity() == 0 && self.appetite.is_least() {
            self.read = room::take();
        } else if self.read.capacity() - self.read.len() < wanted {
            self.read.reserve(wanted);
        }
        let result = pin!(self.stream.read_buf(&mut self.read)).poll(cx);
        if result.is_pending() && self.read.is_empty() && self.appetite.is_least() {
            room::give_back(mem::take(&mut self.read));
        }
        let read = ready!(result)?;
        self.appetite.had(read);
        Poll::Ready(Ok(read))
    }
}
