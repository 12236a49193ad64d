//! Fields behind a body in chunks (RFC 9110, section 6.5).

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HOST,
    MAX_FORWARDS, SET_COOKIE, TRAILER,
};
use http::{HeaderMap, HeaderName};

use super::{field_line, forwarded, hop_by_hop};

/// The trailers that a message is going to have, by its own word.
pub(crate) fn announced(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let lines = headers.get_all(TRAILER).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    lines.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Those of `trailers` that were announced and may be trailers, as lines of a trailer section without its end.
pub(crate) fn section(trailers: Option<&HeaderMap>, announced: &[HeaderName]) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in trailers.into_iter().flatten() {
        if announced.contains(name) && may_be_trailer(name) {
            field_line::write(&mut text, name.as_str(), value.as_bytes());
        }
    }
    text
}

/// Takes out of a request's trailers what may not stand there, and what the app is to hear from here alone: some apps
/// read trailers as further headers.
pub(crate) fn strip_request(trailers: &mut HeaderMap) {
    keep(trailers, |name| may_be_trailer(name) && !forwarded::is_ours_to_say(name.as_str()));
}

/// Takes out of an answer's trailers what may not stand there: HTTP/2 has no place for some of it.
pub(crate) fn strip_answer(trailers: &mut HeaderMap) {
    keep(trailers, may_be_trailer);
}

fn keep(trailers: &mut HeaderMap, may_stay: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = trailers.keys().filter(|name| !may_stay(name)).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

/// Not what frames, routes or describes a message (section 6.5.1), or concerns one connection.
fn may_be_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 11] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TRAILER,
    ];
    !NEVER.contains(name) && !hop_by_hop::is_in_requests(name.as_str())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_was_announced_and_may_stand_there_is_sent() {
        let mut fields = HeaderMap::new();
        fields.append(TRAILER, HeaderValue::from_static("X-Sum, content-length"));
        fields.append(TRAILER, HeaderValue::from_static("set-cookie"));
        let announced: Vec<HeaderName> = announced(&fields).collect();
        assert_eq!(announced, ["x-sum", "content-length", "set-cookie"]);
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "content-length", "set-cookie", "x-other"] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("7"));
        }
        assert_eq!(section(Some(&trailers), &announced), b"x-sum: 7\r\n");
        assert!(section(None, &announced).is_empty());
    }

    #[test]
    fn a_client_tells_nothing_of_itself_behind_its_body() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x-forwarded-any",
            "x-real-ip",
            "x_real_ip",
            "x-request-id",
            "forwarded",
            "client-cert",
            "cookie",
            "upgrade",
            "keep-alive",
            "host",
            "grpc-status",
            "x-sum",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("7"));
        }
        strip_request(&mut trailers);
        let left = ["grpc-status", "x-sum"];
        assert!(trailers.len() == left.len() && left.iter().all(|name| trailers.contains_key(*name)), "{trailers:?}");
    }
}
