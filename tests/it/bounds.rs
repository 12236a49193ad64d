//! Every bound of `[bounds]`, from both sides.

use crate::support::client::Client;
use crate::support::h2::{self, Http2};
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

async fn with(bounds: &str, route: &str) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("*", Reply::echo_body()).start().await;
    let proxy = TestProxy::before(&upstream, &format!("[bounds]\n{bounds}\n"), route).start().await;
    (upstream, proxy)
}

/// Sends a head in one piece and in many; what comes back has to be the same.
async fn expect(proxy: &TestProxy, head: &str, status: u16, reason: Option<&str>) {
    for piece in [head.len(), 1000, head.len() - 1] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        for piece in head.as_bytes().chunks(piece) {
            // May fail when the verdict has been given before the end.
            let _ = client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let answer = client.read_response().await.unwrap_or_else(|error| panic!("{status}: {error}"));
        assert_eq!((answer.status, answer.header("flagstone-reason")), (status, reason), "{} bytes", head.len());
        if status >= 400 {
            assert_eq!(answer.header("connection"), Some("close"));
            client.expect_closed().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_target_over_its_bound_is_a_414() {
    let (upstream, proxy) = with("max_uri_bytes = \"1KiB\"", "").await;
    let head = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    expect(&proxy, &head(1024), 200, None).await;
    let passed = upstream.requests().len();
    expect(&proxy, &head(1025), 414, Some("too_large")).await;
    expect(&proxy, &head(100_000), 414, Some("too_large")).await;
    assert_eq!(upstream.requests().len(), passed);
    let line = proxy.log_line(" 414 ").await;
    assert!(line.contains("\"GET /xxx"), "{line}");
}

#[tokio::test]
async fn a_head_over_its_bound_is_a_431() {
    let (upstream, proxy) = with("max_header_bytes = \"4KiB\"", "").await;
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame));
    expect(&proxy, &head(4096), 200, None).await;
    let passed = upstream.requests().len();
    expect(&proxy, &head(4097), 431, Some("too_large")).await;
    expect(&proxy, &head(500_000), 431, Some("too_large")).await;
    assert_eq!(upstream.requests().len(), passed);
    let line = proxy.log_line(" 431 ").await;
    assert!(line.contains("\"GET / HTTP/1.1\" 431 "), "{line}");
}

#[tokio::test]
async fn a_head_over_its_bound_is_told_of_over_http2_too() {
    let (upstream, proxy) = with("max_header_bytes = \"4KiB\"", "").await;
    let mut client = Http2::connect(proxy.address()).await;
    let mut ask = async |bytes: usize| {
        let mut request = h2::get("/");
        request.headers_mut().insert("x", "x".repeat(bytes).parse().unwrap());
        client.send(request).await.unwrap()
    };
    assert_eq!(ask(3500).await.status(), 200);
    let refused = ask(4097).await;
    assert_eq!((refused.status(), refused.header("flagstone-reason")), (431, Some("too_large")));
    assert!(refused.text().contains("larger than this site takes"), "{}", refused.text());
    proxy.log_line("\"GET / HTTP/2.0\" 431 ").await;
    // This far beyond, h2 answers alone.
    assert_eq!(ask(9000).await.status(), 431);
    assert_eq!(ask(10).await.status(), 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_target_that_grows_past_what_there_can_be_is_a_414() {
    let (upstream, proxy) = with("max_header_bytes = \"200KiB\"\nmax_uri_bytes = \"100KiB\"", "").await;
    for target in [format!("/{}?x=1", "|".repeat(30_000)), format!("/?{}", "\"".repeat(30_000))] {
        expect(&proxy, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, Some("too_large")).await;
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn too_many_headers_are_a_431() {
    for bound in [10, 150] {
        let (upstream, proxy) = with(&format!("max_headers = {bound}"), "").await;
        let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
        expect(&proxy, &head(bound), 200, None).await;
        let passed = upstream.requests().len();
        expect(&proxy, &head(bound + 1), 431, Some("too_large")).await;
        assert_eq!(upstream.requests().len(), passed);
    }
}

#[tokio::test]
async fn the_largest_head_that_is_allowed_passes_whole() {
    let (upstream, proxy) = with("max_header_bytes = \"200KiB\"", "").await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(190_000));
    expect(&proxy, &head, 200, None).await;
    assert_eq!(upstream.requests()[0].head.header("x").map(str::len), Some(190_000));
}

#[tokio::test]
async fn no_target_is_longer_than_64_kib_whatever_the_bound() {
    let (upstream, proxy) = with("max_header_bytes = \"200KiB\"\nmax_uri_bytes = \"100KiB\"", "").await;
    let head = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    expect(&proxy, &head(60_000), 200, None).await;
    let passed = upstream.requests().len();
    expect(&proxy, &head(70_000), 414, Some("too_large")).await;
    assert_eq!(upstream.requests().len(), passed);
}

#[tokio::test]
async fn a_body_over_its_bound_is_a_413() {
    let (upstream, proxy) = with("max_body = \"1KiB\"", "").await;
    for size in [1023, 1024] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        assert_eq!(client.post("/", "x".repeat(size)).await.unwrap().body.len(), size);
    }
    let before = upstream.received_bytes();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.post("/", "x".repeat(1025)).await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (413, Some("too_large")));
    client.expect_closed().await.unwrap();
    assert_eq!(upstream.received_bytes(), before);
}

#[tokio::test]
async fn a_chunked_body_is_cut_where_it_passes_its_bound() {
    let (upstream, proxy) = with("max_body = \"1KiB\"", "").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Transfer-Encoding: chunked\r\n").await.unwrap();
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    for _ in 0..3 {
        // The connection may be closing by the third.
        let _ = client.send(&chunk).await;
    }
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (413, Some("too_large")));
    client.expect_closed().await.unwrap();
    let seen = upstream.requests();
    assert!(seen.iter().all(|request| !request.complete && request.body.len() <= 1024));
}

#[tokio::test]
async fn a_route_may_have_a_bound_of_its_own_or_none() {
    let (_upstream, proxy) = with("max_body = \"10B\"", "max_body = \"20B\"").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.post("/", "x".repeat(20)).await.unwrap().status, 200);
    assert_eq!(client.post("/", "x".repeat(21)).await.unwrap().status, 413);
    let (_upstream, proxy) = with("max_body = \"10B\"", "max_body = 0").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.post("/", "x".repeat(100_000)).await.unwrap().status, 200);
}

/// An answer that has begun, as that of a gRPC stream has, cannot become a 413. It ends short, and the log says whose doing that was.
#[tokio::test]
async fn an_answer_that_ends_with_its_upload_is_not_held_against_the_app() {
    let half = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec());
    let upstream = FakeUpstream::http1().route("*", Reply::default().then(half).then(Step::Hang)).start().await;
    let log = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n";
    let proxy = TestProxy::before(&upstream, log, "max_body = \"10B\"").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/stream", "Transfer-Encoding: chunked\r\n").await.unwrap();
    client.send("5\r\nfirst\r\n").await.unwrap();
    client.read_until(b"hello").await.unwrap();
    client.send("6\r\nsecond\r\n").await.unwrap();
    // By a FIN or a reset, with what was left unread.
    let _ = client.read_to_end().await;
    let line = proxy.log_line("/stream").await;
    assert!(line.contains("\"status\":200") && line.contains("\"reason\":\"too_large\""), "{line}");
}
