//! Serves one HTTP/2 connection: streams, bounds, timeouts, the goodbye.
//!
//! Each stream is a task of its own on the connection's worker and belongs to the connection: when that ends, they end.
//! A request is made to look as one of HTTP/1 before anything is decided about it: `Host` for `:authority`, a target in
//! origin form, one `Cookie` (RFC 9113, sections 8.2.3 and 8.3.1).

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Sleep, timeout};

use super::connection::Connection;
use super::head::{self, BadHead, HeadBounds};
use super::incoming::Incoming;
use super::serve::{Settings, goodbye, waited};
use super::stream::Stream;
use super::timer::{End, Timer};
use super::wire::{SharedWire, Wire};
use crate::config::model::Timeouts;
use crate::live::Live;
use crate::message::host::Host;
use crate::proxy::body::Body;
use crate::proxy::connect::Connect;
use crate::proxy::handle;
use crate::proxy::stalls::{self, Pulse};
use crate::worker::Drain;

/// What a client may send ahead of us, on one stream and on all of them.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// What is kept of one answer for a client that reads slowly.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client may reset before we have looked at them, and that it may make us reset; more at once than this
/// ends the connection. `frames` bounds them over time.
const RESETS_AT_ONCE_MAX: usize = 100;
/// How long a client that has no stream open may take to agree to the end of the connection.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves `stream`, of which `early` has been read already, to its end.
pub(super) async fn serve(
    stream: Stream,
    early: Vec<u8>,
    connection: Arc<Connection>,
    settings: Settings,
    timeouts: Timeouts,
    live: Arc<Live>,
    draining: watch::Receiver<Drain>,
) {
    let bounds = settings.bounds;
    let streams = Streams { patience: timeouts.response_body, next: Arc::default() };
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .max_concurrent_streams(settings.http2)
        .max_header_list_size(u32::try_from(bounds.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_AT_ONCE_MAX)
        .max_local_error_reset_streams(RESETS_AT_ONCE_MAX)
        .enable_connect_protocol();
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request: Request<hyper::body::Incoming>| {
            connection.head_passed();
            let (request, pulse) = arrive(request, &bounds);
            streams.announce(pulse);
            // Boxed: hyper and tokio move a stream's future a dozen times, and this one is of several KB.
            Box::pin(handle::handle(request.map(Incoming::Hyper), Arc::clone(&connection), Arc::clone(&live)))
        })
    };
    let wire = Arc::new(Mutex::new(Wire::new(stream, early, Arc::clone(&connection))));
    let end = {
        let http = pin!(builder.serve_connection(TokioIo::new(SharedWire(Arc::clone(&wire))), service));
        drive(http, &wire, &connection, &timeouts, draining).await
    };
    // hyper has let go of its half, and no stream's task has one.
    let Some(wire) = Arc::into_inner(wire) else { return };
    let is_broken = matches!(end, End::Broken);
    let (mut stream, last_words) = wire.into_inner().unwrap_or_else(PoisonError::into_inner).end(is_broken);
    if !last_words.is_empty() {
        // Whoever is sent away is told why, but not waited for.
        let _ = timeout(LAST_WORDS, stream.write_all(&last_words)).await;
    }
    if !is_broken {
        goodbye(stream, false).await;
    }
}

type Http<S> = http2::Connection<TokioIo<SharedWire>, S, Streams>;

/// Polls hyper, and beside it the drain signal and the one timer of this connection.
async fn drive<S, Fut>(
    mut http: Pin<&mut Http<S>>,
    wire: &Mutex<Wire>,
    connection: &Connection,
    timeouts: &Timeouts,
    mut draining: watch::Receiver<Drain>,
) -> End
where
    S: hyper::service::Service<
            Request<hyper::body::Incoming>,
            Response = Response<Body>,
            Error = Infallible,
            Future = Fut,
        >,
    Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let drain_flag = draining.clone();
    let mut drained = pin!(async move { draining.wait_for(|drain| drain.has_begun()).await.map(|_| ()) });
    let mut registered = false;
    let mut first_request = None;
    let mut timer = Timer::new(timeouts);
    let mut ending: Option<Ending> = None;
    poll_fn(|cx| {
        if !registered {
            registered = drained.as_mut().poll(cx).is_pending();
        }
        if let Poll::Ready(end) = poll_http(http.as_mut(), wire, connection, cx) {
            return Poll::Ready(end);
        }
        // A connection that has just begun may have its first request on the way: its client cannot know of the drain.
        if ending.is_none()
            && drain_flag.borrow().has_begun()
            && (connection.requests() > 0 || waited(&mut first_request, cx))
        {
            ending = Some(Ending::begin(http.as_mut()));
        }
        if let Some(ending) = &mut ending {
            if let Poll::Ready(end) = poll_http(http.as_mut(), wire, connection, cx) {
                return Poll::Ready(end);
            }
            if connection.is_answered() && ending.poll_patience(cx).is_ready() {
                return Poll::Ready(End::Idle);
            }
        }
        match timer.poll_phase((connection.phase_of_streams(), connection.requests()), connection, cx) {
            Poll::Ready(End::Idle) if ending.is_none() => {
                ending = Some(Ending::begin(http.as_mut()));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            end => end,
        }
    })
    .await
}

/// Polls hyper, then sends what its streams have written meanwhile, together.
fn poll_http<S, Fut>(
    http: Pin<&mut Http<S>>,
    wire: &Mutex<Wire>,
    connection: &Connection,
    cx: &mut Context<'_>,
) -> Poll<End>
where
    S: hyper::service::Service<
            Request<hyper::body::Incoming>,
            Response = Response<Body>,
            Error = Infallible,
            Future = Fut,
        >,
    Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    if let Poll::Ready(result) = http.poll(cx) {
        return Poll::Ready(end_of(result, connection));
    }
    match lock(wire).poll_send(cx) {
        Poll::Ready(Err(error)) => {
            tracing::debug!(%error, peer = ?connection.peer, "HTTP/2 connection ended early");
            Poll::Ready(End::Broken)
        }
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// A connection that takes no new streams any more.
struct Ending {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Ending {
    /// Says GOAWAY, and waits for the client to have heard it before it names the last stream (RFC 9113, section 6.8).
    fn begin<S, Fut>(http: Pin<&mut Http<S>>) -> Self
    where
        S: hyper::service::Service<
                Request<hyper::body::Incoming>,
                Response = Response<Body>,
                Error = Infallible,
                Future = Fut,
            >,
        Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        http.graceful_shutdown();
        Self { sleep: None }
    }

    /// From when nothing is open any more; a client that does not answer holds nobody up for longer.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS))).as_mut().poll(cx)
    }
}

fn end_of(result: hyper::Result<()>, connection: &Connection) -> End {
    match result {
        Ok(()) => End::Finished,
        Err(error) => {
            tracing::debug!(%error, peer = ?connection.peer, "HTTP/2 connection ended early");
            End::Broken
        }
    }
}

/// Makes a request look as one of HTTP/1, and judges what only HTTP/1's gate would have judged.
fn arrive(
    mut request: Request<hyper::body::Incoming>,
    bounds: &HeadBounds,
) -> (Request<hyper::body::Incoming>, Arc<Pulse>) {
    let pulse = Arc::new(Pulse::default());
    let connect = Connect::take(&mut request);
    let bad_head = judge(&request, bounds).err();
    request.extensions_mut().insert(StreamFacts { pulse: Arc::clone(&pulse), bad_head, connect });
    join_cookies(request.headers_mut());
    if bad_head.is_none() && Host::of_request(request.uri(), request.headers(), Version::HTTP_2).is_ok() {
        take_origin_form(&mut request);
    }
    (request, pulse)
}

/// What the way of a request has to know of its stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamFacts {
    pub(crate) pulse: Arc<Pulse>,
    /// Why nothing of it may be forwarded.
    pub(crate) bad_head: Option<BadHead>,
    /// It asks for another protocol.
    pub(crate) connect: Option<Connect>,
}

fn judge<B>(request: &Request<B>, bounds: &HeadBounds) -> Result<(), BadHead> {
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    if request.headers().len() > bounds.headers_max {
        return Err(BadHead::HeadersTooLarge);
    }
    if target.len() > bounds.uri_bytes_max {
        return Err(BadHead::UriTooLong);
    }
    if request.method() == http::Method::CONNECT {
        return Err(BadHead::Malformed("CONNECT is for forward proxies"));
    }
    if !head::is_target(target) {
        return Err(BadHead::Malformed("the target is neither a path nor a URL"));
    }
    Ok(())
}

/// Crumbs become one field again, which is all that HTTP/1 knows (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).expect("valid values with a separator make a valid value");
    headers.insert(COOKIE, joined);
}

/// `Host` for `:authority`; the two are known to agree.
fn take_origin_form<B>(request: &mut Request<B>) {
    let uri = request.uri();
    if let Some(authority) = uri.authority()
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if let Some(target) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(target);
    }
}

/// Runs the tasks of one connection's streams.
#[derive(Clone, Debug)]
struct Streams {
    patience: Duration,
    /// Of the request whose task is handed over next: hyper asks the service first, then for the task, in one breath.
    next: Arc<Mutex<Option<Arc<Pulse>>>>,
}

impl Streams {
    fn announce(&self, pulse: Arc<Pulse>) {
        *lock(&self.next) = Some(pulse);
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    /// The task ends with its connection: hyper tells it when that is gone.
    fn execute(&self, task: F) {
        match lock(&self.next).take() {
            Some(pulse) => drop(tokio::spawn(stalls::unless_stalled(task, pulse, self.patience))),
            None => drop(tokio::spawn(task)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { head_bytes_max: 1024, headers_max: 3, uri_bytes_max: 16 };

    fn request(uri: &str) -> Request<()> {
        Request::builder().version(Version::HTTP_2).uri(uri).body(()).unwrap()
    }

    #[test]
    fn a_request_takes_the_form_of_http1() {
        let mut request = request("https://example.com:8443/a?b");
        take_origin_form(&mut request);
        assert_eq!(request.headers()[HOST], "example.com:8443");
        assert_eq!(request.uri(), "/a?b");
    }

    #[test]
    fn crumbs_become_one_cookie_in_their_order() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn bounds_hold_as_for_http1() {
        assert_eq!(judge(&request("https://a/"), &BOUNDS), Ok(()));
        assert_eq!(judge(&request("https://a/0123456789abcdef"), &BOUNDS), Err(BadHead::UriTooLong));
        let mut many = request("https://a/");
        for _ in 0..4 {
            many.headers_mut().append("x", HeaderValue::from_static("y"));
        }
        assert_eq!(judge(&many, &BOUNDS), Err(BadHead::HeadersTooLarge));
        let mut connect = request("a:1");
        *connect.method_mut() = http::Method::CONNECT;
        assert!(matches!(judge(&connect, &BOUNDS), Err(BadHead::Malformed(_))));
    }
}
