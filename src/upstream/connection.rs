//! A connection to an endpoint, in the version of HTTP that its upstream speaks.

use std::error::Error as _;

use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};

use super::http1::Http1;
use crate::proxy::body::RequestBody;

/// What a request is sent on.
#[derive(Debug)]
pub(crate) enum Connection {
    /// One request at a time.
    Http1(Http1),
    /// One of many streams.
    Http2(Http2),
}

/// A connection of HTTP/2, as often as it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Http2 {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) scheme: Scheme,
    /// Streams that the endpoint allowed at a time when the connection began.
    pub(super) streams_max: usize,
}

/// Why a request brought no answer's head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing of it was sent: here it is again.
    #[error("nothing was sent")]
    Unsent(Box<Request<RequestBody>>),
    /// The endpoint says that it has not looked at it: a stream refused, or above the last one of a GOAWAY (RFC 9113,
    /// section 8.7). It may be sent again whatever its method.
    #[error("the endpoint refused the stream")]
    Unprocessed,
    /// The endpoint gave this one request up, and its connection lives on.
    #[error("the endpoint reset the stream: {0}")]
    StreamReset(#[source] hyper::Error),
    #[error("no answer from the upstream: {0}")]
    Failed(#[source] hyper::Error),
}

impl SendError {
    fn of(mut error: TrySendError<Request<RequestBody>>, restore: impl FnOnce(&mut Request<RequestBody>)) -> Self {
        match error.take_message() {
            Some(mut request) => {
                restore(&mut request);
                Self::Unsent(Box::new(request))
            }
            None => match stream_error(error.error()) {
                Some(error) if is_unprocessed(error) => Self::Unprocessed,
                Some(reset) if reset.is_reset() => Self::StreamReset(error.into_error()),
                _ => Self::Failed(error.into_error()),
            },
        }
    }
}

impl Connection {
    /// Sends a request in the form of HTTP/1 and waits for the head of its answer, which is boxed because it is moved a dozen
    /// times.
    ///
    /// Not an `async fn`: that would keep the request twice in a future that is part of every request's.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Box<Response<Incoming>>, SendError>> + Send + '_ {
        match self {
            Self::Http1(connection) => {
                Either::Left(connection.send(request).map_ok(Box::new).map_err(|error| SendError::of(error, |_| ())))
            }
            Self::Http2(Http2 { sender, scheme, .. }) => {
                let host = take_absolute_form(&mut request, scheme);
                let restore = |request: &mut Request<_>| take_origin_form(request, host);
                let answer = sender.try_send_request(request).map_ok(Box::new);
                Either::Right(answer.map_err(|error| SendError::of(error, restore)))
            }
        }
    }
}

/// `:scheme` and `:authority` for `Host`, and nothing of HTTP/1's connections (RFC 9113, sections 8.2.2 and 8.3.1).
fn take_absolute_form<B>(request: &mut Request<B>, scheme: &Scheme) -> Option<HeaderValue> {
    const KEPT_OUT: [HeaderName; 4] = [CONNECTION, HeaderName::from_static("keep-alive"), TRANSFER_ENCODING, UPGRADE];
    for name in KEPT_OUT {
        request.headers_mut().remove(name);
    }
    let host = request.headers_mut().remove(HOST);
    let authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    parts.path_and_query = Some(target_of(request.uri()));
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
    *request.version_mut() = Version::HTTP_2;
    host
}

/// Takes [`take_absolute_form`] back.
fn take_origin_form<B>(request: &mut Request<B>, host: Option<HeaderValue>) {
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(target_of(request.uri()));
    *request.version_mut() = Version::HTTP_11;
}

fn target_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

/// What the endpoint said about a stream, or about all of them.
fn stream_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_remote())
}

fn is_unprocessed(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_are_each_others_inverse() {
        let mut request = Request::get("/a?b").header(HOST, "example.com:81").header("x", "y").body(()).unwrap();
        let host = take_absolute_form(&mut request, &Scheme::HTTPS);
        assert_eq!(request.uri(), "https://example.com:81/a?b");
        assert!(!request.headers().contains_key(HOST));
        take_origin_form(&mut request, host);
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()[HOST], "example.com:81");
    }
}
