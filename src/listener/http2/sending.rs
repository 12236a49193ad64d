//! The body of an answer on its way to the client of a stream.
//!
//! A piece is asked of the body before room is asked for it: what is reserved of the connection's window is taken from
//! other streams. A client that opens no window leaves nothing to be polled but the window, so that no timer of the
//! body runs; the one here gives its stream up.

use std::error::Error;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};

use crate::message::trailers;
use crate::proxy::body::{Body, BodyError, Patience};

/// Ready when all has been handed over, or the stream was given up.
pub(super) struct Sending {
    body: Body,
    stream: SendStream<Bytes>,
    /// Asked of the body, and whether it is the last.
    piece: Option<(Bytes, bool)>,
    is_waiting: bool,
    /// For the client to open a window.
    patience: Patience,
}

enum Step {
    On,
    Over,
}

impl Sending {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>, patience: Duration) -> Self {
        Self { body, stream, piece: None, is_waiting: false, patience: Patience::new(patience) }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(self.take(frame)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.break_off(&error)),
            Poll::Ready(None) => Poll::Ready(over(self.stream.send_data(Bytes::new(), true))),
            Poll::Pending => {
                // A client that goes is to be noticed although nothing is sent to it.
                let reset = ready!(self.stream.poll_reset(cx));
                tracing::debug!(?reset, "a client reset its stream");
                Poll::Ready(Step::Over)
            }
        }
    }

    fn break_off(&mut self, error: &BodyError) -> Step {
        if let Some(status) = self.body.status_behind(error) {
            return over(self.stream.send_trailers(status));
        }
        self.stream.send_reset(reason_of(error));
        Step::Over
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Step {
        match frame.into_data() {
            Ok(data) => {
                let is_last = self.body.is_end_stream();
                if !data.is_empty() {
                    self.stream.reserve_capacity(data.len());
                }
                self.piece = Some((data, is_last));
                Step::On
            }
            Err(frame) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    trailers::strip_answer(&mut trailers);
                    over(match trailers.is_empty() {
                        true => self.stream.send_data(Bytes::new(), true),
                        false => self.stream.send_trailers(trailers),
                    })
                }
                Err(_) => Step::On,
            },
        }
    }

    /// Hands over as much of the piece as the client has a window and h2 a place for: each time that is something, it
    /// has taken something.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Some((data, is_last)) = &mut self.piece else { return Poll::Ready(Step::On) };
        let mut room = if data.is_empty() { 0 } else { self.stream.capacity() };
        while !data.is_empty() && room == 0 {
            if !self.is_waiting {
                self.is_waiting = true;
                // As little as shows that there is a window: who waits is not to hold what others could use.
                self.stream.reserve_capacity(1);
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room_now))) => room = room_now,
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Step::Over),
                Poll::Pending => {
                    ready!(self.patience.poll_waiting(cx));
                    tracing::debug!("a client took nothing of its answer for too long");
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Step::Over);
                }
            }
        }
        if mem::take(&mut self.is_waiting) {
            self.stream.reserve_capacity(data.len());
            room = self.stream.capacity();
        }
        self.patience.rest();
        if room < data.len() {
            let part = data.split_to(room);
            return Poll::Ready(on(self.stream.send_data(part, false)));
        }
        let (data, is_last) = (mem::take(data), *is_last);
        self.piece = None;
        let sent = self.stream.send_data(data, is_last);
        Poll::Ready(if is_last { Step::Over } else { on(sent) })
    }
}

impl Future for Sending {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let step = if this.piece.is_some() { this.poll_send(cx) } else { this.poll_body(cx) };
            if let Step::Over = ready!(step) {
                return Poll::Ready(());
            }
        }
    }
}

/// What is sent on a stream that has gone goes nowhere.
fn over(sent: Result<(), h2::Error>) -> Step {
    if let Err(error) = sent {
        tracing::debug!(%error, "a stream ended before its answer");
    }
    Step::Over
}

fn on(sent: Result<(), h2::Error>) -> Step {
    if sent.is_ok() { Step::On } else { over(sent) }
}

/// What a client is told of an answer that breaks off: what the app said, if that was HTTP/2 and told of an error. Many
/// a client takes a reset without one for the end.
fn reason_of(error: &BodyError) -> Reason {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        let reason = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
        if let Some(reason) = reason.filter(|reason| *reason != Reason::NO_ERROR) {
            return reason;
        }
        source = error.source();
    }
    Reason::INTERNAL_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_app_said_is_passed_on() {
        let said = BodyError::Broken(Box::new(h2::Error::from(Reason::ENHANCE_YOUR_CALM)));
        assert_eq!(reason_of(&said), Reason::ENHANCE_YOUR_CALM);
        for no_reason in [BodyError::Cut, BodyError::Broken(Box::new(h2::Error::from(Reason::NO_ERROR)))] {
            assert_eq!(reason_of(&no_reason), Reason::INTERNAL_ERROR);
        }
    }
}
