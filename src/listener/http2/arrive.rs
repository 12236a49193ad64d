//! A request of HTTP/2 made to look as one of HTTP/1, before anything is decided about it: `Host` for `:authority`, a
//! target in origin form, one `Cookie` (RFC 9113, sections 8.2.3 and 8.3.1). And it is judged by what
//! heads of HTTP/1 are judged by.

use h2::RecvStream;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use tokio::sync::oneshot;

use super::body::StreamBody;
use crate::listener::head::{self, BadHead, HeadBounds};
use crate::listener::incoming::Incoming;
use crate::message::host::{Host, HostError};
use crate::proxy::connect::Connect;

/// What a field counts beside its name and value (RFC 9113, section 6.5.2).
const FIELD_SPARE_BYTES: usize = 32;

/// What the way of a request has to know of its stream.
#[derive(Debug, Default)]
pub(crate) struct StreamFacts {
    /// Why nothing of it may be forwarded.
    pub(crate) bad_head: Option<BadHead>,
    /// It asks for another protocol.
    pub(crate) connect: Option<Box<Connect>>,
    /// What it names, where that was looked at already.
    pub(crate) host: Option<Host>,
}

/// A request, ready to be handled.
pub(super) struct Arrived {
    pub(super) request: Request<Option<Incoming>>,
    pub(super) facts: StreamFacts,
    /// What the client sends on a stream that it asks to be opened to another protocol.
    pub(super) opening: Option<RecvStream>,
    /// Says when the client is to be told to send the body.
    pub(super) wanted: Option<oneshot::Receiver<()>>,
}

/// Takes in the requests of one connection.
pub(super) struct Arrivals {
    bounds: HeadBounds,
    last: LastNamed,
}

impl Arrivals {
    pub(super) fn new(bounds: HeadBounds) -> Self {
        Self { bounds, last: LastNamed::default() }
    }

    pub(super) fn take_in(&mut self, request: Request<RecvStream>) -> Arrived {
        let is_connect = request.method() == Method::CONNECT;
        let (parts, stream) = request.into_parts();
        let (mut receiving, mut wanted) = (None, None);
        let body = if is_connect {
            // Whatever comes on it is no body.
            receiving = Some(stream);
            Incoming::Empty
        } else if stream.is_end_stream() {
            Incoming::Empty
        } else {
            let (awaited, waits) = expects_continue(&parts.headers).then(oneshot::channel).unzip();
            wanted = waits;
            Incoming::Stream(StreamBody::new(stream, &parts.headers, awaited))
        };
        let mut request = Request::from_parts(parts, Some(body));
        let announces_body = is_connect && request.headers().get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        let connect = if is_connect { Connect::take(&mut request) } else { None };
        // One walk costs less than looking up three names, which are hashed each.
        let (mut has_host, mut crumbs, mut has_length, mut bytes) = (false, 0, false, 0);
        for (name, value) in request.headers() {
            has_host |= *name == HOST;
            crumbs += usize::from(*name == COOKIE);
            has_length |= *name == CONTENT_LENGTH;
            bytes += name.as_str().len() + value.len() + FIELD_SPARE_BYTES;
        }
        let bad_head = if announces_body {
            Some(BadHead::Malformed("CONNECT has no body"))
        } else if has_length && request.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
            // h2 refuses lengths that differ. HTTP/1 has one field for equal ones too.
            Some(BadHead::Malformed("more than one Content-Length"))
        } else {
            // The crumbs of one cookie are one field of HTTP/1. Their bytes are bounded with those of all others.
            let fields = request.headers().len() - crumbs.saturating_sub(1);
            judge(&request, (fields, bytes), &self.bounds).err()
        };
        if crumbs > 1 {
            join_cookies(request.headers_mut());
        }
        let host =
            if bad_head.is_none() { take_origin_form(&mut request, has_host, &mut self.last).ok() } else { None };
        let opening = receiving.filter(|_| connect.is_some());
        Arrived { request, facts: StreamFacts { bad_head, connect: connect.map(Box::new), host }, opening, wanted }
    }
}

/// The `:authority` before, as a field and as what it names: most of a connection's requests have the same.
#[derive(Default)]
struct LastNamed(Option<(HeaderValue, Host)>);

impl LastNamed {
    fn read(&mut self, authority: &str) -> Result<(HeaderValue, Host), HostError> {
        if let Some(last) = self.0.as_ref().filter(|(line, _)| line.as_bytes() == authority.as_bytes()) {
            return Ok(last.clone());
        }
        let host = Host::parse(authority.as_bytes())?;
        let line = HeaderValue::from_str(authority).expect("an authority is a header value");
        Ok(self.0.insert((line, host)).clone())
    }
}

/// `fields` and `bytes`: how many header fields it has, and how long they are together.
fn judge<B>(request: &Request<B>, (fields, bytes): (usize, usize), bounds: &HeadBounds) -> Result<(), BadHead> {
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    if fields > bounds.headers_max || bytes > bounds.head_bytes_max {
        return Err(BadHead::HeadersTooLarge);
    }
    if target.len() > bounds.uri_bytes_max {
        return Err(BadHead::UriTooLong);
    }
    if request.method() == Method::CONNECT {
        return Err(BadHead::Malformed("CONNECT is for forward proxies"));
    }
    if !head::is_target(target) {
        return Err(head::NO_TARGET);
    }
    Ok(())
}

/// Whether its client sends no body before it is told to (RFC 9110, section 10.1.1).
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expected| head::is_continue(expected.as_bytes()))
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

/// `Host` for `:authority`, where the two agree; the host that they name.
///
/// # Errors
/// There is no such host, and the request stays as it is.
fn take_origin_form<B>(request: &mut Request<B>, has_host: bool, last: &mut LastNamed) -> Result<Host, HostError> {
    let host = match request.uri().authority() {
        Some(authority) if !has_host => {
            let (line, host) = last.read(authority.as_str())?;
            request.headers_mut().insert(HOST, line);
            host
        }
        _ => {
            Host::of_request(request.uri(), request.headers(), Version::HTTP_2)?;
            // From now on it is the field that says it.
            Host::parse(request.headers().get(HOST).map_or(&[], HeaderValue::as_bytes))?
        }
    };
    if let Some(target) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(target);
    }
    Ok(host)
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
        let host = take_origin_form(&mut request, false, &mut LastNamed::default()).unwrap();
        assert_eq!((host.name(), host.port()), ("example.com", Some(8443)));
        assert_eq!(request.headers()[HOST], "example.com:8443");
        assert_eq!(request.uri(), "/a?b");
    }

    #[test]
    fn each_request_is_for_the_host_that_it_names_itself() {
        let mut last = LastNamed::default();
        for authority in ["a.example", "a.example", "b.example:81", "a.example", "A.example"] {
            let mut request = request(&format!("https://{authority}/"));
            let host = take_origin_form(&mut request, false, &mut last).unwrap();
            assert_eq!(host, Host::parse(authority.as_bytes()).unwrap());
            assert_eq!(request.headers()[HOST], authority);
        }
        assert_eq!(last.read("user@a.example"), Err(HostError::UserInfo));
        assert_eq!(last.read("a.example").unwrap().1.name(), "a.example");
    }

    #[test]
    fn a_host_that_is_named_twice_is_named_by_its_field() {
        let mut agreeing = request("https://example.com/");
        agreeing.headers_mut().insert(HOST, HeaderValue::from_static("example.com:443"));
        assert_eq!(take_origin_form(&mut agreeing, true, &mut LastNamed::default()).unwrap().port(), Some(443));
        let mut disagreeing = request("https://example.com/");
        disagreeing.headers_mut().insert(HOST, HeaderValue::from_static("other.example"));
        assert_eq!(take_origin_form(&mut disagreeing, true, &mut LastNamed::default()), Err(HostError::Disagree));
        assert_eq!(disagreeing.uri(), "https://example.com/");
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
        assert_eq!(judge(&request("https://a/"), (3, 1024), &BOUNDS), Ok(()));
        assert_eq!(judge(&request("https://a/"), (3, 1025), &BOUNDS), Err(BadHead::HeadersTooLarge));
        assert_eq!(judge(&request("https://a/"), (4, 1024), &BOUNDS), Err(BadHead::HeadersTooLarge));
        assert_eq!(judge(&request("https://a/0123456789abcdef"), (0, 0), &BOUNDS), Err(BadHead::UriTooLong));
        let mut connect = request("a:1");
        *connect.method_mut() = Method::CONNECT;
        assert!(matches!(judge(&connect, (0, 0), &BOUNDS), Err(BadHead::Malformed(_))));
    }
}
