//! A stream that has become a byte stream: what follows an extended CONNECT (RFC 8441, section 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads and writes DATA, within the windows of both sides. Dropped before it was shut down, it resets the stream with
/// CANCEL, behind what was written: to a client that is what a reset is over TCP.
pub(super) struct Upgraded {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    /// Received, not yet read.
    unread: Bytes,
    /// All that was received has been read.
    is_read: bool,
}

impl Upgraded {
    pub(super) fn new(sending: SendStream<Bytes>, receiving: RecvStream) -> Self {
        Self { sending, receiving, unread: Bytes::new(), is_read: false }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.receiving.poll_data(cx)) {
                Some(Ok(bytes)) => this.unread = bytes,
                None => {
                    this.is_read = true;
                    return Poll::Ready(Ok(()));
                }
                // Whatever its reason, a client that resets the stream takes nothing any more.
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let read = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..read]);
        this.unread.advance(read);
        // Only fails when the stream has gone, which the next read tells.
        let _ = this.receiving.flow_control().release_capacity(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.sending.capacity() == 0 {
            // No more than shows that there is a window: what is reserved is taken from other streams.
            this.sending.reserve_capacity(1);
            while this.sending.capacity() == 0 {
                match ready!(this.sending.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
        }
        this.sending.send_data(Bytes::copy_from_slice(bytes), false).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// The connection sends what it has when its streams have been polled. A reset that nobody reads any more is told
    /// here.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_read && this.sending.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().sending.send_data(Bytes::new(), true).map_err(io_error))
    }
}

fn io_error(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::STREAM_CLOSED) => io::Error::new(io::ErrorKind::BrokenPipe, error),
        _ => io::Error::other(error),
    }
}
