//! Spans of a request: one for the request itself, one below it for each try at an endpoint.
//!
//! Names and values are those of OpenTelemetry's semantic conventions for HTTP spans (stable since 1.23); what they
//! have no word for is under `flagstone.`.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, Version};
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};

use super::resource::{number, text};
use super::{Attempt, CANCELLED, Finished};
use crate::config::query::redacted;
use crate::message::host::without_brackets;

/// `Span.flags`: it is known whether the parent is another process's (bit 8), and it is (bit 9).
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// All spans of these requests, as one message.
pub(super) fn message(resource: &Resource, finished: &VecDeque<Box<Finished>>) -> TracesData {
    let spans = finished.iter().flat_map(|finished| spans(finished)).collect();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let scope = InstrumentationScope { name: "flagstone".to_owned(), version, ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource = Some(resource.clone());
    TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
}

fn spans(finished: &Finished) -> impl Iterator<Item = Span> + '_ {
    let each = finished.attempts.kept.iter().enumerate();
    std::iter::once(server(finished)).chain(each.map(|(index, attempt)| client(finished, index, attempt)))
}

/// The request, as its client had it.
fn server(finished: &Finished) -> Span {
    let error = error_of(finished);
    let mut attributes = method(&finished.method);
    attributes.extend([
        text("url.scheme", finished.scheme),
        text("url.path", &finished.path),
        text("network.protocol.version", version(finished.version)),
        text("client.address", finished.client.to_string()),
        text("flagstone.request_id", &finished.request_id),
        number("http.response.body.size", i64::try_from(finished.body_bytes).unwrap_or(i64::MAX)),
    ]);
    let mut add = |key: &str, value: Option<&str>| attributes.extend(value.map(|value| text(key, value)));
    add("url.query", finished.query.as_deref().map(redacted).as_deref());
    add("http.route", finished.pattern.as_deref());
    add("server.address", Some(without_brackets(&finished.host)).filter(|host| !host.is_empty()));
    add("user_agent.original", finished.user_agent.as_deref());
    add("network.peer.address", finished.peer.map(|peer| peer.ip().to_string()).as_deref());
    add("error.type", error.as_deref());
    add("flagstone.route", finished.route.as_deref());
    add("flagstone.reason", finished.reason);
    add("flagstone.decided_by", finished.decided_by.as_deref());
    add("flagstone.upstream", finished.upstream.as_deref());
    let mut add = |key: &str, value: Option<i64>| attributes.extend(value.map(|value| number(key, value)));
    add("http.response.status_code", finished.status.map(i64::from));
    add("server.port", finished.port.map(i64::from));
    add("network.peer.port", finished.peer.map(|peer| i64::from(peer.port())));
    let parent = finished.parent;
    Span {
        parent_span_id: parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(finished.context.flags()) | REMOTE_KNOWN | if parent.is_some() { REMOTE } else { 0 },
        name: name(&finished.method, finished.pattern.as_deref()),
        kind: SpanKind::Server.into(),
        attributes,
        status: status(error.is_some()),
        ..span(finished, finished.context.span_id(), Duration::ZERO, finished.duration)
    }
}

/// One try at one endpoint, until the head of its answer.
fn client(finished: &Finished, index: usize, attempt: &Attempt) -> Span {
    let (after, outcome) = match &attempt.end {
        Some(end) => (end.after, end.outcome),
        // The client left, or was cut, while the app was at work.
        None => (finished.duration, Err(CANCELLED)),
    };
    let error = match outcome {
        Ok(status) => (status >= 400).then(|| status.to_string()),
        Err(what) => Some(what.to_owned()),
    };
    let (address, port) = match attempt.endpoint.rsplit_once(':') {
        Some((host, port)) if !attempt.endpoint.starts_with("unix:") => (host, port.parse::<i64>().ok()),
        _ => (&*attempt.endpoint, None),
    };
    let scheme = if attempt.is_tls { "https" } else { "http" };
    let mut attributes = method(&finished.method);
    attributes.extend([
        text("url.scheme", scheme),
        text("url.full", full(scheme, attempt)),
        text("server.address", without_brackets(address)),
        text("network.protocol.version", if attempt.is_http2 { "2" } else { "1.1" }),
        text("flagstone.upstream", &*attempt.upstream),
        text("flagstone.endpoint", &*attempt.endpoint),
    ]);
    attributes.extend(port.map(|port| number("server.port", port)));
    attributes.extend(outcome.ok().map(|status| number("http.response.status_code", status)));
    attributes.extend(error.as_ref().map(|error| text("error.type", error)));
    // How often it had been sent before.
    let resent = i64::try_from(index).ok().filter(|&index| index > 0);
    attributes.extend(resent.map(|index| number("http.request.resend_count", index)));
    let start = attempt.began.saturating_duration_since(finished.began_at);
    Span {
        parent_span_id: finished.context.span_id().to_be_bytes().to_vec(),
        flags: u32::from(finished.context.flags()) | REMOTE_KNOWN,
        name: name(&finished.method, None),
        kind: SpanKind::Client.into(),
        attributes,
        status: status(error.is_some()),
        ..span(finished, attempt.span_id, start, after.min(finished.duration.saturating_sub(start)))
    }
}

/// What an endpoint was asked for. One behind a socket file has no authority.
fn full(scheme: &str, attempt: &Attempt) -> String {
    let authority = if attempt.endpoint.starts_with("unix:") { "localhost" } else { &attempt.endpoint };
    match attempt.target.split_once('?') {
        Some((path, query)) => format!("{scheme}://{authority}{path}?{}", redacted(query)),
        None => format!("{scheme}://{authority}{}", attempt.target),
    }
}

/// What all spans of a request have: `start` counts from its beginning.
fn span(finished: &Finished, id: u64, start: Duration, duration: Duration) -> Span {
    let began = finished.began.duration_since(UNIX_EPOCH).unwrap_or_default() + start;
    let nanos = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    Span {
        trace_id: finished.context.trace_id().to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        trace_state: finished.tracestate.clone().unwrap_or_default(),
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(began + duration),
        ..Span::default()
    }
}

/// What went wrong, where the one who answered is to blame; for a server's span, 4xx is none of that.
fn error_of(finished: &Finished) -> Option<String> {
    match finished.status {
        None => Some(finished.reason.unwrap_or("client_closed").to_owned()),
        Some(status @ 500..) => Some(finished.reason.map_or_else(|| status.to_string(), str::to_owned)),
        // The head was well, its body broke off.
        Some(..400) => finished.reason.map(str::to_owned),
        Some(_) => None,
    }
}

fn status(is_error: bool) -> Option<Status> {
    is_error.then(|| Status { code: StatusCode::Error.into(), ..Status::default() })
}

/// Few names, whatever clients ask for: `GET /api`.
fn name(method: &Method, pattern: Option<&str>) -> String {
    let method = if is_known(method) { method.as_str() } else { "HTTP" };
    pattern.map_or_else(|| method.to_owned(), |pattern| format!("{method} {pattern}"))
}

fn method(method: &Method) -> Vec<KeyValue> {
    if is_known(method) {
        return vec![text("http.request.method", method.as_str())];
    }
    let original = super::shortened(method.as_str());
    vec![text("http.request.method", "_OTHER"), text("http.request.method_original", original)]
}

fn is_known(method: &Method) -> bool {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
        Method::CONNECT,
        Method::TRACE,
    ];
    known.contains(method)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests;
