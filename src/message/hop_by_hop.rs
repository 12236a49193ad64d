//! Headers that concern one connection only and end here (RFC 9110, section 7.6.1).
//!
//! Removed from requests and responses: `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`,
//! `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings`, and what a proxy asks or is told (`Proxy-Authenticate`,
//! `Proxy-Authorization`, `Proxy-Authentication-Info`), since this is a gateway whose client knows of no proxy.
//! Requests also lose `Proxy`, which CGI turns into the `HTTP_PROXY` variable (CVE-2016-5385). `Trailer` stays:
//! it describes the message, and trailers are forwarded.
//!
//! **What `Connection` may name.** Section 7.6.1 forbids options that correspond to fields meant for all
//! recipients, yet clients send them to make a proxy drop what the upstream relies on (CVE-2024-45410). So two
//! things hold. First, the proxy's own headers are set after stripping. Second, fields that are end-to-end by their
//! nature stay although named: `Host`, framing and content, credentials and cookies, caching, conditions, and
//! whatever a trusted proxy in front has said about the client ([`is_end_to_end`] has the list).

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use smallvec::SmallVec;

/// What HTTP/2 has no place for (RFC 9113, section 8.2.2). `TE` may say `trailers` there.
pub static OF_HTTP1: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes a request's hop-by-hop headers. Allocates nothing for the usual request.
///
/// `TE` shrinks to `trailers` when `keep_te_trailers` and the client asked for it, as gRPC does; over HTTP/1.1 the
/// sender then also owes a `Connection: te` (RFC 9110, section 10.1.4), so ask for it only towards HTTP/2.
pub fn strip_request(headers: &mut HeaderMap, keep_te_trailers: bool) {
    let trailers = keep_te_trailers && has_token(headers, TE, "trailers");
    strip(headers, Side::Request);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes a response's hop-by-hop headers. Look at [`upgrade_protocol`] before.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, Side::Response);
}

/// What the message asks, or agrees, to be upgraded to: `Connection` has the token `upgrade` and there is exactly
/// one `Upgrade` line, which is not empty. Only meaningful in HTTP/1.1.
///
/// HTTP itself is no such protocol: the tunnel would carry requests that no route, limit or list has seen.
pub fn upgrade_protocol(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let protocol = lines.next()?;
    let single = lines.next().is_none() && !protocol.as_bytes().trim_ascii().is_empty();
    (single && has_token(headers, CONNECTION, "upgrade") && !items(protocol).any(is_http)).then_some(protocol)
}

/// `h2c` (RFC 7540, section 3.2), a version of HTTP, or TLS before HTTP (RFC 2817).
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default().trim_ascii();
    [b"h2c".as_slice(), b"h2", b"h3", b"http", b"tls"].iter().any(|http| name.eq_ignore_ascii_case(http))
}

/// Asks for, or agrees to, an upgrade on the next hop. Call after stripping.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether `Connection` asks for the connection to end with this message.
pub fn wants_close(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "close")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// More distinct names than this are still removed, at the price of an allocation.
type Names = SmallVec<[HeaderName; 8]>;

fn strip(headers: &mut HeaderMap, side: Side) {
    // One look at every name is cheaper than ten look-ups of names that are mostly not there.
    let mut names = Names::new();
    for name in headers.keys().filter(|name| is_hop_by_hop(name.as_str(), side)) {
        names.push(name.clone());
    }
    if names.contains(&CONNECTION) {
        push_named(headers, &mut names);
    }
    for name in &names {
        headers.remove(name);
    }
}

/// Whether a request's field of this name ends here.
pub(super) fn is_in_requests(name: &str) -> bool {
    is_hop_by_hop(name, Side::Request)
}

fn is_hop_by_hop(name: &str, side: Side) -> bool {
    match name {
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
        | "http2-settings" => true,
        "proxy-authenticate" | "proxy-authorization" | "proxy-authentication-info" => true,
        "proxy" => side == Side::Request,
        _ => false,
    }
}

/// Adds the names of present headers that `Connection` names and that are not end-to-end.
fn push_named(headers: &HeaderMap, names: &mut Names) {
    for token in tokens(headers, CONNECTION) {
        let usual = [b"close".as_slice(), b"keep-alive", b"upgrade"];
        if token.is_empty() || usual.iter().any(|usual| token.eq_ignore_ascii_case(usual)) {
            continue;
        }
        // A token that is no field name names nothing.
        let Ok(name) = HeaderName::from_bytes(token) else {
            continue;
        };
        if headers.contains_key(&name) && !is_end_to_end(name.as_str()) && !names.contains(&name) {
            names.push(name);
        }
    }
}

/// Fields that stay although `Connection` names them; `name` is in lower case.
pub fn is_end_to_end(name: &str) -> bool {
    const PREFIXES: [&str; 6] = ["content-", "x-forwarded-", "if-", "access-control-", "sec-", "grpc-"];
    matches!(
        name,
        "host"
            | "authorization"
            | "www-authenticate"
            | "cookie"
            | "set-cookie"
            | "origin"
            | "referer"
            | "user-agent"
            | "accept"
            | "accept-encoding"
            | "accept-language"
            | "accept-ranges"
            | "range"
            | "expect"
            | "trailer"
            | "cache-control"
            | "pragma"
            | "vary"
            | "etag"
            | "expires"
            | "age"
            | "date"
            | "last-modified"
            | "location"
            | "retry-after"
            | "strict-transport-security"
            | "via"
            | "max-forwards"
            | "forwarded"
            | "x-real-ip"
            | "x-request-id"
            | "traceparent"
            | "tracestate"
            | "baggage"
    ) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn has_token(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Whether one line of a list header has this item, whatever its parameters.
pub fn lists(line: &HeaderValue, wanted: &str) -> bool {
    items(line).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The items of a list header over all its lines, without parameters.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().flat_map(items)
}

fn items(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|&byte| byte == b',').map(|item| {
        let end = memchr::memchr(b';', item).unwrap_or(item.len());
        item[..end].trim_ascii()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Line = (&'static str, &'static str);

    fn headers(lines: &[Line]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_connections_own_headers_go() {
        let all = [
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMA"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
            ("trailer", "x-sum"),
        ];
        let mut request = headers(&all);
        request.insert("proxy", HeaderValue::from_static("http://evil"));
        strip_request(&mut request, true);
        assert_eq!(names(&request), ["accept", "trailer"]);
        let mut response = headers(&all);
        strip_response(&mut response);
        assert_eq!(names(&response), ["accept", "trailer"]);
    }

    #[test]
    fn what_connection_names_goes_over_several_lines_and_cases() {
        let mut map = headers(&[
            ("connection", "close, X-One"),
            ("connection", ",, x-two ,\"odd\", x-absent, x-one"),
            ("x-one", "1"),
            ("x-one", "1 again"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        strip_request(&mut map, false);
        assert_eq!(names(&map), ["x-three"]);
    }

    #[test]
    fn connection_cannot_strip_what_is_end_to_end() {
        let kept = [
            "host",
            "content-length",
            "content-type",
            "authorization",
            "cookie",
            "cache-control",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-tls-client-cert",
            "x-real-ip",
            "x-request-id",
            "forwarded",
            "traceparent",
            "origin",
            "range",
        ];
        for name in kept {
            let mut map = HeaderMap::new();
            map.insert(CONNECTION, HeaderValue::from_str(&format!("close, {}", name.to_uppercase())).unwrap());
            map.insert(name, HeaderValue::from_static("x"));
            strip_request(&mut map, false);
            assert_eq!(names(&map), [name]);
        }
    }

    #[test]
    fn te_keeps_trailers_only_when_asked_on_both_sides() {
        let cases = [
            ("trailers", true, Some("trailers")),
            ("gzip;q=0.5, Trailers;x=1", true, Some("trailers")),
            ("trailers", false, None),
            ("gzip", true, None),
            ("xtrailers", true, None),
        ];
        for (te, keep, expected) in cases {
            let mut map = headers(&[("te", te), ("connection", "te")]);
            strip_request(&mut map, keep);
            assert_eq!(map.get(TE).map(|value| value.to_str().unwrap()), expected, "{te}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let cases: &[(&[Line], Option<&str>)] = &[
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], Some("websocket")),
            (&[("connection", "keep-alive, upgrade"), ("upgrade", "WebSocket")], Some("WebSocket")),
            (&[("connection", "keep-alive"), ("connection", "upgrade"), ("upgrade", "x")], Some("x")),
            (&[("upgrade", "websocket")], None),
            (&[("connection", "upgrade")], None),
            (&[("connection", "upgrades"), ("upgrade", "x")], None),
            (&[("connection", "upgrade"), ("upgrade", "")], None),
            (&[("connection", "upgrade"), ("upgrade", "x"), ("upgrade", "y")], None),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], None),
            (&[("connection", "upgrade"), ("upgrade", "websocket, H2C")], None),
            (&[("connection", "upgrade"), ("upgrade", "HTTP/2.0")], None),
            (&[("connection", "upgrade"), ("upgrade", "TLS/1.0")], None),
            (&[("connection", "upgrade"), ("upgrade", "h2cx")], Some("h2cx")),
        ];
        for (lines, expected) in cases {
            let map = headers(lines);
            assert_eq!(upgrade_protocol(&map).map(|value| value.to_str().unwrap()), *expected, "{lines:?}");
        }
    }

    #[test]
    fn an_upgrade_is_set_after_stripping() {
        let mut map = headers(&[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")]);
        let protocol = upgrade_protocol(&map).cloned().unwrap();
        strip_request(&mut map, false);
        assert_eq!(names(&map), ["sec-websocket-key"]);
        set_upgrade(&mut map, protocol);
        assert_eq!(names(&map), ["connection", "sec-websocket-key", "upgrade"]);
    }

    #[test]
    fn close_is_a_token() {
        assert!(wants_close(&headers(&[("connection", "x, CLOSE")])));
        assert!(!wants_close(&headers(&[("connection", "closed")])));
    }
}
