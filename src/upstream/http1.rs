//! A connection of HTTP/1 to an endpoint: one request at a time (RFC 9112).
//!
//! It is driven by whoever has the request: no task and no channel lies between the request and the socket. So a
//! connection that is kept is driven by nobody, and what its endpoint did meanwhile shows when it is used, or once a
//! second. Where an answer comes before all of its request has been sent, a task goes on sending beside whoever reads
//! the answer: a client may read only when it has sent everything.
//!
//! | file | what it is |
//! |---|---|
//! | `wire` | the socket, and how far request and answer have come |
//! | `request` | a request as bytes |
//! | `appetite`, `room` | how much is read at once, and into what |
//!
//! What an answer means is read in [`crate::message::answer`].

mod appetite;
mod request;
mod room;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use self::wire::Wire;
use super::connection::RequestHead;
use super::stream::Stream;
use crate::message::answer::BadAnswer;
use crate::pipe::Pipe;
use crate::proxy::body::{BodyError, Patience, RequestBody};

/// Why an answer did not come, or not to its end. Its connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// None of the request was taken, and its body, if it had one, was not touched.
    #[error("the connection was closed before anything was sent: {0}")]
    Unsent(#[source] io::Error),
    #[error("the request could not be sent to its end: {0}")]
    Request(#[source] BodyError),
    /// The same, when an answer had begun.
    #[error("the request could not be sent to its end")]
    Unfed,
    /// What became of the request nobody knows, and it was no answer that broke off.
    #[error("the connection was closed before a byte of an answer came: {0}")]
    Silent(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    #[error("the connection was closed before the answer")]
    Closed,
    #[error("bad answer: {0}")]
    Answer(#[from] BadAnswer),
}

/// One connection. Dropped, it is closed with a goodbye.
pub(crate) struct Http1(Holder);

enum Holder {
    Own(Box<Wire>),
    /// A task sends what is left of the request.
    Shared(Arc<Mutex<Wire>>, AbortHandle),
    Gone,
}

impl Http1 {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Holder::Own(Box::new(Wire::new(stream))))
    }

    /// Puts a request in line, to be sent as the answer is asked for.
    ///
    /// # Errors
    /// Hands the body back when the endpoint has closed the connection meanwhile.
    pub(super) fn begin(&mut self, head: RequestHead<'_>, body: RequestBody) -> Result<(), RequestBody> {
        match &mut self.0 {
            Holder::Own(wire) => wire.begin(head, body),
            Holder::Shared(..) | Holder::Gone => Err(body),
        }
    }

    /// Sends, and reads until the answer's head is there. `spare` is a map that its fields may be put into.
    pub(super) fn poll_answer(
        &mut self,
        spare: Option<&mut HeaderMap>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StatusCode, Broken>> {
        match &mut self.0 {
            Holder::Own(wire) => wire.poll_answer(spare, cx),
            Holder::Shared(..) | Holder::Gone => Poll::Ready(Err(Broken::Closed)),
        }
    }

    /// Ready when it is `deadline`.
    pub(super) fn poll_alarm(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Holder::Own(wire) => wire.alarm.poll(deadline, cx),
            Holder::Shared(..) | Holder::Gone => Poll::Pending,
        }
    }

    /// The head of the answer that has come.
    pub(super) fn take_answer(&mut self) -> Option<Response<()>> {
        self.wire(Wire::take_answer).flatten()
    }

    /// The same, which stays, while nobody else has the connection.
    pub(super) fn answer(&self) -> Option<&Response<()>> {
        if let Holder::Own(wire) = &self.0 { wire.answer() } else { None }
    }

    /// All of the answer's body, where it is there already and its length is known.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Holder::Own(wire) => wire.take_whole(),
            Holder::Shared(..) | Holder::Gone => None,
        }
    }

    /// What there is of the answer's body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.0 {
            Holder::Own(wire) => wire.poll_frame(cx),
            Holder::Shared(wire, _) => {
                let mut wire = wire.lock();
                wire.set_reader(cx.waker());
                wire.poll_frame(cx)
            }
            Holder::Gone => Poll::Ready(None),
        }
    }

    /// Whether what is left of the answer's body can be moved by [`Self::poll_pipe`].
    pub(super) fn is_pipeable(&self) -> bool {
        matches!(&self.0, Holder::Own(wire) if wire.is_pipeable())
    }

    /// Moves what has come of it into `pipe`, at most `bytes_max`; how much that was. Where it is nothing it is to be
    /// read.
    pub(super) fn poll_pipe(&mut self, pipe: &mut Pipe, bytes_max: u64, cx: &mut Context<'_>) -> Poll<usize> {
        match &mut self.0 {
            Holder::Own(wire) => wire.poll_pipe(pipe, bytes_max, cx),
            Holder::Shared(..) | Holder::Gone => Poll::Ready(0),
        }
    }

    /// Whether the answer has been read to its end.
    pub(super) fn has_ended(&self) -> bool {
        match &self.0 {
            Holder::Own(wire) => wire.has_ended(),
            Holder::Shared(wire, _) => wire.lock().has_ended(),
            Holder::Gone => true,
        }
    }

    /// Of what is left of the answer's body.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Holder::Own(wire) => wire.size_hint(),
            Holder::Shared(wire, _) => wire.lock().size_hint(),
            Holder::Gone => SizeHint::with_exact(0),
        }
    }

    /// Whether the endpoint means to close the connection before it has all of the request.
    pub(super) fn is_left_unfed(&self) -> bool {
        matches!(&self.0, Holder::Own(wire) if wire.is_left_unfed())
    }

    /// Lets a task send what is left of the request, if something is. Behind the answer it waits for as long as
    /// `patience` for the endpoint to take some of it.
    pub(super) fn share(&mut self, patience: Duration) {
        if !matches!(&self.0, Holder::Own(wire) if wire.is_sending()) {
            return;
        }
        if let Holder::Own(wire) = mem::replace(&mut self.0, Holder::Gone) {
            let wire = Arc::new(Mutex::new(*wire));
            // Ends with the request, or with whoever reads the answer before that is read.
            let task = tokio::spawn(send_rest(Arc::clone(&wire), Patience::new(patience))).abort_handle();
            self.0 = Holder::Shared(wire, task);
        }
    }

    /// The connection for another request, if it can take one.
    pub(super) fn kept(mut self) -> Option<Self> {
        let mut wire = match mem::replace(&mut self.0, Holder::Gone) {
            Holder::Own(wire) => wire,
            Holder::Shared(wire, _) => match Arc::try_unwrap(wire) {
                Ok(wire) => Box::new(wire.into_inner()),
                // The task ends it.
                Err(_) => return None,
            },
            Holder::Gone => return None,
        };
        let is_ready = wire.rest();
        let connection = Self(Holder::Own(wire));
        is_ready.then_some(connection)
    }

    /// Whether its endpoint has closed it while it was kept. It lets go of its buffers, as it has not been used for a
    /// while.
    pub(super) fn doze(&mut self) -> bool {
        self.wire(Wire::doze).unwrap_or(true)
    }

    /// The stream behind a 101, and what has been read of it; `None` when that came too early.
    pub(super) fn into_upgraded(mut self) -> Option<(Stream, Bytes)> {
        match mem::replace(&mut self.0, Holder::Gone) {
            Holder::Own(wire) => wire.into_upgraded(),
            Holder::Shared(..) | Holder::Gone => None,
        }
    }

    fn wire<T>(&mut self, act: impl FnOnce(&mut Wire) -> T) -> Option<T> {
        match &mut self.0 {
            Holder::Own(wire) => Some(act(wire)),
            Holder::Shared(wire, _) => Some(act(&mut wire.lock())),
            Holder::Gone => None,
        }
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        match &mut self.0 {
            Holder::Own(wire) => wire.goodbye(),
            // Once the answer has been read, what is left of the request goes on without us.
            Holder::Shared(wire, task) if Arc::strong_count(wire) == 1 || !wire.lock().has_ended() => {
                wire.lock().goodbye();
                task.abort();
            }
            Holder::Shared(..) | Holder::Gone => {}
        }
    }
}

/// Sends what is left of a request, and closes the connection when nobody reads on it any more.
async fn send_rest(wire: Arc<Mutex<Wire>>, mut patience: Patience) {
    poll_fn(|cx| wire.lock().poll_rest(&mut patience, cx)).await;
    if let Ok(wire) = Arc::try_unwrap(wire) {
        wire.into_inner().goodbye();
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").finish_non_exhaustive()
    }
}
