//! Making a connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::resolve::loopback;
use super::stream::Stream;
use crate::config::model::Address;
use crate::proxy::body::RequestBody;

/// Read from an endpoint ahead of the client, and the largest response head. hyper's own 400 KiB would be held several
/// times over for every client that reads slowly.
const READ_BYTES_MAX: usize = 64 * 1024;

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection within {limit:?}")]
    Timeout { limit: Duration },
    #[error("no connection: {0}")]
    Failed(#[source] io::Error),
    #[error("HTTP did not start: {0}")]
    Http(#[source] hyper::Error),
}

/// How to reach one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// Not a name, but for `localhost`: names are resolved where endpoints are made of their addresses.
    pub(super) address: Address,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    /// Connects, shakes hands and starts HTTP/1.1 within `limit`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Cancel safety
    /// A connection in the making is closed.
    pub(super) async fn connect(&self, limit: Duration) -> Result<SendRequest<RequestBody>, ConnectError> {
        let stream = self.reach(limit).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        // Owned by its two ends: it stops when the sender is dropped or the endpoint closes.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "upstream connection ended");
            }
        });
        Ok(sender)
    }

    /// Connects, and shakes hands where there is TLS, within `limit`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn reach(&self, limit: Duration) -> Result<Stream, ConnectError> {
        let connected = tokio::time::timeout(limit, self.stream()).await;
        connected.map_err(|_| ConnectError::Timeout { limit })?.map_err(ConnectError::Failed)
    }

    async fn stream(&self) -> io::Result<Stream> {
        match &self.address {
            Address::Unix(path) => {
                let socket = UnixStream::connect(path).await?;
                match &self.tls {
                    None => Ok(Stream::Unix(socket)),
                    Some((config, name)) => {
                        let connector = TlsConnector::from(Arc::clone(config));
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
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Ok(Stream::Tls(Box::new(connector.connect(name.clone(), socket).await?)))
            }
        }
    }
}
