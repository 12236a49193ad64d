//! Bodies in both directions, streamed with back-pressure, bounded and timed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

use super::context::Context;
use super::tunnel::Tunnel;
use crate::alarm::Alarm;
use crate::pipe::Pipe;
use crate::upstream::connection::AnswerError;
use crate::upstream::lease::Lease;

mod delivery;
mod request;

pub(crate) use delivery::{Delivery, Fault};
pub(crate) use request::RequestBody;

/// A body that could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body did not go on in time")]
    Timeout,
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("maintenance cut what was in flight")]
    Cut,
    #[error("the file could not be read")]
    File(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the request was sent again elsewhere")]
    Superseded,
    #[error("the body is not as long as its head says")]
    Misframed,
}

/// Time that runs only while a read is waiting.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    alarm: Alarm,
    /// When the current wait is too long.
    end: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, alarm: Alarm::default(), end: None }
    }

    /// Nothing is waited for any more.
    pub(crate) fn rest(&mut self) {
        self.end = None;
    }

    /// The current wait may last for `left` from now on.
    fn extend(&mut self, left: Duration) {
        self.end = Some(Instant::now() + left);
    }

    /// Ready when the current wait has lasted too long.
    pub(crate) fn poll_waiting(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let end = *self.end.get_or_insert_with(|| Instant::now() + self.limit);
        self.alarm.poll(end.into_std(), cx)
    }
}

/// An answer's body on its way to the client. Dropping it finishes the request's log line.
pub(crate) struct Body {
    inner: Inner,
    context: Option<Box<Context>>,
}

enum Inner {
    Full(Bytes),
    /// Boxed: an answer is moved a dozen times on its way.
    Upstream(Box<UpstreamBody>),
    File(UnsyncBoxBody<Bytes, BodyError>),
}

/// An upstream's answer, and the connection it comes on.
struct UpstreamBody {
    patience: Patience,
    /// Given back when the answer is complete; dropped, and the connection with it, when it is not.
    lease: Option<Lease>,
    /// How its request comes, unless that had no body.
    delivery: Option<Arc<Delivery>>,
    /// It broke, and the next to ask is told.
    broken: Option<AnswerError>,
    /// Handed over since it last let others go on.
    turn_bytes: usize,
    /// The endpoint means to close before it has all of the request.
    is_unfed: bool,
}

/// After so much of one answer the other connections of its thread have their turn.
const TURN_BYTES_MAX: usize = 256 * 1024;

impl UpstreamBody {
    fn new(mut lease: Lease, delivery: Option<Arc<Delivery>>, read_timeout: Duration) -> Self {
        // A client that reads slowly, or not before it has sent everything, must not hold up its own request.
        let is_unfed = lease.share(read_timeout);
        let patience = Patience::new(read_timeout);
        let mut body = Self { patience, lease: Some(lease), delivery, broken: None, turn_bytes: 0, is_unfed };
        if body.has_ended() {
            body.complete();
        }
        body
    }

    fn complete(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(std::time::Instant::now());
        }
    }

    fn has_ended(&self) -> bool {
        self.broken.is_none() && self.lease.as_ref().is_none_or(Lease::has_ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.lease {
            Some(lease) => lease.size_hint(),
            None if self.broken.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }

    fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(BodyError::Broken(error.into()))));
        }
        ready!(self.poll_turn(cx));
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        match lease.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Nothing comes behind trailers, and nobody may ask.
                self.had(frame.data_ref().map_or(0, Bytes::len), frame.is_trailers());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if !error.is_of_request() {
                    lease.endpoint().broke_off(&error, std::time::Instant::now());
                }
                self.lease = None;
                // A little later, so that what came before is sent: the client is to see an answer that breaks off.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_too_late(cx).map(|late| Some(Err(late))),
        }
    }

    fn is_pipeable(&self) -> bool {
        self.broken.is_none() && self.lease.as_ref().is_some_and(Lease::is_pipeable)
    }

    fn poll_pipe(
        &mut self,
        pipe: &mut Pipe,
        bytes_max: u64,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<usize, BodyError>> {
        ready!(self.poll_turn(cx));
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(0)) };
        match lease.poll_pipe(pipe, bytes_max, cx) {
            Poll::Ready(0) => Poll::Ready(Ok(0)),
            Poll::Ready(moved) => {
                self.had(moved, false);
                Poll::Ready(Ok(moved))
            }
            Poll::Pending => self.poll_too_late(cx).map(Err),
        }
    }

    /// Pending when others have their turn first.
    fn poll_turn(&mut self, cx: &TaskContext<'_>) -> Poll<()> {
        if self.turn_bytes < TURN_BYTES_MAX {
            return Poll::Ready(());
        }
        self.turn_bytes = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// So much of it has come.
    fn had(&mut self, bytes: usize, is_last: bool) {
        self.patience.rest();
        self.turn_bytes += bytes;
        if is_last || self.has_ended() {
            self.complete();
        }
    }

    /// Nothing more has come. Ready when that has been so for too long, and not for want of the request.
    fn poll_too_late(&mut self, cx: &mut TaskContext<'_>) -> Poll<BodyError> {
        self.turn_bytes = 0;
        loop {
            ready!(self.patience.poll_waiting(cx));
            let limit = self.patience.limit;
            match self.delivery.as_ref().map_or(Duration::ZERO, |delivery| delivery.leaves(limit)) {
                Duration::ZERO => break,
                left => self.patience.extend(left),
            }
        }
        if let Some(lease) = self.lease.take() {
            lease.endpoint().broke_off(&BodyError::Timeout, std::time::Instant::now());
        }
        Poll::Ready(BodyError::Timeout)
    }
}

impl Body {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { inner: Inner::Full(bytes.into()), context: None }
    }

    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// What an endpoint answers, as far as the head has been read, which was `now`. A small answer is there with its
    /// head as a rule, and its connection free for others. `delivery` is that of the request's body.
    pub(crate) fn answer(
        mut lease: Lease,
        delivery: Option<Arc<Delivery>>,
        read_timeout: Duration,
        now: std::time::Instant,
    ) -> Self {
        if let Some(whole) = lease.take_whole() {
            lease.give_back(now);
            return Self::full(whole);
        }
        Self { inner: Inner::Upstream(Box::new(UpstreamBody::new(lease, delivery, read_timeout))), context: None }
    }

    pub(crate) fn file(body: UnsyncBoxBody<Bytes, BodyError>) -> Self {
        Self { inner: Inner::File(body), context: None }
    }

    /// Whether what is left of it can go on as it comes, by [`Self::poll_pipe`]: an app sends it over a plain
    /// connection, and all that was read with its head has been taken.
    pub(crate) fn is_pipeable(&self) -> bool {
        matches!(&self.inner, Inner::Upstream(body) if body.is_pipeable())
    }

    /// How long its client may take nothing of it, where its route says so.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.context.as_ref()?.route.as_ref().map(|route| route.timeouts.response_body)
    }

    /// Whether its app means to close before it has all of the request.
    pub(crate) fn is_unfed(&self) -> bool {
        matches!(&self.inner, Inner::Upstream(body) if body.is_unfed)
    }

    /// Moves what has come of it into `pipe`, which is empty, at most `bytes_max`; how much that was. Where it is
    /// nothing the next is a frame.
    ///
    /// # Errors
    /// It does not come to its end.
    pub(crate) fn poll_pipe(
        &mut self,
        pipe: &mut Pipe,
        bytes_max: u64,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<usize, BodyError>> {
        if self.is_cut() {
            return Poll::Ready(Err(self.cut()));
        }
        let Inner::Upstream(body) = &mut self.inner else { return Poll::Ready(Ok(0)) };
        let moved = body.poll_pipe(pipe, bytes_max, cx);
        if let Some(context) = &mut self.context {
            match &moved {
                Poll::Ready(Ok(bytes)) => context.sent(*bytes),
                Poll::Ready(Err(error)) => context.broke_off(error),
                Poll::Pending => {}
            }
        }
        moved
    }

    /// Whether maintenance cuts it, unless it is there already.
    fn is_cut(&mut self) -> bool {
        !matches!(self.inner, Inner::Full(_)) && self.context.as_mut().is_some_and(|context| context.is_cut())
    }

    fn cut(&mut self) -> BodyError {
        // What still comes from upstream is not wanted: its connection goes too.
        self.inner = Inner::Full(Bytes::new());
        if let Some(context) = &mut self.context {
            context.broke_off(&BodyError::Cut);
        }
        BodyError::Cut
    }

    /// All that its client is to get has been read. What the app has still to say is heard to its end.
    pub(crate) fn let_end(self) {
        if let Inner::Upstream(mut body) = self.inner
            && let Some(lease) = body.lease.take()
        {
            lease.let_end(body.patience.limit);
        }
    }

    /// It has ended before the length that its head says.
    pub(crate) fn was_short(&mut self) {
        if let Some(context) = &mut self.context {
            context.broke_off(&BodyError::Misframed);
        }
    }

    /// From here on the request's context lives and dies with the body.
    pub(crate) fn attach(&mut self, context: Box<Context>) {
        self.context = Some(context);
    }

    /// What is to follow the head of this answer, where both sides have agreed to speak something else. The request's
    /// context goes along.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        let (upstream, idle) = self.context.as_mut()?.tunnel.take()?;
        let context = self.context.take()?;
        Some(Box::new(Tunnel { upstream, idle, context }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.is_cut() {
            return Poll::Ready(Some(Err(this.cut())));
        }
        let frame = match &mut this.inner {
            Inner::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Upstream(body) => body.poll_frame(cx),
            Inner::File(body) => Pin::new(body).poll_frame(cx),
        };
        if let Some(context) = &mut this.context {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => context.sent(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(Some(Err(error))) => context.broke_off(error),
                _ => {}
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Upstream(body) => body.has_ended(),
            Inner::File(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Upstream(body) => body.size_hint(),
            Inner::File(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
