//! What a request pays for lists of networks: `cargo bench --bench access`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use divan::{Bencher, black_box};
use flagstone::policy::access::NetSet;
use flagstone::policy::block_list::BlockList;
use ipnet::IpNet;

fn main() {
    divan::main();
}

/// Networks that neither touch nor overlap, half of them IPv6.
fn list(entries: u32) -> NetSet {
    let mut list = BlockList::default();
    for number in 0..entries / 2 {
        list.block(IpNet::new(Ipv4Addr::from(number << 9).into(), 24).unwrap(), None);
        list.block(IpNet::new(Ipv6Addr::from(u128::from(number) << 81).into(), 48).unwrap(), None);
    }
    list.nets()
}

#[divan::bench(args = [2, 1_000, 10_000, 100_000])]
fn ipv4(bencher: Bencher<'_, '_>, entries: u32) {
    let nets = list(entries);
    let mut step = 0u32;
    bencher.bench_local(|| {
        step = step.wrapping_add(2_654_435_769);
        nets.contains(IpAddr::V4(Ipv4Addr::from(black_box(step))))
    });
}

#[divan::bench(args = [2, 1_000, 10_000, 100_000])]
fn ipv6(bencher: Bencher<'_, '_>, entries: u32) {
    let nets = list(entries);
    let mut step = 0u128;
    bencher.bench_local(|| {
        step = step.wrapping_add(2_654_435_769 << 70);
        nets.contains(IpAddr::V6(Ipv6Addr::from(black_box(step))))
    });
}
