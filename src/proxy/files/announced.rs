//! A file on its way, held to the length that its answer has announced: others may write to it meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::body::BodyError;

/// What has been added since stays out; what has gone breaks it off.
pub(super) struct Announced<B> {
    pub(super) file: B,
    /// In bytes.
    pub(super) left: u64,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Announced<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match ready!(Pin::new(&mut this.file).poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => None,
        };
        let Some(mut piece) = piece else { return Poll::Ready(Some(Err(BodyError::Misframed))) };
        piece.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
        this.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
