//! A route's host: a name, or a wildcard over everything below a name.

use std::fmt;

/// `example.com` is that name alone; `*.example.com` is one or more labels below it and never the name itself.
///
/// Kept in lower case, without a trailing dot. An IPv6 address keeps its brackets, as in an authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// The part after `*.`.
    Wildcard(String),
}

/// Why a text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    #[error("the host is empty; leave the list empty for any host")]
    Empty,
    #[error("`*` alone is not a host; leave the list empty for any host")]
    Star,
    #[error("`*` may only stand as the whole first label, as in `*.example.com`")]
    StarInside,
    #[error("a route's host has no port; the listener decides the port")]
    Port,
    #[error("the host has an empty label")]
    EmptyLabel,
    #[error("the host is longer than 253 bytes")]
    TooLong,
    #[error("{0:?} cannot stand in a host; write other scripts as xn--")]
    Character(char),
    #[error("the brackets do not hold an IPv6 address")]
    BadIpv6,
}

/// RFC 1035, section 2.3.4, less the root label.
const NAME_BYTES_MAX: usize = 253;

impl HostPattern {
    /// Reads a host as a route names it; upper case is lowered, one trailing dot removed.
    ///
    /// # Errors
    /// When no request could carry such a host.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if lower == "*" {
            return Err(HostPatternError::Star);
        }
        if let Some(suffix) = lower.strip_prefix("*.") {
            check_name(suffix)?;
            return Ok(Self::Wildcard(suffix.to_owned()));
        }
        if let Some(inner) = lower.strip_prefix('[') {
            return parse_ipv6(inner);
        }
        check_name(&lower)?;
        Ok(Self::Exact(lower))
    }

    /// Whether `host` (lower case, no port) is covered.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::Wildcard(suffix) => host
                .strip_suffix(suffix.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

fn parse_ipv6(inner: &str) -> Result<HostPattern, HostPatternError> {
    let (address, rest) = inner.split_once(']').ok_or(HostPatternError::BadIpv6)?;
    if !rest.is_empty() {
        return Err(HostPatternError::Port);
    }
    let address: std::net::Ipv6Addr = address.parse().map_err(|_| HostPatternError::BadIpv6)?;
    Ok(HostPattern::Exact(format!("[{address}]")))
}

fn check_name(name: &str) -> Result<(), HostPatternError> {
    if name.is_empty() {
        return Err(HostPatternError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(HostPatternError::TooLong);
    }
    for c in name.chars() {
        match c {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' => {}
            '*' => return Err(HostPatternError::StarInside),
            ':' => return Err(HostPatternError::Port),
            other => return Err(HostPatternError::Character(other)),
        }
    }
    if name.split('.').any(str::is_empty) {
        return Err(HostPatternError::EmptyLabel);
    }
    Ok(())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_is_one_or_more_labels_below() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        assert_eq!(pattern.to_string(), "*.example.com");
        assert!(pattern.matches("a.example.com"));
        assert!(pattern.matches("a.b.example.com"));
        assert!(!pattern.matches("example.com"));
        assert!(!pattern.matches(".example.com"));
        assert!(!pattern.matches("anexample.com"));
    }

    #[test]
    fn names_are_lowered_and_lose_the_root_dot() {
        assert_eq!(HostPattern::parse("Example.COM."), Ok(HostPattern::Exact("example.com".into())));
        assert_eq!(HostPattern::parse("[0:0::1]"), Ok(HostPattern::Exact("[::1]".into())));
    }

    #[test]
    fn what_no_request_can_carry_is_refused() {
        let cases = [
            ("", HostPatternError::Empty),
            ("*", HostPatternError::Star),
            ("*.", HostPatternError::Star),
            ("a.*.com", HostPatternError::StarInside),
            ("*a.com", HostPatternError::StarInside),
            ("*.*.com", HostPatternError::StarInside),
            ("example.com:80", HostPatternError::Port),
            ("[::1]:80", HostPatternError::Port),
            ("[::g]", HostPatternError::BadIpv6),
            ("[::1", HostPatternError::BadIpv6),
            ("a..b", HostPatternError::EmptyLabel),
            (".a", HostPatternError::EmptyLabel),
            ("a/b", HostPatternError::Character('/')),
            ("münchen.de", HostPatternError::Character('ü')),
        ];
        for (text, error) in cases {
            assert_eq!(HostPattern::parse(text), Err(error), "{text}");
        }
        assert_eq!(HostPattern::parse(&"a".repeat(254)), Err(HostPatternError::TooLong));
    }
}
