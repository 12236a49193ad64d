//! The PROXY protocol, versions 1 and 2: what a load balancer says about its client before the first byte of the
//! connection ("The PROXY protocol", haproxy.org, sections 2.1 and 2.2).
//!
//! Reads only. Who may speak it is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Both versions are told apart by this many bytes, and no header is shorter.
pub const PREFIX_BYTES: usize = 12;
/// The longest line of version 1, its CR LF included.
pub const LINE_BYTES_MAX: usize = 107;
/// The fixed part of version 2.
pub const BINARY_BYTES: usize = 16;

const SIGNATURE: [u8; PREFIX_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header is malformed, or there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid header of the PROXY protocol")]
pub struct NoHeader;

/// Which version the first bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    One,
    /// A fixed part of [`BINARY_BYTES`], then as many bytes as that says.
    Two,
}

impl Version {
    /// # Errors
    /// The bytes begin neither.
    pub fn of(prefix: &[u8; PREFIX_BYTES]) -> Result<Self, NoHeader> {
        match prefix {
            prefix if *prefix == SIGNATURE => Ok(Self::Two),
            prefix if prefix.starts_with(b"PROXY ") => Ok(Self::One),
            _ => Err(NoHeader),
        }
    }
}

/// The client's address in a line of version 1, which ends in CR LF; `None` for `UNKNOWN`.
///
/// # Errors
/// The line is not to the letter of the protocol.
pub fn from_line(line: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    let text = line.strip_suffix(b"\r\n").filter(|_| line.len() <= LINE_BYTES_MAX).ok_or(NoHeader)?;
    let text = std::str::from_utf8(text).map_err(|_| NoHeader)?;
    let mut words = text.split(' ');
    if words.next() != Some("PROXY") {
        return Err(NoHeader);
    }
    let family = words.next().ok_or(NoHeader)?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let (source, _): (IpAddr, IpAddr) = (address(family, words.next())?, address(family, words.next())?);
    let (port, _) = (port(words.next())?, port(words.next())?);
    match words.next() {
        None => Ok(Some(SocketAddr::new(source, port))),
        Some(_) => Err(NoHeader),
    }
}

fn address(family: &str, word: Option<&str>) -> Result<IpAddr, NoHeader> {
    let word = word.ok_or(NoHeader)?;
    match family {
        "TCP4" => Ipv4Addr::from_str(word).map(IpAddr::V4).map_err(|_| NoHeader),
        "TCP6" => Ipv6Addr::from_str(word).map(IpAddr::V6).map_err(|_| NoHeader),
        _ => Err(NoHeader),
    }
}

fn port(word: Option<&str>) -> Result<u16, NoHeader> {
    let word = word.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit())).ok_or(NoHeader)?;
    word.parse().map_err(|_| NoHeader)
}

/// How many bytes follow the fixed part of version 2.
pub fn binary_rest(fixed: &[u8; BINARY_BYTES]) -> usize {
    usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))
}

/// The client's address in version 2; `None` for `LOCAL` (the proxy's own check) and for families without one. TLVs
/// behind the addresses are skipped.
///
/// # Errors
/// An unknown version or command, or fewer bytes than the family has.
pub fn from_binary(fixed: &[u8; BINARY_BYTES], rest: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(NoHeader),
    };
    match (is_local, fixed[13]) {
        (true, _) => Ok(None),
        (false, 0x11) => {
            let bytes: &[u8; 12] = rest.first_chunk().ok_or(NoHeader)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *bytes;
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))))
        }
        (false, 0x21) => {
            let bytes: &[u8; 36] = rest.first_chunk().ok_or(NoHeader)?;
            let source: [u8; 16] = *bytes.first_chunk().expect("36 bytes have 16");
            let port = u16::from_be_bytes([bytes[32], bytes[33]]);
            Ok(Some(SocketAddr::new(Ipv6Addr::from(source).into(), port)))
        }
        // UDP, unix sockets, unspecified: a connection all the same, whose client has no address.
        (false, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(command: u8, family: u8, rest: u16) -> [u8; BINARY_BYTES] {
        let mut bytes = [0; BINARY_BYTES];
        bytes[..PREFIX_BYTES].copy_from_slice(&SIGNATURE);
        bytes[12] = command;
        bytes[13] = family;
        bytes[14..].copy_from_slice(&rest.to_be_bytes());
        bytes
    }

    #[test]
    fn lines_name_the_client() {
        let read = |line: &str| from_line(line.as_bytes());
        let v4 = "192.0.2.7:5000".parse().unwrap();
        assert_eq!(read("PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n"), Ok(Some(v4)));
        let v6 = "[2001:db8::7]:5000".parse().unwrap();
        assert_eq!(read("PROXY TCP6 2001:db8::7 ::1 5000 443\r\n"), Ok(Some(v6)));
        assert_eq!(read("PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(read("PROXY UNKNOWN anything at all\r\n"), Ok(None));
    }

    #[test]
    fn lines_that_are_not_to_the_letter_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443 9\r\n",
            "PROXY  TCP4 192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY TCP4 2001:db8::7 ::1 5000 443\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +5000 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 443\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(from_line(line.as_bytes()), Err(NoHeader), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(from_line(long.as_bytes()), Err(NoHeader));
    }

    #[test]
    fn binary_headers_name_the_client_and_skip_what_follows() {
        let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x13, 0x88, 1, 187];
        let client = Some("192.0.2.7:5000".parse().unwrap());
        assert_eq!(from_binary(&fixed(0x21, 0x11, 12), &v4), Ok(client));
        let with_tlv = [&v4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(binary_rest(&fixed(0x21, 0x11, 16)), with_tlv.len());
        assert_eq!(from_binary(&fixed(0x21, 0x11, 16), &with_tlv), Ok(client));
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&5000_u16.to_be_bytes());
        assert_eq!(from_binary(&fixed(0x21, 0x21, 36), &v6), Ok(Some("[2001:db8::7]:5000".parse().unwrap())));
        assert_eq!(from_binary(&fixed(0x20, 0, 0), &[]), Ok(None));
        assert_eq!(from_binary(&fixed(0x21, 0x31, 216), &[0; 216]), Ok(None));
    }

    #[test]
    fn broken_binary_headers_are_refused() {
        assert_eq!(from_binary(&fixed(0x21, 0x11, 11), &[0; 11]), Err(NoHeader));
        assert_eq!(from_binary(&fixed(0x21, 0x21, 12), &[0; 12]), Err(NoHeader));
        assert_eq!(from_binary(&fixed(0x11, 0x11, 12), &[0; 12]), Err(NoHeader));
        assert_eq!(from_binary(&fixed(0x22, 0x11, 12), &[0; 12]), Err(NoHeader));
        assert_eq!(Version::of(b"GET / HTTP/1"), Err(NoHeader));
    }
}
