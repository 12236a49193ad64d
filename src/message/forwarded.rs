//! The headers that tell the upstream who asked, how, and for which host.
//!
//! Only writing: who the client is has been decided before, from headers this module does not read. What a peer
//! that is not trusted says about forwarding is replaced or removed; what a trusted one says is kept and added to.
//!
//! | header | trusted peer | any other peer |
//! |---|---|---|
//! | `X-Forwarded-For` | the peer's address appended | the client's address |
//! | `X-Forwarded-Proto`, `-Host` | kept when sane, else set | set |
//! | the same, named in `Forwarded` ([`prefer`]) | set to that | set |
//! | other `X-Forwarded-*`, `Forwarded` | kept | removed |
//! | `X-Real-IP` | the client's address | the client's address |
//! | `X-Client-Cert-Subject`, `Client-Cert`, `Client-Cert-Chain` | kept | removed |
//! | `X-Request-Id` | kept when sane ([`kept_request_id`]) | set |

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::ip_text::IpText;

/// What is known about a request.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether the connection comes from a trusted proxy.
    pub peer_trusted: bool,
    /// The client's address, as [`ip_value`] writes it.
    pub client: HeaderValue,
    /// The other end of the connection.
    pub peer_ip: IpAddr,
    /// `http` or `https`, as the client came in here.
    pub proto: &'static str,
    /// The host the client asked for, with the port when it named one: its own `Host`. `None`, empty or not ASCII =
    /// `X-Forwarded-Host` is not set.
    pub host: Option<HeaderValue>,
    /// From [`kept_request_id`], or a new one.
    pub request_id: HeaderValue,
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The subject of the client's certificate (RFC 4514).
static X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// The client's certificate and those between it and its authority (RFC 9440).
static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
static CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

const REQUEST_ID_BYTES_MAX: usize = 128;

/// Fields that a request has beside those of its map: to write them costs a fraction of putting them there first.
pub type Told = SmallVec<[(&'static HeaderName, HeaderValue); 5]>;

/// Takes away what is said above to be removed or replaced, and returns what stands in its place, each name once. Call
/// after stripping, so that nothing the client named can remove it.
///
/// Also goes what has anything but letters, digits and hyphens in its name. CGI, WSGI, Rack and PHP turn `X-Real-IP`
/// and `X_Real_IP` into the same variable, so such a name can pass for one of ours. nginx drops them all by default
/// (`underscores_in_headers off`, `ignore_invalid_headers on`).
pub fn replace(headers: &mut HeaderMap, facts: Facts) -> Told {
    let is_trusted = facts.peer_trusted;
    let keeps_proto = is_trusted && is_single(headers, &X_FORWARDED_PROTO, |value| as_proto(value).is_some());
    let keeps_host = is_trusted && is_single(headers, &X_FORWARDED_HOST, is_host_like);
    let hops = if is_trusted { with_peer(headers, &facts) } else { facts.client.clone() };
    remove_where(headers, |name| match name {
        "x-forwarded-for" | "x-real-ip" | "x-request-id" => true,
        "x-forwarded-proto" => !keeps_proto,
        "x-forwarded-host" => !keeps_host,
        _ => is_ambiguous(name) || (!is_trusted && is_claim(name)),
    });
    let mut told = Told::new();
    told.push((&X_FORWARDED_FOR, hops));
    if !keeps_proto {
        told.push((&X_FORWARDED_PROTO, HeaderValue::from_static(facts.proto)));
    }
    let host = facts.host.filter(|host| !keeps_host && host.to_str().is_ok_and(|host| !host.is_empty()));
    told.extend(host.map(|host| (&X_FORWARDED_HOST, host)));
    told.push((&X_REAL_IP, facts.client));
    told.push((&X_REQUEST_ID, facts.request_id));
    told
}

/// Has the words that a trusted peer has for the same in another header stand for its `X-Forwarded-Proto` and `-Host`,
/// where they are sane: who goes by `Forwarded` may let the others through as the client wrote them. Call before
/// [`replace`].
pub fn prefer(headers: &mut HeaderMap, proto: Option<&[u8]>, host: Option<&[u8]>) {
    if let Some(proto) = proto.and_then(as_proto) {
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    let host = host.filter(|host| is_host_like(host)).and_then(|host| HeaderValue::from_bytes(host).ok());
    if let Some(host) = host {
        headers.insert(&X_FORWARDED_HOST, host);
    }
}

/// Puts those fields among the others after all: for whoever edits them, or sends them as a map.
pub fn put<'a>(headers: &mut HeaderMap, told: impl IntoIterator<Item = (&'a HeaderName, HeaderValue)>) {
    headers.extend(told.into_iter().map(|(name, value)| (name.clone(), value)));
}

/// Whether a field tells of the client's certificate.
pub fn is_of_certificate(name: &HeaderName) -> bool {
    [&X_CLIENT_CERT_SUBJECT, &CLIENT_CERT, &CLIENT_CERT_CHAIN].contains(&name)
}

/// Tells of the client's certificate, on a connection where it was asked for one: what it showed, or nothing at all.
/// Whatever came in under these names, also from a trusted peer, is gone.
pub fn set_client_certificate(headers: &mut HeaderMap, subject: Option<HeaderValue>, whole: Option<HeaderValue>) {
    headers.remove(&CLIENT_CERT_CHAIN);
    for (name, value) in [(&X_CLIENT_CERT_SUBJECT, subject), (&CLIENT_CERT, whole)] {
        match value {
            Some(value) => headers.insert(name, value),
            None => headers.remove(name),
        };
    }
}

/// Whether a trusted peer says that its client came by https; `proto` is what it says elsewhere, as for [`prefer`].
pub fn is_https(headers: &HeaderMap, proto: Option<&[u8]>) -> bool {
    match proto.and_then(as_proto) {
        Some(proto) => proto == "https",
        None => is_single(headers, &X_FORWARDED_PROTO, |value| value.eq_ignore_ascii_case(b"https")),
    }
}

/// The request id to go on with: a trusted peer's, when it is a single line of 1 to 128 visible ASCII bytes.
pub fn kept_request_id(headers: &HeaderMap, peer_trusted: bool) -> Option<&HeaderValue> {
    let sane =
        |bytes: &[u8]| (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if peer_trusted && is_single(headers, &X_REQUEST_ID, sane) { headers.get(&X_REQUEST_ID) } else { None }
}

/// An address as a header value, formatted on the stack.
pub fn ip_value(ip: IpAddr) -> HeaderValue {
    HeaderValue::from_bytes(IpText::new(ip).as_bytes()).expect("an address is visible ASCII")
}

/// `X-Forwarded-For` behind a trusted proxy: one line of all that came, and the peer.
fn with_peer(headers: &HeaderMap, facts: &Facts) -> HeaderValue {
    let client = &facts.client;
    let peer = IpText::new(facts.peer_ip);
    let lines = headers.get_all(&X_FORWARDED_FOR);
    let came: usize = lines.iter().map(|line| line.len() + 2).sum();
    let mut joined = Vec::with_capacity(came.max(client.len() + 2) + peer.as_bytes().len());
    for line in lines.iter().map(|line| line.as_bytes().trim_ascii()).filter(|line| !line.is_empty()) {
        joined.extend_from_slice(line);
        joined.extend_from_slice(b", ");
    }
    // The peer named the client by other means: PROXY protocol, Forwarded, X-Real-IP.
    if joined.is_empty() && client.as_bytes() != peer.as_bytes() {
        joined.extend_from_slice(client.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(peer.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)).expect("joined from header values")
}

/// Whether only this module may tell the upstream of it, whoever the peer is.
pub(super) fn is_ours_to_say(name: &str) -> bool {
    matches!(name, "x-real-ip" | "x-request-id") || is_ambiguous(name) || is_claim(name)
}

fn is_ambiguous(name: &str) -> bool {
    !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether it speaks of forwarding, which is believed of a trusted peer only.
fn is_claim(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(name, "forwarded" | "x-client-cert-subject" | "client-cert" | "client-cert-chain")
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    if !headers.keys().any(|name| unwanted(name.as_str())) {
        return;
    }
    let names: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn is_single(headers: &HeaderMap, name: &HeaderName, sane: impl Fn(&[u8]) -> bool) -> bool {
    let mut lines = headers.get_all(name).iter();
    matches!((lines.next(), lines.next()), (Some(line), None) if sane(line.as_bytes()))
}

/// A scheme, which is the same in capitals (RFC 3986, 3.1).
fn as_proto(value: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|proto| value.eq_ignore_ascii_case(proto.as_bytes()))
}

/// Not a parser: enough that a value cannot be taken for a list, a URL or markup.
fn is_host_like(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(peer_trusted: bool) -> Facts {
        Facts {
            peer_trusted,
            client: HeaderValue::from_static("203.0.113.9"),
            peer_ip: if peer_trusted { "10.0.0.1" } else { "203.0.113.9" }.parse().unwrap(),
            proto: "https",
            host: Some(HeaderValue::from_static("example.com:8443")),
            request_id: HeaderValue::from_static("new-id"),
        }
    }

    fn applied(peer_trusted: bool, lines: &[(&'static str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let told = replace(&mut headers, facts(peer_trusted));
        assert!(told.iter().all(|(name, _)| !headers.contains_key(*name)), "{headers:?} {told:?}");
        put(&mut headers, told);
        let mut out: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        out.sort();
        out
    }

    fn expected(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const FRESH: [(&str, &str); 5] = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "example.com:8443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "203.0.113.9"),
        ("x-request-id", "new-id"),
    ];

    #[test]
    fn claims_of_an_untrusted_peer_are_replaced() {
        let spoofed = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded-tls-client-cert", "x"),
            ("x-real-ip", "127.0.0.1"),
            ("x-request-id", "theirs"),
            ("forwarded", "for=127.0.0.1"),
            ("x-client-cert-subject", "CN=admin"),
            ("client-cert", ":AAAA:"),
            ("client-cert", ":BBBB:"),
            ("client-cert-chain", ":AAAA:"),
        ];
        assert_eq!(applied(false, &spoofed), expected(&FRESH));
        assert_eq!(applied(false, &[]), expected(&FRESH));
    }

    #[test]
    fn a_trusted_peers_words_are_kept_and_added_to() {
        let came = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "front.example"),
            ("x-forwarded-port", "80"),
            ("forwarded", "for=203.0.113.9"),
            ("x-real-ip", "127.0.0.1"),
        ];
        let want = [
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.1"),
            ("x-forwarded-host", "front.example"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "203.0.113.9"),
            ("x-request-id", "new-id"),
        ];
        assert_eq!(applied(true, &came), expected(&want));
    }

    #[test]
    fn a_trusted_peer_without_a_list_starts_with_the_client() {
        let out = applied(true, &[]);
        assert_eq!(out[0], ("x-forwarded-for".into(), "203.0.113.9, 10.0.0.1".into()));
        let client = HeaderValue::from_static("10.0.0.1");
        let told = replace(&mut HeaderMap::new(), Facts { client: client.clone(), ..facts(true) });
        assert_eq!(told[0], (&X_FORWARDED_FOR, client));
    }

    #[test]
    fn what_the_handshake_showed_stands_in_place_of_any_claim() {
        let mut headers = HeaderMap::new();
        for name in [&X_CLIENT_CERT_SUBJECT, &CLIENT_CERT, &CLIENT_CERT_CHAIN] {
            headers.append(name, HeaderValue::from_static("claimed"));
            headers.append(name, HeaderValue::from_static("twice"));
        }
        let mut shown = headers.clone();
        set_client_certificate(&mut shown, Some(HeaderValue::from_static("CN=me")), None);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[&X_CLIENT_CERT_SUBJECT], "CN=me");
        set_client_certificate(&mut headers, None, None);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_is_preferred_stands_where_it_is_sane_and_the_rest_is_kept() {
        let preferred = |proto: Option<&str>, host: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static("http"));
            headers.insert(&X_FORWARDED_HOST, HeaderValue::from_static("kept.example"));
            prefer(&mut headers, proto.map(str::as_bytes), host.map(str::as_bytes));
            [&X_FORWARDED_PROTO, &X_FORWARDED_HOST].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        assert_eq!(preferred(Some("HTTPS"), Some("a.example:8443")), ["https", "a.example:8443"]);
        assert_eq!(preferred(Some("ftp"), Some("a.example, b.example")), ["http", "kept.example"]);
        assert_eq!(preferred(None, Some("")), ["http", "kept.example"]);
    }

    #[test]
    fn https_is_what_the_preferred_word_says_else_the_header() {
        let is_https = |proto: Option<&str>, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&X_FORWARDED_PROTO, HeaderValue::from_static(line));
            }
            is_https(&headers, proto.map(str::as_bytes))
        };
        assert!(is_https(None, &["HTTPS"]), "a scheme is the same in capitals");
        assert!(is_https(None, &["https"]) && !is_https(None, &["http"]) && !is_https(None, &[]));
        assert!(!is_https(None, &["https", "https"]), "not a list");
        assert!(is_https(Some("HTTPS"), &["http"]) && !is_https(Some("http"), &["https"]));
        assert!(is_https(Some("ftp"), &["https"]), "what makes no sense is not preferred");
    }

    #[test]
    fn nonsense_from_a_trusted_peer_is_set_anew() {
        let cases: &[&[(&'static str, &str)]] = &[
            &[("x-forwarded-proto", "javascript"), ("x-forwarded-host", "a, b")],
            &[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "")],
            &[("x-forwarded-host", "a/b"), ("x-forwarded-host", "a")],
        ];
        for lines in cases {
            let out = applied(true, lines);
            assert!(out.contains(&("x-forwarded-proto".into(), "https".into())), "{out:?}");
            assert!(out.contains(&("x-forwarded-host".into(), "example.com:8443".into())), "{out:?}");
        }
    }

    #[test]
    fn without_a_host_none_is_claimed() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-host", HeaderValue::from_static("evil.example"));
        for host in [None, Some(HeaderValue::from_static(""))] {
            let told = replace(&mut headers.clone(), Facts { host, ..facts(false) });
            assert!(told.iter().all(|(name, _)| *name != "x-forwarded-host"), "{told:?}");
        }
        replace(&mut headers, facts(false));
        assert!(!headers.contains_key("x-forwarded-host"));
    }

    #[test]
    fn a_request_id_is_kept_from_a_trusted_peer_when_sane() {
        let of = |value: &str, trusted| {
            let mut headers = HeaderMap::new();
            headers.insert(&X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
            kept_request_id(&headers, trusted).is_some()
        };
        assert!(of("abc-123", true));
        assert!(of(&"x".repeat(128), true));
        assert!(!of("abc-123", false));
        assert!(!of(&"x".repeat(129), true));
        assert!(!of("", true));
        assert!(!of("a b", true));
        assert!(!of("a\tb", true));
        assert!(!of("é", true));
    }

    #[test]
    fn names_that_pass_for_others_are_dropped() {
        let mut headers = HeaderMap::new();
        for name in ["x_forwarded_for", "x-real_ip", "x.real.ip", "x-real-ip", "accept", "content_length"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        replace(&mut headers, facts(true));
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept"]);
    }

    proptest! {
        #[test]
        fn any_address_fits_its_value(v4 in any::<u32>(), v6 in any::<u128>()) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let value = ip_value(ip);
                prop_assert_eq!(value.to_str().unwrap().parse::<IpAddr>().unwrap(), ip.to_canonical());
            }
        }

        /// Whatever came from a trusted peer, the last hop is that peer.
        #[test]
        fn the_peer_is_always_the_last_hop(lines in proptest::collection::vec("[ -~]{0,30}", 0..4)) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(&X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
            }
            let told = replace(&mut headers, facts(true));
            let all: Vec<_> = told.iter().filter(|(name, _)| *name == X_FORWARDED_FOR).collect();
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!(all[0].1.to_str().unwrap().rsplit(", ").next(), Some("10.0.0.1"));
        }
    }
}
