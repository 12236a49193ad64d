//! The body of the request at hand: read from the client as it is asked for, and what becomes of a rest that nobody
//! asks for.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode};
use tokio::io::AsyncWrite as _;

use super::super::head::BodyFraming;
use super::super::incoming::Incoming;
use super::Wire;
use super::input::Next;
use super::upload::{self, Ending, Feeder};
use crate::proxy::body::Body;
use crate::proxy::unread::DRAINED_BYTES_MAX;

/// A request's body on its way in.
#[derive(Debug)]
pub(super) struct Inflow {
    pub(super) feeder: Feeder,
    /// Its client waits for a word before it sends it.
    pub(super) awaits_continue: bool,
    /// Somebody has asked for some of it; not yet, while its request waits to be sent.
    pub(super) is_begun: bool,
}

impl Wire {
    /// What the request of a head has for a body.
    pub(super) fn open(&mut self, framing: BodyFraming, awaits_continue: bool) -> Incoming {
        let length = match framing {
            BodyFraming::None | BodyFraming::Upgrade => return Incoming::Empty,
            BodyFraming::Length(length) => Some(length),
            BodyFraming::Chunked => None,
        };
        let (feeder, upload) = upload::pipe(length);
        self.upload = Some(Inflow { feeder, awaits_continue, is_begun: false });
        let cx = Context::from_waker(Waker::noop());
        if let Some(why) = self.input.malformed() {
            // Known before anything of it was passed on: it goes nowhere.
            self.end_upload(Ending::Malformed(why), &cx);
        } else if !awaits_continue {
            self.take_piece(&cx);
        }
        self.note_place();
        Incoming::Http1(upload)
    }

    /// Hands over the next piece of the body, or its end, if that has been read; whether it has.
    fn take_piece(&mut self, cx: &Context<'_>) -> bool {
        let Some(upload) = &mut self.upload else { return false };
        match self.input.take_body() {
            Next::Piece(piece) => {
                upload.feeder.give(piece, cx);
                if !self.input.is_mid_body() {
                    self.end_upload(Ending::Whole(None), cx);
                }
                true
            }
            Next::End(end) => {
                self.end_upload(end, cx);
                true
            }
            Next::Unread => false,
        }
    }

    /// Reads of the request's body what is asked for; whether some of it came for somebody in this task.
    #[inline]
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> bool {
        self.upload.is_some() && self.poll_open_upload(cx)
    }

    fn poll_open_upload(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_come = false;
        while let Some(upload) = &mut self.upload {
            if upload.feeder.is_left() {
                self.upload = None;
                self.note_place();
                return has_come;
            }
            if !upload.feeder.is_asked(cx) {
                return has_come;
            }
            upload.is_begun = true;
            if mem::take(&mut upload.awaits_continue) {
                self.output.head().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if self.take_piece(cx) {
                has_come = true;
                continue;
            }
            match self.poll_read(self.input.body_room(), cx) {
                Poll::Ready(Ok(0)) => {
                    self.end_upload(Ending::Short, cx);
                    has_come = true;
                }
                Poll::Ready(Err(error)) => {
                    // The end of a client that says no goodbye in TLS is an end, too.
                    let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
                    self.end_upload(if is_end { Ending::Short } else { Ending::ClientLeft }, cx);
                    has_come = true;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return has_come,
            }
        }
        has_come
    }

    /// Behind the last answer, as behind any other, a body goes on that somebody still wants. The client knows by our
    /// end that there is no other answer.
    pub(super) async fn end_sending(&mut self) {
        let mut is_told = false;
        poll_fn(|cx| {
            self.poll_upload(cx);
            if self.upload.is_none() {
                return Poll::Ready(());
            }
            // What comes of it is met again when the connection is closed.
            is_told = is_told || Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
            Poll::Pending
        })
        .await;
    }

    fn end_upload(&mut self, end: Ending, cx: &Context<'_>) {
        if let Some(upload) = self.upload.take() {
            upload.feeder.end(end, cx);
        }
        self.note_place();
    }

    /// Tells whether a body is on its way in.
    fn note_place(&self) {
        self.connection.set_mid_body(self.input.is_mid_body());
    }

    /// Passes over the rest of a body that nobody wants, if it is there; whether nothing of it is still to come.
    pub(super) fn leave_unwanted(&mut self) -> bool {
        if self.upload.as_ref().is_some_and(|upload| !upload.feeder.is_left()) {
            return true;
        }
        self.upload = None;
        let is_read = !self.input.is_mid_body() || self.input.skip_body();
        self.note_place();
        is_read
    }

    /// Whether an answer comes so long before the end of its request's body that the app will hardly take it: it refuses
    /// the request, or says that it closes. Then nor can this connection be kept, and its client may stop sending.
    pub(super) fn outruns(&self, response: Option<&Response<Body>>) -> bool {
        let is_refusal = |status: StatusCode| status.is_client_error() || status.is_server_error();
        self.upload.is_some()
            && self.input.owes_more_than(DRAINED_BYTES_MAX)
            && response.is_some_and(|response| is_refusal(response.status()) || response.body().is_unfed())
    }
}
