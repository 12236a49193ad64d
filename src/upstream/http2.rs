//! Streams of HTTP/2 to an endpoint, on connections that hyper drives.

use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use tokio::time::timeout;

use super::connection::{AnswerError, RequestHead, SendError};
use super::hello::Heard;
use super::multiplex::StreamPlace;
use crate::alarm::Alarm;
use crate::message::{forwarded, hop_by_hop};
use crate::proxy::body::RequestBody;

/// A connection, as often as it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Http2 {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) scheme: Scheme,
    pub(super) heard: Heard,
}

type Answer = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// One request on it, and its answer.
pub(crate) struct Http2Stream {
    connection: Http2,
    /// Where others are on the connection, too.
    place: Option<StreamPlace>,
    state: State,
    pub(super) alarm: Alarm,
}

enum State {
    Idle,
    Asked(Pin<Box<dyn Future<Output = Answer> + Send + Sync>>),
    Answered(Box<Response<Incoming>>),
    Body(Incoming),
    Over,
}

impl Http2Stream {
    /// On a connection of its own.
    pub(super) fn alone(connection: Http2) -> Self {
        Self { connection, place: None, state: State::Idle, alarm: Alarm::default() }
    }

    pub(super) fn at(place: StreamPlace, connection: Http2) -> Self {
        Self { connection, place: Some(place), state: State::Idle, alarm: Alarm::default() }
    }

    /// The connection that it is on.
    pub(super) fn into_connection(self) -> Http2 {
        self.connection
    }

    /// Sends a request.
    pub(super) fn begin(&mut self, head: RequestHead<'_>, body: RequestBody) {
        let request = absolute_form(head, &self.connection.scheme).map(|()| body);
        self.state = State::Asked(Box::pin(self.connection.sender.try_send_request(request)));
    }

    /// Waits for the head of the answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<StatusCode, SendError>> {
        let State::Asked(answer) = &mut self.state else { unreachable!("a request is sent before its answer") };
        let answer = ready!(answer.as_mut().poll(cx));
        self.state = State::Over;
        let answer = answer.map_err(|error| self.failure(error))?;
        let status = answer.status();
        self.state = State::Answered(Box::new(answer));
        Poll::Ready(Ok(status))
    }

    fn failure(&self, error: TrySendError<Request<RequestBody>>) -> SendError {
        let failure = failure(error);
        if let (SendError::Unsent(_) | SendError::Unprocessed, Some(place)) = (&failure, &self.place) {
            place.retire();
        }
        failure
    }

    /// The head of the answer that has come.
    pub(super) fn take_answer(&mut self) -> Option<Response<()>> {
        let State::Answered(answer) = mem::replace(&mut self.state, State::Over) else { return None };
        let (head, body) = answer.into_parts();
        self.state = State::Body(body);
        Some(Response::from_parts(head, ()))
    }

    /// What there is of the answer's body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let State::Body(body) = &mut self.state else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        // hyper takes a reset without an error for the end of the answer. That may come behind the end, but is none
        // itself (RFC 9113, section 8.1).
        if frame.is_none() && !body.is_end_stream() {
            return Poll::Ready(Some(Err(AnswerError::Reset)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(AnswerError::Http2)))
    }

    /// Whether the answer has been read to its end.
    pub(super) fn has_ended(&self) -> bool {
        match &self.state {
            State::Body(body) => body.is_end_stream(),
            _ => true,
        }
    }

    /// All of the answer's data has been read, and maybe not its end. That is waited for, for as long as `patience`,
    /// though nobody wants it: to the app a reset would say that the answer was in vain.
    pub(super) fn let_end(mut self, patience: Duration) {
        if !self.has_ended() {
            let ended = poll_fn(move |cx| {
                while let Some(Ok(_)) = ready!(self.poll_frame(cx)) {}
                Poll::Ready(())
            });
            drop(tokio::spawn(timeout(patience, ended)));
        }
    }

    /// Of what is left of the answer's body.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Body(body) => body.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }
}

/// What became of a request that was not answered.
fn failure(mut error: TrySendError<Request<RequestBody>>) -> SendError {
    if let Some(request) = error.take_message() {
        return SendError::Unsent(request.into_body());
    }
    match error.error().source().and_then(|error| error.downcast_ref::<h2::Error>()) {
        Some(error) if is_unprocessed(error) => SendError::Unprocessed,
        Some(reset) if reset.is_reset() => SendError::StreamReset(error.into_error()),
        // Ours: it broke a rule.
        Some(end) if end.is_go_away() && !end.is_remote() => SendError::Failed(AnswerError::Http2(error.into_error())),
        _ => SendError::Closed(AnswerError::Http2(error.into_error())),
    }
}

/// Whether the endpoint has said that it did not look at the request.
fn is_unprocessed(error: &h2::Error) -> bool {
    if !error.is_remote() {
        return false;
    }
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away(),
        _ => false,
    }
}

/// `:scheme` and `:authority` for `Host`, and nothing of HTTP/1's connections (RFC 9113, sections 8.2.2 and 8.3.1).
fn absolute_form(head: RequestHead<'_>, scheme: &Scheme) -> Request<()> {
    let RequestHead { parts: head, told } = head;
    let mut request = Request::new(());
    *request.headers_mut() = head.headers.clone();
    for name in &hop_by_hop::OF_HTTP1 {
        request.headers_mut().remove(name);
    }
    let host = request.headers_mut().remove(HOST);
    forwarded::put(request.headers_mut(), told.iter().cloned());
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let target = head.uri.path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    parts.path_and_query = Some(target.unwrap_or(PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    request
}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Stream").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CONNECTION, TRANSFER_ENCODING};

    use super::*;

    #[test]
    fn the_host_becomes_the_authority() {
        let request = Request::post("/a?b")
            .header(HOST, "example.com:81")
            .header("x", "y")
            .header(CONNECTION, "x")
            .header("proxy-connection", "x")
            .header(TRANSFER_ENCODING, "chunked");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let told = [(&http::header::VIA, HeaderValue::from_static("y"))];
        let sent = absolute_form(RequestHead { parts: &parts, told: &told }, &Scheme::HTTPS);
        assert_eq!((sent.method().as_str(), sent.uri().to_string().as_str()), ("POST", "https://example.com:81/a?b"));
        assert_eq!(sent.headers().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x", "via"]);
        let (parts, ()) = Request::get("/").body(()).unwrap().into_parts();
        let sent = absolute_form(RequestHead::of(&parts), &Scheme::HTTP);
        assert_eq!(sent.uri(), "http://localhost/");
    }
}
