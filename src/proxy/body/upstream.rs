//! An upstream's answer as it comes.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{BodyError, Delivery, Patience};
use crate::pipe::Pipe;
use crate::upstream::connection::AnswerError;
use crate::upstream::lease::Lease;

/// After so much of one answer the other connections of its thread have their turn.
const TURN_BYTES_MAX: usize = 256 * 1024;

/// An upstream's answer, and the connection it comes on.
pub(super) struct UpstreamBody {
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
    pub(super) is_unfed: bool,
}

impl UpstreamBody {
    pub(super) fn new(mut lease: Lease, delivery: Option<Arc<Delivery>>, read_timeout: Duration) -> Self {
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
            lease.give_back(Instant::now());
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.broken.is_none() && self.lease.as_ref().is_none_or(Lease::has_ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.lease {
            Some(lease) => lease.size_hint(),
            None if self.broken.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            let fault = self.delivery.as_ref().and_then(|delivery| delivery.fault());
            return Poll::Ready(Some(Err(match fault {
                Some(fault) if error.is_of_request() => BodyError::Undelivered(fault),
                _ => BodyError::Broken(error.into()),
            })));
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
                    lease.endpoint().broke_off(&error, Instant::now());
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

    /// As [`super::Body::let_end`].
    pub(super) fn let_end(mut self) {
        if let Some(lease) = self.lease.take() {
            lease.let_end(self.patience.limit);
        }
    }

    pub(super) fn is_pipeable(&self) -> bool {
        self.broken.is_none() && self.lease.as_ref().is_some_and(Lease::is_pipeable)
    }

    pub(super) fn poll_pipe(
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
            lease.endpoint().broke_off(&BodyError::Timeout, Instant::now());
        }
        Poll::Ready(BodyError::Timeout)
    }
}
