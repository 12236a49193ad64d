//! Who the client is and what the app is told of it, whatever stands in the headers.

use std::net::IpAddr;

use flagstone::message::forwarded::{self, Facts};
use flagstone::policy::client_ip::{Arrival, Source, TrustedProxies};
use http::{HeaderMap, HeaderName, HeaderValue};

const PEER: &str = "10.0.0.1";

/// Lines are `name: value`. The client is the peer, or an address that a trusted proxy wrote, and so is how it came;
/// what the app is told of it is one line each, and is ours.
pub fn check(bytes: &[u8]) {
    let headers = parsed(bytes);
    let peer: IpAddr = PEER.parse().expect("an address");
    let trusting = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    let wary = TrustedProxies::new(Vec::new());
    for source in [Source::XForwardedFor, Source::Forwarded, Source::XRealIp] {
        let nobody = wary.resolve(peer, &headers, source);
        assert_eq!((nobody.ip, nobody.peer_trusted), (peer, false));
        let client = trusting.resolve(peer, &headers, source);
        assert!(client.peer_trusted && client.ip == client.ip.to_canonical());
        if matches!(source, Source::XForwardedFor) {
            check_hops(&headers, peer, client.ip);
        }
        for (is_trusted, client) in [(true, client.ip), (false, peer)] {
            check_told(headers.clone(), peer, client, is_trusted);
        }
    }
}

fn parsed(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

/// The rightmost that is not trusted, where everything up to there is plainly an address.
fn check_hops(headers: &HeaderMap, peer: IpAddr, found: IpAddr) {
    let lines = headers.get_all("x-forwarded-for").iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let all = lines.collect::<Vec<_>>().join(",");
    let mut client = peer;
    for hop in all.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
        // Ports and brackets have tests of their own; here the walk matters.
        let Ok(ip) = hop.parse::<IpAddr>() else { return };
        client = ip.to_canonical();
        if !matches!(client, IpAddr::V4(v4) if v4.octets()[0] == 10) {
            break;
        }
    }
    assert_eq!(found, client, "{all:?}");
}

/// What the first of the trusted proxies wrote, where the list is plain; whatever was written before that makes no
/// difference.
fn check_arrival(headers: &HeaderMap, trusting: &TrustedProxies, arrival: &Arrival) {
    let lines: Result<Vec<_>, _> = headers.get_all("forwarded").iter().map(HeaderValue::to_str).collect();
    let Ok(lines) = lines else { return };
    let all = lines.join(",");
    // Quotes, ports and brackets have tests of their own; here the walk matters.
    if all.contains(['"', '[']) || all.split(',').filter_map(|element| only(element, "for")).any(has_port) {
        return;
    }
    let names_trusted = |element: &str| {
        let ip = only(element, "for").and_then(|text| text.parse::<IpAddr>().ok());
        ip.is_some_and(|ip| trusting.contains(ip.to_canonical()))
    };
    let elements = || all.rsplit(',').filter(|element| !element.trim_ascii().is_empty());
    let stranger = elements().find(|element| !names_trusted(element));
    let told = |name| stranger.or(elements().next_back()).and_then(|element| only(element, name)).map(str::as_bytes);
    assert_eq!((arrival.proto.as_deref(), arrival.host.as_deref()), (told("proto"), told("host")), "{all:?}");

    if stranger.is_some() {
        let mut forged = HeaderMap::new();
        forged.append("forwarded", HeaderValue::from_static("for=10.0.0.9;proto=https;host=forged.example"));
        for line in headers.get_all("forwarded") {
            forged.append("forwarded", line.clone());
        }
        assert_eq!(trusting.arrival(&forged), *arrival, "{all:?}");
    }
}

/// The parameter, when the element has just one of that name.
fn only<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(key, _)| key.trim_ascii().eq_ignore_ascii_case(name));
    let (_, value) = named.next()?;
    named.next().is_none().then_some(value.trim_ascii())
}

fn has_port(text: &str) -> bool {
    text.contains(':') && text.parse::<IpAddr>().is_err()
}

/// Sane words of `Forwarded` stand for those of other headers, and whether it was https is the same wherever it is
/// asked.
fn check_preferred(mut headers: HeaderMap, peer: IpAddr, arrival: &Arrival) {
    let (proto, host) = (arrival.proto.as_deref(), arrival.host.as_deref());
    let is_https = forwarded::is_https(&headers, proto);
    forwarded::prefer(&mut headers, proto, host);
    let facts = Facts {
        peer_trusted: true,
        client: forwarded::ip_value(peer),
        peer_ip: peer,
        proto: "http",
        host: None,
        request_id: HeaderValue::from_static("new"),
    };
    let told = forwarded::replace(&mut headers, facts);
    forwarded::put(&mut headers, told);
    let told_proto = single(&headers, "x-forwarded-proto");
    assert_eq!(told_proto == "https", is_https);
    if let Some(proto) = proto.map(<[u8]>::to_ascii_lowercase).filter(|proto| proto == b"http" || proto == b"https") {
        assert_eq!(told_proto.as_bytes(), proto);
    }
    if let Some(host) = host.filter(|host| !host.is_empty() && host.iter().all(u8::is_ascii_alphanumeric)) {
        assert_eq!(single(&headers, "x-forwarded-host").as_bytes(), host);
    }
}

fn single(headers: &HeaderMap, name: &str) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    assert_eq!(lines.len(), 1, "{name}: {lines:?}");
    lines[0].to_str().expect("visible ASCII").to_owned()
}

fn check_told(mut headers: HeaderMap, peer: IpAddr, client: IpAddr, peer_trusted: bool) {
    let before = headers.clone();
    let request_id = forwarded::kept_request_id(&before, peer_trusted).cloned();
    let request_id = request_id.unwrap_or(HeaderValue::from_static("new"));
    let (client_text, host) = (forwarded::ip_value(client), Some(HeaderValue::from_static("a.example")));
    let facts = Facts { peer_trusted, client: client_text, peer_ip: peer, proto: "https", host, request_id };
    let told = forwarded::replace(&mut headers, facts);
    forwarded::put(&mut headers, told);
    assert_eq!(single(&headers, "x-real-ip"), client.to_string());
    assert!(["http", "https"].contains(&single(&headers, "x-forwarded-proto").as_str()));
    assert!(!single(&headers, "x-forwarded-host").contains(['/', ',', ' ', '"']));
    assert!((1..=128).contains(&single(&headers, "x-request-id").len()));
    let hops = headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>();
    assert!(hops.len() == 1 && hops[0].as_bytes().ends_with(peer.to_string().as_bytes()), "{hops:?}");
    for name in headers.keys().map(HeaderName::as_str) {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
        let is_claim = name.starts_with("x-forwarded-")
            || ["forwarded", "client-cert", "client-cert-chain", "x-client-cert-subject"].contains(&name);
        let is_ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].contains(&name);
        assert!(peer_trusted || !is_claim || is_ours, "{name} came through");
    }
    forwarded::set_client_certificate(&mut headers, None, None);
    for name in ["x-client-cert-subject", "client-cert", "client-cert-chain"] {
        assert!(!headers.contains_key(name), "{name} came through");
    }
}
