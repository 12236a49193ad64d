//! The byte stream of a downstream connection: TCP or a unix socket, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::pipe::Plain;

/// A socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket, perhaps with TLS over it.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Forwards a poll to whichever variant it is.
macro_rules! each {
    ($self:ident, $($variant:ident)|+, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            $(Self::$variant($inner) => { let $inner = Pin::new($inner); $call })+
        }
    };
}

/// [`AsyncRead`] and [`AsyncWrite`] for an enum of streams.
macro_rules! forward {
    ($kind:ident, $vectored:ident, $($variant:ident)|+) => {
        impl AsyncRead for $kind {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, inner => inner.poll_read(cx, buf))
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                each!(self, $($variant)|+, inner => inner.poll_write(cx, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!(self, $($variant)|+, inner => inner.poll_write_vectored(cx, slices))
            }

            fn is_write_vectored(&self) -> bool {
                self.$vectored()
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, inner => inner.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, inner => inner.poll_shutdown(cx))
            }
        }
    };
}

forward!(Socket, always_vectored, Tcp | Unix);
forward!(Stream, vectored_when_plain, Plain | Tls);

impl Socket {
    fn always_vectored(&self) -> bool {
        true
    }
}

impl Stream {
    /// Ends the connection with RST where there is such a thing, so that it cannot be taken for a regular end.
    pub(crate) fn reset(self) {
        let socket = match &self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        if let Socket::Tcp(socket) = socket {
            // Only fails when the connection is gone already, which is what is wanted.
            let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Whether the handshake settled on HTTP/2 (RFC 7301; RFC 9113, section 3.2).
    pub(crate) fn speaks_http2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// The socket, where it has what is written as it is written.
    pub(super) fn plain(&self) -> Option<Plain<'_>> {
        match self {
            Self::Plain(Socket::Tcp(socket)) => Some(Plain::Tcp(socket)),
            Self::Plain(Socket::Unix(socket)) => Some(Plain::Unix(socket)),
            Self::Tls(_) => None,
        }
    }

    fn vectored_when_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}
