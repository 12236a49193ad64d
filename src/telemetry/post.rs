//! One POST to one URL, over HTTP or HTTPS, on a connection of its own: webhooks are rare, and traces come in batches.

use std::io;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::error::io_reason;
use crate::message::host::without_brackets;
use crate::tls::trusted_roots;
use crate::upstream::Resolver;
use crate::upstream::connect::first_of;

/// From resolving the name to the head of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of that, what all addresses of the name have together: the rest is for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the head of an answer says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer. The texts name neither URL nor token.
#[derive(Debug)]
pub(super) enum Unsent {
    /// Trying again would bring the same.
    Wrong(&'static str),
    Failed(String),
}

pub(super) struct Poster {
    resolver: Resolver,
    /// Made when it is first wanted: most have nobody to tell, and reading roots takes some milliseconds.
    tls: LazyLock<Result<Arc<ClientConfig>, String>>,
}

impl Poster {
    pub(super) fn new(resolver: Resolver) -> Self {
        let tls = || client_config().map_err(|error| format!("TLS cannot be set up: {error}"));
        Self { resolver, tls: LazyLock::new(tls) }
    }

    /// # Cancel safety
    /// The connection is closed; the receiver may have got the body.
    pub(super) async fn post(
        &self,
        url: &str,
        body: Bytes,
        content_type: HeaderValue,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Answer, Unsent> {
        let uri = url.parse::<Uri>().map_err(|_| Unsent::Wrong("its url is no URL"))?;
        let mut request = request(&uri, body).ok_or(Unsent::Wrong("its url has no host"))?;
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        request.headers_mut().extend(headers.iter().cloned());
        match tokio::time::timeout(TIMEOUT, self.exchange(&uri, request)).await {
            Ok(Ok(response)) => Ok(Answer {
                status: response.status(),
                retry_after: response.headers().get(RETRY_AFTER).and_then(seconds),
            }),
            Ok(Err(error)) => Err(Unsent::Failed(io_reason(&error))),
            Err(_) => Err(Unsent::Failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, uri: &Uri, request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
        let is_tls = uri.scheme_str() == Some("https");
        let host = without_brackets(uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = self.resolver.resolve(host, port).await?;
        let socket = first_of(&addresses, CONNECT_TIMEOUT).await?;
        if !is_tls {
            return send(socket, request).await;
        }
        let config = self.tls.as_ref().map_err(|problem| io::Error::other(problem.clone()))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        send(TlsConnector::from(Arc::clone(config)).connect(name, socket).await?, request).await
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

fn request(uri: &Uri, body: Bytes) -> Option<Request<Full<Bytes>>> {
    let authority = uri.authority()?.as_str();
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("flagstone/", env!("CARGO_PKG_VERSION"))));
    if let Some(login) = login {
        let login: Vec<u8> = percent_encoding::percent_decode_str(login).collect();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login))).ok()?);
    }
    Some(request)
}

/// The other form of `Retry-After`, a date, is not read.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config =
        builder.with_safe_default_protocol_versions()?.with_root_certificates(trusted_roots()).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_in_the_url_is_sent_as_such() {
        let request = request(&"https://me:p%40ss@example.com:8443/hook?x=1".parse().unwrap(), Bytes::new()).unwrap();
        assert_eq!(request.uri(), "/hook?x=1");
        assert_eq!(request.headers()[HOST], "example.com:8443");
        assert_eq!(request.headers()[AUTHORIZATION], format!("Basic {}", STANDARD.encode("me:p@ss")));
    }
}
