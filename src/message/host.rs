//! The one host a request is for.
//!
//! A request can name its host twice, in its target and in `Host`; routers and upstreams that pick differently are
//! how requests reach what they should not. So the two must agree, there is at most one `Host` line, and what is
//! not plainly a name, an address or a port is refused (RFC 9112, section 3.2; RFC 9113, section 8.3.1).

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, Uri, Version};
use smallvec::SmallVec;

/// A host as routes see it. Names of usual length are kept in place, without an allocation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Host {
    name: SmallVec<[u8; 48]>,
    port: Option<u16>,
}

impl Clone for Host {
    /// A copy of the bytes: `SmallVec` would clone them one by one.
    fn clone(&self) -> Self {
        Self { name: SmallVec::from_slice(&self.name), port: self.port }
    }
}

/// Why a request has no usable host. All of them are the client's fault: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request has more than one host header")]
    Several,
    #[error("the host header and the request target disagree")]
    Disagree,
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than 253 bytes")]
    TooLong,
    #[error("the host contains a byte that no host has")]
    InvalidByte,
    #[error("the host contains user information")]
    UserInfo,
    #[error("the host has an empty label")]
    EmptyLabel,
    #[error("the port is not a number up to 65535")]
    InvalidPort,
    #[error("the brackets do not hold an IPv6 address")]
    InvalidIpv6,
}

/// RFC 1035, section 2.3.4, less the root label.
const NAME_BYTES_MAX: usize = 253;

impl Host {
    /// The host of a request, from its target (absolute form, or `:authority`) and its `Host` header.
    ///
    /// HTTP/1.1 must have exactly one `Host`; HTTP/1.0 may have none, which is the empty host. Ports agree when one
    /// is left out and the other is the default of the target's scheme.
    ///
    /// # Errors
    /// Whatever is ambiguous or malformed; see [`HostError`].
    pub fn of_request(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Self, HostError> {
        let mut lines = headers.get_all(HOST).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return Err(HostError::Several);
        }
        let header = line.map(|line| Self::parse(line.as_bytes())).transpose()?;
        let target = uri.authority().map(|authority| Self::parse(authority.as_str().as_bytes())).transpose()?;
        match (target, header) {
            (Some(target), Some(header)) if target.agrees(&header, uri.scheme_str()) => Ok(target),
            (Some(_), Some(_)) => Err(HostError::Disagree),
            (_, None) if version == Version::HTTP_11 => Err(HostError::Missing),
            (Some(host), None) | (None, Some(host)) => Ok(host),
            (None, None) if version < Version::HTTP_11 => Ok(Self::default()),
            (None, None) => Err(HostError::Missing),
        }
    }

    /// Reads `name`, `name:port`, `192.0.2.1:80` or `[2001:db8::1]:80`. One trailing dot is dropped, an empty port
    /// is none (RFC 3986, section 3.2.3), an IPv6 address takes its canonical form.
    ///
    /// # Errors
    /// As for [`Self::of_request`].
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix(b"[") {
            return Self::parse_ipv6(inner);
        }
        let (name, port) = match memchr::memchr(b':', text) {
            Some(colon) => (&text[..colon], parse_port(&text[colon + 1..]).map_err(|error| user_info_or(error, text))?),
            None => (text, None),
        };
        let name = name.strip_suffix(b".").unwrap_or(name);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(HostError::TooLong);
        }
        let mut lower = SmallVec::from_slice(name);
        let mut previous = b'.';
        for byte in &mut lower {
            match *byte {
                b'.' if previous == b'.' => return Err(HostError::EmptyLabel),
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {}
                b'A'..=b'Z' => *byte |= 0x20,
                _ => return Err(user_info_or(HostError::InvalidByte, text)),
            }
            previous = *byte;
        }
        if previous == b'.' {
            return Err(HostError::EmptyLabel);
        }
        Ok(Self { name: lower, port })
    }

    /// Lower case, without port and trailing dot; IPv6 in brackets. Empty only for HTTP/1.0 without a host.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name).expect("only ASCII bytes are taken in")
    }

    /// The port the client wrote, if it wrote one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    fn parse_ipv6(inner: &[u8]) -> Result<Self, HostError> {
        let close = memchr::memchr(b']', inner).ok_or(HostError::InvalidIpv6)?;
        let address = std::str::from_utf8(&inner[..close]).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        let address = address.ok_or(HostError::InvalidIpv6)?;
        let port = match &inner[close + 1..] {
            [] => None,
            [b':', port @ ..] => parse_port(port)?,
            _ => return Err(HostError::InvalidByte),
        };
        Ok(Self { name: SmallVec::from_slice(format!("[{address}]").as_bytes()), port })
    }

    fn agrees(&self, other: &Self, scheme: Option<&str>) -> bool {
        let default = match scheme {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        };
        self.name == other.name && self.port.or(default) == other.port.or(default)
    }
}

/// The host of a URL or an authority as resolvers and certificates have it: an IPv6 address without its brackets.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(host)
}

/// Says the more telling of two things: `user:password@host` fails at its colon.
fn user_info_or(error: HostError, text: &[u8]) -> HostError {
    if text.contains(&b'@') { HostError::UserInfo } else { error }
}

fn parse_port(digits: &[u8]) -> Result<Option<u16>, HostError> {
    if digits.is_empty() {
        return Ok(None);
    }
    let mut port = 0_u16;
    for digit in digits {
        let value = digit.wrapping_sub(b'0');
        let more = port.checked_mul(10).and_then(|tens| tens.checked_add(u16::from(value)));
        port = more.filter(|_| value < 10).ok_or(HostError::InvalidPort)?;
    }
    Ok(Some(port))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(version: Version, uri: &str, hosts: &[&str]) -> Result<(String, Option<u16>), HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let host = Host::of_request(&uri.parse().unwrap(), &headers, version)?;
        Ok((host.name().to_owned(), host.port()))
    }

    #[test]
    fn hosts_are_lowered_and_split() {
        let cases = [
            ("Example.COM", "example.com", None),
            ("example.com:8080", "example.com", Some(8080)),
            ("example.com:", "example.com", None),
            ("example.com.", "example.com", None),
            ("example.com.:80", "example.com", Some(80)),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
            ("[::1]", "[::1]", None),
            ("my_app", "my_app", None),
        ];
        for (text, name, port) in cases {
            let host = Host::parse(text.as_bytes()).unwrap();
            assert_eq!((host.name(), host.port()), (name, port), "{text}");
        }
    }

    #[test]
    fn brackets_are_no_part_of_an_address() {
        for (host, bare) in [("[::1]", "::1"), ("::1", "::1"), ("a.example", "a.example"), ("[::1", "[::1"), ("", "")] {
            assert_eq!(without_brackets(host), bare);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        use HostError as E;
        let cases: &[(&[u8], HostError)] = &[
            (b"", E::Empty),
            (b":80", E::Empty),
            (b".", E::Empty),
            (b"a..b", E::EmptyLabel),
            (b".a", E::EmptyLabel),
            (b"a..", E::EmptyLabel),
            (b"user@a.com", E::UserInfo),
            (b"user:secret@a.com", E::UserInfo),
            (b"a.com:80@evil.com", E::UserInfo),
            (b"a.com:+80", E::InvalidPort),
            (b"a.com:65536", E::InvalidPort),
            (b"a.com:80:80", E::InvalidPort),
            (b"a.com:8:0", E::InvalidPort),
            (b"a.com:x", E::InvalidPort),
            (b"a.com/x", E::InvalidByte),
            (b"a.com\\x", E::InvalidByte),
            (b"a.com#x", E::InvalidByte),
            (b"a.com?x", E::InvalidByte),
            (b"a,b", E::InvalidByte),
            (b"a b", E::InvalidByte),
            (b" a", E::InvalidByte),
            (b"a\tb", E::InvalidByte),
            (b"a%2ecom", E::InvalidByte),
            (b"m\xc3\xbcnchen.de", E::InvalidByte),
            (b"*.a.com", E::InvalidByte),
            (b"[::1", E::InvalidIpv6),
            (b"[::1%eth0]", E::InvalidIpv6),
            (b"[192.0.2.1]", E::InvalidIpv6),
            (b"[::1]x", E::InvalidByte),
            (b"[::1]:x", E::InvalidPort),
        ];
        for (text, error) in cases {
            assert_eq!(Host::parse(text), Err(*error), "{}", text.escape_ascii());
        }
        assert!(Host::parse(&[b'a'; 253]).is_ok());
        assert_eq!(Host::parse(&[b'a'; 254]), Err(E::TooLong));
    }

    #[test]
    fn http_1_1_has_exactly_one_host() {
        let v = Version::HTTP_11;
        assert_eq!(of(v, "/", &["A.com:81"]), Ok(("a.com".into(), Some(81))));
        assert_eq!(of(v, "/", &[]), Err(HostError::Missing));
        assert_eq!(of(v, "http://a.com/", &[]), Err(HostError::Missing));
        assert_eq!(of(v, "/", &["a.com", "a.com"]), Err(HostError::Several));
        assert_eq!(of(v, "/", &["a.com", "b.com"]), Err(HostError::Several));
        assert_eq!(of(v, "/", &[""]), Err(HostError::Empty));
    }

    #[test]
    fn target_and_header_must_agree() {
        let v = Version::HTTP_11;
        assert_eq!(of(v, "http://A.com/x", &["a.COM"]), Ok(("a.com".into(), None)));
        assert_eq!(of(v, "http://a.com:80/x", &["a.com"]), Ok(("a.com".into(), Some(80))));
        assert_eq!(of(v, "https://a.com/x", &["a.com:443"]), Ok(("a.com".into(), None)));
        assert_eq!(of(v, "http://a.com/x", &["b.com"]), Err(HostError::Disagree));
        assert_eq!(of(v, "http://a.com/x", &["a.com:443"]), Err(HostError::Disagree));
        assert_eq!(of(v, "http://u@a.com/x", &["a.com"]), Err(HostError::UserInfo));
    }

    #[test]
    fn http_1_0_may_name_no_host() {
        assert_eq!(of(Version::HTTP_10, "/", &[]), Ok((String::new(), None)));
        assert_eq!(of(Version::HTTP_10, "http://a.com/", &[]), Ok(("a.com".into(), None)));
        assert_eq!(of(Version::HTTP_10, "/", &["a.com", "b.com"]), Err(HostError::Several));
    }

    #[test]
    fn http_2_names_its_host_in_either_place() {
        let v = Version::HTTP_2;
        assert_eq!(of(v, "https://a.com/", &[]), Ok(("a.com".into(), None)));
        assert_eq!(of(v, "/", &["a.com"]), Ok(("a.com".into(), None)));
        assert_eq!(of(v, "https://a.com/", &["b.com"]), Err(HostError::Disagree));
        assert_eq!(of(v, "/", &[]), Err(HostError::Missing));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_clean_name_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(host) = Host::parse(&bytes) {
                let name = host.name();
                prop_assert!(!name.is_empty() && name == name.to_ascii_lowercase());
                prop_assert!(!name.contains(['/', '@', ' ', '%', ',']));
                let again = Host::parse(name.as_bytes()).unwrap();
                prop_assert_eq!(again.name(), name);
            }
        }
    }
}
