//! Small languages inside strings: hosts, paths, keys, kinds of failure.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderName;
use http::uri::PathAndQuery;

use super::super::document::Path;
use super::super::model::FailureClasses;
use super::super::problem::{did_you_mean, one_of};
use super::Check;
use super::values::is_cookie_name;

/// What `header:NAME`, `cookie:NAME` and plain words can mean.
pub(super) enum Key {
    Word(String),
    Header(HeaderName),
    Cookie(String),
}

impl Check<'_> {
    /// A host a route answers to, lower case: a name, `*.name`, or an IP address.
    pub(super) fn host(&mut self, text: &str, at: &Path) -> String {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let literal = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let good = match literal {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => is_host_name(name),
        };
        if !good {
            let help = match &*lower {
                "*" => "leave host empty to match any",
                ip if ip.parse::<Ipv6Addr>().is_ok() => "write an IPv6 address in brackets, such as \"[2001:db8::1]\"",
                _ if lower.contains("://") => "leave out the scheme",
                _ if lower.contains(':') && literal.is_none() => "leave out the port",
                _ if lower.contains('/') => "leave out the path, it goes into path",
                _ if lower.contains('*') => "a wildcard stands for the first labels only: \"*.example.com\"",
                _ if !lower.is_ascii() => "write the name in its ASCII form (xn--…)",
                _ => "write a name such as \"example.com\" or \"*.example.com\"",
            };
            self.refuse(at, text, "not a host", help);
        }
        lower
    }

    /// `/api` or `=/exact`.
    pub(super) fn route_path(&mut self, text: &str, at: &Path) {
        let path = text.strip_prefix('=').unwrap_or(text);
        if let Some(help) = path_remedy(path) {
            self.refuse(at, text, "not a path", help);
        } else if looks_like_pattern(path) {
            self.warn(at, format!("\"{text}\" looks like a pattern, and is taken as it stands"), NO_PATTERNS);
        }
    }

    /// One of `words`, `header:NAME` or `cookie:NAME`.
    pub(super) fn key(&mut self, text: &str, words: &[&str], at: &Path) -> Option<Key> {
        let kind = text.split_once(':');
        match kind {
            None if words.contains(&text) => Some(Key::Word(text.to_owned())),
            Some(("header", name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Some(Key::Header(name)),
                Err(_) => {
                    self.refuse(at, text, "not a header's name", "write \"header:NAME\", such as \"header:X-Tenant\"");
                    None
                }
            },
            Some(("cookie", name)) if is_cookie_name(name) => Some(Key::Cookie(name.to_owned())),
            Some(("cookie", _)) => {
                self.refuse(at, text, "not a cookie's name", "write \"cookie:NAME\", such as \"cookie:session\"");
                None
            }
            _ => {
                let known = words.iter().copied().chain(["header:NAME", "cookie:NAME"]);
                let meant = did_you_mean(text, words.iter().copied());
                let help = meant.unwrap_or_else(|| format!("use {}", one_of(known)));
                self.refuse(at, text, "unknown kind of key", help);
                None
            }
        }
    }

    /// A list of `words` (connect, timeout, reset in some spelling) and statuses.
    pub(super) fn failures(&mut self, raw: &[String], words: &[&str], at: &Path) -> FailureClasses {
        let mut classes = FailureClasses::default();
        for (index, text) in raw.iter().enumerate() {
            let at = at.index(index);
            match text.as_str() {
                known if words.contains(&known) => match known {
                    "connect" => classes.connect = true,
                    "timeout" => classes.timeout = true,
                    _ => classes.reset = true,
                },
                status if status.starts_with(|c: char| c.is_ascii_digit()) => {
                    classes.statuses.0.extend(self.statuses(status, &at).0);
                }
                other => {
                    let known = words.iter().copied().chain(["500-599"]);
                    let meant = did_you_mean(other, words.iter().copied());
                    let help = meant.unwrap_or_else(|| format!("use {}", one_of(known)));
                    self.refuse(&at, other, "not a kind of failure", help);
                }
            }
        }
        classes
    }
}

const NO_PATTERNS: &str = "list the paths: \"/api\" is that path and all that is below it, \"=/api\" that path alone";

/// Wildcards, parameters and regular expressions of other proxies and frameworks.
fn looks_like_pattern(path: &str) -> bool {
    path.contains(['*', '{', '}', '^', '|']) || path.split('/').any(|segment| segment.starts_with(':'))
}

/// What to do about a path that requests are matched with; `None` = it is fine.
///
/// Requests are matched after normalisation, so what normalisation takes out can never match.
pub(super) fn path_remedy(path: &str) -> Option<&'static str> {
    let lower = path.to_ascii_lowercase();
    let help = match path {
        _ if path.starts_with(['~', '^', '*', '.']) => NO_PATTERNS,
        _ if !path.starts_with('/') => "start it with \"/\", or with \"=/\" for exactly this path",
        _ if path.contains(['?', '#']) => "leave out the query, routes look at the path only",
        _ if path.ends_with("/*") => "leave out \"/*\", a path stands for all that is below it",
        _ if path.contains("//") => "write single slashes, requests are matched with single ones",
        _ if path.split('/').any(is_dot_segment) => "leave out \".\" and \"..\"",
        _ if path.contains('\\') || lower.contains("%2f") || lower.contains("%5c") || lower.contains("%00") => {
            "requests with a backslash, %2f or NUL never match"
        }
        _ if !path.bytes().all(|byte| byte.is_ascii_graphic()) => "percent-encode spaces and what is not ASCII",
        _ => return None,
    };
    Some(help)
}

/// Also one with a parameter, `..;`: requests with that are refused.
fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default();
    name == "." || name == ".."
}

/// Of one that is a path and no more, exact or not.
pub(super) fn bare_path_remedy(path: &str) -> Option<&'static str> {
    match path.as_bytes().first() {
        Some(b'/') => path_remedy(path),
        Some(b'=') => Some("leave out the \"=\""),
        _ => Some("start it with \"/\""),
    }
}

/// Of the target of a check: it goes out as it is, so a query is welcome, and what HTTP cannot send is not.
pub(super) fn target_remedy(target: &str) -> Option<&'static str> {
    let path = target.split('?').next().unwrap_or_default();
    if target.contains('#') {
        return Some("leave out \"#\" and what follows, no server is told of it");
    }
    bare_path_remedy(path).or_else(|| {
        let can_be_sent = target.is_ascii() && PathAndQuery::try_from(target).is_ok();
        (!can_be_sent).then_some("percent-encode spaces, what is not ASCII, and \", <, >, ^ or `")
    })
}

/// A name in the sense of RFC 1123, underscores included since compose files use them.
pub(super) fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether a certificate may be for this host, which is a name or an address: a name does not end in a number, or it
/// could be taken for an address (RFC 1123, section 2.1).
pub(super) fn is_certifiable(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    host.parse::<IpAddr>().is_ok() || !last.bytes().all(|byte| byte.is_ascii_digit())
}
