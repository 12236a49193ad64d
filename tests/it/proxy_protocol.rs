//! PROXY headers: who is believed, who is not, and what the app is told.

use std::net::SocketAddr;

use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n";
/// Version 2 for the same client, with a TLV behind the addresses.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\xc0\0\x02\x01\x13\x88\x01\xbb\x04\0\x01\0";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn toml(upstream: &FakeUpstream, trusted: &str) -> String {
    format!(
        "[client_ip]\ntrusted_proxies = [{trusted}]\n[timeouts]\nrequest_head = \"500ms\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    )
}

async fn status(address: SocketAddr, bytes: &[&[u8]]) -> Option<u16> {
    let mut client = Client::connect(address).await.unwrap();
    client.send(bytes.concat()).await.unwrap();
    client.read_response().await.ok().map(|response| response.status)
}

#[tokio::test]
async fn a_trusted_proxy_names_its_client() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::toml(toml(&upstream, "\"127.0.0.1\"")).start().await;
    for header in [V1, V2, LOCAL, b"PROXY UNKNOWN\r\n"] {
        assert_eq!(status(proxy.address(), &[header, REQUEST]).await, Some(200), "{}", header.escape_ascii());
    }
    let told: Vec<_> =
        upstream.requests().iter().map(|seen| seen.head.header("x-real-ip").map(str::to_owned)).collect();
    let told: Vec<_> = told.iter().map(|ip| ip.as_deref().unwrap()).collect();
    // Its own checks, and clients without an address, are the proxy's.
    assert_eq!(told, ["192.0.2.7", "192.0.2.7", "127.0.0.1", "127.0.0.1"]);
}

#[tokio::test]
async fn a_header_in_pieces_is_one_header() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::toml(toml(&upstream, "\"127.0.0.1\"").replace("500ms", "20s")).start().await;
    for header in [V1, V2] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        for byte in header.iter().chain(REQUEST) {
            client.send([*byte]).await.unwrap();
        }
        assert_eq!(client.read_response().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_trusted_proxy_without_a_header_is_not_served() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::toml(toml(&upstream, "\"127.0.0.1\"")).start().await;
    let broken: [&[u8]; 4] = [b"", b"PROXY TCP4 nobody\r\n", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"];
    for bytes in broken {
        assert_eq!(status(proxy.address(), &[bytes, REQUEST]).await, None, "{}", bytes.escape_ascii());
    }
    // Nothing at all: closed when the time for a head is over.
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.expect_closed().await.unwrap();
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn an_untrusted_peer_speaks_for_itself_alone() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::toml(toml(&upstream, "\"10.0.0.0/8\"")).start().await;
    assert_eq!(status(proxy.address(), &[V1, REQUEST]).await, Some(400));
    assert_eq!(status(proxy.address(), &[V2, REQUEST]).await, Some(400));
    assert_eq!(status(proxy.address(), &[REQUEST]).await, Some(200));
    let seen = upstream.requests();
    assert_eq!((seen.len(), seen[0].head.header("x-real-ip")), (1, Some("127.0.0.1")));
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let tls = "proxy_protocol = true\n[listener.tls]\ncertificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    let toml = toml(&upstream, "\"127.0.0.1\"").replace("proxy_protocol = true\n", tls);
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let config = ca.client_config(&[b"http/1.1"]);
    let mut client = Client::connect_tls_behind(proxy.address(), V1, "site.example", config).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status, 200);
    assert_eq!(upstream.requests()[0].head.header("x-real-ip"), Some("192.0.2.7"));
}
