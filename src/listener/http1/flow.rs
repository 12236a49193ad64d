//! An answer's body on its way out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::Body as _;

use super::answer::Framing;
use crate::listener::connection::Connection;
use crate::listener::stream::Stream;
use crate::pieces::Queue;
use crate::pipe::Pipe;
use crate::proxy::body::Body;

/// With less to come, to copy it costs no more than to move it.
const PIPED_BYTES_MIN: u64 = 64 * 1024;

pub(super) struct Flow {
    /// `None` once all of it, with its end, is in the output or in the pipe.
    body: Option<Body>,
    framing: Framing,
    trailers: Option<HeaderMap>,
    takes_trailers: bool,
    /// What goes from the app to the client without passing through the output.
    pipe: Option<Pipe>,
    /// The client's socket takes what is in a pipe.
    takes_pipe: bool,
}

/// The body of an answer did not come to its end.
pub(super) struct BrokeOff;

impl Flow {
    pub(super) fn new(body: Body, framing: Framing, takes_trailers: bool, takes_pipe: bool) -> Self {
        Self { body: Some(body), framing, trailers: None, takes_trailers, pipe: None, takes_pipe }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.body.is_none()
    }

    /// Moves what there is of the body to `output`, or to the pipe, as long as there is room. Ready when it has all, or
    /// is full.
    pub(super) fn poll_gather(&mut self, output: &mut Queue, cx: &mut Context<'_>) -> Poll<Result<(), BrokeOff>> {
        while let Some(body) = &mut self.body {
            if self.framing.is_whole() || body.is_end_stream() {
                self.finish(output)?;
                break;
            }
            if !output.has_room() || self.pipe.is_some() {
                break;
            }
            if self.takes_pipe && self.framing.left() >= PIPED_BYTES_MIN && body.is_pipeable() {
                if !output.is_empty() {
                    // It goes first.
                    break;
                }
                if let Some(pipe) = Pipe::take() {
                    ready!(self.poll_fill(pipe, cx))?;
                    continue;
                }
            }
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.framing.push(data, output),
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok().filter(|_| self.takes_trailers);
                        self.finish(output)?;
                    }
                },
                None => self.finish(output)?,
                Some(Err(_)) => return Poll::Ready(Err(BrokeOff)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what there is of the body into `pipe`.
    fn poll_fill(&mut self, mut pipe: Pipe, cx: &mut Context<'_>) -> Poll<Result<(), BrokeOff>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        match ready!(body.poll_pipe(&mut pipe, self.framing.left(), cx)) {
            Ok(0) => self.takes_pipe = false,
            Ok(moved) => {
                self.framing.passed(moved as u64);
                self.pipe = Some(pipe);
            }
            Err(_) => return Poll::Ready(Err(BrokeOff)),
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what is in the pipe to the client, and notes how that goes. The output has been written.
    pub(super) fn poll_drain(
        &mut self,
        stream: &mut Stream,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        let Some(socket) = stream.plain()? else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        while pipe.bytes() > 0 {
            let offered = pipe.bytes();
            let result = pipe.poll_drain(socket, cx);
            connection.wrote(offered, &result);
            ready!(result)?;
        }
        self.pipe = None;
        Poll::Ready(Ok(()))
    }

    /// Lets go of the body, and of the request's context with it.
    fn finish(&mut self, output: &mut Queue) -> Result<(), BrokeOff> {
        let Some(mut body) = self.body.take() else { return Ok(()) };
        if self.framing.end(self.trailers.as_ref(), output).is_err() {
            body.was_short();
            return Err(BrokeOff);
        }
        body.let_end();
        Ok(())
    }
}
