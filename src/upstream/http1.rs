//! A connection of HTTP/1 to an endpoint, and who drives it.
//!
//! hyper splits a connection into a handle that takes requests and a future that reads and writes the socket. Whoever
//! waits for an answer polls that future itself: a task of its own would cost every request two wake-ups more. So a
//! connection that is kept is driven by nobody, and what its endpoint did meanwhile shows when it is taken. A task takes
//! over where bytes have to flow while nobody waits: in an upgrade, for a request's body that goes on behind the answer's
//! head, and for the goodbye.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;

use super::stream::Stream;
use crate::proxy::body::RequestBody;

type Wire = http1::Connection<TokioIo<Stream>, RequestBody>;
type Answer = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// One connection. Dropped, it is closed with a goodbye.
pub(crate) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    driver: Driver,
}

/// What reads and writes the socket, where that is the holder's part; `None` = a task does, or the connection has ended.
struct Driver(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>>);

impl Http1 {
    pub(super) fn new(sender: http1::SendRequest<RequestBody>, wire: Wire) -> Self {
        Self { sender, driver: Driver(Some(Box::pin(wire.with_upgrades()))) }
    }

    /// Sends one request and drives the connection until the head of its answer is there.
    ///
    /// # Cancel safety
    /// Dropped, it gives the request up, and the connection is of no use any more.
    pub(super) fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = Answer> + Send + '_ {
        Sending { answer: self.sender.try_send_request(request), driver: &mut self.driver }
    }

    /// Whether that is the holder's part: then nothing comes on it otherwise.
    pub(super) fn is_to_be_driven(&self) -> bool {
        self.driver.0.is_some()
    }

    /// Reads and writes what there is to, where that is the holder's part.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.driver.drive(cx);
    }

    /// Whether it has ended, as far as it is known.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Lets a task drive it from here on.
    pub(super) fn detach(&mut self) {
        self.driver.detach();
    }

    /// Whether it takes another request. What its endpoint said while it was kept is looked at only when there is need
    /// to: a close that goes unnoticed here hands the request back.
    pub(super) async fn is_ready(&mut self) -> bool {
        if self.sender.is_ready() {
            return true;
        }
        if self.is_to_be_driven() {
            return !self.has_ended() && self.sender.is_ready();
        }
        // The last answer may have been read a moment before the task has put itself in order.
        !self.is_closed() && self.sender.ready().await.is_ok()
    }

    /// Looks whether its endpoint has closed it while it was kept.
    pub(super) fn has_ended(&mut self) -> bool {
        self.driver.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_closed()
    }
}

impl Drop for Http1 {
    /// Whatever is to be said at the end of a connection, hyper says when the handle is gone.
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.driver.detach();
        }
    }
}

impl Driver {
    #[inline]
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(wire) = &mut self.0
            && let Poll::Ready(end) = wire.as_mut().poll(cx)
        {
            told(end);
            self.0 = None;
        }
    }

    fn detach(&mut self) {
        if let Some(wire) = self.0.take() {
            tokio::spawn(async move { told(wire.await) });
        }
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("sender", &self.sender).finish_non_exhaustive()
    }
}

fn told(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::trace!(%error, "upstream connection ended");
    }
}

pin_project! {
    /// A request on its way, and the connection that has to be driven for it.
    struct Sending<'a, F> {
        #[pin]
        answer: F,
        driver: &'a mut Driver,
    }
}

impl<F: Future> Future for Sending<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.driver.drive(cx);
        this.answer.poll(cx)
    }
}
