//! What a finished request pays for being seen: its log line and its counters.
//!
//! `cargo bench --bench access_log`

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use divan::{Bencher, black_box};
use flagstone::telemetry::access_log::{AccessFormat, AccessLog, AccessLogTarget, Line};
use flagstone::telemetry::metrics::Metrics;

fn main() {
    divan::main();
}

fn line() -> Line<'static> {
    Line {
        unix_ms: 1_795_384_940_123,
        client: Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))),
        authorization: None,
        method: "GET",
        target: b"/api/orders?page=2&sort=created_at",
        version: http::Version::HTTP_11,
        status: 200,
        body_bytes: 1024,
        duration: Duration::from_micros(2_345),
        upstream: Some("app"),
        endpoint: Some("10.0.0.17:3000"),
        upstream_duration: Some(Duration::from_micros(2_100)),
        route: Some("api"),
        reason: None,
        request_id: Some("0193553e-7a54-7c9c-b3f1-94f2cf2f4f4e"),
        trace_id: None,
        referer: Some(b"https://example.com/orders"),
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"),
        host: Some(b"example.com"),
    }
}

#[divan::bench(args = [AccessFormat::Combined, AccessFormat::Json])]
fn write(bencher: Bencher<'_, '_>, format: AccessFormat) {
    let file = AccessLogTarget::File("/dev/null".into());
    let log = AccessLog::start(file, format, 1).expect("/dev/null opens");
    let line = line();
    bencher.bench_local(|| log.write(0, black_box(&line)));
}

#[divan::bench]
fn count_a_request(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::new(2);
    let route = metrics.route("api");
    bencher.bench_local(|| {
        route.begin(black_box(1));
        route.end(black_box(1), black_box(200), black_box(Duration::from_micros(2_345)));
    });
}

#[divan::bench]
fn scrape_a_thousand_routes(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::new(2);
    for number in 0..1000 {
        let route = metrics.route(&format!("route-{number}"));
        for status in [200, 404, 503] {
            route.begin(number);
            route.end(number, status, Duration::from_millis(1));
        }
    }
    bencher.bench_local(|| black_box(metrics.encode().len()));
}
