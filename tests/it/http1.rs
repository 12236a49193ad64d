//! HTTP/1.1 between client and app: connections, pipelines, HEAD, HTTP/1.0, 100-continue, kinds of sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::Notify;

use crate::support::client::{Client, Ending};
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

async fn app() -> (FakeUpstream, TestProxy) {
    let echo = Reply::answer(|request| Reply::ok(request.head.line.split(' ').nth(1).unwrap_or_default()));
    let upstream = FakeUpstream::http1().route("*", echo).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    (upstream, proxy)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (upstream, proxy) = app().await;
    upstream.set_route("/0", Reply::ok("/0").after(Duration::from_millis(50)));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let pipeline: String = (0..50).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(pipeline).await.unwrap();
    for number in 0..50 {
        assert_eq!(client.read_response().await.unwrap().text(), format!("/{number}"));
    }
}

#[tokio::test]
async fn what_a_client_forgot_to_escape_is_escaped() {
    let (_upstream, proxy) = app().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for (target, forwarded) in [
        ("/é?q=é", "/%C3%A9?q=é"),
        ("/<a>`", "/%3Ca%3E%60"),
        ("/a?q=\"b\"&r=<c>", "/a?q=%22b%22&r=%3Cc%3E"),
        ("/a\"b", "/a%22b"),
    ] {
        client.request("GET", target, "").await.unwrap();
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, forwarded), "{target}");
    }
}

#[tokio::test]
async fn a_client_that_wants_to_close_is_closed_after_its_answer() {
    let (_upstream, proxy) = app().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "Connection: close\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}

/// To close a socket to which more comes is to reset it, and to drop what its client has not taken yet.
#[tokio::test]
async fn a_last_answer_is_whole_whatever_its_client_asks_behind_it() {
    let (upstream, proxy) = app().await;
    let whole = "whole ".repeat(10_000);
    upstream.set_route("/last", Reply::ok(&whole));
    let socket = TcpSocket::new_v4().unwrap();
    // So that most of the answer waits on the other side.
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut client = Client::on(socket.connect(proxy.address()).await.unwrap()).unwrap();
    let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.send(format!("GET /first HTTP/1.1\r\nHost: a\r\n\r\n{last}")).await.unwrap();
    proxy.log_line("GET /last ").await;
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    for answer in ["/first", &whole] {
        assert_eq!(client.read_response().await.unwrap().text(), answer);
    }
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn a_drain_answers_what_a_client_has_asked_already() {
    let (upstream, proxy) = app().await;
    let word = Arc::new(Notify::new());
    upstream.set_route("/held", Reply::ok("/held").at(&word));
    let mut idle = Client::connect(proxy.address()).await.unwrap();
    idle.get("/").await.unwrap();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let asked = ["/held", "/second", "/third"];
    client.send(asked.map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).concat()).await.unwrap();
    assert!(eventually(Duration::from_secs(10), || upstream.requests().len() == 2).await);
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(20)));
    assert_eq!(idle.expect_closed().await.unwrap(), Ending::Fin);
    word.notify_one();
    for path in asked {
        assert_eq!(client.read_response().await.unwrap().text(), path);
    }
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
    drop(client);
    assert!(draining.await.unwrap());
}

#[tokio::test]
async fn what_comes_behind_a_last_request_is_not_answered() {
    let (upstream, proxy) = app().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.send(format!("{last}GET /more HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "/last");
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn http10_closes_unless_it_asks_to_be_kept() {
    let (upstream, proxy) = app().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..2 {
        client.send("GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("/kept", Some("keep-alive")));
    }
    client.send("GET /last HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert!(answer.line.starts_with("HTTP/1.0 200") || answer.line.starts_with("HTTP/1.1 200"), "{}", answer.line);
    assert_eq!(answer.text(), "/last");
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
    let lines: Vec<_> = upstream.requests().iter().map(|request| request.head.line.clone()).collect();
    assert_eq!(lines, ["GET /kept HTTP/1.1", "GET /kept HTTP/1.1", "GET /last HTTP/1.1"]);
}

#[tokio::test]
async fn http10_gets_a_chunked_answer_without_chunks() {
    let (upstream, proxy) = app().await;
    upstream.set_route("/chunked", Reply::chunked(&["one ", "two"], ""));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET /chunked HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("one two", None));
}

#[tokio::test]
async fn head_gets_the_length_and_no_body() {
    let (upstream, proxy) = app().await;
    upstream.set_route("/page", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n"));
    upstream.set_route("/stream", Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..2 {
        client.request("HEAD", "/page", "").await.unwrap();
        let answer = client.read_head_response().await.unwrap();
        let found = (answer.status, answer.header("content-length"), answer.header("etag"));
        assert_eq!(found, (200, Some("1234"), Some("\"x\"")));
    }
    client.request("HEAD", "/stream", "").await.unwrap();
    assert_eq!(client.read_head_response().await.unwrap().status, 200);
    // Whatever had been sent as a body would now be in the way.
    assert_eq!(client.get("/after").await.unwrap().text(), "/after");
}

#[tokio::test]
async fn a_refused_head_gets_the_length_of_the_page_and_no_body() {
    let proxy =
        TestProxy::toml("[[route]]\nname = \"a\"\npath = [\"/a\"]\nrespond = { status = 200, body = \"hi\" }\n");
    let proxy = proxy.start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let get = client.get("/none").await.unwrap();
    client.request("HEAD", "/none", "").await.unwrap();
    let head = client.read_head_response().await.unwrap();
    assert_eq!((head.status, head.header("flagstone-reason")), (404, Some("no_route")));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(client.get("/a").await.unwrap().text(), "hi");
}

#[tokio::test]
async fn answers_that_have_no_body_have_none() {
    let (upstream, proxy) = app().await;
    upstream.set_route("/204", Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"));
    upstream.set_route("/304", Reply::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"x\"\r\n\r\n"));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for status in [204, 304] {
        assert_eq!(client.get(&format!("/{status}")).await.unwrap().status, status);
        assert_eq!(client.get("/next").await.unwrap().text(), "/next");
    }
}

#[tokio::test]
async fn interim_answers_of_the_app_are_not_taken_for_final_ones() {
    let (upstream, proxy) = app().await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    upstream.set_route("/hints", Reply::raw(hints));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/hints").await.unwrap().text(), "hi");
    assert_eq!(client.get("/next").await.unwrap().text(), "/next");
}

#[tokio::test]
async fn continue_is_said_when_the_app_is_ready_for_the_body() {
    let (upstream, proxy) = app().await;
    upstream.set_route("/up", Reply::echo_body());
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/up", "Content-Length: 5\r\nExpect: 100-continue\r\n").await.unwrap();
    assert_eq!(client.read_interim().await.unwrap(), 100);
    client.send("hello").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "hello");
    assert_eq!(upstream.requests()[0].body, b"hello");
}

#[tokio::test]
async fn a_refusal_comes_without_continue() {
    let upstream = FakeUpstream::http1().start().await;
    let proxy = TestProxy::before(&upstream, "", "max_body = \"10B\"\ndeny = [\"192.0.2.0/24\"]").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/up", "Content-Length: 11\r\nExpect: 100-continue\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.status, answer.interim.len(), answer.header("connection")), (413, 0, Some("close")));
    // The client may now send the body or not: either way nothing of it is a request.
    let _ = client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect_closed().await.unwrap();
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn no_continue_is_said_when_no_endpoint_can_be_reached() {
    let upstream = FakeUpstream::http1().start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    upstream.stop().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/up", "Content-Length: 5\r\nExpect: 100-continue\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    let found = (answer.status, answer.header("flagstone-reason"), answer.interim.len());
    assert_eq!(found, (502, Some("connect_failed"), 0));
}

#[tokio::test]
async fn listeners_and_endpoints_may_be_ipv6_and_unix_sockets() {
    let folder = Folder::new();
    let upstream = FakeUpstream::http1().unix(folder.join("app.sock")).route("*", Reply::echo_head()).start().await;
    let listeners = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"six\"\n\
                     address = \"[::1]:0\"\n[[listener]]\nname = \"unix\"\naddress = \"unix:web.sock\"\n";
    let proxy = TestProxy::before(&upstream, listeners, "").start().await;
    let socket = proxy.folder.join("web.sock");
    let mut clients = [
        ("127.0.0.1", Client::connect(proxy.address()).await.unwrap()),
        ("::1", Client::connect(proxy.listener("six")).await.unwrap()),
        ("127.0.0.1", Client::connect_unix(&socket).await.unwrap()),
    ];
    for (index, (from, client)) in clients.iter_mut().enumerate() {
        let answer = client.get(&format!("/{index}")).await.unwrap().text();
        assert!(answer.contains(&format!("x-forwarded-for: {from}\n")), "{answer}");
    }
    assert!(proxy.log_line("GET /1 ").await.starts_with("::1 - - ["));
    assert!(proxy.log_line("GET /2 ").await.starts_with("unix: - - ["));
    drop(clients);
    assert!(proxy.drain(Duration::from_secs(5)).await);
    assert!(!socket.exists());
}

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_sent() {
    let (upstream, proxy) = app().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    // Sends its next event only when it has got another request's byte: the client's, below.
    let stream = Reply::raw([head, "d\r\ndata: first\n\n\r\n"].concat()).then(Step::Hang);
    upstream.set_route("/events", stream);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/events", "Accept: text/event-stream\r\n").await.unwrap();
    let head = client.read_until("\r\n\r\n").await.unwrap();
    assert!(String::from_utf8_lossy(&head).contains("text/event-stream"));
    client.read_until("data: first\n\n").await.unwrap();
    client.expect_silence(Duration::from_millis(50)).await.unwrap();
}
