//! An address as text, without an allocation and without the machinery of `fmt` for IPv4: it is written for every
//! request.

use std::io::Write;
use std::net::IpAddr;

/// The canonical text of an address; an IPv4-mapped one is IPv4.
#[derive(Clone, Copy, Debug)]
pub struct IpText {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl IpText {
    /// The longest is an IPv4-mapped IPv6 address of full length, which does not come up here; it costs nothing.
    const BYTES_MAX: usize = 46;

    pub fn new(ip: IpAddr) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        let len = match ip.to_canonical() {
            IpAddr::V4(ip) => write_v4(&mut bytes, ip.octets()),
            IpAddr::V6(ip) => {
                let mut rest = bytes.as_mut_slice();
                write!(rest, "{ip}").expect("46 bytes hold any address");
                Self::BYTES_MAX - rest.len()
            }
        };
        Self { bytes, len }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn write_v4(out: &mut [u8], octets: [u8; 4]) -> usize {
    let mut len = 0;
    let mut push = |byte| {
        out[len] = byte;
        len += 1;
    };
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_the_standard_library_writes(v4 in any::<u32>(), v6 in any::<u128>()) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let (ours, theirs) = (IpText::new(ip), ip.to_canonical().to_string());
                prop_assert_eq!(ours.as_bytes(), theirs.as_bytes());
            }
        }
    }
}
