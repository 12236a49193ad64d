//! A request's body as it comes from its client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http2::body::StreamBody;

/// Reads as it is asked to; dropped, the rest of it is not wanted.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// There is none.
    Empty,
    Hyper(hyper::body::Incoming),
    Stream(StreamBody),
}

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("its framing is malformed")]
    Malformed,
    #[error("the client went away")]
    Left(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Lost {
    /// The gate's word for a malformed body is `InvalidData`.
    fn of(error: hyper::Error) -> Self {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        match source {
            Some(source) if source.kind() == io::ErrorKind::InvalidData => Self::Malformed,
            _ => Self::Left(error.into()),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(Lost::of),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Hyper(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Hyper(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
