//! An answer's body on its way out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::Body as _;

use super::answer::Framing;
use crate::pieces::Queue;
use crate::proxy::body::Body;

pub(super) struct Flow {
    /// `None` once all of it, with its end, is in the output.
    body: Option<Body>,
    framing: Framing,
    trailers: Option<HeaderMap>,
    takes_trailers: bool,
}

/// The body of an answer did not come to its end.
pub(super) struct BrokeOff;

impl Flow {
    pub(super) fn new(body: Body, framing: Framing, takes_trailers: bool) -> Self {
        Self { body: Some(body), framing, trailers: None, takes_trailers }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.body.is_none()
    }

    /// Moves what there is of the body to `output`, as long as there is room. Ready when it has all, or is full.
    pub(super) fn poll_gather(&mut self, output: &mut Queue, cx: &mut Context<'_>) -> Poll<Result<(), BrokeOff>> {
        while let Some(body) = &mut self.body {
            if self.framing.is_whole() || body.is_end_stream() {
                self.finish(output)?;
                break;
            }
            if !output.has_room() {
                break;
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

    /// Lets go of the body, and of the request's context with it.
    fn finish(&mut self, output: &mut Queue) -> Result<(), BrokeOff> {
        self.body = None;
        self.framing.end(self.trailers.as_ref(), output).map_err(|_| BrokeOff)
    }
}
