//! What is done to the fields of every proxied request: taking off what belongs to one hop, telling the app about its
//! client, reading host and path.
//!
//! `cargo bench --bench headers`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use divan::{Bencher, black_box};
use flagstone::message::host::Host;
use flagstone::message::ip_text::IpText;
use flagstone::message::{forwarded, hop_by_hop, path};
use http::{HeaderMap, HeaderName, HeaderValue};

fn main() {
    divan::main();
}

/// As a browser sends it.
fn request() -> HeaderMap {
    let fields = [
        ("host", "example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://example.com/orders"),
        ("connection", "keep-alive"),
        ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
        ("sec-fetch-mode", "navigate"),
    ];
    map(&fields)
}

/// As an app behind nginx answers.
fn response() -> HeaderMap {
    let fields = [
        ("server", "nginx"),
        ("date", "Sun, 22 Nov 2026 22:02:20 GMT"),
        ("content-type", "text/html; charset=utf-8"),
        ("content-length", "1024"),
        ("connection", "keep-alive"),
    ];
    map(&fields)
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[divan::bench]
fn strip_a_request(bencher: Bencher<'_, '_>) {
    let came = request();
    bencher.with_inputs(|| came.clone()).bench_local_refs(|headers| hop_by_hop::strip_request(headers, false));
}

#[divan::bench]
fn strip_a_response(bencher: Bencher<'_, '_>) {
    let came = response();
    bencher.with_inputs(|| came.clone()).bench_local_refs(hop_by_hop::strip_response);
}

#[divan::bench(args = [false, true])]
fn tell_of_the_client(bencher: Bencher<'_, '_>, peer_trusted: bool) {
    let came = request();
    let peer_ip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let facts = forwarded::Facts {
        peer_trusted,
        client: forwarded::ip_value(peer_ip),
        peer_ip,
        proto: "https",
        host: Some(HeaderValue::from_static("example.com")),
        request_id: HeaderValue::from_static("0193553e7a547c9cb3f194f2cf2f4f4e"),
    };
    bencher.with_inputs(|| (came.clone(), facts.clone())).bench_local_values(|(mut headers, facts)| {
        let told = forwarded::replace(&mut headers, facts);
        (headers, told)
    });
}

#[divan::bench(args = [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9))])]
fn write_an_address(ip: IpAddr) -> IpText {
    IpText::new(black_box(ip))
}

#[divan::bench(args = ["example.com", "Example.com:8443", "[2001:db8::9]:443"])]
fn read_a_host(text: &str) -> Option<Host> {
    Host::parse(black_box(text.as_bytes())).ok()
}

#[divan::bench(args = ["/", "/api/v1/orders/42", "/a/./b/%7euser"])]
fn normalise_a_path(text: &str) -> usize {
    path::normalise(black_box(text)).map_or(0, |path| path.len())
}
