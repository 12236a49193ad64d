use http::header::HeaderValue;
use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1";
const STRANGER: &str = "203.0.113.50";

fn trusted() -> TrustedProxies {
    TrustedProxies::new(["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec())
}

fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, HeaderValue::from_str(line).unwrap());
    }
    headers
}

fn resolve(peer: &str, name: &'static str, lines: &[&str], source: Source) -> String {
    trusted().resolve(peer.parse().unwrap(), &headers(name, lines), source).ip.to_string()
}

#[test]
fn an_untrusted_peer_is_the_client_whatever_it_says() {
    for (name, source) in
        [("x-forwarded-for", Source::XForwardedFor), ("forwarded", Source::Forwarded), ("x-real-ip", Source::XRealIp)]
    {
        let found = trusted().resolve(STRANGER.parse().unwrap(), &headers(name, &["for=10.0.0.9", "1.1.1.1"]), source);
        assert_eq!(found, ClientIp { ip: STRANGER.parse().unwrap(), peer_trusted: false });
    }
}

#[test]
fn x_forwarded_for_gives_the_rightmost_untrusted_hop() {
    let cases: &[(&[&str], &str)] = &[
        (&[], PROXY),
        (&["198.51.100.7"], "198.51.100.7"),
        (&["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        (&["198.51.100.7, 10.0.0.3,10.0.0.2"], "198.51.100.7"),
        (&["1.1.1.1", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        (&["198.51.100.7", "10.0.0.2", "10.0.0.3"], "198.51.100.7"),
        // All trusted: the farthest.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        // Empty elements are no hops.
        (&["198.51.100.7, , 10.0.0.2,"], "198.51.100.7"),
        (&["", "198.51.100.7"], "198.51.100.7"),
        // Rubbish stops at the last good hop.
        (&["198.51.100.7, garbage"], PROXY),
        (&["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
        (&["198.51.100.7, 10.0.0.2 10.0.0.3"], PROXY),
        (&["1.2.3"], PROXY),
        (&["01.2.3.4"], PROXY),
        (&["fe80::1%eth0"], PROXY),
        // Ports and brackets.
        (&["198.51.100.7:4711"], "198.51.100.7"),
        (&["198.51.100.7:99x"], PROXY),
        (&["[2001:db8::1]:443"], "2001:db8::1"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["[2001:db8::1]x"], PROXY),
        (&["[198.51.100.7]"], PROXY),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["2001:db8::1, fd00::2"], "2001:db8::1"),
        // Mapped addresses are IPv4, also when asked whether they are trusted.
        (&["::ffff:198.51.100.7"], "198.51.100.7"),
        (&["198.51.100.7, ::ffff:10.0.0.2"], "198.51.100.7"),
    ];
    for (lines, expected) in cases {
        assert_eq!(resolve(PROXY, "x-forwarded-for", lines, Source::XForwardedFor), *expected, "{lines:?}");
    }
    assert_eq!(resolve("::ffff:10.0.0.1", "x-forwarded-for", &["1.1.1.1"], Source::XForwardedFor), "1.1.1.1");
}

#[test]
fn forwarded_gives_the_rightmost_untrusted_hop() {
    let cases: &[(&[&str], &str)] = &[
        (&["for=198.51.100.7"], "198.51.100.7"),
        (&["For=198.51.100.7;proto=http;by=203.0.113.43"], "198.51.100.7"),
        (&["proto=http; for=\"198.51.100.7:4711\""], "198.51.100.7"),
        (&["for=1.1.1.1, for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
        (&["for=198.51.100.7, for=10.0.0.2", "for=10.0.0.3"], "198.51.100.7"),
        (&["for=\"198.51.100.7:_gazonk\""], "198.51.100.7"),
        (&["for=\"\\198.51.100.7\""], "198.51.100.7"),
        // No address, or not one that can be told.
        (&["for=198.51.100.7, for=unknown"], PROXY),
        (&["for=198.51.100.7, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (&["for=198.51.100.7, proto=http"], PROXY),
        (&["for=198.51.100.7;for=1.1.1.1"], PROXY),
        (&["for=2001:db8::1"], "2001:db8::1"),
        (&["for=\"198.51.100.7:_\""], PROXY),
        (&["for=\"198.51.100.7:_a/b\""], PROXY),
        // A backslash escapes only within quotes.
        (&["x\\,for=198.51.100.7"], "198.51.100.7"),
        // Quotes hide commas and semicolons, and must close.
        (&["for=198.51.100.7;host=\"a,for=1.1.1.1;b\""], "198.51.100.7"),
        (&["for=1.1.1.1;host=\"a\\\",for=2.2.2.2\""], "1.1.1.1"),
        (&["for=198.51.100.7, for=\"10.0.0.2"], PROXY),
        (&["for=\"198.51.100.7\"x"], PROXY),
    ];
    for (lines, expected) in cases {
        assert_eq!(resolve(PROXY, "forwarded", lines, Source::Forwarded), *expected, "{lines:?}");
    }
}

#[test]
fn forwarded_tells_how_the_client_came_to_the_first_trusted_proxy() {
    let cases: &[(&[&str], Option<&str>, Option<&str>)] = &[
        (&["for=198.51.100.7;proto=https;host=a.example"], Some("https"), Some("a.example")),
        (&["Host=\"a.example:8443\"; PROTO=\"HTTPS\";for=198.51.100.7"], Some("HTTPS"), Some("a.example:8443")),
        // The ways between proxies are other ways, also where nothing is said of the first.
        (&["for=198.51.100.7;proto=https", "for=10.0.0.2;proto=http;host=inner"], Some("https"), None),
        (&["for=198.51.100.7, for=10.0.0.2;proto=https;host=inner"], None, None),
        (&["for=10.0.0.3;proto=https;host=a, for=10.0.0.2;proto=http"], Some("https"), Some("a")),
        // What stands farther was written by whoever likes.
        (&["for=1.1.1.1;proto=https;host=evil, for=198.51.100.7"], None, None),
        (&["for=10.0.0.9;proto=https", "for=198.51.100.7;proto=http"], Some("http"), None),
        // Who it was need not be told (RFC 7239, 6.2 and 6.3).
        (&["for=1.1.1.1;proto=http, for=_hidden;proto=https"], Some("https"), None),
        (&["for=unknown;proto=https"], Some("https"), None),
        (&["for=1.1.1.1, proto=https;host=a"], Some("https"), Some("a")),
        // What makes no sense.
        (&["for=198.51.100.7;proto=https;proto=http;host=a"], None, Some("a")),
        (&["for=198.51.100.7;proto=https, for=\"10.0.0.2"], None, None),
        (&["for=198.51.100.7;host=\"a\"b"], None, None),
        (&["for=198.51.100.7;proto;host="], None, Some("")),
        (&[""], None, None),
        (&[], None, None),
    ];
    for (lines, proto, host) in cases {
        let text = |text: &Option<&str>| text.map(|text| text.as_bytes().into());
        let expected = Arrival { proto: text(proto), host: text(host) };
        assert_eq!(trusted().arrival(&headers("forwarded", lines)), expected, "{lines:?}");
    }
}

#[test]
fn x_real_ip_is_one_address_or_nothing() {
    let cases: &[(&[&str], &str)] = &[
        (&["198.51.100.7"], "198.51.100.7"),
        (&[" 198.51.100.7 "], "198.51.100.7"),
        (&["198.51.100.7, 1.1.1.1"], PROXY),
        (&["198.51.100.7", "198.51.100.7"], PROXY),
        (&["x"], PROXY),
        (&[], PROXY),
    ];
    for (lines, expected) in cases {
        assert_eq!(resolve(PROXY, "x-real-ip", lines, Source::XRealIp), *expected, "{lines:?}");
    }
}

#[test]
fn only_the_configured_header_is_read() {
    assert_eq!(resolve(PROXY, "x-real-ip", &["1.1.1.1"], Source::XForwardedFor), PROXY);
    assert_eq!(resolve(PROXY, "x-forwarded-for", &["1.1.1.1"], Source::Forwarded), PROXY);
}

proptest! {
    /// Whatever the client wrote on the left, the hop our proxy appended decides.
    #[test]
    fn the_left_is_never_believed(junk in "[ -~]{0,60}", client in any::<u32>()) {
        let client = IpAddr::V4(client.into());
        prop_assume!(!trusted().contains(client));
        let appended = format!("{junk}, {client}, 10.0.0.2");
        prop_assert_eq!(resolve(PROXY, "x-forwarded-for", &[&appended], Source::XForwardedFor), client.to_string());
        let element = format!("for={client}, for=10.0.0.2");
        prop_assert_eq!(resolve(PROXY, "forwarded", &[&junk, &element], Source::Forwarded), client.to_string());
    }

    #[test]
    fn lines_and_commas_are_the_same(hops in proptest::collection::vec("10\\.0\\.0\\.[0-9]|1\\.1\\.1\\.[0-9]|x", 0..6)) {
        let lines: Vec<&str> = hops.iter().map(String::as_str).collect();
        let joined = lines.join(",");
        prop_assert_eq!(
            resolve(PROXY, "x-forwarded-for", &lines, Source::XForwardedFor),
            resolve(PROXY, "x-forwarded-for", &[&joined], Source::XForwardedFor)
        );
    }
}
