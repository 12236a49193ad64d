//! What is refused before it is a request: its answer as bytes, its log line, its count.
//!
//! It never became one, so nothing is known but its first line, as far as that came. It is logged as nginx logs
//! it: what can be read as a request line as such, anything else as it came.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Version};

use super::page::{self, Kind};
use super::refusal::{Refusal, Row};
use crate::listener::connection::Connection;
use crate::listener::head::BadHead;
use crate::listener::serve::BadRequest;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::Line;

/// One refused head.
pub(crate) struct Refused<'a> {
    row: Row,
    detail: Cow<'static, str>,
    line: &'a [u8],
    waited: Duration,
}

impl<'a> Refused<'a> {
    /// `line` is the first line of the head, perhaps cut short, perhaps empty.
    pub(crate) fn new(why: BadRequest, line: &'a [u8]) -> Self {
        let refusal = match why {
            BadRequest::Head(why) => Refusal::of_head(why),
            BadRequest::HeadTimeout { .. } => Refusal::HeadTimeout,
        };
        let row = refusal.row();
        let (detail, waited) = match why {
            BadRequest::Head(BadHead::Malformed(what)) => {
                (format!("The request is malformed: {what}.").into(), Duration::ZERO)
            }
            BadRequest::Head(_) => (row.detail.into(), Duration::ZERO),
            BadRequest::HeadTimeout { waited } => (row.detail.into(), waited),
        };
        Self { row, detail, line, waited }
    }

    /// Writes the log line and counts the request among those that no route matches.
    pub(crate) fn note(&self, connection: &Connection, snapshot: &Snapshot) {
        let status = self.row.status.as_u16();
        snapshot.no_route.begin(connection.worker);
        snapshot.no_route.end(connection.worker, status, self.waited);
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (method, target, version) = request_line(self.line).unwrap_or(("", self.line, Version::HTTP_09));
        let line = Line {
            unix_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
            client: connection.peer.map(|_| connection.peer_ip),
            authorization: None,
            method,
            target,
            version,
            status,
            body_bytes: if self.has_body() { self.body().1.len() as u64 } else { 0 },
            duration: self.waited,
            upstream: None,
            endpoint: None,
            upstream_duration: None,
            route: None,
            reason: Some(self.row.reason),
            request_id: None,
            trace_id: None,
            referer: None,
            user_agent: None,
            host: None,
        };
        snapshot.access_log.write(connection.worker, &line);
        snapshot.shared.recent.note(connection.worker, &line, None);
    }

    /// The whole answer, with `Strict-Transport-Security` where there is a value for it.
    pub(crate) fn answer(&self, hsts: Option<&HeaderValue>) -> Vec<u8> {
        let (content_type, body) = self.body();
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
             flagstone-reason: {reason}\r\ncache-control: no-store\r\nconnection: close\r\ndate: {date}\r\n{hsts}\r\n",
            status = self.row.status,
            content_type = content_type.to_str().unwrap_or("text/plain"),
            length = body.len(),
            reason = self.row.reason,
            date = httpdate::fmt_http_date(SystemTime::now()),
            hsts = hsts
                .and_then(|value| value.to_str().ok())
                .map_or_else(String::new, |value| { format!("strict-transport-security: {value}\r\n") }),
        )
        .into_bytes();
        if self.has_body() {
            bytes.extend_from_slice(&body);
        }
        bytes
    }

    /// The answer to HEAD has none (RFC 9110, section 9.3.2).
    fn has_body(&self) -> bool {
        !self.line.starts_with(b"HEAD ")
    }

    fn body(&self) -> (HeaderValue, bytes::Bytes) {
        // What could not be read has no id that anybody could be asked for.
        let (status, reason) = (self.row.status, self.row.reason);
        let text = page::Refusal { status, reason, detail: &self.detail, request_id: "" };
        page::refusal_page(Kind::Text, &text)
    }
}

/// Method, target and version, when the line is plainly a request line.
fn request_line(line: &[u8]) -> Option<(&str, &[u8], Version)> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return None,
    };
    let method = std::str::from_utf8(method).ok().filter(|method| !method.is_empty() && method.is_ascii())?;
    Some((method, target, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(why: BadRequest, line: &[u8]) -> String {
        String::from_utf8(Refused::new(why, line).answer(None)).unwrap()
    }

    #[test]
    fn a_malformed_request_gets_a_whole_answer() {
        let text = answer(BadRequest::Head(BadHead::UriTooLong), b"GET /");
        assert!(text.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{text}");
        assert!(text.contains("\r\nflagstone-reason: too_large\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
    }

    #[test]
    fn the_refusal_of_a_head_request_has_no_body() {
        let text = answer(BadRequest::Head(BadHead::Malformed("why")), b"HEAD / HTTP/1.1");
        assert!(text.ends_with("\r\n\r\n") && !text.contains("content-length: 0"), "{text}");
    }

    #[test]
    fn only_a_plain_request_line_is_taken_apart() {
        assert_eq!(request_line(b"GET /a HTTP/1.1"), Some(("GET", &b"/a"[..], Version::HTTP_11)));
        for line in [&b""[..], b"GET /a", b"GET  / HTTP/1.1", b"\x16\x03\x01", b"GET / HTTP/2.0", b"\xff / HTTP/1.1"] {
            assert_eq!(request_line(line), None, "{}", line.escape_ascii());
        }
    }
}
