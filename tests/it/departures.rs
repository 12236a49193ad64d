//! Clients that leave, and the lines that tell of them and of everybody else.

use std::time::Duration;

use crate::support::client::{self, Client};
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(10);

async fn before(reply: Reply) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("*", reply).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    (upstream, proxy)
}

async fn expect_gone(upstream: &FakeUpstream, proxy: &TestProxy, part: &str) {
    let gone = eventually(DEADLINE, || upstream.connections() == 1 && upstream.open_connections() == 0).await;
    assert!(gone, "the upstream's connection stays open");
    let line = proxy.log_line(part).await;
    assert!(line.contains("\" 499 "), "{line}");
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_a_499() {
    for reset in [false, true] {
        let (upstream, proxy) = before(Reply::hang()).await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/wait", "").await.unwrap();
        assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        expect_gone(&upstream, &proxy, "GET /wait ").await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_is_a_499() {
    let (upstream, proxy) = before(Reply::ok("")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/upload", "Content-Length: 1000\r\n").await.unwrap();
    client.send("half").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    client.reset();
    expect_gone(&upstream, &proxy, "POST /upload ").await;
    assert!(!upstream.requests()[0].complete);
}

/// Who closes may have closed its side only, and read on: it is answered, and told of as it was answered.
#[tokio::test]
async fn a_client_that_closes_its_side_in_its_body_is_a_400() {
    for (framing, part) in [("Content-Length: 10\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")] {
        let upstream = FakeUpstream::http1().start().await;
        let log = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n";
        let proxy = TestProxy::before(&upstream, log, "").start().await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", "/upload", framing).await.unwrap();
        client.send(part).await.unwrap();
        assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
        client.finish_sending().await.unwrap();
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("flagstone-reason")), (400, Some("bad_request")));
        client.expect_closed().await.unwrap();
        assert!(eventually(DEADLINE, || upstream.connections() == 1 && upstream.open_connections() == 0).await);
        assert!(!upstream.requests()[0].complete);
        let line: serde_json::Value = serde_json::from_str(&proxy.log_line("/upload").await).unwrap();
        assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"bad_request".into()), "{line}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_answer_frees_the_upstream() {
    let endless = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        .then(Step::Repeat { bytes: vec![b'x'; 1 << 16], pause: Duration::ZERO });
    let (upstream, proxy) = before(endless).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/large", "").await.unwrap();
    client.read_exactly(100_000).await.unwrap();
    client.reset();
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
    let line = proxy.log_line("GET /large ").await;
    assert!(line.contains("\" 200 "), "{line}");
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_frees_the_upstream() {
    let stream = Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").then(Step::Hang);
    let (upstream, proxy) = before(stream).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/stream", "").await.unwrap();
    client.read_until("first").await.unwrap();
    drop(client);
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
}

/// The part of a combined line from the request on, with the status and the bytes.
fn told(line: &str) -> &str {
    let start = line.find("] \"").expect("a combined line") + 2;
    let end = line[start..].rfind(" \"-\" \"").or_else(|| line[start..].rfind(" \"http")).expect("a referer") + start;
    &line[start..end]
}

#[tokio::test]
async fn every_answer_has_its_combined_line() {
    let (_upstream, proxy) = before(Reply::ok("hello")).await;
    let address = proxy.address();
    client::get(address, "/plain?a=b").await.unwrap();
    let mut client = Client::connect(address).await.unwrap();
    client.send("GET http://a/absolute?c=d HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.read_response().await.unwrap();
    client.send("GET /1.0 HTTP/1.0\r\n\r\n").await.unwrap();
    client.read_response().await.unwrap();
    for bytes in
        [&b"GET /no-host HTTP/1.1\r\n\r\n"[..], b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\"\r\n\r\n"]
    {
        let mut client = Client::connect(address).await.unwrap();
        client.send(bytes).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 400);
    }
    let lines = [
        ("/plain", "\"GET /plain?a=b HTTP/1.1\" 200 5"),
        ("/absolute", "\"GET http://a/absolute?c=d HTTP/1.1\" 200 5"),
        ("/1.0", "\"GET /1.0 HTTP/1.0\" 200 5"),
        ("/no-host", "\"GET /no-host HTTP/1.1\" 400 "),
        ("/a\\x5Cb", "\"GET /a\\x5Cb HTTP/1.1\" 400 "),
        ("x16", "\"\\x16\\x03\\x01\\x22\" 400 "),
    ];
    for (part, expected) in lines {
        let line = proxy.log_line(part).await;
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(told(&line).starts_with(expected), "{line}");
    }
    assert_eq!(proxy.access_log().lines().count(), lines.len());
}

#[tokio::test]
async fn what_was_refused_has_its_json_line_and_is_counted() {
    let upstream = FakeUpstream::http1().start().await;
    let log = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n";
    let proxy = TestProxy::before(&upstream, log, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("garbage\r\n\r\n").await.unwrap();
    client.read_response().await.unwrap();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.unwrap();
    client.read_response().await.unwrap();
    let garbage: serde_json::Value = serde_json::from_str(&proxy.log_line("garbage").await).unwrap();
    assert_eq!((&garbage["method"], &garbage["target"]), (&serde_json::Value::Null, &"garbage".into()));
    let hosts: serde_json::Value = serde_json::from_str(&proxy.log_line("\"/x\"").await).unwrap();
    assert_eq!((&hosts["method"], &hosts["status"]), (&"GET".into(), &400.into()));
    assert_eq!((&hosts["reason"], &hosts["route"]), (&"bad_request".into(), &serde_json::Value::Null));
    let mut admin = Client::connect(proxy.admin()).await.unwrap();
    admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let metrics = admin.read_response().await.unwrap().text();
    let counted = metrics.lines().any(|line| {
        line.starts_with("flagstone_requests_total{") && line.contains("code=\"400\"") && line.ends_with(" 2")
    });
    assert!(counted, "{metrics}");
}
