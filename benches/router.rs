//! What a lookup costs as the number of routes grows.

use divan::{Bencher, black_box};
use flagstone::route::{Found, PathSet, Table};
use http::Method;

const COUNTS: [usize; 3] = [1, 100, 1000];

fn main() {
    divan::main();
}

/// Many paths on one host.
#[divan::bench(args = COUNTS, sample_size = 256)]
fn by_path(bencher: Bencher<'_, '_>, count: usize) {
    let mut table = Table::new();
    for i in 0..count {
        table.add(&[], &[format!("/service-{i}/api")], &[], i).expect("patterns are good");
    }
    let path = format!("/service-{}/api/orders/1234", count / 2);
    bencher.bench_local(|| found(&table, "www.example.com", &path));
}

/// Many hosts with a few paths each.
#[divan::bench(args = COUNTS, sample_size = 256)]
fn by_host(bencher: Bencher<'_, '_>, count: usize) {
    let mut table = Table::new();
    for i in 0..count {
        let host = format!("tenant-{}.example.com", i / 4);
        let path = ["/", "/api", "/static", "=/ping"][i % 4];
        table.add(&[host], &[path.to_owned()], &[], i).expect("patterns are good");
    }
    let host = format!("tenant-{}.example.com", count / 8);
    bencher.bench_local(|| found(&table, &host, "/api/orders/1234"));
}

/// Nothing but wildcards, and the worst path a client can send.
#[divan::bench(args = COUNTS, sample_size = 256)]
fn hostile(bencher: Bencher<'_, '_>, count: usize) {
    let mut table = Table::new();
    for i in 0..count {
        table.add(&[format!("*.tenant-{i}.example.com")], &["/a/a/a/a".to_owned()], &[], i).expect("patterns are good");
    }
    let host = format!("{}tenant-{}.example.com", "a.".repeat(100), count / 2);
    let path = "/a".repeat(4096);
    bencher.bench_local(|| found(&table, &host, &path));
}

#[divan::bench(args = COUNTS, sample_size = 256)]
fn path_set(bencher: Bencher<'_, '_>, count: usize) {
    let set = PathSet::parse((0..count).map(|i| format!("/service-{i}/health"))).expect("patterns are good");
    let path = format!("/service-{}/health/live", count / 2);
    bencher.bench_local(|| black_box(&set).contains(black_box(&path)));
}

fn found(table: &Table<usize>, host: &str, path: &str) -> usize {
    match black_box(table).find(black_box(host), black_box(path), &Method::GET) {
        Found::Route(&value) => value,
        other => panic!("no route: {other:?}"),
    }
}
