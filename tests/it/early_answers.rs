//! Answers that come while the request's body is still on its way: the client gets them, and nothing of the body is
//! ever taken for a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::client::Client;
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(10);
/// A body in two pieces.
const CHUNKS: [&str; 2] = ["5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"];
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// One route for every kind of answer that is made here.
async fn answering_here() -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("*", "from the app").start().await;
    let routes = r#"
        [maintenance]
        flag = "on.flag"
        [[route]]
        name = "redirect"
        path = ["/redirect"]
        maintenance = "exempt"
        redirect = { to = "https://example.com$uri", status = 308 }
        [[route]]
        name = "respond"
        path = ["/respond"]
        maintenance = "exempt"
        respond = { status = 200, body = "fixed" }
        [[route]]
        name = "denied"
        path = ["/denied"]
        maintenance = "exempt"
        respond = { status = 200, body = "fixed" }
        deny = ["127.0.0.1"]
        [limit.one]
        key = "global"
        rate = "1/1h"
        burst = 1
        [[route]]
        name = "limited"
        path = ["/limited"]
        maintenance = "exempt"
        limits = ["one"]
        respond = { status = 200, body = "fixed" }
    "#;
    let proxy =
        TestProxy::before(&upstream, routes, "max_body = \"100B\"\nmaintenance = \"exempt\"\npath = [\"/app\"]");
    let proxy = proxy.start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    // Uses up the limit.
    client.get("/limited").await.unwrap();
    proxy.folder.touch("state/on.flag");
    let mut on = false;
    for _ in 0..500 {
        on = client.get("/closed").await.unwrap().status == 503;
        if on {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(on, "maintenance does not begin");
    (upstream, proxy)
}

const ANSWERS: [(&str, u16); 6] =
    [("/redirect", 308), ("/respond", 200), ("/denied", 403), ("/limited", 429), ("/closed", 503), ("/app", 413)];

#[tokio::test]
async fn a_body_that_nobody_wants_is_never_a_request() {
    let (upstream, proxy) = answering_here().await;
    for (path, status) in ANSWERS {
        // The body looks like a request, and so does what stands behind it; it comes late, and by the length or
        // chunked.
        for size in [SMUGGLED.len(), 50_000] {
            let body = SMUGGLED.repeat(size / SMUGGLED.len());
            if path == "/app" && body.len() < 100 {
                continue;
            }
            for chunked in [false, true] {
                if path == "/app" && chunked {
                    continue;
                }
                let mut client = Client::connect(proxy.address()).await.unwrap();
                let framing = if chunked {
                    "Transfer-Encoding: chunked".to_owned()
                } else {
                    format!("Content-Length: {}", body.len())
                };
                client.request("POST", path, &format!("{framing}\r\n")).await.unwrap();
                let framed = if chunked { format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()) } else { body.clone() };
                // May fail when the connection is closed already, which is one of the two right things.
                let _ = client.send(framed).await;
                let answer = client.read_response().await.unwrap_or_else(|error| panic!("{path} {framing}: {error}"));
                assert_eq!(answer.status, status, "{path} {framing}");
                if answer.header("connection") == Some("close") {
                    client.expect_closed().await.unwrap_or_else(|error| panic!("{path} {framing}: {error}"));
                } else {
                    let next = client.get("/respond").await.unwrap_or_else(|error| panic!("{path} {framing}: {error}"));
                    assert_eq!(next.text(), "fixed", "{path} {framing}");
                }
            }
        }
    }
    assert_eq!(upstream.connections(), 0);
    assert!(!proxy.access_log().contains("/smuggled"));
}

#[tokio::test]
async fn a_small_body_in_a_packet_of_its_own_does_not_cost_the_connection() {
    let (_upstream, proxy) = answering_here().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for (path, status) in ANSWERS.into_iter().filter(|(path, _)| *path != "/app") {
        // An expectation that nobody knows keeps no client from sending.
        for expect in ["", "Expect: x\r\n"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 5\r\n\r\n");
            client.send_slowly(format!("{head}hello"), head.len(), Duration::from_millis(20)).await.unwrap();
            let answer = client.read_response().await.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{path} {expect}");
        }
    }
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_large_upload_still_gets_the_answer() {
    let (_upstream, proxy) = answering_here().await;
    for (path, status) in ANSWERS {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", path, "Content-Length: 30000000\r\n").await.unwrap();
        let block = vec![b'x'; 1_000_000];
        for _ in 0..30 {
            // Reads nothing before all is sent, as simple clients do.
            client.send(&block).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let answer = client.read_response().await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}");
    }
}

#[tokio::test]
async fn an_early_answer_of_the_app_reaches_the_client() {
    let upstream = FakeUpstream::http1().route("/early", Reply::early_then_close(413, "too much")).route("*", "ok");
    let upstream = upstream.start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/early", "Content-Length: 1000000\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "too much"));
    // The body was never sent: whatever the client says now is body, not a request.
    let _ = client.send(SMUGGLED).await;
    let _ = client.read_to_end().await;
    assert!(upstream.requests().iter().all(|request| !request.head.line.contains("smuggled")));
}

#[tokio::test]
async fn an_app_that_closes_in_the_middle_of_an_upload_is_heard() {
    let upstream = FakeUpstream::http1().route("/early", Reply::early_then_close(413, "too much")).start().await;
    let proxy = TestProxy::before(&upstream, "", "max_body = 0").start().await;
    for _ in 0..10 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", "/early", "Content-Length: 30000000\r\n").await.unwrap();
        // What is left of the upload meets a closed connection: the answer was there before.
        let _ = client.send(vec![b'x'; 3_000_000]).await;
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (413, "too much"));
    }
}

#[tokio::test]
async fn an_upload_goes_on_behind_its_answer() {
    // The app answers, and reads the rest only then; the client reads only when it has sent everything.
    let upstream = FakeUpstream::http1().route("/early", Reply::early(200, "early").then(Step::ReadBody)).start().await;
    let server = "[server]\nstate_dir = \"state\"\nworkers = 1\n";
    let proxy = TestProxy::before(&upstream, server, "max_body = 0").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let body: Vec<u8> = (0..8_000_000_u32).map(|number| (number % 251) as u8).collect();
    for number in 1..=2 {
        client.request("POST", "/early", &format!("Content-Length: {}\r\n", body.len())).await.unwrap();
        client.send(&body).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().text(), "early");
        let arrived = || upstream.requests().get(number - 1).is_some_and(|request| request.body == body);
        assert!(eventually(DEADLINE, arrived).await, "{number}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_behind_the_last_answer_of_its_connection() {
    let upstream = FakeUpstream::http1().route("*", Reply::early(202, "early")).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let framings = [("Content-Length: 10", ["hello", "world"]), ("Transfer-Encoding: chunked", CHUNKS)];
    for (number, (framing, [first, second])) in framings.into_iter().enumerate() {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", "/early", &format!("Connection: close\r\n{framing}\r\n")).await.unwrap();
        client.send(first).await.unwrap();
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (202, Some("close")), "{framing}");
        client.send(second).await.unwrap();
        let has_arrived = || upstream.requests().get(number).is_some_and(|request| request.body == b"helloworld");
        assert!(eventually(DEADLINE, has_arrived).await, "{framing}: {:?}", upstream.requests());
        client.expect_closed().await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_behind_its_answer_is_not_idle() {
    let upstream = FakeUpstream::http1().route("*", Reply::early(202, "early")).start().await;
    let proxy = TestProxy::before(&upstream, "[timeouts]\nidle = \"100ms\"\n", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/early", "Content-Length: 20\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 202);
    // For several times as long as a connection may be idle.
    client.send_slowly([b'x'; 20], 1, Duration::from_millis(50)).await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests()[0].complete).await);
    client.expect_closed().await.unwrap();
}

/// What the app refuses early it may not take to its end, and what it closes behind it does not.
#[tokio::test]
async fn an_early_answer_promises_no_more_than_the_app_will_let_it_keep() {
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly";
    let upstream = FakeUpstream::http1()
        .route("/refused", Reply::early(413, "too much"))
        .route("/closing", Reply::default().then(Step::Send(closing.into())))
        .route("/taken", Reply::early(202, "early"));
    let upstream = upstream.start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    for (path, rest_bytes, connection) in [
        ("/refused", 1_000_000, Some("close")),
        ("/refused", 5, None),
        ("/closing", 1_000_000, Some("close")),
        ("/closing", 5, None),
        ("/taken", 1_000_000, None),
    ] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        let requests = upstream.requests().len();
        client.request("POST", path, &format!("Content-Length: {}\r\n", 5 + rest_bytes)).await.unwrap();
        client.send("hello").await.unwrap();
        let answer = client.read_response().await.unwrap();
        assert_eq!(answer.header("connection"), connection, "{path} {rest_bytes}");
        // It goes on all the same, as far as the app takes it.
        client.send(vec![b'x'; rest_bytes]).await.unwrap();
        let has_arrived = || upstream.requests().get(requests).is_some_and(|request| request.complete);
        assert!(eventually(DEADLINE, has_arrived).await, "{path} {rest_bytes}");
        match connection {
            Some(_) => drop(client.expect_closed().await.unwrap()),
            None => assert!(client.get("/taken").await.is_ok(), "{path} {rest_bytes}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_waits_for_the_upload_is_not_late() {
    let half = Reply::default().then(Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf".to_vec()));
    let whole = half.then(Step::ReadBody).then(Step::Send(b"done".to_vec()));
    let upstream = FakeUpstream::http1().route("*", whole).start().await;
    let proxy = TestProxy::before(&upstream, "", "timeouts = { response_body = \"200ms\" }").start().await;
    for [first, second] in [["", "helloworld"], ["hello", "world"]] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", "/both", "Content-Length: 10\r\n").await.unwrap();
        client.send(first).await.unwrap();
        client.read_until("half").await.unwrap();
        // Nobody but the client can go on.
        client.expect_silence(Duration::from_millis(800)).await.unwrap();
        client.send(second).await.unwrap();
        client.read_until("done").await.unwrap();
    }
    assert!(upstream.requests().iter().all(|request| request.body == b"helloworld"));
}

#[tokio::test]
async fn an_app_that_answers_and_takes_no_more_is_given_up() {
    // It neither reads what is left of the upload nor closes.
    let go_on = Arc::new(Notify::new());
    let reply = Reply::early(401, "no").then(Step::Await(Arc::clone(&go_on)));
    let upstream = FakeUpstream::http1().route("*", reply).start().await;
    let route = "max_body = 0\ntimeouts = { response_body = \"300ms\" }";
    let proxy = TestProxy::before(&upstream, "", route).start().await;
    for connection in ["keep-alive", "close"] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        let head = format!("Connection: {connection}\r\nContent-Length: 30000000\r\n");
        client.request("POST", "/up", &head).await.unwrap();
        client.send(vec![b'x'; 30_000_000]).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 401, "{connection}");
        client.expect_closed().await.unwrap();
    }
    let mut leaving = Client::connect(proxy.address()).await.unwrap().deadline(Duration::from_millis(500));
    leaving.request("POST", "/up", "Content-Length: 1000000000\r\n").await.unwrap();
    let _ = leaving.send(vec![b'x'; 30_000_000]).await;
    leaving.reset();
    assert!(eventually(DEADLINE, || proxy.connections().iter().sum::<usize>() == 0).await);
    assert_eq!(upstream.open_connections(), 3);
    // Now it reads, and finds that nobody sends any more.
    go_on.notify_waiters();
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
    assert!(upstream.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn a_connection_whose_body_is_unfinished_serves_nobody_else() {
    let upstream =
        FakeUpstream::http1().route("/early", Reply::early(200, "early")).route("/other", "other").start().await;
    let server = "[server]\nstate_dir = \"state\"\nworkers = 1\n";
    let proxy = TestProxy::before(&upstream, server, "").start().await;
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("POST", "/early", "Content-Length: 10\r\n").await.unwrap();
    assert_eq!(slow.read_response().await.unwrap().text(), "early");
    // The upload goes on; the other client must not have to wait for its end.
    let mut other = Client::connect(proxy.address()).await.unwrap().deadline(Duration::from_secs(5));
    assert_eq!(other.get("/other").await.unwrap().text(), "other");
    assert!(eventually(DEADLINE, || upstream.connections() == 2).await);
}
