//! Which hosts and paths a flag covers: the same syntax as a route's `host` and `path`, compiled once.

use std::fmt;

/// A path as a route writes it: `/api` is that path and what is below it, `=/exact` only that one.
///
/// Matches paths that have been normalised; the query is no part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    Exact(Box<str>),
    /// Without a trailing slash; empty = everything.
    Prefix(Box<str>),
}

impl PathPattern {
    /// `None` when the pattern starts with neither `/` nor `=/`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(exact) = text.strip_prefix('=') {
            return exact.starts_with('/').then(|| Self::Exact(exact.into()));
        }
        text.starts_with('/').then(|| Self::Prefix(text.trim_end_matches('/').into()))
    }

    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// As it is written in a flag; the empty prefix is `/`.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => write!(f, "={exact}"),
            Self::Prefix(prefix) if prefix.is_empty() => f.write_str("/"),
            Self::Prefix(prefix) => f.write_str(prefix),
        }
    }
}

/// A host as a route writes it: `example.com`, or `*.example.com` for every name below that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Lower-case.
    Exact(Box<str>),
    /// Lower-case, with the dot: `.example.com`.
    Below(Box<str>),
}

impl HostPattern {
    /// `None` for an empty name, a star elsewhere than in front, or what no host contains.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix('*').unwrap_or(text);
        let wildcard = name.len() < text.len();
        let plausible = name.len() > usize::from(wildcard)
            && name.starts_with('.') == wildcard
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '/' | '@'));
        let lower = name.to_ascii_lowercase().into_boxed_str();
        plausible.then_some(if wildcard { Self::Below(lower) } else { Self::Exact(lower) })
    }

    /// `host` has no port; letter case does not matter.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
        }
    }
}

/// As it is written in a flag.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn a_prefix_covers_itself_and_what_is_below_but_no_sibling() {
        for pattern in [path("/api"), path("/api/")] {
            assert!(pattern.matches("/api"));
            assert!(pattern.matches("/api/"));
            assert!(pattern.matches("/api/orders"));
            assert!(!pattern.matches("/apis"));
            assert!(!pattern.matches("/"));
        }
        assert!(path("/").matches("/"));
        assert!(path("/").matches("/anything"));
    }

    #[test]
    fn an_exact_path_covers_only_itself() {
        assert!(path("=/ping").matches("/ping"));
        assert!(!path("=/ping").matches("/ping/"));
        assert!(!path("=/ping").matches("/ping/x"));
        assert_eq!(path("=/ping").to_string(), "=/ping");
    }

    #[test]
    fn what_does_not_start_with_a_slash_is_no_path() {
        assert_eq!(PathPattern::parse("api"), None);
        assert_eq!(PathPattern::parse("=api"), None);
        assert_eq!(PathPattern::parse(""), None);
    }

    #[test]
    fn a_wildcard_covers_names_below_and_not_the_name_itself() {
        assert!(host("*.example.com").matches("a.example.com"));
        assert!(host("*.example.com").matches("a.B.Example.com"));
        assert!(!host("*.example.com").matches("example.com"));
        assert!(!host("*.example.com").matches(".example.com"));
        assert!(!host("*.example.com").matches("badexample.com"));
        assert!(host("Example.com").matches("eXample.COM"));
    }

    #[test]
    fn a_host_has_its_star_only_in_front() {
        for bad in ["", "*", "*.", ".example.com", "a.*.com", "*example.com", "a b", "a/b"] {
            assert_eq!(HostPattern::parse(bad), None, "{bad:?}");
        }
    }
}
