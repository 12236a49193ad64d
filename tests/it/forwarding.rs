//! What the app is told about its client, and what it is not.

use crate::support::client::Client;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::support::wire::Message;

const TRUSTING: &str = "[client_ip]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

async fn seen(tables: &str, route: &str, path: &str, headers: &str) -> Message {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::before(&upstream, tables, route).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", path, headers).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 200);
    upstream.requests().remove(0)
}

fn is_request_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[tokio::test]
async fn a_plain_request_gets_the_forwarding_headers() {
    let request = seen("", "", "/", "").await;
    assert_eq!(request.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.head.all("x-forwarded-host"), ["test"]);
    assert_eq!(request.head.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(request.head.all("host"), ["test"]);
    assert!(is_request_id(request.head.header("x-request-id").unwrap()));
}

#[tokio::test]
async fn what_an_untrusted_peer_claims_is_replaced() {
    let spoofed = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                   X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /x\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n\
                   X-Request-Id: mine\r\n";
    let request = seen("", "", "/", spoofed).await;
    assert_eq!(request.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.head.all("x-forwarded-host"), ["test"]);
    assert_eq!(request.head.all("x-real-ip"), ["127.0.0.1"]);
    for name in ["x-forwarded-port", "x-forwarded-prefix", "forwarded"] {
        assert_eq!(request.head.header(name), None, "{name}");
    }
    assert!(is_request_id(request.head.header("x-request-id").unwrap()));
}

#[tokio::test]
async fn what_a_trusted_peer_says_in_forwarded_goes_before_the_rest_where_it_is_chosen() {
    let chosen = format!("{TRUSTING}header = \"Forwarded\"\n");
    let forwarded = "for=203.0.113.9;proto=HTTPS;host=\"example.com:8443\"";
    let spoofed = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Host: worse\r\n";
    for rest in ["", spoofed] {
        let request = seen(&chosen, "", "/", &format!("Forwarded: {forwarded}\r\n{rest}")).await;
        assert_eq!(request.head.all("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
        assert_eq!(request.head.all("x-forwarded-proto"), ["https"]);
        assert_eq!(request.head.all("x-forwarded-host"), ["example.com:8443"]);
        assert_eq!(request.head.all("forwarded"), [forwarded]);
    }
    // Not said, not sane, or not chosen.
    let others = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: front\r\n";
    for (tables, forwarded) in
        [(&*chosen, "for=203.0.113.9"), (&chosen, "proto=gopher;host=\"a, b\""), (TRUSTING, "proto=http;host=other")]
    {
        let request = seen(tables, "", "/", &format!("Forwarded: {forwarded}\r\n{others}")).await;
        assert_eq!(request.head.all("x-forwarded-proto"), ["https"], "{forwarded}");
        assert_eq!(request.head.all("x-forwarded-host"), ["front"], "{forwarded}");
    }
    let untrusted = "[client_ip]\nheader = \"Forwarded\"\n";
    let request = seen(untrusted, "", "/", &format!("Forwarded: {forwarded}\r\n")).await;
    assert_eq!(request.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.head.all("x-forwarded-host"), ["test"]);
}

#[tokio::test]
async fn what_a_trusted_peer_says_is_kept_and_added_to() {
    let headers = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: example.com\r\n\
                   X-Forwarded-Port: 443\r\nX-Request-Id: mine-42\r\n";
    let request = seen(TRUSTING, "", "/", headers).await;
    assert_eq!(request.head.all("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(request.head.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.head.all("x-forwarded-host"), ["example.com"]);
    assert_eq!(request.head.all("x-forwarded-port"), ["443"]);
    assert_eq!(request.head.all("x-real-ip"), ["203.0.113.9"]);
    assert_eq!(request.head.all("x-request-id"), ["mine-42"]);
}

/// Its peer has no address of its own, and is not trusted for that.
#[tokio::test]
async fn on_a_unix_socket_127_0_0_1_speaks() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let listener = "[[listener]]\nname = \"web\"\naddress = \"unix:web.sock\"\n";
    for (trusted, told, logged) in [
        ("", "127.0.0.1", "unix: - - ["),
        ("10.0.0.0/8", "127.0.0.1", "unix: - - ["),
        ("127.0.0.1", "203.0.113.9, 127.0.0.1", "203.0.113.9 - - ["),
    ] {
        let trusted = if trusted.is_empty() { String::new() } else { format!("\"{trusted}\"") };
        let tables = format!("{listener}[client_ip]\ntrusted_proxies = [{trusted}]\n");
        let proxy = TestProxy::before(&upstream, &tables, "").start().await;
        let mut client = Client::connect_unix(proxy.folder.join("web.sock")).await.unwrap();
        client.request("GET", "/", "X-Forwarded-For: 203.0.113.9\r\n").await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 200);
        assert_eq!(upstream.requests().pop().unwrap().head.all("x-forwarded-for"), [told], "{trusted}");
        let line = proxy.log_line("GET / ").await;
        assert!(line.starts_with(logged), "{trusted}: {line}");
    }
}

#[tokio::test]
async fn connection_cannot_remove_what_the_app_relies_on() {
    let headers = "Connection: X-Forwarded-Host, X-Forwarded-For, X-Real-IP, X-Request-Id, Host, Cookie, Authorization\r\n\
                   Cookie: a=b\r\nAuthorization: Bearer x\r\n";
    let request = seen("", "", "/", headers).await;
    for name in ["x-forwarded-host", "x-forwarded-for", "x-real-ip", "x-request-id", "host", "cookie", "authorization"]
    {
        assert_eq!(request.head.all(name).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_concerns_one_connection_ends_here() {
    let headers = "Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Hop: 1\r\n\
                   TE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Authorization: Basic x\r\nProxy: evil\r\n";
    let request = seen("", "", "/", headers).await;
    for name in
        ["keep-alive", "proxy-connection", "x-hop", "te", "upgrade", "http2-settings", "proxy-authorization", "proxy"]
    {
        assert_eq!(request.head.header(name), None, "{name}");
    }
}

/// Some apps read trailers as further headers.
#[tokio::test]
async fn what_the_app_is_told_of_its_client_cannot_be_said_in_trailers() {
    let names =
        ["X-Sum", "X-Forwarded-For", "X-Real-IP", "X_Real_IP", "X-Request-Id", "Forwarded", "Cookie", "Upgrade"];
    let trailers: String = names.iter().map(|name| format!("{name}: said-behind\r\n")).collect();
    for tables in ["", TRUSTING] {
        let upstream = FakeUpstream::http1().route("*", "ok").start().await;
        let proxy = TestProxy::before(&upstream, tables, "").start().await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        let headers = format!("Transfer-Encoding: chunked\r\nTrailer: {}\r\n", names.join(", "));
        client.request("POST", "/", &headers).await.unwrap();
        client.send(format!("2\r\nhi\r\n0\r\n{trailers}\r\n")).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 200);
        let raw = String::from_utf8(upstream.raw().concat()).unwrap();
        assert!(raw.ends_with("0\r\nx-sum: said-behind\r\n\r\n"), "{raw}");
        assert_eq!(raw.matches("said-behind").count(), 1, "{raw}");
    }
}

/// An app that agreed would take requests from the tunnel that no route, limit or list has seen.
#[tokio::test]
async fn no_upgrade_leads_to_http_again() {
    for protocol in ["h2c", "websocket, h2c", "HTTP/2.0", "TLS/1.0"] {
        let headers =
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n");
        let request = seen("", "", "/", &headers).await;
        for name in ["connection", "upgrade", "http2-settings"] {
            assert_eq!(request.head.header(name), None, "{protocol}: {name}");
        }
    }
}

#[tokio::test]
async fn what_concerns_one_connection_does_not_come_back_either() {
    let upstream = FakeUpstream::http1().start().await;
    let headers =
        "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Kept: 1\r\n";
    upstream.set_route("*", Reply::with_headers(200, headers, "ok"));
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.get("/").await.unwrap();
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn names_that_pass_for_others_are_dropped() {
    let headers = "X_Forwarded_For: 1.1.1.1\r\nX_Real_IP: 1.1.1.1\r\nX.Real.IP: 1.1.1.1\r\nX-Plain: 1\r\n";
    let request = seen("", "", "/", headers).await;
    for name in ["x_forwarded_for", "x_real_ip", "x.real.ip"] {
        assert_eq!(request.head.header(name), None, "{name}");
    }
    assert_eq!(request.head.header("x-plain"), Some("1"));
}

#[tokio::test]
async fn the_rest_passes_as_it_came() {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = format!("traceparent: {traceparent}\r\nX-Twice: a\r\nX-Twice: b\r\nCookie: a=b; c=d\r\nX-Empty:\r\n");
    let request = seen("", "", "/a?b=c&d=%2F", &headers).await;
    assert_eq!(request.head.line, "GET /a?b=c&d=%2F HTTP/1.1");
    assert_eq!(request.head.all("traceparent"), [traceparent]);
    assert_eq!(request.head.all("x-twice"), ["a", "b"]);
    assert_eq!(request.head.all("cookie"), ["a=b; c=d"]);
    assert_eq!(request.head.all("x-empty"), [""]);
}

#[tokio::test]
async fn the_host_may_become_the_endpoints() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::before(&upstream, "", "preserve_host = false").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status, 200);
    let request = &upstream.requests()[0];
    assert_eq!(request.head.all("host"), [upstream.endpoint()]);
    assert_eq!(request.head.all("x-forwarded-host"), ["test"]);
}

#[tokio::test]
async fn the_host_that_a_route_sets_is_the_apps_whoever_keeps_it() {
    for route in ["", "preserve_host = false\n"] {
        let route = format!("{route}request_headers = {{ set = {{ Host = \"shop.example\" }} }}");
        let request = seen("", &route, "/", "").await;
        assert_eq!(request.head.all("host"), ["shop.example"], "{route}");
    }
}

#[tokio::test]
async fn a_request_without_a_host_gets_the_endpoints() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 200);
    let request = &upstream.requests()[0];
    assert_eq!(request.head.line, "GET / HTTP/1.1");
    assert_eq!(request.head.all("host"), [upstream.endpoint()]);
    assert_eq!(request.head.header("x-forwarded-host"), None);
}

#[tokio::test]
async fn a_prefix_is_stripped_at_a_segment() {
    let route = "path = [\"/api\"]\nstrip_prefix = \"/api\"";
    for (asked, forwarded) in
        [("/api/a?b=c", "/a?b=c"), ("/api", "/"), ("/api/", "/"), ("/api?x", "/?x"), ("/x/../api//a", "/a")]
    {
        let request = seen("", route, asked, "").await;
        assert_eq!(request.head.line, format!("GET {forwarded} HTTP/1.1"), "{asked}");
    }
    let route = "path = [\"/caf%c3%a9\"]\nstrip_prefix = \"/caf%c3%a9\"";
    for asked in ["/caf%C3%A9/a", "/caf%c3%a9/a", "/café/a"] {
        assert_eq!(seen("", route, asked, "").await.head.line, "GET /a HTTP/1.1", "{asked}");
    }
}

#[tokio::test]
async fn a_route_edits_headers_both_ways() {
    let upstream = FakeUpstream::http1().start().await;
    upstream.set_route("*", Reply::with_headers(200, "Server: secret\r\nX-Set: app\r\nX-Add: app\r\n", "ok"));
    let route = r#"
        request_headers = { set = { "X-Set" = "ours" }, add = { "X-Add" = "ours" }, remove = ["X-Gone"] }
        response_headers = { set = { "X-Set" = "ours" }, add = { "X-Add" = "ours" }, remove = ["Server"] }
    "#;
    let proxy = TestProxy::before(&upstream, "", route).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "X-Set: theirs\r\nX-Add: theirs\r\nX-Gone: 1\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    let request = &upstream.requests()[0].head;
    assert_eq!((request.all("x-set"), request.all("x-add")), (vec!["ours"], vec!["theirs", "ours"]));
    assert_eq!(request.header("x-gone"), None);
    assert_eq!((answer.all("x-set"), answer.all("x-add")), (vec!["ours"], vec!["app", "ours"]));
    assert_eq!(answer.header("server"), None);
}
