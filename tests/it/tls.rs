//! TLS with clients: certificates by name, versions, protocols, and everything that goes wrong in a handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::admin;
use crate::support::certs::{Algorithm, Ca, Leaf};
use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::poll::eventually_async;
use crate::support::process::DEADLINE;
use crate::support::proxy::{Starting, TestProxy};
use crate::support::upstream::FakeUpstream;

pub(super) const HTTP1: &[&[u8]] = &[b"http/1.1"];

fn toml(pairs: &[&str], more: &str) -> String {
    let pairs: Vec<_> = pairs.iter().map(|name| format!("{{ cert = \"{name}.pem\", key = \"{name}.key\" }}")).collect();
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [{}]\n{more}\
         [[route]]\nname = \"hello\"\nrespond = {{ body = \"hello\" }}\n",
        pairs.join(", ")
    )
}

/// A proxy that shows these certificates, first come first.
fn with(leaves: &[(&str, &Leaf)], more: &str) -> Starting {
    let folder = Folder::new();
    for (name, leaf) in leaves {
        leaf.write(&folder, name);
    }
    let names: Vec<_> = leaves.iter().map(|(name, _)| *name).collect();
    TestProxy::toml(toml(&names, more)).in_folder(folder)
}

/// The same without HTTP/2.
fn with_http1(leaf: &Leaf) -> Starting {
    let folder = Folder::new();
    leaf.write(&folder, "site");
    let toml = toml(&["site"], "").replace("[listener.tls]", "http2 = false\n[listener.tls]");
    TestProxy::toml(toml).in_folder(folder)
}

pub(super) fn roots(ca: &Ca) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    roots
}

fn version(ca: &Ca, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots(ca));
    Arc::new(builder.with_no_client_auth())
}

/// One request for `/` of this host, with further headers.
async fn get_from(client: &mut Client, host: &str, headers: &str) -> std::io::Result<RawResponse> {
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await?;
    client.read_response().await
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let ca = Ca::new();
    let (first, site, wild) = (
        ca.leaf(&["first.example", "127.0.0.1"]),
        ca.leaf(&["Site.example", "www.site.example"]),
        ca.leaf(&["*.wild.example"]),
    );
    let proxy = with(&[("first", &first), ("site", &site), ("wild", &wild)], "").start().await;
    let shown = async |name: &str| {
        let client = Client::connect_tls(proxy.address(), name, ca.client_config(HTTP1)).await?;
        std::io::Result::Ok(client.socket().peer_certificates()[0].clone())
    };
    for (name, leaf) in [
        ("first.example", &first),
        ("site.example", &site),
        ("WWW.Site.Example", &site),
        ("a.wild.example", &wild),
        // Without SNI, as for an address, it is the first of the file.
        ("127.0.0.1", &first),
    ] {
        assert_eq!(shown(name).await.unwrap(), leaf.der().as_ref(), "{name}");
    }
    // One label only, and nobody's name: the first is shown, and the client refuses it.
    for name in ["a.b.wild.example", "wild.example", "other.example"] {
        assert!(shown(name).await.unwrap_err().to_string().contains("certificate"), "{name}");
    }
    let mut client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn every_kind_of_key_is_served() {
    let ca = Ca::new();
    for algorithm in [Algorithm::Ecdsa, Algorithm::Ed25519, Algorithm::Rsa] {
        let leaf = ca.leaf_with(&["site.example"], algorithm, 30);
        let proxy = with(&[("site", &leaf)], "").start().await;
        let mut client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().text(), "hello", "{algorithm:?}");
    }
}

#[tokio::test]
async fn http2_is_agreed_on_unless_it_is_off() {
    const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];
    const H2: &[&[u8]] = &[b"h2"];
    const HTTP10: &[&[u8]] = &[b"http/1.0"];
    const SPDY: &[&[u8]] = &[b"spdy/3"];
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let (on, off) = (with(&[("site", &leaf)], "").start().await, with_http1(&leaf).start().await);
    for (proxy, agreed) in [(&on, &b"h2"[..]), (&off, b"http/1.1")] {
        let connect = |alpn: &'static [&'static [u8]]| {
            Client::connect_tls(proxy.address(), "site.example", ca.client_config(alpn))
        };
        assert_eq!(connect(BOTH).await.unwrap().socket().alpn(), Some(agreed));
        let mut without = connect(&[]).await.unwrap();
        assert_eq!(without.socket().alpn(), None);
        assert_eq!(without.get("/").await.unwrap().text(), "hello");
        // As curl --http1.0 does.
        assert_eq!(connect(HTTP10).await.unwrap().get("/").await.unwrap().text(), "hello");
        let refused = connect(SPDY).await.unwrap_err().to_string();
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
        assert_eq!(connect(H2).await.is_ok(), agreed == b"h2");
    }
}

#[tokio::test]
async fn versions_are_12_and_13_or_13_alone() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let both = with(&[("site", &leaf)], "").start().await;
    let alone = with(&[("site", &leaf)], "min_version = \"1.3\"\n").start().await;
    let (old, new) = (version(&ca, &rustls::version::TLS12), version(&ca, &rustls::version::TLS13));
    for config in [&old, &new] {
        let mut client = Client::connect_tls(both.address(), "site.example", Arc::clone(config)).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().text(), "hello");
    }
    assert!(Client::connect_tls(alone.address(), "site.example", new).await.is_ok());
    let refused = Client::connect_tls(alone.address(), "site.example", old).await.unwrap_err().to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

/// The group that a client and the proxy agree on.
async fn group(
    proxy: &TestProxy,
    ca: &Ca,
    groups: &[&'static dyn rustls::crypto::SupportedKxGroup],
) -> rustls::NamedGroup {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = groups.to_vec();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots(ca)).with_no_client_auth();
    let socket = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("site.example".try_into().unwrap(), socket).await.unwrap();
    stream.get_ref().1.negotiated_key_exchange_group().expect("a group").name()
}

#[tokio::test]
async fn keys_are_exchanged_so_that_tomorrows_computers_cannot_read_it() {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let proxy = with(&[("site", &leaf)], "").start().await;
    let both = rustls::NamedGroup::X25519MLKEM768;
    assert_eq!(group(&proxy, &ca, &[X25519MLKEM768, X25519]).await, both);
    // A client that begins with another one keeps it: no round trip is spent on persuading it (RFC 8446, section
    // 4.1.4).
    assert_eq!(group(&proxy, &ca, &[X25519, X25519MLKEM768]).await, rustls::NamedGroup::X25519);
    for (only, name) in [
        (X25519, rustls::NamedGroup::X25519),
        (SECP256R1, rustls::NamedGroup::secp256r1),
        (SECP384R1, rustls::NamedGroup::secp384r1),
    ] {
        assert_eq!(group(&proxy, &ca, &[only]).await, name);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let folder = Folder::new();
    leaf.write(&folder, "site");
    let toml = format!("[timeouts]\ntls_handshake = \"300ms\"\n{}", toml(&["site"], ""));
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let mut silent = Client::connect(proxy.address()).await.unwrap();
    silent.expect_closed().await.unwrap();
    let mut half = Client::connect(proxy.address()).await.unwrap();
    half.send([0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
    half.expect_closed().await.unwrap();
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_harms_nobody() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let proxy = with(&[("site", &leaf)], "").start().await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n"[..], &[0xff; 4096], &[0x16, 3, 1, 0xff, 0xff], b"\0"]
    {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(bytes).await.unwrap();
        client.finish_sending().await.unwrap();
        // A TLS alert may come first.
        let _ = client.read_to_end().await;
    }
    let mut client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hello");
}

/// Forwards bytes; what goes to the server is cut into single ones at first, each in a packet and a record of its own
/// where `records` says so.
async fn fragmenter(to: SocketAddr, records: bool) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(to).await.unwrap();
        server.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut header = [0; 5];
        from_client.read_exact(&mut header).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        from_client.read_exact(&mut hello).await.unwrap();
        let pieces: Vec<Vec<u8>> = match records {
            true => hello
                .chunks(7)
                .map(|piece| [&[header[0], header[1], header[2], 0, piece.len() as u8], piece].concat())
                .collect(),
            false => [&header[..], &hello].concat().chunks(1).map(<[u8]>::to_vec).collect(),
        };
        for piece in pieces {
            to_server.write_all(&piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    address
}

#[tokio::test]
async fn a_client_hello_in_many_pieces_is_put_together() {
    let ca = Ca::new();
    let (first, site) = (ca.leaf(&["first.example"]), ca.leaf(&["site.example"]));
    let proxy = with(&[("first", &first), ("site", &site)], "").start().await;
    for records in [false, true] {
        let address = fragmenter(proxy.address(), records).await;
        let mut client = Client::connect_tls(address, "site.example", ca.client_config(HTTP1)).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().text(), "hello", "{records}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_required_where_the_file_says_so() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let folder = Folder::new();
    folder.write("clients.pem", clients.pem());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let more = "client_auth = { ca = \"clients.pem\", mode = \"require\" }\n";
    let proxy = TestProxy::toml(toml(&["site"], more)).in_folder(folder).start().await;
    let ask = async |config: Arc<ClientConfig>| {
        let mut client = Client::connect_tls(proxy.address(), "site.example", config).await?;
        get_from(&mut client, "site.example", "").await
    };
    let own = clients.leaf(&["me"]);
    assert_eq!(ask(ca.client_config_with(HTTP1, &own)).await.unwrap().text(), "hello");
    assert!(ask(ca.client_config(HTTP1)).await.is_err());
    assert!(ask(ca.client_config_with(HTTP1, &ca.leaf(&["me"]))).await.is_err());
}

#[tokio::test]
async fn a_reload_takes_new_certificates_and_keeps_the_old_pair_when_they_are_broken() {
    let ca = Ca::new();
    let (old, new) = (ca.leaf(&["site.example"]), ca.leaf(&["site.example"]));
    let proxy = with(&[("site", &old)], "").start().await;
    let shown = async || {
        let client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
        client.socket().peer_certificates()[0].clone()
    };
    let reload = async || {
        let control = Arc::clone(proxy.control());
        tokio::task::spawn_blocking(move || control.reload()).await.unwrap()
    };
    let mut kept = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
    ca.mismatched(&["site.example"]).write(&proxy.folder, "site");
    let problems = reload().await.unwrap_err().to_string();
    assert!(problems.contains("site.pem: does not match the key in "), "{problems}");
    assert_eq!(shown().await, old.der().as_ref());
    proxy.folder.write("site.pem", "half of a certifi");
    assert!(reload().await.is_err());
    assert_eq!(shown().await, old.der().as_ref());
    new.write(&proxy.folder, "site");
    reload().await.unwrap();
    assert_eq!(shown().await, new.der().as_ref());
    assert_eq!(kept.get("/").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn certificates_are_in_the_status_and_the_metrics() {
    let ca = Ca::new();
    let proxy =
        with(&[("site", &ca.leaf(&["site.example"])), ("old", &ca.expired(&["old.example"]))], "").start().await;
    let status = admin::json(proxy.admin(), "/api/status").await;
    let certificates = status["certificates"].as_array().unwrap();
    let entries: Vec<_> = certificates
        .iter()
        .map(|entry| (entry["domain"].as_str().unwrap(), entry["status"].as_str().unwrap()))
        .collect();
    assert_eq!(entries, [("site.example", "OK"), ("old.example", "EXPIRED")]);
    let metrics = admin::get(proxy.admin(), "/metrics").await.text();
    assert!(metrics.contains("flagstone_certificate_expiry_timestamp_seconds{domain=\"site.example\"} "), "{metrics}");
}

#[tokio::test]
async fn the_app_hears_that_its_client_came_over_tls() {
    let ca = Ca::new();
    let folder = Folder::new();
    ca.leaf(&["site.example"]).write(&folder, "site");
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = toml(&["site"], "").replace("respond = { body = \"hello\" }", "upstream = \"app\"");
    let toml = format!("{toml}[upstream.app]\nendpoints = [\"{}\"]\n", upstream.endpoint());
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let mut client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "ok");
    assert_eq!(upstream.requests()[0].head.header("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn a_drain_ends_tls_connections_properly() {
    let ca = Ca::new();
    let proxy = with(&[("site", &ca.leaf(&["site.example"]))], "").start().await;
    let mut client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
    client.get("/").await.unwrap();
    let address = proxy.address();
    assert!(proxy.drain(Duration::from_secs(10)).await);
    // rustls reports an end without close_notify as an error of its own.
    client.expect_closed().await.unwrap();
    let refused = async || Client::connect(address).await.is_err();
    assert!(eventually_async(DEADLINE, refused).await);
}

#[tokio::test]
async fn client_certificates_are_required_optional_and_never_foreign() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let site = ca.leaf(&["site.example"]);
    let (known, stranger) = (ca.leaf(&["client.example"]), foreign.leaf(&["client.example"]));
    for (mode, without) in [("require", false), ("optional", true)] {
        let folder = Folder::new();
        site.write(&folder, "site");
        folder.write("clients.pem", ca.pem());
        let auth = format!("client_auth = {{ ca = \"clients.pem\", mode = \"{mode}\" }}\n");
        let proxy = TestProxy::toml(toml(&["site"], &auth)).in_folder(folder).start().await;
        // With TLS 1.3 the server's refusal arrives with the first read.
        let is_served = async |config: Arc<ClientConfig>| {
            let Ok(mut client) = Client::connect_tls(proxy.address(), "site.example", config).await else {
                return false;
            };
            get_from(&mut client, "site.example", "").await.is_ok_and(|response| response.status == 200)
        };
        assert!(is_served(ca.client_config_with(HTTP1, &known)).await, "{mode}");
        assert!(!is_served(ca.client_config_with(HTTP1, &stranger)).await, "{mode}");
        assert_eq!(is_served(ca.client_config(HTTP1)).await, without, "{mode}");
    }
}
