//! The wire under one HTTP/2 connection: its socket, an eye on the frames, and a buffer for what is sent.
//!
//! The frames of many streams are written one by one, and each write of its own would be a TLS record and a system
//! call. So they are gathered, and sent when h2 has nothing more to write for now: whoever polls h2 sends afterwards.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Fault, Frames};
use crate::listener::connection::Connection;
use crate::listener::stream::Stream;
use crate::pieces::Text;

/// What is gathered before it is sent: the most that one TLS record holds (RFC 8446, section 5.1).
const GATHERED_BYTES: usize = 16 * 1024;

/// Reads and writes a [`Stream`] on h2's behalf.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    early: Vec<u8>,
    frames: Frames,
    fault: Option<Fault>,
    connection: Arc<Connection>,
    /// Written by h2, not yet by us.
    gathered: Text,
    /// Something was written to the stream that may not have reached the socket.
    is_unflushed: bool,
    /// The socket had nothing, and will wake h2.
    is_dry: bool,
}

impl Wire {
    /// Of `stream`, `early` has been read before.
    pub(super) fn new(stream: Stream, early: Vec<u8>, connection: Arc<Connection>) -> Self {
        connection.set_partial_head(true);
        let frames = Frames::new(Instant::now());
        Self {
            stream,
            early,
            frames,
            fault: None,
            connection,
            gathered: Text::default(),
            is_unflushed: false,
            is_dry: false,
        }
    }

    /// Lets h2 look at the socket once more. It looks again and again in one turn, once for each stream that it hands
    /// out.
    pub(super) fn look_again(&mut self) {
        self.is_dry = false;
    }

    /// Sends what has been gathered.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.rest().is_empty() {
            let unsent = self.gathered.rest();
            let result = Pin::new(&mut self.stream).poll_write(cx, unsent);
            self.connection.wrote(unsent.len(), &result);
            match ready!(result)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.gathered.advance(written),
            }
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            // TLS takes something while the socket takes nothing.
            let flushed = Pin::new(&mut self.stream).poll_flush(cx);
            self.is_unflushed = flushed.is_pending();
            self.connection.set_write_blocked(self.is_unflushed);
            ready!(flushed)?;
        }
        Poll::Ready(Ok(()))
    }

    /// The stream, and what is still to be written to it: nothing on a connection that broke, unless its client is sent
    /// away for a reason.
    pub(super) fn end(self, is_broken: bool) -> (Stream, Vec<u8>) {
        if is_broken && self.fault.is_none() {
            return (self.stream, Vec::new());
        }
        let mut last_words = self.gathered.rest().to_vec();
        last_words.extend(self.fault.and_then(|fault| self.frames.goodbye(fault)).into_iter().flatten());
        (self.stream, last_words)
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let seen = self.frames.received(bytes, Instant::now);
        self.connection.set_partial_head(self.frames.is_in_head());
        seen.map_err(|fault| self.fail(fault))
    }

    /// To h2 the connection breaks.
    fn fail(&mut self, fault: Fault) -> io::Error {
        tracing::debug!(peer = ?self.connection.peer, %fault, "an HTTP/2 connection is sent away");
        self.fault = Some(fault);
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
        }
        let before = buf.filled().len();
        if self.early.is_empty() {
            if self.is_dry {
                return Poll::Pending;
            }
            let result = Pin::new(&mut self.stream).poll_read(cx, buf);
            self.is_dry = result.is_pending();
            ready!(result)?;
        } else {
            let fits = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..fits]);
            self.early.drain(..fits);
        }
        Poll::Ready(self.received(&buf.filled()[before..]))
    }

    /// Takes what there is room for, so that records are full.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED_BYTES {
            ready!(self.poll_send(cx))?;
        }
        let taken = bytes.len().min(GATHERED_BYTES - self.gathered.len());
        self.gathered.room().extend_from_slice(&bytes[..taken]);
        self.frames.sent(&bytes[..taken], Instant::now).map_err(|fault| self.fail(fault))?;
        Poll::Ready(Ok(taken))
    }
}

/// h2's half of a [`Wire`]; the other drives it.
#[derive(Debug)]
pub(super) struct SharedWire(pub(super) Arc<Mutex<Wire>>);

impl SharedWire {
    fn with<T>(&self, act: impl FnOnce(&mut Wire) -> T) -> T {
        act(&mut self.0.lock())
    }
}

impl AsyncRead for SharedWire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|wire| wire.poll_read(cx, buf))
    }
}

impl AsyncWrite for SharedWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|wire| wire.poll_write(cx, bytes))
    }

    /// Nothing: what was written is sent when h2 has been polled, with all that its other streams have to say.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Only sends: `serve` says goodbye when it has the stream back.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|wire| wire.poll_send(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tokio::net::UnixStream;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::listener::stream::{Socket, Watched};

    /// A connection over TLS, and its client.
    async fn over_tls() -> (Stream, TlsStream<UnixStream>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (own, end) = UnixStream::pair().unwrap();
        let accepting = TlsAcceptor::from(Arc::new(server)).accept(Socket::Watched(Watched::Unix(own)));
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, end);
        let (stream, client) = tokio::join!(accepting, connecting);
        (Stream::Tls(Box::new(stream.unwrap())), client.unwrap())
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_holds_us_up_although_tls_has_room_yet() {
        let (stream, _client) = over_tls().await;
        let connection = Arc::new(Connection::new(0, None, "web".into(), None));
        let mut wire = Wire::new(stream, Vec::new(), Arc::clone(&connection));
        let left = poll_fn(|cx| {
            loop {
                wire.gathered.room().extend_from_slice(&[0; 1024]);
                match wire.poll_send(cx) {
                    Poll::Ready(sent) => sent.unwrap(),
                    Poll::Pending => return Poll::Ready(wire.gathered.rest().len()),
                }
            }
        })
        .await;
        assert_eq!(left, 0, "TLS has taken it");
        assert!(connection.is_write_blocked());
    }
}
