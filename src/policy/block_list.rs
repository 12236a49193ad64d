//! Networks that may not come in, each for good or until a moment. Pure: whoever owns it says what time it is.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;

use super::access::{NetSet, canonical};

/// Networks that are blocked, with the ends of their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockList(BTreeMap<IpNet, Option<Timestamp>>);

impl BlockList {
    /// Blocks `net`, host bits aside, until `until` or for good; what was said of the same network before is replaced.
    pub fn block(&mut self, net: IpNet, until: Option<Timestamp>) {
        self.0.insert(canonical(net).trunc(), until);
    }

    /// Takes that very network off the list, not those inside or around it; false when it is not on it.
    pub fn unblock(&mut self, net: IpNet) -> bool {
        self.0.remove(&canonical(net).trunc()).is_some()
    }

    /// Takes off what is over; whether there was any.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.0.len();
        self.0.retain(|_, until| until.is_none_or(|until| now < until));
        self.0.len() < before
    }

    /// Whether [`Self::expire`] would take anything off.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.0.values().any(|until| until.is_some_and(|until| until <= now))
    }

    /// What is blocked as of now, to ask quickly.
    pub fn nets(&self) -> NetSet {
        self.0.keys().copied().collect()
    }

    /// IPv4 first, in order of addresses.
    pub fn entries(&self) -> impl Iterator<Item = (IpNet, Option<Timestamp>)> {
        self.0.iter().map(|(net, until)| (*net, *until))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_blocked_for_a_while_comes_off_and_the_rest_stays() {
        let mut list = BlockList::default();
        list.block(net("192.0.2.7/24"), Some(at(100)));
        list.block(net("2001:db8::/32"), None);
        assert!(list.nets().contains("192.0.2.200".parse().unwrap()));
        assert!(!list.has_expired(at(99)) && !list.expire(at(99)));
        assert!(list.has_expired(at(100)) && list.expire(at(100)));
        assert!(!list.nets().contains("192.0.2.200".parse().unwrap()));
        assert_eq!(list.entries().collect::<Vec<_>>(), [(net("2001:db8::/32"), None)]);
    }

    #[test]
    fn a_network_is_taken_off_by_its_own_name_only() {
        let mut list = BlockList::default();
        list.block(net("10.0.0.0/8"), None);
        assert!(!list.unblock(net("10.1.0.0/16")));
        assert!(list.unblock(net("10.9.9.9/8")), "host bits do not matter");
        assert!(list.is_empty());
    }

    #[test]
    fn a_network_of_mapped_addresses_is_that_of_ipv4() {
        let mut list = BlockList::default();
        list.block(net("::ffff:10.0.0.7/104"), None);
        assert_eq!(list.entries().collect::<Vec<_>>(), [(net("10.0.0.0/8"), None)]);
        list.block(net("::ffff:203.0.113.7/128"), None);
        assert!(list.unblock(net("203.0.113.7/32")) && list.unblock(net("::ffff:10.0.0.0/104")));
        list.block(net("::/64"), None);
        assert_eq!(list.entries().collect::<Vec<_>>(), [(net("::/64"), None)], "it holds more than those");
    }

    #[test]
    fn blocking_again_replaces_the_end() {
        let mut list = BlockList::default();
        list.block(net("10.0.0.1/32"), Some(at(1)));
        list.block(net("10.0.0.1/32"), None);
        assert!(!list.expire(at(2)));
        assert_eq!(list.len(), 1);
    }
}
