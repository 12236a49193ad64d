//! Whose request this is: the address of the client behind proxies that are trusted to name it.
//!
//! A header is only read when the connection comes from a trusted proxy. Then the hops are followed from the
//! right, the end that the nearest proxy wrote, for as long as they are trusted proxies themselves; the first one
//! that is not is the client. What a client wrote on the left is thus never believed. Parsing lives here; writing
//! the headers for the upstream is another room's.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::access::NetSet;

/// Which header trusted proxies speak through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
    XRealIp,
}

/// The networks that may speak for a client.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    nets: NetSet,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp {
    /// Never an IPv4-mapped IPv6 address.
    pub ip: IpAddr,
    /// Whether the connection comes from a trusted proxy.
    pub peer_trusted: bool,
}

/// How the client came in at the first of the trusted proxies, in that proxy's words: nobody has judged them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    pub proto: Option<Text>,
    pub host: Option<Text>,
}

/// The value of a parameter, without its quotes.
pub type Text = SmallVec<[u8; 64]>;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

impl TrustedProxies {
    pub fn new(nets: Vec<IpNet>) -> Self {
        Self { nets: nets.into_iter().collect() }
    }

    /// Whether an address may speak for a client, also through the PROXY protocol.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.nets.contains(ip)
    }

    /// The client behind `peer`. Where the header stops making sense the last good hop is taken: the peer itself
    /// at worst, never an address that an untrusted hop claimed.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap, source: Source) -> ClientIp {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return ClientIp { ip: peer, peer_trusted: false };
        }
        let ip = match source {
            Source::XForwardedFor => self.follow(peer, x_forwarded_for(headers)),
            Source::Forwarded => self.follow(peer, elements(headers).into_iter().map(|element| for_of(element?))),
            Source::XRealIp => x_real_ip(headers).unwrap_or(peer),
        };
        ClientIp { ip, peer_trusted: true }
    }

    /// What `Forwarded` tells of the way that the client came. For headers from a trusted proxy.
    ///
    /// It is the last element on the way to the client that counts, for a trusted proxy wrote that as well. What is
    /// nearer tells of the ways between proxies, what is farther was written by whoever likes.
    pub fn arrival(&self, headers: &HeaderMap) -> Arrival {
        let mut last = None;
        for element in elements(headers).into_iter().map_while(|element| element) {
            last = Some(element);
            if !for_of(element).is_some_and(|ip| self.contains(ip)) {
                break;
            }
        }
        let told = |name| last.and_then(|element| parameter(element, name));
        Arrival { proto: told(b"proto"), host: told(b"host") }
    }

    /// Follows hops, nearest first; `None` is a hop that is not an address.
    fn follow(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for hop in hops {
            let Some(ip) = hop else { break };
            client = ip;
            if !self.contains(ip) {
                break;
            }
        }
        client
    }
}

/// The hops of all `X-Forwarded-For` lines, nearest first. Empty list elements are no hops (RFC 9110, 5.6.1).
fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    headers
        .get_all(X_FORWARDED_FOR)
        .into_iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
        .map(address)
}

/// Only a single line that is a single address is believed.
fn x_real_ip(headers: &HeaderMap) -> Option<IpAddr> {
    let mut lines = headers.get_all(X_REAL_IP).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    address(line.as_bytes().trim_ascii())
}

/// The elements of all `Forwarded` lines, nearest first. `None` = a line that has a quote that never closes: where its
/// elements begin is anyone's guess.
fn elements(headers: &HeaderMap) -> SmallVec<[Option<&[u8]>; 8]> {
    let mut elements = SmallVec::new();
    for line in headers.get_all(FORWARDED) {
        match split_unquoted(line.as_bytes(), b',') {
            None => elements.push(None),
            Some(parts) => {
                elements.extend(parts.into_iter().map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).map(Some));
            }
        }
    }
    elements.reverse();
    elements
}

/// The address in `for=` of one element; `None` when there is none, or it is `unknown` or obfuscated.
fn for_of(element: &[u8]) -> Option<IpAddr> {
    address(&parameter(element, b"for")?)
}

/// The value of a parameter; `None` when there is none, more than one, or it is no value.
fn parameter(element: &[u8], name: &[u8]) -> Option<Text> {
    let mut found = None;
    for pair in split_unquoted(element, b';')? {
        let pair = pair.trim_ascii();
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        if pair[..equals].trim_ascii_end().eq_ignore_ascii_case(name) && found.replace(&pair[equals + 1..]).is_some() {
            return None;
        }
    }
    let value = found?.trim_ascii();
    match value.strip_prefix(b"\"") {
        None => Some(value.into()),
        Some(quoted) => unquote(quoted),
    }
}

/// Splits outside of quoted strings; `None` when a quote never closes.
fn split_unquoted(bytes: &[u8], separator: u8) -> Option<SmallVec<[&[u8]; 8]>> {
    let mut parts = SmallVec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&bytes[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&bytes[start..]);
    (!quoted).then_some(parts)
}

/// What stands in a quoted string whose opening quote is already off; `None` when something follows its end.
fn unquote(quoted: &[u8]) -> Option<Text> {
    let mut out = Text::new();
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return bytes.as_slice().is_empty().then_some(out),
            b'\\' => out.push(*bytes.next()?),
            _ => out.push(byte),
        }
    }
    None
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    if let Some(inner) = text.strip_prefix('[') {
        let (ip, rest) = inner.split_once(']')?;
        let port_ok = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return port_ok.then(|| ip.parse::<Ipv6Addr>().ok()).flatten().map(|ip| IpAddr::V6(ip).to_canonical());
    }
    match text.split_once(':') {
        Some((ip, port)) if !port.contains(':') => is_port(port).then(|| ip.parse().ok().map(IpAddr::V4)).flatten(),
        _ => text.parse().ok().map(|ip: IpAddr| ip.to_canonical()),
    }
}

/// A number, or RFC 7239's obfuscated port (section 6.3).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests;
