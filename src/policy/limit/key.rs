//! What a limit counts by: a keyed 64-bit hash of the parts of a key.
//!
//! The hash is SipHash-1-3 under a secret 128-bit key: random, or the state folder's, so that the process after an
//! upgrade knows the keys of the one before. Clients choose header values, cookies, paths and, with IPv6, addresses;
//! with an unkeyed hash or one without security claims (foldhash says so of itself) they could look for values that
//! share a bucket with a victim, and so spend the victim's quota or push its entry out. Against a secret SipHash key
//! there is nothing to search offline. Two given keys collide with a chance of 2^-64; among a million keys held at
//! once, any pair does with a chance of 3 in 10^8, and what follows is that two clients share one bucket.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// A hashed key. Means something only together with the [`KeyHasher`] (and so the limiter) that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// The key of the hash.
pub type Seed = [u8; 16];

/// Makes keys under one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHasher {
    seed: Seed,
    ipv6_mask: u128,
}

/// A key in the making, for keys of several parts. Allocates nothing.
///
/// Parts are tagged and length-prefixed: `("ab", "c")` and `("a", "bc")` are different keys, as are the text
/// `127.0.0.1` and the address.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    hasher: SipHasher13,
    ipv6_mask: u128,
}

impl Key {
    /// Never zero: an empty slot of the table is one.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn from_hash(hash: u64) -> Self {
        Self(hash.max(1))
    }
}

/// Another number each time.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

impl KeyHasher {
    /// With a new random seed. IPv6 addresses count by their first `ipv6_prefix` bits, 0 to 128 (above counts as 128).
    pub fn new(ipv6_prefix: u8) -> Self {
        let mut seed = Seed::default();
        seed[..8].copy_from_slice(&random().to_ne_bytes());
        seed[8..].copy_from_slice(&random().to_ne_bytes());
        Self::with_seed(seed, ipv6_prefix)
    }

    /// [`KeyHasher::new`] with a seed that others may have too; it has to be hard to guess.
    pub fn with_seed(seed: Seed, ipv6_prefix: u8) -> Self {
        Self { seed, ipv6_mask: ipv6_mask(ipv6_prefix) }
    }

    /// The same seed with another prefix length: all keys but those of IPv6 clients stay what they are.
    pub fn with_ipv6_prefix(&self, ipv6_prefix: u8) -> Self {
        Self { seed: self.seed, ipv6_mask: ipv6_mask(ipv6_prefix) }
    }

    #[inline]
    pub fn builder(&self) -> KeyBuilder {
        KeyBuilder { hasher: SipHasher13::new_with_key(&self.seed), ipv6_mask: self.ipv6_mask }
    }

    /// The key of one client address, as [`KeyBuilder::ip`] alone makes it.
    #[inline]
    pub fn ip(&self, ip: IpAddr) -> Key {
        self.builder().ip(ip).finish()
    }
}

impl KeyBuilder {
    /// A client address: an IPv4-mapped IPv6 address is the IPv4 address, any other IPv6 address is its prefix.
    #[inline]
    #[must_use]
    pub fn ip(mut self, ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                // One write of one block is what SipHash does fastest.
                let tagged = u64::from(ip.to_bits()) | u64::from(TAG_IPV4) << 56;
                self.hasher.write_u64(tagged);
            }
            IpAddr::V6(ip) => {
                let mut block = [0; 24];
                block[..16].copy_from_slice(&(ip.to_bits() & self.ipv6_mask).to_ne_bytes());
                block[16..].copy_from_slice(&(u64::from(TAG_IPV6) << 56).to_ne_bytes());
                self.hasher.write(&block);
            }
        }
        self
    }

    /// Text or bytes: a header's value, a cookie, a path, a route's name.
    #[inline]
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.hasher.write_u64(bytes.len() as u64 | u64::from(TAG_BYTES) << 56);
        self.hasher.write(bytes);
        self
    }

    /// With no parts at all: the one key of a global limit.
    #[inline]
    pub fn finish(self) -> Key {
        Key::from_hash(self.hasher.finish())
    }
}

const TAG_IPV4: u8 = 4;
const TAG_IPV6: u8 = 6;
const TAG_BYTES: u8 = 1;

/// The bits of an IPv6 address that count when its first `prefix` do.
pub(crate) fn ipv6_mask(prefix: u8) -> u128 {
    let host_bits = 128 - u32::from(prefix.min(128));
    u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv6_counts_by_prefix() {
        let keys = KeyHasher::new(64);
        assert_eq!(keys.ip(ip("2001:db8::1")), keys.ip(ip("2001:db8::ffff:2")));
        assert_ne!(keys.ip(ip("2001:db8::1")), keys.ip(ip("2001:db8:0:1::1")));
        let whole = keys.with_ipv6_prefix(128);
        assert_ne!(whole.ip(ip("2001:db8::1")), whole.ip(ip("2001:db8::2")));
        let none = keys.with_ipv6_prefix(0);
        assert_eq!(none.ip(ip("2001:db8::1")), none.ip(ip("fe80::2")));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let keys = KeyHasher::new(64);
        assert_eq!(keys.ip(ip("::ffff:192.0.2.1")), keys.ip(ip("192.0.2.1")));
        assert_ne!(keys.ip(ip("::ffff:192.0.2.1")), keys.ip(ip("192.0.2.2")));
    }

    #[test]
    fn another_prefix_keeps_the_other_keys() {
        let keys = KeyHasher::new(64);
        let other = keys.with_ipv6_prefix(48);
        assert_eq!(keys.ip(ip("192.0.2.1")), other.ip(ip("192.0.2.1")));
        assert_eq!(keys.builder().bytes(b"x").finish(), other.builder().bytes(b"x").finish());
    }

    #[test]
    fn two_hashers_disagree() {
        assert_ne!(KeyHasher::new(64).ip(ip("192.0.2.1")), KeyHasher::new(64).ip(ip("192.0.2.1")));
    }

    #[test]
    fn the_text_of_an_address_is_not_the_address() {
        let keys = KeyHasher::new(64);
        assert_ne!(keys.ip(ip("192.0.2.1")), keys.builder().bytes(b"192.0.2.1").finish());
        assert_ne!(keys.builder().finish(), keys.builder().bytes(b"").finish());
    }

    proptest! {
        #[test]
        fn parts_do_not_run_together(a in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
                                     b in proptest::collection::vec(any::<Vec<u8>>(), 0..4)) {
            let keys = KeyHasher::new(64);
            let key = |parts: &[Vec<u8>]| parts.iter().fold(keys.builder(), |key, part| key.bytes(part)).finish();
            prop_assert_eq!(key(&a) == key(&b), a == b);
            let joined = vec![a.concat()];
            prop_assert_eq!(key(&a) == key(&joined), a == joined);
        }
    }
}
