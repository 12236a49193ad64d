//! Bodies in both directions, streamed with back-pressure, bounded and timed.
//!
//! | file | what it is |
//! |---|---|
//! | `request`, `delivery` | a request's body; how it comes, for whoever waits for its answer |
//! | `upstream` | an upstream's answer as it comes |
//! | `patience` | how long a body may keep its reader waiting |

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::context::Context;
use super::respond;
use super::tunnel::Tunnel;
use crate::pipe::Pipe;
use crate::upstream::lease::Lease;

mod delivery;
mod patience;
mod request;
mod upstream;

pub(crate) use delivery::{Delivery, Fault};
pub(crate) use patience::Patience;
pub(crate) use request::RequestBody;
use upstream::UpstreamBody;

/// A body that could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body did not go on in time")]
    Timeout,
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the client failed to deliver its request: {0:?}")]
    Undelivered(Fault),
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

    /// What stands behind it, though `error` has ended it early: a client of gRPC that reads trailers is told its status.
    pub(crate) fn status_behind(&self, error: &BodyError) -> Option<HeaderMap> {
        let context = self.context.as_ref().filter(|_| matches!(error, BodyError::Cut))?;
        respond::grpc_status_of_cut(context)
    }

    /// All that its client is to get has been read. What the app has still to say is heard to its end.
    pub(crate) fn let_end(self) {
        if let Inner::Upstream(body) = self.inner {
            body.let_end();
        }
    }

    /// It has ended before the length that its head says.
    pub(crate) fn was_short(&mut self) {
        if let Some(context) = &mut self.context {
            context.broke_off(&BodyError::Misframed);
        }
    }

    /// Not even the head of its answer was sent.
    pub(crate) fn was_unsent(&mut self) {
        if let Some(context) = &mut self.context {
            context.was_unsent();
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
