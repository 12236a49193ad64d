//! Listens for the first words of an HTTP/2 endpoint, how many streams it takes at a time, and then for a sign of life.
//!
//! Its SETTINGS come first on a connection (RFC 9113, section 3.4). Whoever does not wait for them opens streams that
//! are then refused. hyper keeps what they say to itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::stream::Stream;

const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 0x4;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
/// More settings than there are, several times over.
const PAYLOAD_BYTES_MAX: usize = 1024;

/// How often something has come on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicUsize>);

impl Heard {
    pub(super) fn times(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A stream that is listened to.
#[derive(Debug)]
pub(super) struct Hello {
    stream: Stream,
    times: Heard,
    /// Of the first frame.
    heard: Vec<u8>,
    /// Dropped untold when the connection could not be written to either.
    tell: Option<oneshot::Sender<Result<usize, Unheard>>>,
}

/// Why there is no number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unheard {
    #[error("the endpoint closed the connection before its SETTINGS")]
    Closed,
    #[error("the connection broke before its SETTINGS: {0}")]
    Broken(io::ErrorKind),
    /// What came is no SETTINGS frame of a sensible size.
    #[error("the endpoint does not speak HTTP/2")]
    NotHttp2,
}

impl Unheard {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Closed => io::ErrorKind::UnexpectedEof,
            Self::Broken(kind) => *kind,
            Self::NotHttp2 => io::ErrorKind::Unsupported,
        }
    }
}

impl From<Unheard> for io::Error {
    fn from(why: Unheard) -> Self {
        Self::new(why.kind(), why)
    }
}

impl Hello {
    /// The receiver is told what the endpoint says.
    pub(super) fn new(stream: Stream) -> (Self, oneshot::Receiver<Result<usize, Unheard>>) {
        let (tell, told) = oneshot::channel();
        (Self { stream, times: Heard::default(), heard: Vec::new(), tell: Some(tell) }, told)
    }

    pub(super) fn heard(&self) -> Heard {
        self.times.clone()
    }

    fn hear(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.times.0.fetch_add(1, Relaxed);
        }
        if self.tell.is_none() {
            return;
        }
        if bytes.is_empty() {
            return self.tell(Err(Unheard::Closed));
        }
        self.heard.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES + PAYLOAD_BYTES_MAX)]);
        if let Some(said) = streams_max(&self.heard) {
            self.tell(said);
        }
    }

    /// Once.
    fn tell(&mut self, said: Result<usize, Unheard>) {
        // Nobody may want to know any more.
        let _ = self.tell.take().map(|tell| tell.send(said));
        self.heard = Vec::new();
    }
}

/// What the first frame says; `None` while it is not complete. Without a word any number will do.
fn streams_max(heard: &[u8]) -> Option<Result<usize, Unheard>> {
    let (head, payload) = heard.split_at_checked(HEAD_BYTES)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if head[3] != SETTINGS || length > PAYLOAD_BYTES_MAX {
        return Some(Err(Unheard::NotHttp2));
    }
    let payload = payload.get(..length)?;
    let mut said = payload.chunks_exact(6).filter(|setting| setting[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
    let last = said.next_back().map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
    Some(Ok(last.map_or(usize::MAX, |said| said as usize)))
}

impl AsyncRead for Hello {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf)).inspect_err(|error| {
            this.tell(Err(Unheard::Broken(error.kind())));
        })?;
        this.hear(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hello {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_when_the_frame_is_whole() {
        let frame = [0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 100];
        for cut in 0..frame.len() {
            assert_eq!(streams_max(&frame[..cut]), None, "{cut}");
        }
        assert_eq!(streams_max(&frame), Some(Ok(100)));
        assert_eq!(streams_max(&[0, 0, 0, 4, 0, 0, 0, 0, 0]), Some(Ok(usize::MAX)));
        assert_eq!(streams_max(b"HTTP/1.1 400 Bad Request\r\n"), Some(Err(Unheard::NotHttp2)));
    }
}
