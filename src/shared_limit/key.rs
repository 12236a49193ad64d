//! The name of a key in Redis: the same in every instance, bounded, and telling nothing.

use std::fmt::Write as _;
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};

use crate::policy::limit::{Facts, Source, Value, ipv6_mask};

/// `flagstone:LIMIT:` and 32 hexadecimal digits. Values (addresses, API keys, cookies) are hashed, not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteKey {
    name: String,
}

const TAG_IPV4: u8 = 4;
const TAG_IPV6: u8 = 6;
const TAG_BYTES: u8 = 1;

impl RemoteKey {
    /// Parts are tagged and length-prefixed, so that they do not run together.
    pub(crate) fn new(limit: &str, source: &Source, facts: &Facts<'_>, ipv6_prefix: u8) -> Self {
        let mut hash = Context::new(&SHA256);
        for value in source.values(facts) {
            match value {
                Value::Ip(ip) => match ip.to_canonical() {
                    IpAddr::V4(ip) => {
                        hash.update(&[TAG_IPV4]);
                        hash.update(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        hash.update(&[TAG_IPV6]);
                        hash.update(&(ip.to_bits() & ipv6_mask(ipv6_prefix)).to_be_bytes());
                    }
                },
                Value::Bytes(bytes) => {
                    hash.update(&[TAG_BYTES]);
                    hash.update(&(bytes.len() as u64).to_be_bytes());
                    hash.update(bytes);
                }
            }
        }
        Self::named(limit, &hash.finish().as_ref()[..16])
    }

    /// What a node is tried with.
    pub(super) fn probe() -> Self {
        Self { name: "flagstone:probe".to_owned() }
    }

    fn named(limit: &str, digest: &[u8]) -> Self {
        let mut name = String::with_capacity("flagstone:".len() + limit.len() + 1 + 32);
        name.push_str("flagstone:");
        name.push_str(limit);
        name.push(':');
        for byte in digest {
            let _never = write!(name, "{byte:02x}");
        }
        Self { name }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The slot of the key in a cluster (Redis Cluster specification, "Hash tags" and appendix A).
    pub(super) fn slot(&self) -> u16 {
        let bytes = self.name.as_bytes();
        let tag = bytes.iter().position(|&byte| byte == b'{').and_then(|open| {
            let length = bytes[open + 1..].iter().position(|&byte| byte == b'}')?;
            (length > 0).then(|| &bytes[open + 1..open + 1 + length])
        });
        crc16(tag.unwrap_or(bytes)) % 16_384
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::policy::limit::Part;

    fn key(ip: &str, path: &str) -> RemoteKey {
        let headers = HeaderMap::new();
        let facts = Facts { client_ip: ip.parse().unwrap(), route: "r", path, headers: &headers };
        RemoteKey::new("per_ip", &Source::new(vec![Part::ClientIp, Part::Path]), &facts, 64)
    }

    #[test]
    fn every_instance_makes_the_same_name() {
        assert_eq!(key("192.0.2.1", "/a"), key("::ffff:192.0.2.1", "/a"));
        assert_eq!(key("2001:db8::1", "/a"), key("2001:db8::2", "/a"));
        assert_ne!(key("2001:db8::1", "/a"), key("2001:db8:0:1::1", "/a"));
        assert_ne!(key("192.0.2.1", "/a"), key("192.0.2.1", "/b"));
        // Instances of another build must agree as well: the name never changes.
        assert_eq!(key("192.0.2.1", "/a").name(), "flagstone:per_ip:25a536790f0d184aac8f2bbc70bdeea1");
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        let slot = |name: &str| RemoteKey { name: name.to_owned() }.slot();
        assert_eq!(slot("foo{hash_tag}"), slot("bar{hash_tag}"));
        assert_eq!(slot("foo"), 12_182);
    }
}
