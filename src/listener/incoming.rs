//! A request's body as it comes from its client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http1::Upload;
use super::http2::body::StreamBody;
use crate::message::answer::BadAnswer;

/// Reads as it is asked to; dropped, the rest of it is not wanted.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// There is none.
    Empty,
    Http1(Upload),
    Stream(StreamBody),
}

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("its framing is malformed")]
    Malformed(#[source] Option<BadAnswer>),
    #[error("the client closed its side before its end")]
    Short,
    #[error("the client went away")]
    Left(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
