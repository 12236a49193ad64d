//! The fields of a request that are wanted after the request itself has gone to its endpoint: by its log line, by
//! refusals, by what apps are told. They are gathered in one walk, since most requests have few fields and each look-up
//! hashes its name.

use http::header::{ACCEPT, ACCEPT_LANGUAGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::listener::head::is_continue;

/// The first value of each; a request with several of one name has none of them read here for more than telling, but
/// for lists, whose lines are one (RFC 9110, section 5.3).
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) host: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) accept: Option<HeaderValue>,
    pub(super) accept_language: Option<HeaderValue>,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) has_expectation: bool,
    /// It sends no body before it is told to.
    pub(super) expects_continue: bool,
    pub(super) is_chunked: bool,
    pub(super) asks_to_upgrade: bool,
}

impl Noted {
    /// Takes down what is in `headers`. Called where it stays: it is large.
    pub(super) fn gather(&mut self, headers: &HeaderMap) {
        let mut has_several = false;
        for (name, value) in headers {
            let slot = match name.as_str() {
                "host" => &mut self.host,
                "referer" => &mut self.referer,
                "user-agent" => &mut self.user_agent,
                "authorization" => &mut self.authorization,
                "accept" => &mut self.accept,
                "accept-language" => &mut self.accept_language,
                "content-type" => &mut self.content_type,
                "expect" => {
                    self.has_expectation = true;
                    self.expects_continue |= is_continue(value.as_bytes());
                    continue;
                }
                "transfer-encoding" => {
                    // Nothing else passes.
                    self.is_chunked = true;
                    continue;
                }
                "upgrade" => {
                    self.asks_to_upgrade = true;
                    continue;
                }
                _ => continue,
            };
            match slot {
                Some(_) => has_several = true,
                None => *slot = Some(value.clone()),
            }
        }
        if has_several {
            self.join_lists(headers);
        }
    }

    #[cold]
    fn join_lists(&mut self, headers: &HeaderMap) {
        self.accept = joined(headers, &ACCEPT);
        self.accept_language = joined(headers, &ACCEPT_LANGUAGE);
    }
}

/// All lines of a list field as one.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let whole = || HeaderValue::from_bytes(&lines.join(&b", "[..])).expect("joined from header values");
    (!lines.is_empty()).then(whole)
}

#[cfg(test)]
mod tests {
    use http::header::EXPECT;

    use super::*;

    #[test]
    fn the_first_of_several_counts() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("user-agent", "a"),
            ("x", "y"),
            ("user-agent", "b"),
            ("referer", "c"),
            ("expect", "100-continue"),
            ("upgrade", "x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut noted = Noted::default();
        noted.gather(&headers);
        assert_eq!(noted.user_agent.unwrap(), "a");
        assert_eq!(noted.referer.unwrap(), "c");
        assert!(noted.expects_continue && noted.asks_to_upgrade && !noted.is_chunked);
        assert!(noted.host.is_none() && noted.accept.is_none());
    }

    #[test]
    fn several_lines_of_a_list_are_one() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "text/plain;q=0.5"),
            ("accept-language", "fr"),
            ("accept", "application/json, a/b"),
            ("accept", ""),
            ("accept-language", "de"),
            ("referer", "c"),
            ("referer", "d"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut noted = Noted::default();
        noted.gather(&headers);
        assert_eq!(noted.accept.unwrap(), "text/plain;q=0.5, application/json, a/b, ");
        assert_eq!(noted.accept_language.unwrap(), "fr, de");
        assert_eq!(noted.referer.unwrap(), "c");
    }

    #[test]
    fn not_every_expectation_is_for_a_word() {
        for (value, expects_continue) in [("100-Continue", true), ("100-continue, x", false), ("x", false)] {
            let mut noted = Noted::default();
            noted.gather(&HeaderMap::from_iter([(EXPECT, HeaderValue::from_static(value))]));
            assert_eq!((noted.has_expectation, noted.expects_continue), (true, expects_continue), "{value}");
        }
    }
}
