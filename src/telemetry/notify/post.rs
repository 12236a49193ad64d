//! One POST to one URL, over HTTP or HTTPS, on a connection of its own: webhooks are rare.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::read_roots;
use crate::upstream::Resolver;

/// From resolving the name to the head of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A PEM file with roots to trust beside the built-in ones; the name is OpenSSL's.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// What came of a POST. The texts name neither URL nor token.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered,
    /// Trying again would bring the same.
    Refused(String),
    Failed {
        problem: String,
        retry_after: Option<Duration>,
    },
}

pub(super) struct Poster {
    resolver: Resolver,
    tls: Result<Arc<ClientConfig>, String>,
}

impl Poster {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, tls: client_config().map_err(|error| format!("TLS cannot be set up: {error}")) }
    }

    /// # Cancel safety
    /// The connection is closed; the receiver may have got the event.
    pub(super) async fn post(&self, url: &str, body: &str) -> Verdict {
        let Ok(uri) = url.parse::<Uri>() else { return Verdict::Refused("its url is no URL".to_owned()) };
        let Some(request) = request(&uri, body) else { return Verdict::Refused("its url has no host".to_owned()) };
        let failed = |problem: String| Verdict::Failed { problem, retry_after: None };
        match tokio::time::timeout(TIMEOUT, self.exchange(&uri, request)).await {
            Ok(Ok(response)) => verdict(response.status(), response.headers().get(RETRY_AFTER)),
            Ok(Err(error)) => failed(error.to_string()),
            Err(_) => failed(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self, uri: &Uri, request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let socket = self.connect(host, uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 })).await?;
        if !is_tls {
            return send(socket, request).await;
        }
        let config = self.tls.as_ref().map_err(|problem| io::Error::other(problem.clone()))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        send(TlsConnector::from(Arc::clone(config)).connect(name, socket).await?, request).await
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.resolver.resolve(host, port).await?;
        TcpStream::connect(&*addresses).await
    }
}

/// The head of the answer; its body is of no interest, and is dropped with the connection.
async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut sending = pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut sending => answer.map_err(io::Error::other),
        // The answer may be there although the connection has ended.
        _ = connection => sending.await.map_err(io::Error::other),
    }
}

fn request(uri: &Uri, body: &str) -> Option<Request<Full<Bytes>>> {
    let authority = uri.authority()?.as_str();
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).ok()?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("flagstone/", env!("CARGO_PKG_VERSION"))));
    if let Some(login) = login {
        let login: Vec<u8> = percent_encoding::percent_decode_str(login).collect();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login))).ok()?);
    }
    Some(request)
}

fn verdict(status: StatusCode, retry_after: Option<&HeaderValue>) -> Verdict {
    let problem = format!("it answered {}", status.as_u16());
    let may_pass = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if status.is_success() {
        return Verdict::Delivered;
    }
    if !may_pass && !status.is_server_error() {
        return Verdict::Refused(problem);
    }
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    Verdict::Failed { problem, retry_after: seconds.map(Duration::from_secs) }
}

fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = std::env::var_os(ROOTS_VARIABLE) {
        match read_roots(file.as_ref()) {
            Ok(further) => roots.roots.extend(further.roots),
            Err(error) => tracing::warn!(%error, "{ROOTS_VARIABLE} is left out"),
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        let verdict = |code| verdict(StatusCode::from_u16(code).unwrap(), None);
        for code in [200, 204] {
            assert!(matches!(verdict(code), Verdict::Delivered), "{code}");
        }
        for code in [408, 429, 500, 503] {
            assert!(matches!(verdict(code), Verdict::Failed { .. }), "{code}");
        }
        for code in [301, 400, 403, 404, 410] {
            assert!(matches!(verdict(code), Verdict::Refused(_)), "{code}");
        }
    }

    #[test]
    fn a_login_in_the_url_is_sent_as_such() {
        let request = request(&"https://me:p%40ss@example.com:8443/hook?x=1".parse().unwrap(), "{}").unwrap();
        assert_eq!(request.uri(), "/hook?x=1");
        assert_eq!(request.headers()[HOST], "example.com:8443");
        assert_eq!(request.headers()[AUTHORIZATION], format!("Basic {}", STANDARD.encode("me:p@ss")));
    }
}
