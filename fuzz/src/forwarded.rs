//! Who the client is and what the app is told of it, whatever stands in the headers.

use std::net::IpAddr;

use flagstone::message::forwarded::{self, Facts};
use flagstone::policy::client_ip::{Source, TrustedProxies};
use http::{HeaderMap, HeaderName, HeaderValue};

const PEER: &str = "10.0.0.1";

/// Lines are `name: value`. The client is the peer, or an address that a trusted proxy wrote; what the app is told of
/// it is one line each, and is ours.
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

fn check_told(mut headers: HeaderMap, peer: IpAddr, client: IpAddr, peer_trusted: bool) {
    let before = headers.clone();
    let request_id = forwarded::kept_request_id(&before, peer_trusted).cloned();
    let request_id = request_id.unwrap_or(HeaderValue::from_static("new"));
    let (client_text, host) = (forwarded::ip_value(client), Some(HeaderValue::from_static("a.example")));
    let facts = Facts { peer_trusted, client: client_text, peer_ip: peer, proto: "https", host, request_id };
    let told = forwarded::replace(&mut headers, facts);
    forwarded::put(&mut headers, told);
    let single = |name: &str| {
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        lines[0].to_str().expect("visible ASCII").to_owned()
    };
    assert_eq!(single("x-real-ip"), client.to_string());
    assert!(["http", "https"].contains(&single("x-forwarded-proto").as_str()));
    assert!(!single("x-forwarded-host").contains(['/', ',', ' ', '"']));
    assert!((1..=128).contains(&single("x-request-id").len()));
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
