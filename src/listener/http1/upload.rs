//! A request's body between the connection that reads it and whoever wants it.
//!
//! One piece at a time: nothing is read from the client before it is asked for, so a slow app slows its client down.
//! Both ends live on one worker's thread, mostly in one task; a body that goes on behind its answer is read from
//! another.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::listener::incoming::Lost;
use crate::message::answer::BadAnswer;

/// The reading end.
#[derive(Debug)]
pub(crate) struct Upload(Arc<Mutex<State>>);

/// The end of the connection.
#[derive(Debug)]
pub(super) struct Feeder(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    piece: Option<Bytes>,
    end: Option<Ending>,
    /// Announced and not yet handed over; `None` = nobody knows.
    left: Option<u64>,
    is_wanted: bool,
    /// Nobody will ask for more.
    is_left: bool,
    reader: Option<Waker>,
    feeder: Option<Waker>,
}

/// How a body ends.
#[derive(Debug)]
pub(super) enum Ending {
    Whole(Option<HeaderMap>),
    Malformed(BadAnswer),
    /// The client has closed its side before its end. Whether it reads on shows only when something is written.
    Short,
    ClientLeft,
}

/// Both ends of a body of `length` bytes; `None` = in chunks.
pub(super) fn pipe(length: Option<u64>) -> (Feeder, Upload) {
    let state =
        State { piece: None, end: None, left: length, is_wanted: false, is_left: false, reader: None, feeder: None };
    let state = Arc::new(Mutex::new(state));
    (Feeder(Arc::clone(&state)), Upload(state))
}

impl Feeder {
    /// Whether the next piece is asked for. Otherwise the task of `cx` is woken when it is, or when it never will be.
    pub(super) fn is_asked(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.0.lock();
        if !state.is_wanted {
            register(&mut state.feeder, cx);
        }
        state.is_wanted
    }

    /// Whether nobody will ask for more.
    pub(super) fn is_left(&self) -> bool {
        self.0.lock().is_left
    }

    pub(super) fn give(&self, piece: Bytes, cx: &Context<'_>) {
        let mut state = self.0.lock();
        (state.piece, state.is_wanted) = (Some(piece), false);
        state.wake_reader(cx);
    }

    pub(super) fn end(self, end: Ending, cx: &Context<'_>) {
        let mut state = self.0.lock();
        (state.end, state.is_wanted) = (Some(end), false);
        state.wake_reader(cx);
    }
}

impl State {
    /// A reader in the same task is polled again anyway.
    fn wake_reader(&mut self, cx: &Context<'_>) {
        if let Some(reader) = self.reader.take()
            && !reader.will_wake(cx.waker())
        {
            reader.wake();
        }
    }

    fn wake_feeder(&mut self, cx: Option<&Context<'_>>) {
        if let Some(feeder) = self.feeder.take()
            && cx.is_none_or(|cx| !feeder.will_wake(cx.waker()))
        {
            feeder.wake();
        }
    }
}

impl Drop for Feeder {
    /// A connection that is gone takes what it owed along.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.end = Some(Ending::ClientLeft);
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_left = true;
        state.wake_feeder(None);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let mut state = self.0.lock();
        if let Some(piece) = state.piece.take() {
            state.left = state.left.map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut state.end {
            Some(Ending::Whole(trailers)) => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Some(Ending::Malformed(why)) => Poll::Ready(Some(Err(Lost::Malformed(Some(*why))))),
            Some(Ending::Short) => Poll::Ready(Some(Err(Lost::Short))),
            Some(Ending::ClientLeft) => {
                let error = io::Error::from(io::ErrorKind::ConnectionReset);
                Poll::Ready(Some(Err(Lost::Left(error.into()))))
            }
            None => {
                register(&mut state.reader, cx);
                if !state.is_wanted {
                    state.is_wanted = true;
                    state.wake_feeder(Some(cx));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.piece.is_none() && (state.left == Some(0) || matches!(state.end, Some(Ending::Whole(None))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.lock().left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn nothing_is_asked_for_before_it_is_wanted() {
        let (feeder, mut upload) = pipe(Some(5));
        assert!(!feeder.is_asked(&mut cx()));
        assert!(Pin::new(&mut upload).poll_frame(&mut cx()).is_pending());
        assert!(feeder.is_asked(&mut cx()));
        feeder.give(Bytes::from_static(b"hello"), &cx());
        assert!(!feeder.is_asked(&mut cx()) && !upload.is_end_stream());
        assert!(matches!(Pin::new(&mut upload).poll_frame(&mut cx()), Poll::Ready(Some(Ok(_)))));
        assert!(upload.is_end_stream());
        assert_eq!(upload.size_hint().exact(), Some(0));
    }

    #[tokio::test]
    async fn each_end_learns_what_became_of_the_other() {
        let (feeder, upload) = pipe(None);
        drop(upload);
        assert!(feeder.is_left());
        let (feeder, mut upload) = pipe(None);
        drop(feeder);
        assert!(matches!(upload.frame().await, Some(Err(Lost::Left(_)))));
        let (feeder, mut upload) = pipe(None);
        feeder.end(Ending::Malformed(BadAnswer::TrailersTooLarge), &cx());
        assert!(matches!(upload.frame().await, Some(Err(Lost::Malformed(Some(BadAnswer::TrailersTooLarge))))));
        let (feeder, mut upload) = pipe(Some(2));
        feeder.end(Ending::Short, &cx());
        assert!(matches!(upload.frame().await, Some(Err(Lost::Short))));
        let (feeder, mut upload) = pipe(None);
        feeder.end(Ending::Whole(Some(HeaderMap::new())), &cx());
        assert!(upload.frame().await.unwrap().unwrap().is_trailers());
        assert!(upload.frame().await.is_none() && upload.is_end_stream());
    }
}
