//! Bodies in both directions: framing, streaming, back-pressure, trailers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::h2::Http2;
use crate::support::poll::eventually;
use crate::support::process::Flagstone;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;
use crate::support::wire::Framing;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn fixed_and_chunked_bodies_keep_their_framing() {
    let upstream = FakeUpstream::http1()
        .route("/fixed", Reply::echo_body())
        .route("/chunked", Reply::chunked(&["a", "bc"], ""))
        .start()
        .await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.post("/fixed", "hello").await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("content-length")), ("hello", Some("5")));
    client.request("POST", "/chunked", "Transfer-Encoding: chunked\r\n").await.unwrap();
    client.send("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("abc", Some("chunked")));
    let seen = upstream.requests();
    assert_eq!((seen[0].head.framing(), seen[0].body.as_slice()), (Framing::Length(5), &b"hello"[..]));
    assert_eq!((seen[1].head.framing(), seen[1].body.as_slice()), (Framing::Chunked, &b"abcde"[..]));
}

#[tokio::test]
async fn a_body_of_get_and_head_is_not_lost() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    for method in ["GET", "HEAD", "DELETE"] {
        for (headers, body) in
            [("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")]
        {
            let before = upstream.requests().len();
            let mut client = Client::connect(proxy.address()).await.unwrap();
            client.request(method, "/", headers).await.unwrap();
            client.send(body).await.unwrap();
            let arrived = || upstream.requests().get(before).is_some_and(|request| request.body == b"hello");
            assert!(eventually(DEADLINE, arrived).await, "{method} {headers}: {:?}", upstream.requests());
        }
    }
    // And one that comes to no good end has none at the app either.
    let (upstream, before) = (&upstream, upstream.requests().len());
    for method in ["GET", "HEAD"] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        // In one piece: a head that comes alone may rightly be at the app before the body turns out to be malformed.
        let head = format!("{method} / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{head}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
        let _ = client.read_to_end().await.unwrap();
    }
    let raw = String::from_utf8_lossy(&upstream.raw().concat()).into_owned();
    assert!(!raw.contains("smuggled"), "{raw}");
    assert_eq!(upstream.requests().len(), before, "{:?}", upstream.requests().last());
}

#[tokio::test]
async fn an_empty_body_in_chunks_is_one_of_length_zero() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for (framing, body, length) in [("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", Some("0")), ("", "", None)] {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n{body}")).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().text(), "ok");
        let requests = upstream.requests();
        let seen = &requests.last().unwrap().head;
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (length, None));
    }
}

#[tokio::test]
async fn a_request_body_is_passed_on_as_it_comes() {
    let upstream = FakeUpstream::http1().route("*", Reply::echo_body()).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Content-Length: 10\r\n").await.unwrap();
    client.send("first").await.unwrap();
    let arrived = || upstream.requests().first().is_some_and(|request| request.body == b"first");
    assert!(eventually(DEADLINE, arrived).await, "{:?}", upstream.requests());
    client.send("again").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "firstagain");
}

#[tokio::test]
async fn trailers_pass_both_ways_when_they_are_announced() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n";
    let upstream = FakeUpstream::http1().route("*", Reply::raw(chunked)).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let headers = "TE: trailers\r\nConnection: te\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n";
    client.request("POST", "/", headers).await.unwrap();
    client.send("2\r\nab\r\n0\r\nX-Check: 9\r\n\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!(answer.text(), "hi");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let request = &upstream.requests()[0];
    assert_eq!(request.trailers, [("x-check".to_owned(), "9".to_owned())]);
    assert_eq!(request.head.header("te"), None);
}

#[tokio::test]
async fn trailers_stop_here_for_a_client_that_did_not_ask() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n";
    let upstream = FakeUpstream::http1().route("*", Reply::raw(chunked)).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..2 {
        let answer = client.get("/").await.unwrap();
        assert_eq!((answer.text().as_str(), answer.trailers.len()), ("hi", 0));
    }
    assert_eq!(upstream.connections(), 1);
}

/// With one of them the answer would be malformed (RFC 9113, section 8.2.2), and its stream reset before its body has left.
#[tokio::test]
async fn what_may_not_stand_in_trailers_is_left_out_of_an_answer() {
    for field in [
        "Connection: close",
        "Keep-Alive: timeout=5",
        "Transfer-Encoding: chunked",
        "TE: trailers",
        "Content-Length: 9",
    ] {
        for (trailers, left) in [(format!("X-Sum: 7\r\n{field}\r\n"), Some("7")), (format!("{field}\r\n"), None)] {
            let upstream = FakeUpstream::http1().route("*", Reply::chunked(&["one ", "two"], &trailers)).start().await;
            let proxy = TestProxy::before(&upstream, "", "").start().await;
            let answer = Http2::connect(proxy.address()).await.get("/").await.unwrap();
            assert_eq!(answer.text(), "one two", "{trailers}");
            let trailers = answer.trailers.unwrap_or_default();
            let sum = trailers.get("x-sum").map(|value| value.to_str().unwrap());
            assert_eq!((sum, trailers.len()), (left, usize::from(left.is_some())), "{trailers:?}");
        }
    }
}

#[tokio::test]
async fn a_stalled_app_stops_the_client() {
    let stalled = Reply::default().then(Step::Wait(Duration::from_secs(3600)));
    let upstream = FakeUpstream::http1().route("*", stalled).start().await;
    let proxy = TestProxy::before(&upstream, "", "max_body = 0").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap().deadline(Duration::from_secs(1));
    client.request("POST", "/", "Content-Length: 1000000000\r\n").await.unwrap();
    let block = vec![b'x'; 1 << 20];
    let mut sent = 0_usize;
    while client.send(&block).await.is_ok() {
        sent += block.len();
        // Socket buffers on both sides hold a few MiB each; a proxy that buffers would take it all.
        assert!(sent < 64 << 20, "the client could send {sent} bytes");
    }
}

/// The binary before an app whose answer, which begins with this head, never ends.
async fn before_an_endless_app(head: &str) -> (Flagstone, SocketAddr, FakeUpstream) {
    let endless = Reply::raw(head).then(Step::Repeat { bytes: vec![b'x'; 1 << 20], pause: Duration::ZERO });
    let upstream = FakeUpstream::http1().route("*", endless).start().await;
    let config = format!(
        "[server]\nworkers = 1\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let mut proxy = Flagstone::serve(&config).await;
    let address = proxy.address("web").await;
    (proxy, address, upstream)
}

#[tokio::test]
async fn a_stalled_client_stops_the_app_and_memory_stays_flat() {
    let (proxy, address, _upstream) =
        before_an_endless_app("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n").await;
    let before = proxy.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(address).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        // Some of it is read, the rest is not.
        client.read_exactly(1 << 20).await.unwrap();
        clients.push(client);
    }
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn what_a_rush_took_is_given_back_in_the_silence_after_it() {
    // Without a length it is copied, and so held, rather than moved within the kernel.
    let (proxy, address, _upstream) = before_an_endless_app("HTTP/1.1 200 OK\r\n\r\n").await;
    let before = proxy.anonymous_bytes();
    let mut clients = Vec::new();
    for _ in 0..128 {
        let mut client = Client::connect(address).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        clients.push(client);
    }
    let growth = || proxy.anonymous_bytes().saturating_sub(before);
    assert!(eventually(DEADLINE, || growth() > 12 << 20).await, "{} bytes more", growth());
    let rush = growth();
    drop(clients);
    // What the allocator gives back it gives back over some seconds, and the more there was, the more stays in use.
    let has_gone = eventually(3 * DEADLINE, || growth() < rush / 2).await;
    assert!(has_gone, "still {} bytes more, of {rush}", growth());
}

#[tokio::test]
async fn a_large_body_arrives_whole_both_ways() {
    let echo = Reply::answer(|request| Reply::ok(&request.body));
    let upstream = FakeUpstream::http1().route("*", echo).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let body: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
    let answer = client.post("/", &body).await.unwrap();
    assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
}
