//! WebSocket and the like on one stream of HTTP/2: extended CONNECT (RFC 8441) on our side, an upgrade of HTTP/1.1 on
//! the app's.
//!
//! A request with `:protocol` becomes the GET that would have asked for the upgrade, before anything is decided about
//! it: routes, maintenance, limits and the app see nothing new. On the way back a 101 becomes the 200 that opens the
//! stream. Since any 2xx would do that, no other may pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use sha1::{Digest as _, Sha1};

use super::body::Body;
use super::context::Context;
use super::refusal::Refusal;
use crate::message::hop_by_hop;

const WEBSOCKET: &str = "websocket";
/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A stream whose client wants to speak another protocol on it.
#[derive(Debug)]
pub(crate) struct Connect {
    protocol: HeaderValue,
    /// What a WebSocket server has to say; `None` for other protocols.
    accept: Option<HeaderValue>,
}

impl Connect {
    /// Makes an extended CONNECT the GET of an upgrade; `None` for any other request, which stays as it is.
    pub(crate) fn take<B>(request: &mut Request<B>) -> Option<Self> {
        if request.method() != Method::CONNECT {
            return None;
        }
        let protocol = request.extensions_mut().remove::<Protocol>()?;
        let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        // Whatever they say, there is no body in front of the stream.
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        hop_by_hop::set_upgrade(headers, protocol.clone());
        let accept = protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()).then(|| {
            let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
            let accept = HeaderValue::try_from(accept_of(&key)).expect("base64 is a header value");
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).expect("base64 is a header value"));
            headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
            accept
        });
        Some(Self { protocol, accept })
    }

    /// Whether these, of a 101, agree to what was asked for, and are a WebSocket server's answer to this very key.
    pub(super) fn is_agreed(&self, headers: &HeaderMap) -> bool {
        let agrees =
            headers.get(UPGRADE).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()));
        agrees && (self.accept.is_none() || headers.get(SEC_WEBSOCKET_ACCEPT) == self.accept.as_ref())
    }

    /// Makes the app's 101, which agrees, the 200 that opens the stream.
    pub(super) fn open(&self, mut response: Response<Body>) -> Response<Body> {
        *response.status_mut() = StatusCode::OK;
        hop_by_hop::strip_response(response.headers_mut());
        response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        response.headers_mut().remove(CONTENT_LENGTH);
        response
    }
}

/// Lets an answer pass to the client of an extended CONNECT; all others pass anyway.
///
/// # Errors
/// It would open a stream that nobody is at the other end of.
pub(super) fn judge(response: &Response<Body>, context: &Context) -> Result<(), Refusal> {
    if context.connect.is_none() || context.tunnel.is_some() || !response.status().is_success() {
        return Ok(());
    }
    Err(match context.upstream {
        Some(_) => Refusal::NotUpgraded,
        None => Refusal::BadRequest("There is nothing here to open a stream to."),
    })
}

fn accept_of(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_rfc_6455() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_connect_without_a_protocol_stays_one() {
        let mut request = Request::connect("app:80").body(()).unwrap();
        assert!(Connect::take(&mut request).is_none());
        assert_eq!(request.method(), Method::CONNECT);
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade() {
        for (protocol, has_key) in [("websocket", true), ("WebSocket", true), ("connect-udp", false)] {
            let mut request = Request::connect("https://app/chat").header(CONTENT_LENGTH, "0").body(()).unwrap();
            request.extensions_mut().insert(Protocol::from(protocol));
            let connect = Connect::take(&mut request).unwrap();
            assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/chat"));
            assert_eq!(hop_by_hop::upgrade_protocol(request.headers()).unwrap(), protocol);
            assert_eq!(request.headers().contains_key(SEC_WEBSOCKET_KEY), has_key);
            assert_eq!(connect.accept.is_some(), has_key);
            assert!(!request.headers().contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn only_the_answer_that_was_asked_for_opens_the_stream() {
        let mut request = Request::connect("https://app/chat").body(()).unwrap();
        request.extensions_mut().insert(Protocol::from("websocket"));
        let connect = Connect::take(&mut request).unwrap();
        let key = request.headers()[SEC_WEBSOCKET_KEY].to_str().unwrap().to_owned();
        let answer = |protocol: &str, accept: &str| {
            let answer = Response::builder().status(101).header(UPGRADE, protocol).header("connection", "upgrade");
            answer.header(SEC_WEBSOCKET_ACCEPT, accept).header("x", "y").body(Body::empty()).unwrap()
        };
        let agreed = answer("WebSocket", &accept_of(&key));
        assert!(connect.is_agreed(agreed.headers()));
        let opened = connect.open(agreed);
        assert_eq!(opened.status(), 200);
        assert_eq!(opened.headers().keys().collect::<Vec<_>>(), ["x"]);
        assert!(!connect.is_agreed(answer("echo", &accept_of(&key)).headers()));
        assert!(!connect.is_agreed(answer("websocket", &accept_of("another")).headers()));
    }
}
