//! Every timeout of `[timeouts]`, each with its own outcome. Limits under test are short, all others an hour.

use std::time::{Duration, Instant};

use crate::support::certs::Ca;
use crate::support::client::{Client, Ending, RawResponse};
use crate::support::h2::{self, Framed, flag, frame, kind};
use crate::support::poll::eventually;
use crate::support::process::{Flagstone, Signal, stop};
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::{FakeUpstream, OnAccept};

const SHORT: Duration = Duration::from_millis(300);

/// One short timeout, the rest out of the way.
async fn with_short(name: &str, reply: Reply) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("*", reply).start().await;
    let names = [
        "tls_handshake",
        "request_head",
        "request_body",
        "idle",
        "connect",
        "response_head",
        "response_body",
        "stream_idle",
    ];
    let lines = names.map(|other| format!("{other} = \"{}\"\n", if other == name { "300ms" } else { "1h" }));
    let proxy = TestProxy::before(&upstream, &format!("[timeouts]\n{}", lines.concat()), "").start().await;
    (upstream, proxy)
}

fn reason(answer: &RawResponse) -> (u16, &str) {
    (answer.status, answer.header("flagstone-reason").unwrap_or_default())
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let (_upstream, proxy) = with_short("request_head", Reply::ok("")).await;
    // Before the connection: its time may run for a while before this side hears of it.
    let began = Instant::now();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_a_408() {
    let (upstream, proxy) = with_short("request_head", Reply::ok("")).await;
    for first in [false, true] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        if !first {
            assert_eq!(client.get("/").await.unwrap().status, 200);
        }
        let before = upstream.received_bytes();
        client.send("GET /slow HTTP/1.1\r\nHost:").await.unwrap();
        let answer = client.read_response().await.unwrap();
        assert_eq!(reason(&answer), (408, "bad_request"));
        assert_eq!(answer.header("connection"), Some("close"));
        client.expect_closed().await.unwrap();
        assert_eq!(upstream.received_bytes(), before);
    }
    let line = proxy.log_line(" 408 ").await;
    assert!(line.contains("\"GET /slow HTTP/1.1\" 408 "), "{line}");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_a_408_all_the_same() {
    let (upstream, proxy) = with_short("request_head", Reply::ok("")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    // The connection may be closed before the last piece.
    let _ = client.send_slowly(head, 10, Duration::from_millis(20)).await;
    assert_eq!(client.read_response().await.unwrap().status, 408);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let (upstream, proxy) = with_short("request_body", Reply::ok("done")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Content-Length: 10\r\n").await.unwrap();
    client.send("half").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!(reason(&answer), (408, "bad_request"));
    client.expect_closed().await.unwrap();
    assert!(upstream.requests().iter().all(|request| !request.complete));
}

/// A process that was stopped has not looked: what has come by the time that it goes on came in time.
#[tokio::test]
async fn a_body_that_comes_while_nobody_looks_is_no_stall() {
    let upstream = FakeUpstream::http1().route("*", Reply::echo_body()).start().await;
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[timeouts]\nrequest_body = \"1s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    ))
    .await;
    let address = flagstone.address("web").await;
    let mut client = Client::connect(address).await.unwrap();
    client.request("POST", "/", "Content-Length: 10\r\n").await.unwrap();
    client.send("hello").await.unwrap();
    let mut stream = Framed::connect(address).await;
    let post = [&[(":method", "POST")], &h2::REQUEST[1..]].concat();
    stream.send(&frame(kind::HEADERS, flag::END_HEADERS, 1, h2::block(&post))).await;
    stream.send(&frame(kind::DATA, 0, 1, "hello")).await;
    let has_begun = || upstream.raw().iter().filter(|raw| memchr::memmem::find(raw, b"hello").is_some()).count() == 2;
    assert!(eventually(Duration::from_secs(10), has_begun).await);
    stop(&flagstone.process).await;
    client.send("world").await.unwrap();
    stream.send(&frame(kind::DATA, flag::END_STREAM, 1, "world")).await;
    // The pause itself, not a wait for something.
    tokio::time::sleep(Duration::from_secs(2)).await;
    flagstone.process.signal(Signal::CONT);
    assert_eq!(client.read_response().await.unwrap().text(), "helloworld");
    let body = stream.find(|frame| frame.kind == kind::DATA && frame.stream == 1).await.expect("an answer");
    assert_eq!(body.payload, b"helloworld");
}

#[tokio::test]
async fn a_body_that_is_slow_but_goes_on_is_no_stall() {
    let (_upstream, proxy) = with_short("request_body", Reply::echo_body()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Content-Length: 20\r\n").await.unwrap();
    client.send_slowly("x".repeat(20), 1, Duration::from_millis(25)).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().body.len(), 20);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let (_upstream, proxy) = with_short("idle", Reply::ok("hi")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hi");
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn an_answer_that_does_not_begin_is_a_504() {
    let (upstream, proxy) = with_short("response_head", Reply::hang()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.get("/").await.unwrap();
    assert_eq!(reason(&answer), (504, "upstream_timeout"));
    // The client is not to blame: its connection stays, the upstream's does not.
    upstream.set_route("/next", "next");
    assert_eq!(client.get("/next").await.unwrap().text(), "next");
    assert_eq!(upstream.connections(), 2);
    let answer = client.post("/", "hello").await.unwrap();
    assert_eq!(reason(&answer), (504, "upstream_timeout"));
}

#[tokio::test]
async fn a_request_with_a_body_is_waited_for_no_longer() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let route = |name: &str, limit: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = [\"/{name}\"]\nupstream = \"app\"\n\
             timeouts = {{ response_head = \"{limit}\" }}\n"
        )
    };
    let (sooner, later) = (route("sooner", "1s"), route("later", "1500ms"));
    let proxy = TestProxy::toml(format!("{sooner}{later}[upstream.app]\nendpoints = [\"{}\"]\n", upstream.endpoint()))
        .start()
        .await;
    // Both ways for a body to end: with its head's length, and with a chunk of its own.
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let mut posting = Client::connect(proxy.address()).await.unwrap();
        let mut getting = Client::connect(proxy.address()).await.unwrap();
        posting.send(format!("POST /sooner HTTP/1.1\r\nHost: a\r\n{framing}")).await.unwrap();
        getting.request("GET", "/later", "").await.unwrap();
        let answer = tokio::select! {
            biased;
            answer = getting.read_response() => panic!("{answer:?} came first"),
            answer = posting.read_response() => answer.unwrap(),
        };
        assert_eq!(reason(&answer), (504, "upstream_timeout"));
        assert_eq!(getting.read_response().await.unwrap().status, 504);
    }
}

#[tokio::test]
async fn a_long_upload_is_no_slow_answer() {
    let (_upstream, proxy) = with_short("response_head", Reply::echo_body()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Content-Length: 20\r\n").await.unwrap();
    client.send_slowly("x".repeat(20), 1, Duration::from_millis(40)).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().body.len(), 20);
}

#[tokio::test]
async fn an_app_that_stops_taking_the_body_is_a_504() {
    let stalled = Reply::default().then(Step::Wait(Duration::from_secs(3600)));
    let (_upstream, proxy) = with_short("response_head", stalled).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Content-Length: 16000000\r\n").await.unwrap();
    let answer = {
        let body = vec![b'x'; 16_000_000];
        // Never all of it: the answer comes first.
        let _ = tokio::time::timeout(Duration::from_secs(2), client.send(&body)).await;
        client.read_response().await.unwrap()
    };
    assert_eq!(reason(&answer), (504, "upstream_timeout"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn an_answer_that_stalls_is_seen_to_be_broken() {
    let stalled = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then(Step::Hang);
    let (upstream, proxy) = with_short("response_body", stalled).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    upstream.set_route("/chunked", Reply::raw(chunked).then(Step::Hang));
    for path in ["/length", "/chunked"] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", path, "").await.unwrap();
        let bytes = client.read_to_end().await.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("0\r\n\r\n") && !text.ends_with("\r\n\r\n"), "a clean end: {text}");
        proxy.log_line(&format!("GET {path} ")).await;
    }
    assert!(eventually(Duration::from_secs(10), || upstream.open_connections() == 0).await);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut() {
    let endless = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        .then(Step::Repeat { bytes: vec![b'x'; 1 << 20], pause: Duration::ZERO });
    let (upstream, proxy) = with_short("response_body", endless).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    client.read_exactly(100).await.unwrap();
    assert!(eventually(Duration::from_secs(10), || upstream.open_connections() == 0).await);
    proxy.log_line("GET / ").await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_by_the_limit_of_its_route() {
    let endless = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        .then(Step::Repeat { bytes: vec![b'x'; 1 << 20], pause: Duration::ZERO });
    let upstream = FakeUpstream::http1().route("*", endless).start().await;
    let route = "timeouts = { response_body = \"300ms\" }";
    let proxy = TestProxy::before(&upstream, "[timeouts]\nresponse_body = \"1h\"\n", route).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    client.read_exactly(100).await.unwrap();
    assert!(eventually(Duration::from_secs(10), || upstream.open_connections() == 0).await);
    proxy.log_line("GET / ").await;
}

#[tokio::test]
async fn an_upgraded_connection_ends_when_nothing_moves() {
    let (upstream, proxy) = with_short("stream_idle", Reply::upgrade()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "Connection: Upgrade\r\nUpgrade: echo\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 101);
    for _ in 0..20 {
        client.send("x").await.unwrap();
        assert_eq!(client.read_exactly(1).await.unwrap(), b"x");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    client.expect_closed().await.unwrap();
    assert!(eventually(Duration::from_secs(10), || upstream.open_connections() == 0).await);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_a_502() {
    let (upstream, proxy) = with_short("connect", Reply::ok("")).await;
    upstream.stop().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for answer in [client.get("/").await.unwrap(), client.post("/", "hello").await.unwrap()] {
        assert_eq!(reason(&answer), (502, "connect_failed"));
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_is_a_504() {
    // A TLS handshake that nobody answers: the connection itself is quick, being made is not.
    let upstream = FakeUpstream::http1().on_accept(OnAccept::Blackhole).start().await;
    let tables = format!(
        "[timeouts]\nconnect = \"300ms\"\n[upstream.app]\nendpoints = [\"{}\"]\ntls = {{ enabled = true, insecure = true }}\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(tables).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.get("/").await.unwrap();
    assert_eq!(reason(&answer), (504, "connect_failed"));
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_cut() {
    let upstream = FakeUpstream::http1().start().await;
    let folder = crate::support::files::Folder::new();
    let leaf = Ca::new().leaf(&["localhost"]);
    folder.write("site.pem", &leaf.cert_pem);
    folder.write("site.key", &leaf.key_pem);
    let tables = "[timeouts]\ntls_handshake = \"300ms\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                  tls = { certificates = [{ cert = \"site.pem\", key = \"site.key\" }] }\n";
    let proxy = TestProxy::before(&upstream, tables, "").in_folder(folder).start().await;
    for hello in [&b""[..], &b"\x16\x03\x01"[..]] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(hello).await.unwrap();
        client.expect_closed().await.unwrap();
    }
    // A byte now and then is no handshake either: the time is for the whole of it.
    let began = Instant::now();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    assert!(
        client.send_slowly(&hello, 1, Duration::from_millis(50)).await.is_err() || client.expect_closed().await.is_ok()
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_route_may_have_timeouts_of_its_own() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let route = "timeouts = { response_head = \"300ms\" }";
    let proxy = TestProxy::before(&upstream, "[timeouts]\nresponse_head = \"1h\"\n", route).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(reason(&client.get("/").await.unwrap()), (504, "upstream_timeout"));
}
