//! Fields behind a body in chunks (RFC 9110, section 6.5).

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST,
    MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};

use super::field_line;

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

/// Not what frames, routes or describes a message (section 6.5.1).
fn may_be_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 13] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    !NEVER.contains(name)
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
}
