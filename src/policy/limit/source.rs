//! What of a request a limit counts by.
//!
//! Header and cookie values are the client's own words, and so are taken with care: one that is absent, empty, not
//! the only one of its name, or not a plain `name=value` counts as absent. What is absent is replaced by the client's
//! address, so that leaving a value out, or sending two, never leads into a bucket that all such clients share, nor
//! out of all buckets. Who sends a new value with every request gets a new bucket with every request: where values
//! are not proven elsewhere, put a limit by address beside it. What it says of its certificate is replaced by what the
//! handshake showed before a limit sees it.

use std::net::IpAddr;

use http::header::{COOKIE, HeaderMap, HeaderName};

use super::{Key, Limiter};

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    ClientIp,
    /// Everyone together.
    Global,
    /// The name of the route.
    Route,
    /// The value of a header field.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The normalised path, without query.
    Path,
}

/// What a limit counts by: its parts, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// By far the most frequent: nothing of the request is looked at.
    ClientIp,
    Parts(Box<[Part]>),
}

/// What of a request the parts are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub client_ip: IpAddr,
    pub route: &'a str,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

/// One value that goes into a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Ip(IpAddr),
    Bytes(&'a [u8]),
}

impl Source {
    pub fn new(parts: Vec<Part>) -> Self {
        match parts.as_slice() {
            [Part::ClientIp] => Self::ClientIp,
            _ => Self::Parts(parts.into()),
        }
    }

    /// The key of a request, for `limiter`.
    #[inline]
    pub fn key(&self, limiter: &Limiter, facts: &Facts<'_>) -> Key {
        match self {
            Self::ClientIp => limiter.key_ip(facts.client_ip),
            Self::Parts(_) => self
                .values(facts)
                .fold(limiter.key(), |key, value| match value {
                    Value::Ip(ip) => key.ip(ip),
                    Value::Bytes(bytes) => key.bytes(bytes),
                })
                .finish(),
        }
    }

    /// Whether a header field of such a name goes into the key.
    pub fn reads(&self, is_such: impl Fn(&HeaderName) -> bool) -> bool {
        let Self::Parts(parts) = self else { return false };
        parts.iter().any(|part| matches!(part, Part::Header(name) if is_such(name)))
    }

    /// Every value that goes into the key, in order.
    pub fn values<'a>(&'a self, facts: &'a Facts<'a>) -> impl Iterator<Item = Value<'a>> {
        let parts = match self {
            Self::ClientIp => &[Part::ClientIp][..],
            Self::Parts(parts) => parts,
        };
        parts.iter().filter_map(|part| part.value(facts))
    }
}

impl Part {
    /// `None` for what is the same for everyone.
    fn value<'a>(&self, facts: &Facts<'a>) -> Option<Value<'a>> {
        let found = match self {
            Self::Global => return None,
            Self::ClientIp => None,
            Self::Route => Some(facts.route.as_bytes()),
            Self::Path => Some(facts.path.as_bytes()),
            Self::Header(name) => header(facts.headers, name),
            Self::Cookie(name) => cookie(facts.headers, name.as_bytes()),
        };
        Some(found.map_or(Value::Ip(facts.client_ip), Value::Bytes))
    }
}

/// The one value of a field; several lines must all say the same.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    only(headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()))
}

/// The one value of a cookie over all `Cookie` lines (RFC 6265, section 4.2.1; HTTP/2 splits them: RFC 9113, 8.2.3).
fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    only(pairs.filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        // Many apps take the quotes off: with and without them is the same cookie.
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (pair[..equals].trim_ascii() == name).then_some(unquoted.unwrap_or(value))
    }))
}

/// The value that all of them are, if it is not empty.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let first = values.next().filter(|value| !value.is_empty())?;
    values.all(|value| value == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::limit::Settings;

    fn limiter() -> Limiter {
        Limiter::new(Settings {
            rate_count: NonZeroU32::MIN,
            period: Duration::from_secs(1),
            burst: NonZeroU32::MIN,
            keys_max: NonZeroUsize::MIN,
            ipv6_prefix: 64,
        })
    }

    fn request(lines: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        lines.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn facts<'a>(ip: &str, headers: &'a HeaderMap) -> Facts<'a> {
        Facts { client_ip: ip.parse().unwrap(), route: "api", path: "/a", headers }
    }

    fn api_key() -> Source {
        Source::new(vec![Part::Header(HeaderName::from_static("x-api-key"))])
    }

    fn session() -> Source {
        Source::new(vec![Part::Cookie("sid".into())])
    }

    fn key(source: &Source, limiter: &Limiter, ip: &str, lines: &[(&'static str, &str)]) -> Key {
        source.key(limiter, &facts(ip, &request(lines)))
    }

    #[test]
    fn a_value_counts_wherever_it_comes_from() {
        let limiter = limiter();
        let of = |ip, value| key(&api_key(), &limiter, ip, &[("x-api-key", value)]);
        assert_eq!(of("192.0.2.1", "k1"), of("192.0.2.2", " k1 "));
        assert_ne!(of("192.0.2.1", "k1"), of("192.0.2.1", "k2"));
        let of = |ip, value| key(&session(), &limiter, ip, &[("cookie", value)]);
        assert_eq!(of("192.0.2.1", "a=b; sid=x"), of("192.0.2.2", "sid=\"x\";c=d"));
        assert_ne!(of("192.0.2.1", "sid=x"), of("192.0.2.1", "Sid=x"), "cookie names know upper case");
    }

    #[test]
    fn what_is_absent_empty_or_ambiguous_is_the_address() {
        let limiter = limiter();
        let alone = limiter.key_ip("192.0.2.1".parse().unwrap());
        for lines in [&[][..], &[("x-api-key", "")], &[("x-api-key", " ")], &[("x-api-key", "a"), ("x-api-key", "b")]] {
            assert_eq!(key(&api_key(), &limiter, "192.0.2.1", lines), alone, "{lines:?}");
            assert_ne!(key(&api_key(), &limiter, "192.0.2.2", lines), alone, "{lines:?}");
        }
        for cookies in ["", "sid", "sid=", "xsid=1", "sid=1; sid=2", "=sid", ";;", "sid =\"\""] {
            assert_eq!(key(&session(), &limiter, "192.0.2.1", &[("cookie", cookies)]), alone, "{cookies}");
        }
        let crumbs = &[("cookie", "a=1"), ("cookie", "sid=1"), ("cookie", "sid=2")];
        assert_eq!(key(&session(), &limiter, "192.0.2.1", crumbs), alone);
    }

    #[test]
    fn parts_of_a_list_all_count() {
        let limiter = limiter();
        let headers = HeaderMap::new();
        let both = Source::new(vec![Part::ClientIp, Part::Path]);
        let at = |path, route, ip: &str| Facts { path, route, ..facts(ip, &headers) };
        let a = both.key(&limiter, &at("/a", "r", "192.0.2.1"));
        assert_eq!(a, both.key(&limiter, &at("/a", "other", "192.0.2.1")));
        assert_ne!(a, both.key(&limiter, &at("/b", "r", "192.0.2.1")));
        assert_ne!(a, both.key(&limiter, &at("/a", "r", "192.0.2.2")));
        let route = Source::new(vec![Part::Route]);
        assert_ne!(route.key(&limiter, &at("/a", "r", "192.0.2.1")), route.key(&limiter, &at("/a", "s", "192.0.2.1")));
        let global = Source::new(vec![Part::Global]);
        assert_eq!(global.key(&limiter, &at("/a", "r", "192.0.2.1")), global.key(&limiter, &at("/b", "s", "::1")));
        assert_eq!(Source::new(vec![Part::ClientIp]), Source::ClientIp);
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![Just(b';'), Just(b'='), Just(b'"'), Just(b' '), Just(b's'), 0x20u8..=0x7e, 0x80u8..=0xff];
        proptest::collection::vec(byte, 0..24)
    }

    proptest! {
        #[test]
        fn a_value_is_never_everyones(lines in proptest::collection::vec(hostile(), 0..4)) {
            let limiter = limiter();
            let everyone = limiter.key().finish();
            let mut headers = HeaderMap::new();
            for line in &lines {
                let value = HeaderValue::from_bytes(line).unwrap();
                headers.append("x-api-key", value.clone());
                headers.append(COOKIE, value);
            }
            for source in [api_key(), session()] {
                let facts = facts("192.0.2.1", &headers);
                let key = source.key(&limiter, &facts);
                prop_assert_ne!(key, everyone);
                prop_assert_ne!(key, limiter.key().bytes(b"").finish());
                prop_assert_eq!(source.values(&facts).count(), 1);
            }
        }

        #[test]
        fn junk_around_a_cookie_never_hides_it(before in hostile(), after in hostile(), value in "[a-z0-9]{1,12}") {
            let holds_sid = |junk: &[u8]| junk.windows(3).any(|part| part == b"sid");
            prop_assume!(!holds_sid(&before) && !holds_sid(&after));
            let line = [&before[..], b"; sid=", value.as_bytes(), b"; ", &after].concat();
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_bytes(&line).unwrap())]);
            let session = session();
            let facts = facts("192.0.2.1", &headers);
            let found: Vec<_> = session.values(&facts).collect();
            prop_assert_eq!(found, [Value::Bytes(value.as_bytes())]);
        }

        #[test]
        fn no_two_clients_meet_without_the_same_value(a in hostile(), b in hostile()) {
            let limiter = limiter();
            let headers = |line: &[u8]| HeaderMap::from_iter([
                (HeaderName::from_static("x-api-key"), HeaderValue::from_bytes(line).unwrap()),
            ]);
            let source = api_key();
            let first = source.key(&limiter, &facts("192.0.2.1", &headers(&a)));
            let second = source.key(&limiter, &facts("192.0.2.2", &headers(&b)));
            let same = a.trim_ascii() == b.trim_ascii() && !a.trim_ascii().is_empty();
            prop_assert_eq!(first == second, same);
        }
    }
}
