//! What the sample app says to each path.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::echo;
use super::sample_app::{App, UpgradeSlot};

/// Boxed once per answer; the demo is no benchmark.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

fn page() -> &'static str {
    flagstone_assets::text("demo.html")
}
const SLOW_DEFAULT: Duration = Duration::from_secs(2);
const SLOW_MAX: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_secs(1);
/// An hour of ticks, then the stream ends and an `EventSource` comes back by itself.
const TICKS_MAX: u32 = 3600;
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Answers one request; anything that goes wrong becomes a status.
pub(super) async fn answer(request: Request<Incoming>, app: &App, slot: &UpgradeSlot) -> Response<Body> {
    let path = request.uri().path();
    if let Some(allowed) = not_allowed(request.method(), path) {
        let refusal = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
        return with_header(refusal, ALLOW, HeaderValue::from_static(allowed));
    }
    match path {
        "/" => typed(StatusCode::OK, "text/html; charset=utf-8", page()),
        "/health" => text(StatusCode::OK, "ok\n"),
        "/api/time" => time(app),
        "/slow" => slow(&request).await,
        "/fail" => fail(app),
        "/fail/on" => set_failing(app, true),
        "/fail/off" => set_failing(app, false),
        "/events" => events(),
        "/headers" => headers(&request),
        "/upload" => upload(request).await,
        "/ws" => web_socket(request, slot),
        _ => text(StatusCode::NOT_FOUND, "the sample app has no such page\n"),
    }
}

/// The methods to use instead, when this one is wrong for a path.
fn not_allowed(method: &Method, path: &str) -> Option<&'static str> {
    let (fits, allowed) = match path {
        "/fail/on" | "/fail/off" => (*method == Method::POST, "POST"),
        "/upload" => (*method == Method::POST || *method == Method::PUT, "POST, PUT"),
        "/headers" => return None,
        _ => (*method == Method::GET || *method == Method::HEAD, "GET, HEAD"),
    };
    (!fits).then_some(allowed)
}

fn time(app: &App) -> Response<Body> {
    let now = jiff::Timestamp::now();
    json(
        StatusCode::OK,
        &json!({
            "time": now.to_string(),
            "unixMillis": now.as_millisecond(),
            "uptimeSeconds": app.started.elapsed().as_secs(),
        }),
    )
}

/// Waits as long as `?ms=` asks for, two seconds without, two minutes at most.
async fn slow(request: &Request<Incoming>) -> Response<Body> {
    let asked = request.uri().query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("ms="));
    let wait = match asked.map(str::parse) {
        None => SLOW_DEFAULT,
        Some(Ok(millis)) => Duration::from_millis(millis).min(SLOW_MAX),
        Some(Err(_)) => {
            return text(StatusCode::BAD_REQUEST, "ms is a whole number of milliseconds\n");
        }
    };
    tokio::time::sleep(wait).await;
    text(StatusCode::OK, format!("that took {} ms\n", wait.as_millis()))
}

fn fail(app: &App) -> Response<Body> {
    if app.failing.load(Ordering::Relaxed) {
        text(StatusCode::INTERNAL_SERVER_ERROR, "the sample app fails, as it was told to\n")
    } else {
        text(StatusCode::OK, "all is well; POST /fail/on makes this page fail\n")
    }
}

fn set_failing(app: &App, failing: bool) -> Response<Body> {
    app.failing.store(failing, Ordering::Relaxed);
    json(StatusCode::OK, &json!({ "failing": failing }))
}

/// Server-sent events: a numbered tick at once, then one each second.
fn events() -> Response<Body> {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ticks = stream::unfold((interval, 0_u32), |(mut interval, count)| async move {
        if count == TICKS_MAX {
            return None;
        }
        interval.tick().await;
        let event = format!("id: {count}\nevent: tick\ndata: {}\n\n", jiff::Timestamp::now());
        Some((Ok(Frame::data(Bytes::from(event))), (interval, count + 1)))
    });
    let mut response = Response::new(StreamBody::new(ticks).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Shows the request as it arrived, repeated headers and their order within a name kept.
fn headers(request: &Request<Incoming>) -> Response<Body> {
    json(
        StatusCode::OK,
        &json!({
            "method": request.method().as_str(),
            "uri": request.uri().to_string(),
            "version": format!("{:?}", request.version()),
            "headers": pairs(request.headers()),
        }),
    )
}

fn pairs(headers: &HeaderMap) -> Vec<Value> {
    headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect()
}

/// Counts and sums a body of any size without keeping it; trailers are shown too.
async fn upload(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let (mut bytes, mut sum, mut trailers) = (0_u64, Sha1::new(), HeaderMap::new());
    loop {
        match tokio::time::timeout(UPLOAD_SILENCE_MAX, body.frame()).await {
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the upload stalled\n"),
            Ok(Some(Err(_))) => return text(StatusCode::BAD_REQUEST, "the upload broke off\n"),
            Ok(None) => break,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    bytes += data.len() as u64;
                    sum.update(&data);
                }
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            },
        }
    }
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    json(StatusCode::OK, &json!({ "bytes": bytes, "sha1": sum, "trailers": pairs(&trailers) }))
}

/// Agrees to a WebSocket (RFC 6455 section 4.2) and leaves it to the connection.
fn web_socket(mut request: Request<Incoming>, slot: &UpgradeSlot) -> Response<Body> {
    let headers = request.headers();
    let asks = headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let speaks = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|value| value == "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| echo::accept_key(key.as_bytes()));
    let (true, true, Some(accept)) = (asks, speaks, key) else {
        let refusal = text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket, version 13\n");
        let refusal = with_header(refusal, UPGRADE, HeaderValue::from_static("websocket"));
        return with_header(refusal, SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    };
    *slot.lock().expect("no holder of this lock panics") = Some(hyper::upgrade::on(&mut request));
    let mut response = Response::new(body(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(accept).expect("base64 is a header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", content)
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    typed(status, "application/json", format!("{value}\n"))
}

fn typed(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(content));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    with_header(response, CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn with_header(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

fn body(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed_unsync()
}
