//! Who may come in by address: sets of networks, and a route's allow and deny lists.
//!
//! Not the runtime block list's lifetimes: whoever keeps those builds a [`NetSet`] anew.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// A set of networks, kept as sorted ranges that neither overlap nor touch; a question is one binary search.
///
/// IPv4 networks written as IPv4-mapped IPv6 (`::ffff:10.0.0.0/104`) are the IPv4 networks they stand for, and
/// mapped addresses are asked about as IPv4. `::/0` therefore is every IPv6 address and no IPv4 one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// A route's `allow` and `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Empty = everyone.
    allow: NetSet,
    deny: NetSet,
}

/// Why an address may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the address is on the deny list")]
    Listed,
    #[error("the address is not on the allow list")]
    NotAllowed,
}

impl Access {
    pub fn new(allow: impl IntoIterator<Item = IpNet>, deny: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allow: allow.into_iter().collect(), deny: deny.into_iter().collect() }
    }

    /// Whether neither list says anything.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Deny is asked first: an address on both lists stays out.
    ///
    /// # Errors
    /// Which list keeps the address out.
    pub fn check(&self, ip: IpAddr) -> Result<(), Denied> {
        if self.deny.contains(ip) {
            return Err(Denied::Listed);
        }
        if !self.allow.is_empty() && !self.allow.contains(ip) {
            return Err(Denied::NotAllowed);
        }
        Ok(())
    }
}

/// The IPv4 network that one written as IPv4-mapped IPv6 stands for; any other as it is.
pub fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(mapped) = net else { return net };
    let v4 = mapped.prefix_len().checked_sub(96).zip(mapped.addr().to_ipv4_mapped());
    v4.map_or(net, |(prefix, address)| Ipv4Net::new_assert(address, prefix).into())
}

impl NetSet {
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => covers(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => covers(&self.v6, u128::from(ip)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for NetSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let mut set = Self::default();
        for net in nets {
            match (net.network(), net.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => set.v4.push((first.into(), last.into())),
                (IpAddr::V6(first), IpAddr::V6(last)) => set.push_v6(first, last),
                _ => unreachable!("a network has one family"),
            }
        }
        merge(&mut set.v4, |last| last.checked_add(1));
        merge(&mut set.v6, |last| last.checked_add(1));
        set
    }
}

impl NetSet {
    fn push_v6(&mut self, first: Ipv6Addr, last: Ipv6Addr) {
        match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
            (Some(first), Some(last)) => self.v4.push((first.into(), last.into())),
            _ => self.v6.push((first.into(), last.into())),
        }
    }
}

fn covers<N: Copy + Ord>(ranges: &[(N, N)], ip: N) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= ip);
    after > 0 && ip <= ranges[after - 1].1
}

/// Sorts, and joins what overlaps or touches. `next` is the following number, `None` after the greatest.
fn merge<N: Copy + Ord>(ranges: &mut Vec<(N, N)>, next: impl Fn(N) -> Option<N>) {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let joins = next(earlier.1).is_none_or(|next| later.0 <= next);
        if joins {
            earlier.1 = earlier.1.max(later.1);
        }
        joins
    });
    ranges.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn edges_of_a_network_are_inside_and_neighbours_are_not() {
        let set: NetSet = nets(&["10.1.0.0/16", "192.0.2.1/32", "2001:db8::/32"]).into_iter().collect();
        for inside in ["10.1.0.0", "10.1.255.255", "192.0.2.1", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"]
        {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in
            ["10.0.255.255", "10.2.0.0", "192.0.2.0", "192.0.2.2", "2001:db7:ffff::", "2001:db9::", "::a01:1"]
        {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let set: NetSet = nets(&["10.0.0.0/8", "::ffff:192.0.2.0/120"]).into_iter().collect();
        assert!(set.contains(ip("::ffff:10.1.2.3")));
        assert!(set.contains(ip("192.0.2.77")));
        assert!(!set.contains(ip("192.0.3.1")));
        let all_v6: NetSet = nets(&["::/0"]).into_iter().collect();
        assert!(all_v6.contains(ip("2001:db8::1")));
        assert!(!all_v6.contains(ip("::ffff:10.1.2.3")));
    }

    #[test]
    fn everything_is_a_network_too() {
        let set: NetSet = nets(&["0.0.0.0/0", "255.255.255.255/32", "::/0", "::1/128"]).into_iter().collect();
        assert!(set.contains(ip("255.255.255.255")));
        assert!(set.contains(ip("0.0.0.0")));
        assert_eq!((set.v4.len(), set.v6.len()), (1, 1));
    }

    #[test]
    fn networks_that_touch_become_one_range() {
        let set: NetSet = nets(&["10.0.1.0/24", "10.0.0.0/24", "10.0.1.128/25", "10.0.3.0/24"]).into_iter().collect();
        assert_eq!(set.v4.len(), 2);
        assert!(!set.contains(ip("10.0.2.0")));
    }

    #[test]
    fn deny_wins_and_a_filled_allow_list_keeps_others_out() {
        let access = Access::new(nets(&["10.0.0.0/8"]), nets(&["10.6.6.0/24"]));
        assert_eq!(access.check(ip("10.1.1.1")), Ok(()));
        assert_eq!(access.check(ip("10.6.6.6")), Err(Denied::Listed));
        assert_eq!(access.check(ip("11.1.1.1")), Err(Denied::NotAllowed));
        assert_eq!(access.check(ip("::1")), Err(Denied::NotAllowed));
        assert_eq!(Access::default().check(ip("11.1.1.1")), Ok(()));
        assert_eq!(Access::new([], nets(&["10.6.6.0/24"])).check(ip("::ffff:10.6.6.6")), Err(Denied::Listed));
    }

    #[test]
    fn only_without_lists_is_it_open() {
        assert!(Access::default().is_open());
        assert!(!Access::new(nets(&["10.0.0.0/8"]), []).is_open());
        assert!(!Access::new([], nets(&["::1/128"])).is_open());
    }

    fn a_net() -> impl Strategy<Value = IpNet> {
        // Few distinct leading bits, so that networks meet.
        prop_oneof![
            (0u32..8, 24u8..=32)
                .prop_map(|(bits, len)| IpNet::new(IpAddr::V4((0x0a00_0000 | bits << 5).into()), len).unwrap()),
            (0u128..8, 120u8..=128).prop_map(|(bits, len)| IpNet::new(IpAddr::V6((bits << 5).into()), len).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn contains_what_any_network_contains(nets in proptest::collection::vec(a_net(), 0..12), low in 0u32..300, v6 in any::<bool>()) {
            let ip = if v6 { IpAddr::V6(u128::from(low).into()) } else { IpAddr::V4((0x0a00_0000 | low).into()) };
            let set: NetSet = nets.iter().copied().collect();
            prop_assert_eq!(set.contains(ip), nets.iter().any(|net| net.contains(&ip)));
        }
    }
}
