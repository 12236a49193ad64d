//! Making a connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::Scheme;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::hello::{Hello, Unheard};
use super::http1::Http1;
use super::http2::{Http2, Http2Stream};
use super::multiplex::STREAMS_MAX;
use super::resolve::loopback;
use super::stream::Stream;
use super::tls::Originator;
use crate::config::model::Address;
use crate::error::is_shortage;
use crate::message::answer::HEAD_BYTES_MAX;

/// Read from an endpoint ahead of the client, for one stream and for all of a connection: a client that reads slowly
/// must not hold up the others on it.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// Four times what the streams can take together: half of it is what small frames that nobody has taken yet may lack to
/// 256 bytes each before h2 ends the connection. Messages of a hundred bytes do not come there.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// Between two warnings that nothing is left to connect with.
const WARN_AGAIN: Duration = Duration::from_secs(10);
/// Between two tries at a unix socket whose backlog is full.
const BACKLOG_PAUSE_MIN: Duration = Duration::from_millis(1);
const BACKLOG_PAUSE_MAX: Duration = Duration::from_millis(20);
/// For one of several addresses there is no less than this.
const SHARE_MIN: Duration = Duration::from_millis(250);
/// What is kept of a request's body for an endpoint that speaks HTTP/2.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection within {limit:?}")]
    Timeout { limit: Duration },
    #[error("no connection: {0}")]
    Failed(#[source] io::Error),
    #[error("HTTP did not start: {0}")]
    Http(#[source] hyper::Error),
    /// This process or its machine has nothing left to connect with: no fault of the endpoint.
    #[error("no connection can be made at the moment: {0}")]
    Shortage(#[source] io::Error),
}

impl ConnectError {
    /// The system said at once that nobody listens there.
    pub(crate) fn is_refusal(&self) -> bool {
        // A unix socket that is gone is not found.
        let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
        matches!(self, Self::Failed(error) if refused.contains(&error.kind()))
    }

    /// Whether it says nothing of the endpoint.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, Self::Shortage(_))
    }
}

/// How to reach one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// Not a name, but for `localhost`: names are resolved where endpoints are made of their addresses.
    pub(super) address: Address,
    pub(super) tls: Option<(Arc<Originator>, ServerName<'static>)>,
    /// With prior knowledge on plain connections, by ALPN over TLS.
    pub(super) http2: bool,
    /// Of those who wait for room in the backlog of a unix socket, in the order they came: the first one tries.
    line: Arc<tokio::sync::Mutex<()>>,
    /// Told when it cannot be reached, where a name led to it.
    doubt: Option<Arc<Notify>>,
}

impl Connector {
    pub(super) fn new(address: Address, tls: Option<(Arc<Originator>, ServerName<'static>)>, http2: bool) -> Self {
        Self { address, tls, http2, line: Arc::default(), doubt: None }
    }

    /// One whose address is that of a name, which may lead elsewhere by the time that it cannot be reached.
    pub(super) fn of_name(self, doubt: Arc<Notify>) -> Self {
        Self { doubt: Some(doubt), ..self }
    }

    /// Connects, shakes hands and starts HTTP within `limit`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Cancel safety
    /// A connection in the making is closed.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Connection, ConnectError> {
        let began = Instant::now();
        let stream = self.reach(limit).await?;
        if self.http2 {
            let left = limit.saturating_sub(began.elapsed());
            let started = tokio::time::timeout(left, self.start_http2(stream)).await;
            return started.map_err(|_| ConnectError::Timeout { limit })?;
        }
        Ok(Connection::Http1(Http1::new(stream)))
    }

    /// Returns once the endpoint has said how many streams it takes: more than that it would refuse.
    async fn start_http2(&self, stream: Stream) -> Result<Connection, ConnectError> {
        if stream.is_tls() && !stream.speaks_http2() {
            let text = "the endpoint did not agree to HTTP/2 (ALPN \"h2\")";
            return Err(ConnectError::Failed(io::Error::new(io::ErrorKind::Unsupported, text)));
        }
        let scheme = if stream.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
        let (stream, told) = Hello::new(stream);
        let heard = stream.heard();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_send_buf_size(SEND_BYTES_MAX)
            // Counted over all its life, and the end of everything that is on it. Each took a request of ours.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        // Owned by its two ends: it stops when the sender is dropped or the endpoint closes.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        });
        told.await.unwrap_or(Err(Unheard::Closed)).map_err(|why| ConnectError::Failed(why.into()))?;
        Ok(Connection::Http2(Box::new(Http2Stream::alone(Http2 { sender, scheme, heard }))))
    }

    /// Connects, and shakes hands where there is TLS, within `limit`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn reach(&self, limit: Duration) -> Result<Stream, ConnectError> {
        let error = match tokio::time::timeout(limit, self.stream()).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if is_shortage(&error) => {
                tell_of_shortage(&error);
                return Err(ConnectError::Shortage(error));
            }
            Ok(Err(error)) => ConnectError::Failed(error),
            Err(_) => ConnectError::Timeout { limit },
        };
        self.doubt.iter().for_each(|doubt| doubt.notify_one());
        Err(error)
    }

    async fn stream(&self) -> io::Result<Stream> {
        match &self.address {
            Address::Unix(path) => {
                let turn = self.line.lock().await;
                let socket = connect_unix(path).await?;
                drop(turn);
                match &self.tls {
                    None => Ok(Stream::Unix(socket)),
                    Some((tls, name)) => {
                        let connector = TlsConnector::from(tls.config());
                        Ok(Stream::TlsUnix(Box::new(connector.connect(name.clone(), socket).await?)))
                    }
                }
            }
            Address::Socket(address) => self.over_tcp(&[*address]).await,
            Address::Name { port, .. } => self.over_tcp(&loopback(*port)).await,
        }
    }

    async fn over_tcp(&self, addresses: &[SocketAddr]) -> io::Result<Stream> {
        let socket = TcpStream::connect(addresses).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Tcp(socket)),
            Some((tls, name)) => {
                let connector = TlsConnector::from(tls.config());
                Ok(Stream::Tls(Box::new(connector.connect(name.clone(), socket).await?)))
            }
        }
    }
}

/// Waits while the backlog is full: a socket that must not block is told of that at once (connect(2), `EAGAIN`), where
/// TCP would go on trying. Without end.
///
/// # Errors
/// Nobody listens there.
pub(super) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = BACKLOG_PAUSE_MIN;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            connected => return connected,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKLOG_PAUSE_MAX);
    }
}

/// Connects to the first of `addresses` that lets it. One that is silent leaves time for the others.
///
/// # Errors
/// Why the last one did not.
pub(crate) async fn first_of(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let share = share(limit, addresses.len());
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        let tried = tokio::time::timeout(share, TcpStream::connect(address)).await;
        outcome = tried.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("nobody answered within {share:.1?}")))
        });
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// What one of so many addresses has of `limit`.
pub(super) fn share(limit: Duration, addresses: usize) -> Duration {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    (limit / addresses).max(SHARE_MIN).min(limit)
}

/// Once in a while, for every request may find the same.
fn tell_of_shortage(error: &io::Error) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    // Whoever holds it is about to tell.
    let Some(mut last) = LAST.try_lock() else { return };
    if last.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
        *last = Some(Instant::now());
        tracing::warn!(%error, "cannot connect to endpoints at the moment, see LimitNOFILE= or ulimit -n");
    }
}
