//! The fields of a request that are wanted after the request itself has gone to its endpoint: by its log line, by
//! refusals, by what apps are told. They are gathered in one walk, since most requests have few fields and each look-up
//! hashes its name.

use http::{HeaderMap, HeaderValue};

/// The first value of each; a request with several of one name has none of them read here for more than telling.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) host: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) accept: Option<HeaderValue>,
    pub(super) accept_language: Option<HeaderValue>,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) expects_continue: bool,
    pub(super) asks_to_upgrade: bool,
}

impl Noted {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut noted = Self::default();
        for (name, value) in headers {
            let slot = match name.as_str() {
                "host" => &mut noted.host,
                "referer" => &mut noted.referer,
                "user-agent" => &mut noted.user_agent,
                "authorization" => &mut noted.authorization,
                "accept" => &mut noted.accept,
                "accept-language" => &mut noted.accept_language,
                "content-type" => &mut noted.content_type,
                "expect" => {
                    noted.expects_continue = true;
                    continue;
                }
                "upgrade" => {
                    noted.asks_to_upgrade = true;
                    continue;
                }
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(value.clone());
            }
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_counts() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "a"),
            ("x", "y"),
            ("accept", "b"),
            ("referer", "c"),
            ("expect", "100-continue"),
            ("upgrade", "x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let noted = Noted::of(&headers);
        assert_eq!(noted.accept.unwrap(), "a");
        assert_eq!(noted.referer.unwrap(), "c");
        assert!(noted.expects_continue && noted.asks_to_upgrade);
        assert!(noted.host.is_none() && noted.user_agent.is_none());
    }
}
