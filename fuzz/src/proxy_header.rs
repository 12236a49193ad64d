//! PROXY headers, against readers that go the other way: from what was found back to the bytes.

use std::net::SocketAddr;

use flagstone::message::proxy_protocol::{
    BINARY_BYTES, LINE_BYTES_MAX, PREFIX_BYTES, Version, binary_rest, from_binary, from_line,
};

/// What is found stands in the header, where the protocol says.
pub fn check(bytes: &[u8]) {
    if let Ok(Some(source)) = from_line(bytes) {
        check_line(bytes, source);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<BINARY_BYTES>() else { return };
    let prefix: &[u8; PREFIX_BYTES] = fixed.first_chunk().expect("the prefix is shorter");
    let is_binary = Version::of(prefix) == Ok(Version::Two);
    assert_eq!(is_binary, prefix == b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(Version::of(prefix) == Ok(Version::One), prefix.starts_with(b"PROXY "));
    let rest = &rest[..binary_rest(fixed).min(rest.len())];
    if let Ok(Some(source)) = from_binary(fixed, rest) {
        check_binary(fixed, rest, source);
    }
}

fn check_line(line: &[u8], source: SocketAddr) {
    assert!(line.len() <= LINE_BYTES_MAX && line.is_ascii(), "{}", line.escape_ascii());
    let text = String::from_utf8_lossy(line).into_owned();
    let words: Vec<_> = text.strip_suffix("\r\n").expect("a whole line").split(' ').collect();
    let [proxy, family, from, to, from_port, to_port] = words[..] else { panic!("{text:?} has {} words", words.len()) };
    assert_eq!((proxy, family), ("PROXY", if source.is_ipv4() { "TCP4" } else { "TCP6" }));
    assert_eq!(from.parse(), Ok(source.ip()));
    assert_eq!(from_port.trim_start_matches('0').parse().unwrap_or(0), source.port());
    assert_eq!(to.contains(':'), source.is_ipv6());
    assert!(to_port.bytes().all(|byte| byte.is_ascii_digit()));
}

fn check_binary(fixed: &[u8; BINARY_BYTES], rest: &[u8], source: SocketAddr) {
    assert_eq!(fixed[12], 0x21, "only PROXY has an address");
    let written = match source {
        SocketAddr::V4(v4) => [&v4.ip().octets()[..], &rest[4..8], &v4.port().to_be_bytes()].concat(),
        SocketAddr::V6(v6) => [&v6.ip().octets()[..], &rest[16..32], &v6.port().to_be_bytes()].concat(),
    };
    assert!(rest.starts_with(&written), "{source} is not in {}", rest.escape_ascii());
    assert_eq!(fixed[13], if source.is_ipv4() { 0x11 } else { 0x21 });
}
