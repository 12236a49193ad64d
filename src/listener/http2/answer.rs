//! The head of an answer as HTTP/2 has it.

use http::header::{CONTENT_LENGTH, DATE, TE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;

use crate::listener::date;
use crate::message::hop_by_hop;
use crate::policy::limit::headers::RATELIMIT;

/// Takes out what concerns a connection of HTTP/1 (RFC 9113, section 8.2.2), and adds what is owed: `Date` (RFC 9110,
/// section 6.6.1), and the length where it is known. An answer without content has none (section 8.6).
///
/// What is another every second, or every time, is not to be indexed (RFC 7541, section 6.2.3): h2 compares a value
/// with each of that name in its table, which would soon be full of them. A limit that is far away says the same again
/// and again.
pub(super) fn complete(head: &mut Response<()>, length: Option<u64>, said: &Said) {
    let is_bare = head.status() == StatusCode::NO_CONTENT;
    let headers = head.headers_mut();
    let (mut has_date, mut has_length, mut has_others) = (false, false, false);
    // One walk costs less than looking up eight names, which are hashed each.
    for (name, value) in headers.iter_mut() {
        has_date |= *name == DATE;
        has_length |= *name == CONTENT_LENGTH;
        has_others |= is_of_http1(name);
        if *name == DATE || (*name == RATELIMIT && !said.again(value)) {
            value.set_sensitive(true);
        }
    }
    if has_others {
        hop_by_hop::strip_response(headers);
    }
    if !has_date {
        let mut now = date::now();
        now.set_sensitive(true);
        headers.insert(DATE, now);
    }
    match (is_bare, has_length, length) {
        (true, true, _) => drop(headers.remove(CONTENT_LENGTH)),
        (false, false, Some(length)) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        _ => {}
    }
}

/// The `RateLimit` that a connection's last answer had.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<Option<HeaderValue>>);

impl Said {
    /// Whether the answer before said the same.
    fn again(&self, value: &HeaderValue) -> bool {
        let mut last = self.0.lock();
        let is_same = last.as_ref() == Some(value);
        if !is_same {
            *last = Some(value.clone());
        }
        is_same
    }
}

fn is_of_http1(name: &HeaderName) -> bool {
    *name == TE || hop_by_hop::OF_HTTP1.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_added_and_what_is_there_stays() {
        let mut head = Response::new(());
        complete(&mut head, Some(7), &Said::default());
        let headers = head.headers_mut();
        assert_eq!(headers[CONTENT_LENGTH], "7");
        assert!(headers[DATE].is_sensitive());
        assert!(httpdate::parse_http_date(headers[DATE].to_str().unwrap()).is_ok());
        headers.insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        complete(&mut head, Some(8), &Said::default());
        let headers = head.headers_mut();
        assert_eq!(headers[CONTENT_LENGTH], "7");
        assert_eq!(headers[DATE], "Thu, 01 Jan 1970 00:00:00 GMT");
        assert!(headers[DATE].is_sensitive() && !headers[CONTENT_LENGTH].is_sensitive());
        headers.clear();
        complete(&mut head, None, &Said::default());
        assert!(!head.headers().contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn what_has_no_content_has_no_length() {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::NO_CONTENT;
        complete(&mut head, Some(7), &Said::default());
        assert!(!head.headers().contains_key(CONTENT_LENGTH));
        head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        complete(&mut head, None, &Said::default());
        assert!(!head.headers().contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn a_rate_limit_is_indexed_where_it_is_what_it_was() {
        let (said, mut head) = (Said::default(), Response::new(()));
        let mut is_indexed = |value| {
            head.headers_mut().insert(RATELIMIT, HeaderValue::from_static(value));
            complete(&mut head, None, &said);
            !head.headers()[RATELIMIT].is_sensitive()
        };
        let values = ["r=9", "r=9", "r=9", "r=8", "r=7", "r=9", "r=9"];
        assert_eq!(values.map(&mut is_indexed), [false, true, true, false, false, false, true]);
    }

    #[test]
    fn what_http2_has_no_place_for_goes() {
        let mut head = Response::new(());
        let fields = [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("x", "y"),
        ];
        let headers = head.headers_mut();
        fields.iter().for_each(|(name, value)| drop(headers.insert(*name, HeaderValue::from_static(value))));
        complete(&mut head, None, &Said::default());
        let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x", "date"]);
    }
}
