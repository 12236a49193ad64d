//! Reads one request head of HTTP/1, if it has exactly one reading.
//!
//! Parsers forgive things that the next hop may read otherwise: a `Content-Length` beside a `Transfer-Encoding`, bare
//! line feeds that end lines, two Hosts. A head that more than one reading fits is refused here, byte for byte as it
//! came (RFC 9112, sections 2.2, 3.2, 5, 6 and 11.2).

use std::mem::{self, MaybeUninit};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use memchr::memchr_iter;
use percent_encoding::{AsciiSet, utf8_percent_encode};

use crate::message::answer::content_length;
use crate::message::hop_by_hop;
use crate::message::path::URI_BYTES_MAX;

/// Header slots on the stack; more than this and one allocation is made per head.
const INLINE_HEADERS: usize = 100;

pub(super) const NO_TARGET: BadHead = BadHead::Malformed("the target is neither a path nor a URL");

/// The bounds of a head, from the configuration's `[bounds]`.
#[derive(Clone, Copy, Debug)]
pub struct HeadBounds {
    pub(crate) head_bytes_max: usize,
    pub(crate) headers_max: usize,
    pub(crate) uri_bytes_max: usize,
}

/// Why a head was not let through. Each is one answer, see `proxy::refusal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not HTTP/1, or HTTP/1 that two parsers could read differently.
    Malformed(&'static str),
    UriTooLong,
    HeadersTooLarge,
}

/// How the message behind a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    /// No body, and the client asks for another protocol: what follows may not be HTTP.
    Upgrade,
}

/// Looks for the empty line that ends a head.
///
/// `scanned` bytes at the start were looked at before and hold no end. Leading empty lines are the
/// caller's to skip. Returns the length of the head with its empty line.
///
/// # Errors
/// A line that ends in a bare LF.
pub(crate) fn find_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, BadHead> {
    // Three bytes back: the end may straddle what was seen before.
    let from = scanned.saturating_sub(3);
    for lf in memchr_iter(b'\n', &bytes[from..]).map(|at| at + from) {
        if lf == 0 || bytes[lf - 1] != b'\r' {
            return Err(BadHead::Malformed("a line ends in a bare line feed"));
        }
        if lf >= 3 && bytes[lf - 2] == b'\n' {
            return Ok(Some(lf + 1));
        }
    }
    Ok(None)
}

/// A request head that has one reading.
#[derive(Debug)]
pub struct Head {
    pub(super) parts: request::Parts,
    pub(super) framing: BodyFraming,
    /// The client wants to go on with the connection (RFC 9112, section 9.3).
    pub(super) is_kept: bool,
    /// Its body waits for a 100 (RFC 9110, section 10.1.1).
    pub(super) expects_continue: bool,
    /// It reads trailers (RFC 9110, section 10.1.4).
    pub(super) takes_trailers: bool,
}

/// Reads a complete head, from the request line to the empty line. `fields` is an empty map, which is taken to put its
/// fields in.
///
/// # Errors
/// The head breaks a rule or a bound; nothing of it may be forwarded.
pub fn read(head: &Bytes, bounds: &HeadBounds, fields: &mut HeaderMap) -> Result<Head, BadHead> {
    if head.len() > bounds.head_bytes_max {
        return Err(too_large(head, bounds));
    }
    let mut inline = [const { MaybeUninit::uninit() }; INLINE_HEADERS];
    let mut heap;
    let slots = if bounds.headers_max <= INLINE_HEADERS {
        &mut inline[..bounds.headers_max]
    } else {
        heap = vec![MaybeUninit::uninit(); bounds.headers_max];
        &mut heap[..]
    };
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, slots) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(BadHead::Malformed("the head does not end where its empty line is")),
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::HeadersTooLarge),
        Err(httparse::Error::Version) => return Err(BadHead::Malformed("not a version of HTTP/1")),
        Err(httparse::Error::Token) => return Err(BadHead::Malformed("the request line is malformed")),
        Err(_) => return Err(BadHead::Malformed("a header line is malformed")),
    }
    let target = parsed.path.unwrap_or_default();
    if target.len() > bounds.uri_bytes_max.min(URI_BYTES_MAX) {
        return Err(BadHead::UriTooLong);
    }
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| BadHead::Malformed("the request line is malformed"))?;
    if method == Method::CONNECT {
        return Err(BadHead::Malformed("CONNECT is for forward proxies"));
    }
    let target = if is_target(target) { head.slice_ref(target.as_bytes()) } else { escaped(target)?.into() };
    let uri = Uri::from_maybe_shared(target).map_err(|_| NO_TARGET)?;
    let mut told = Told { is_http11: parsed.version == Some(1), ..Told::default() };
    fields.reserve(parsed.headers.len());
    for line in parsed.headers.iter() {
        let malformed = |_| BadHead::Malformed("a header line is malformed");
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| malformed(()))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(line.value)).map_err(|_| malformed(()))?;
        told.note(&name, &value)?;
        fields.append(name, value);
    }
    let framing = told.framing()?;
    let mut parts = Request::new(()).into_parts().0;
    (parts.method, parts.uri) = (method, uri);
    mem::swap(&mut parts.headers, fields);
    parts.version = if told.is_http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    Ok(Head {
        parts,
        framing,
        is_kept: !told.closes && (told.is_http11 || told.keeps),
        expects_continue: told.expects_continue && told.is_http11,
        takes_trailers: told.takes_trailers,
    })
}

/// Whether the value of an `Expect` says that its client sends no body before it is told to (RFC 9110, section 10.1.1).
pub(crate) fn is_continue(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"100-continue")
}

/// Whether a target is in origin-form, absolute-form or `*` (RFC 9112, section 3.2), without a fragment, which some
/// parsers cut off and others forward. What passes here also passes `http::Uri`, whose reason for a refusal would be no
/// better.
pub(super) fn is_target(target: &str) -> bool {
    if target == "*" {
        return true;
    }
    if !target.starts_with('/') {
        let is_url = ["http://", "https://"]
            .iter()
            .any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        return is_url && !target.contains('#') && Uri::try_from(target).is_ok_and(|uri| uri.authority().is_some());
    }
    let (path, query) = match memchr::memchr(b'?', target.as_bytes()) {
        Some(mark) => target.as_bytes().split_at(mark),
        None => (target.as_bytes(), [].as_slice()),
    };
    !path.iter().any(|byte| matches!(byte, b'#' | b'<' | b'>' | b'`'))
        && !query.iter().any(|byte| matches!(byte, b'#' | b'<' | b'>' | b'"'))
}

/// The target with what must be escaped in a URI and often is not (`?q="a"`), as `message::path` does it for paths.
///
/// # Errors
/// It is no target so either, or too long.
#[cold]
pub fn escaped(target: &str) -> Result<String, BadHead> {
    const ESCAPED: &AsciiSet = &AsciiSet::EMPTY.add(b'"').add(b'<').add(b'>').add(b'`');
    let escaped = utf8_percent_encode(target, ESCAPED).to_string();
    if escaped.len() > URI_BYTES_MAX {
        return Err(BadHead::UriTooLong);
    }
    if is_target(&escaped) { Ok(escaped) } else { Err(NO_TARGET) }
}

/// The verdict on a head that outgrew its bound before it ended.
pub(crate) fn too_large(head: &[u8], bounds: &HeadBounds) -> BadHead {
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if line > bounds.uri_bytes_max { BadHead::UriTooLong } else { BadHead::HeadersTooLarge }
}

/// What the fields say about the message and its connection.
#[derive(Default)]
struct Told {
    is_http11: bool,
    length: Option<u64>,
    chunked: bool,
    hosts: u32,
    upgrade: bool,
    closes: bool,
    keeps: bool,
    expects_continue: bool,
    takes_trailers: bool,
}

impl Told {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), BadHead> {
        match *name {
            HOST => self.hosts += 1,
            UPGRADE => self.upgrade = true,
            CONTENT_LENGTH => self.content_length(value.as_bytes())?,
            TRANSFER_ENCODING => self.transfer_encoding(value.as_bytes())?,
            CONNECTION => {
                self.closes |= hop_by_hop::lists(value, "close");
                self.keeps |= hop_by_hop::lists(value, "keep-alive");
            }
            EXPECT => self.expects_continue = is_continue(value.as_bytes()),
            TE => self.takes_trailers |= hop_by_hop::lists(value, "trailers"),
            _ => {}
        }
        Ok(())
    }

    /// One field, digits only: no sign, no list, no blank, nothing over 2^63 (RFC 9110, section 8.6).
    fn content_length(&mut self, value: &[u8]) -> Result<(), BadHead> {
        if self.length.is_some() {
            return Err(BadHead::Malformed("more than one Content-Length"));
        }
        self.length = content_length(value);
        if self.length.is_none() {
            return Err(BadHead::Malformed("Content-Length is not a number of bytes"));
        }
        Ok(())
    }

    /// `chunked` and nothing else: no client sends another coding, smugglers do (RFC 9112, section 6.1).
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), BadHead> {
        if self.chunked {
            return Err(BadHead::Malformed("more than one Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(BadHead::Malformed("Transfer-Encoding is not \"chunked\""));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self) -> Result<BodyFraming, BadHead> {
        if self.hosts > 1 || (self.is_http11 && self.hosts == 0) {
            return Err(BadHead::Malformed("HTTP/1.1 wants exactly one Host"));
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(BadHead::Malformed("both Content-Length and Transfer-Encoding")),
            (true, None) if !self.is_http11 => Err(BadHead::Malformed("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, Some(length)) if length > 0 => Ok(BodyFraming::Length(length)),
            (false, _) if self.upgrade && self.is_http11 => Ok(BodyFraming::Upgrade),
            (false, _) => Ok(BodyFraming::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { head_bytes_max: 1024, headers_max: 5, uri_bytes_max: 64 };

    fn verdict(head: &str) -> Result<BodyFraming, BadHead> {
        read(&Bytes::from(head.to_owned()), &BOUNDS, &mut HeaderMap::new()).map(|head| head.framing)
    }

    #[test]
    fn plain_heads_pass_with_their_framing() {
        assert_eq!(verdict("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(BodyFraming::None));
        assert_eq!(verdict("GET / HTTP/1.0\r\n\r\n"), Ok(BodyFraming::None));
        assert_eq!(verdict("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n"), Ok(BodyFraming::Length(7)));
        assert_eq!(verdict("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), Ok(BodyFraming::None));
        assert_eq!(
            verdict("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n"),
            Ok(BodyFraming::Chunked)
        );
        assert_eq!(verdict("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n"), Ok(BodyFraming::Upgrade));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let fields = [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: +5",
            "Content-Length: 5, 5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length: 9223372036854775808",
            "Content-Length: 99999999999999999999",
            "Content-Length : 5",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\r\n chunked",
            "Host: b",
        ];
        for field in fields {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            assert!(matches!(verdict(&head), Err(BadHead::Malformed(_))), "{field}");
        }
        assert!(matches!(verdict("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(BadHead::Malformed(_))));
        assert!(matches!(verdict("GET / HTTP/1.1\r\n\r\n"), Err(BadHead::Malformed(_))));
        let connect = verdict("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connect, Err(BadHead::Malformed("CONNECT is for forward proxies")), "not what its target is");
        assert!(matches!(verdict("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Err(BadHead::Malformed(_))));
    }

    #[test]
    fn whatever_target_passes_is_one_for_http_uri_too() {
        let printable = (b'!'..=b'~').map(char::from).chain(['\u{e9}']);
        for byte in printable {
            for target in [format!("/a{byte}b"), format!("/a?b{byte}c"), format!("http://a/{byte}"), format!("{byte}")]
            {
                let passes = is_target(&target);
                assert!(!passes || Uri::try_from(target.as_str()).is_ok(), "{target}");
                assert!(!passes || !target.contains('#'), "{target}");
            }
        }
        assert!(["/", "*", "/a?b", "http://a", "HTTP://a/b", "/a|b", "/a?`"].iter().all(|target| is_target(target)));
        for (target, spelt) in [("/a`b", "/a%60b"), ("/<b>?`", "/%3Cb%3E?%60"), ("/a?q=\"b\"", "/a?q=%22b%22")] {
            assert_eq!(escaped(target).as_deref(), Ok(spelt));
            assert!(Uri::try_from(spelt).is_ok());
        }
        for target in ["/a#b", "/a?b#c", "a\"", "/a\"#", "http://a\"b/"] {
            assert_eq!(escaped(target), Err(NO_TARGET), "{target}");
        }
        assert!(!["a", "a:1", "?a", "http://", "http:///a", "ftp://a/"].iter().any(|target| is_target(target)));
    }

    #[test]
    fn bounds_have_their_own_verdicts() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64));
        assert_eq!(verdict(&long), Err(BadHead::UriTooLong));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(5));
        assert_eq!(verdict(&many), Err(BadHead::HeadersTooLarge));
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(1024));
        assert_eq!(verdict(&large), Err(BadHead::HeadersTooLarge));
    }

    #[test]
    fn what_a_client_says_of_its_connection_is_heard() {
        let of = |version: &str, fields: &str| {
            let head = Bytes::from(format!("GET / {version}\r\nHost: a\r\n{fields}\r\n"));
            let head = read(&head, &BOUNDS, &mut HeaderMap::new()).unwrap();
            (head.is_kept, head.expects_continue, head.takes_trailers)
        };
        assert_eq!(of("HTTP/1.1", ""), (true, false, false));
        assert_eq!(of("HTTP/1.1", "Connection: x, Close\r\nConnection: keep-alive\r\n"), (false, false, false));
        assert_eq!(of("HTTP/1.1", "Expect: 100-Continue\r\nTE: trailers\r\n"), (true, true, true));
        assert_eq!(of("HTTP/1.0", ""), (false, false, false));
        assert_eq!(of("HTTP/1.0", "Connection: Keep-Alive\r\nExpect: 100-continue\r\n"), (true, false, false));
    }

    #[test]
    fn what_just_fits_a_bound_passes() {
        let longest = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(63));
        let most = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(4));
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n".len();
        let largest = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(1024 - rest));
        assert_eq!([longest, most, largest].map(|head| verdict(&head)), [Ok(BodyFraming::None); 3]);
    }

    #[test]
    fn a_higher_bound_takes_more_fields_than_the_stack_has_room_for() {
        let bounds = HeadBounds { head_bytes_max: 8192, headers_max: 2 * INLINE_HEADERS, ..BOUNDS };
        let of = |fields: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(fields));
        let count = |head: String| {
            read(&Bytes::from(head), &bounds, &mut HeaderMap::new()).map(|head| head.parts.headers.len())
        };
        assert_eq!(count(of(2 * INLINE_HEADERS)).unwrap(), 2 * INLINE_HEADERS);
        assert!(matches!(count(of(2 * INLINE_HEADERS + 1)), Err(BadHead::HeadersTooLarge)));
    }

    #[test]
    fn nothing_stands_behind_the_empty_line() {
        assert!(matches!(verdict("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), Err(BadHead::Malformed(_))));
    }

    #[test]
    fn the_end_is_found_across_reads() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        for scanned in 0..27 {
            assert_eq!(find_end(head, scanned), Ok(Some(27)), "{scanned}");
        }
        assert_eq!(find_end(&head[..26], 0), Ok(None));
        assert!(find_end(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 0).is_err());
        assert!(find_end(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 0).is_err());
        assert!(find_end(b"GET / HTTP/1.1\r\nHost: a\r\n\n", 0).is_err());
    }
}
