//! The byte stream to an endpoint.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::pieces::poll_write_pieces;
use crate::pipe::Plain;

/// A connected socket, with TLS over it or without.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl Stream {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsUnix(_))
    }

    /// The socket, where what is read of it is what was sent.
    pub(super) fn plain(&self) -> Option<Plain<'_>> {
        match self {
            Self::Tcp(socket) => Some(Plain::Tcp(socket)),
            Self::Unix(socket) => Some(Plain::Unix(socket)),
            Self::Tls(_) | Self::TlsUnix(_) => None,
        }
    }

    /// Whether its other end has closed it, or said something, as far as the event loop knows: where nothing has
    /// happened this is no system call. What was said is lost.
    pub(super) fn has_news(&mut self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
            // TLS has words of its own, which are no news.
            Self::Tls(_) | Self::TlsUnix(_) => {
                let mut cx = Context::from_waker(Waker::noop());
                return Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_ready();
            }
        };
        !read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the handshake settled on HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        let alpn = match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::TlsUnix(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) => None,
        };
        alpn == Some(b"h2")
    }
}

macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Self::Unix(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Self::Tls(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Self::TlsUnix(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => inner.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => poll_write_pieces(inner, cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_shutdown(cx))
    }
}
