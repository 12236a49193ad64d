//! One request as the access log sees it: borrowed facts, nothing computed.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use memchr::memmem::Finder;

/// One finished request. Everything is borrowed; building one allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the request finished, in Unix milliseconds.
    pub unix_ms: u64,
    /// The client as `[client_ip]` resolved it; `None` for the peer of a unix socket, shown as nginx shows it: `unix:`.
    pub client: Option<IpAddr>,
    /// The raw `Authorization` value. Only the user name of `Basic` is ever written.
    pub authorization: Option<&'a [u8]>,
    /// Empty when the request line could not be read; `target` then holds it as it came.
    pub method: &'a str,
    /// The request target as the client sent it.
    pub target: &'a [u8],
    pub version: http::Version,
    /// The status the client got; 499 when it left before one was sent.
    pub status: u16,
    /// Body bytes sent to the client.
    pub body_bytes: u64,
    /// From the moment its head was complete to the last byte of the answer.
    pub duration: Duration,
    pub upstream: Option<&'a str>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<&'a str>,
    /// From when it was sent there until the response head, or until there was to be none; `None` = it was not sent
    /// there, or the client left meanwhile.
    pub upstream_duration: Option<Duration>,
    pub route: Option<&'a str>,
    /// The `Flagstone-Reason` of an answer made here.
    pub reason: Option<&'a str>,
    pub request_id: Option<&'a str>,
    /// Of the trace it belongs to; `None` = tracing is off, or its head was refused.
    pub trace_id: Option<[u8; 32]>,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    pub host: Option<&'a [u8]>,
}

/// The query parameter whose value is a secret: it lets its client into maintenance (docs/maintenance.md).
static BYPASS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("maintenance_bypass="));

/// What stands in the log where a secret stood.
const MASK: &[u8] = b"***";

/// The pieces of a URL with the value of `maintenance_bypass` masked; concatenated they are the URL to log.
pub(in crate::telemetry) fn masked(url: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(url);
    let mut mask_next = false;
    std::iter::from_fn(move || {
        if std::mem::take(&mut mask_next) {
            return Some(MASK);
        }
        let url = rest?;
        let Some(start) = BYPASS.find(url) else {
            rest = None;
            return Some(url);
        };
        let (shown, secret) = url.split_at(start + BYPASS.needle().len());
        let end = secret.iter().position(|b| matches!(b, b'&' | b'#'));
        rest = end.map(|end| &secret[end..]);
        mask_next = true;
        Some(shown)
    })
}

/// The protocol as both formats and nginx spell it.
pub(super) fn version_text(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        String::from_utf8(masked(url.as_bytes()).collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn bypass_token_never_appears() {
        assert_eq!(shown("/a?b=c"), "/a?b=c");
        assert_eq!(shown(""), "");
        assert_eq!(shown("/?maintenance_bypass=secret"), "/?maintenance_bypass=***");
        assert_eq!(
            shown("/?maintenance_bypass=s&x=1&maintenance_bypass=t#f"),
            "/?maintenance_bypass=***&x=1&maintenance_bypass=***#f"
        );
    }
}
