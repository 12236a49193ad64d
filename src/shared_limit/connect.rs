//! Making a connection to a Redis node: resolve, connect, TLS, authenticate.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::model::UpstreamTls;
use crate::message::host::without_brackets;
use crate::tls::roots_file;
use crate::upstream::Resolver;
use crate::upstream::connect::first_of;
use crate::upstream::tls::Originator;

/// Everything but the address, which in a cluster is each node's own.
pub(super) struct Connector {
    /// Host and port of the URL.
    pub(super) seed: (String, u16),
    login: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    resolver: Resolver,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Network(#[from] io::Error),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("no answer in time")]
    Timeout,
}

impl Connector {
    /// # Errors
    /// What is wrong with the URL, without its password, or with the file of its CA.
    pub(super) fn new(url: &str, ca: Option<&Path>, resolver: Resolver) -> Result<Self, String> {
        // TLS is ours, as everywhere: the library is shown a plain URL.
        let (is_tls, plain) = match url.strip_prefix("rediss://") {
            Some(rest) => (true, format!("redis://{rest}")),
            None => (false, url.to_owned()),
        };
        let (plain, is_insecure) = match plain.strip_suffix("#insecure") {
            Some(rest) if is_tls => (rest.to_owned(), true),
            _ => (plain, false),
        };
        let info = plain.into_connection_info().map_err(|_| "the URL is not understood".to_owned())?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err("only redis:// and rediss:// are understood".to_owned());
        };
        let seed = (host.clone(), *port);
        let tls = if is_tls { Some(tls(ca, is_insecure)?) } else { None };
        // Naming the library is one more command that an ACL may forbid.
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self { seed, login, tls, resolver })
    }

    /// Connects to the first address of a name that answers, within `limit`.
    pub(super) async fn reach(&self, host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
        first_of(&self.resolver.resolve(without_brackets(host), port).await?, limit).await
    }

    /// Makes a pipelined connection of `socket` and drives it on the present runtime.
    pub(super) async fn open(&self, socket: TcpStream, host: &str) -> Result<MultiplexedConnection, ConnectError> {
        socket.set_nodelay(true)?;
        match &self.tls {
            None => self.start(socket).await,
            Some(config) => {
                let name = ServerName::try_from(without_brackets(host).to_owned()).map_err(io::Error::other)?;
                self.start(TlsConnector::from(Arc::clone(config)).connect(name, socket).await?).await
            }
        }
    }

    async fn start(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<MultiplexedConnection, ConnectError> {
        // Whoever asks brings a timeout of its own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&self.login, stream, config).await?;
        // Owned by the connection's handles: it ends with the last of them, or with the socket.
        tokio::spawn(driver);
        Ok(connection)
    }
}

/// The roots of `ca`, else those of `SSL_CERT_FILE` where that is set, as OpenSSL's tools take it, else the built-in
/// ones.
fn tls(ca: Option<&Path>, insecure: bool) -> Result<Arc<ClientConfig>, String> {
    let ca = ca.map(Path::to_owned).or_else(roots_file);
    let settings = UpstreamTls { server_name: None, ca, insecure, client: None };
    let mut config = (*Originator::build(&settings, false).map_err(|error| error.to_string())?.config()).clone();
    config.alpn_protocols.clear();
    Ok(Arc::new(config))
}
