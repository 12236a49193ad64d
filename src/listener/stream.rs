//! The byte stream of a downstream connection: TCP or a unix socket, with TLS or without.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::pipe::Plain;

/// A socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// The event loop does not know of it before it is waited for: one that carries a single request never is, as a
    /// rule. `None` when it could not be told.
    Fresh(Option<std::net::TcpStream>),
    Watched(Watched),
}

/// One that the event loop knows of.
#[derive(Debug)]
pub(crate) enum Watched {
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

forward!(Watched, always_vectored, Tcp | Unix);
forward!(Stream, vectored_when_plain, Plain | Tls);

impl Watched {
    fn always_vectored(&self) -> bool {
        true
    }
}

impl Socket {
    /// Has the event loop know of it.
    fn watched(&mut self) -> io::Result<&mut Watched> {
        match self {
            Self::Watched(socket) => Ok(socket),
            Self::Fresh(socket) => {
                let socket = socket.take().ok_or(io::ErrorKind::NotConnected)?;
                *self = Self::Watched(Watched::Tcp(TcpStream::from_std(socket)?));
                self.watched()
            }
        }
    }

    /// What comes of it at once where nobody has waited for it yet.
    fn at_once<T>(&self, act: impl FnOnce(&std::net::TcpStream) -> io::Result<T>) -> Option<io::Result<T>> {
        let Self::Fresh(Some(socket)) = self else { return None };
        Some(act(socket)).filter(|result| !matches!(result, Err(error) if is_to_be_waited_for(error)))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Fresh(socket) => socket.as_ref().map(|socket| socket.as_fd()),
            Self::Watched(Watched::Tcp(socket)) => Some(socket.as_fd()),
            Self::Watched(Watched::Unix(socket)) => Some(socket.as_fd()),
        }
    }
}

fn is_to_be_waited_for(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().watched()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.at_once(|mut socket| socket.write(bytes)) {
            Some(result) => Poll::Ready(result),
            None => Pin::new(self.get_mut().watched()?).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.at_once(|mut socket| socket.write_vectored(slices)) {
            Some(result) => Poll::Ready(result),
            None => Pin::new(self.get_mut().watched()?).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.at_once(|socket| socket.shutdown(Shutdown::Write)) {
            Some(result) => Poll::Ready(result),
            None => Pin::new(self.get_mut().watched()?).poll_shutdown(cx),
        }
    }
}

impl Stream {
    /// Ends the connection with RST where there is such a thing, so that it cannot be taken for a regular end.
    pub(crate) fn reset(self) {
        let socket = match &self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        if let Some(socket) = socket.fd() {
            // Only fails when the connection is gone already, which is what is wanted; of a unix socket it is ignored.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Whether the handshake settled on HTTP/2 (RFC 7301; RFC 9113, section 3.2).
    pub(crate) fn speaks_http2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether nobody has waited for the client yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::Plain(Socket::Fresh(_)))
    }

    /// The socket of a stream without TLS, of which the client has what is written as it is written.
    ///
    /// # Errors
    /// The event loop does not take it.
    pub(super) fn plain(&mut self) -> io::Result<Option<Plain<'_>>> {
        let Self::Plain(socket) = self else { return Ok(None) };
        Ok(Some(match socket.watched()? {
            Watched::Tcp(socket) => Plain::Tcp(socket),
            Watched::Unix(socket) => Plain::Unix(socket),
        }))
    }

    /// Reads a little of what the client has sent; `None` where that is nothing so far.
    pub(super) fn try_read(&mut self, space: &mut [u8], cx: &mut Context<'_>) -> Option<io::Result<usize>> {
        if let Self::Plain(socket @ Socket::Fresh(_)) = self {
            return socket.at_once(|mut socket| socket.read(space));
        }
        let mut read = ReadBuf::new(space);
        match Pin::new(self).poll_read(cx, &mut read) {
            Poll::Ready(result) => Some(result.map(|()| read.filled().len())),
            Poll::Pending => None,
        }
    }

    fn vectored_when_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}
