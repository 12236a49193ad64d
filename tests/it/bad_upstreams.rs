//! Upstreams that misbehave: what the client sees, and what becomes of the connection.

use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::client::{self, Client, RawResponse};
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::socket::Socket;
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(10);
/// One worker, so that there is one pool to look at.
const SERVER: &str = "[server]\nstate_dir = \"state\"\nworkers = 1\n";

async fn before(reply: Reply) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("/bad", reply).route("*", "fine").start().await;
    let proxy = TestProxy::before(&upstream, SERVER, "").start().await;
    (upstream, proxy)
}

fn reason(answer: &RawResponse) -> (u16, &str) {
    (answer.status, answer.header("flagstone-reason").unwrap_or_default())
}

#[tokio::test]
async fn a_truncated_body_is_no_clean_end() {
    let (upstream, proxy) = before(Reply::truncated(100, "half")).await;
    upstream.set_route("/chunked", Reply::truncated_chunked());
    for path in ["/bad", "/chunked"] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", path, "").await.unwrap();
        assert!(client.read_response().await.is_err(), "{path}: a broken answer looks whole");
        let line = proxy.log_line(&format!("GET {path} ")).await;
        assert!(line.contains("\" 200 "), "{line}");
    }
}

/// A reset would take along what the client has not yet read of this answer, and of those before it.
#[tokio::test]
async fn an_answer_that_breaks_off_ends_in_a_fin_whatever_the_client_has_sent_behind() {
    let told = Arc::new(Notify::new());
    let (_upstream, proxy) = before(Reply::truncated(100, "half").at(&told)).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/bad", "").await.unwrap();
    client.request("POST", "/more", "Content-Length: 100000\r\n").await.unwrap();
    client.send(vec![b'x'; 100_000]).await.unwrap();
    told.notify_one();
    let answer = client.read_to_end().await.expect("a proper end");
    assert!(answer.ends_with(b"\r\n\r\nhalf"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_truncated_body_for_http10_is_no_clean_end() {
    let (_upstream, proxy) = before(Reply::truncated_chunked()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET /bad HTTP/1.0\r\n\r\n").await.unwrap();
    // Without a length, only a reset tells a broken answer from a whole one.
    let error = client.read_response().await.expect_err("a broken answer looks whole");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// A socket tells of a reset once. Here the upload meets it, while nobody reads on behalf of a client that does not
/// read.
#[tokio::test]
async fn a_reset_that_the_upload_meets_is_no_clean_end_of_the_answer() {
    const QUIET: Duration = Duration::from_millis(300);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let toml = format!(
        "{SERVER}[[route]]\nname = \"all\"\nupstream = \"app\"\nmax_body = 0\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        listener.local_addr().unwrap()
    );
    let proxy = TestProxy::toml(toml).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Content-Length: 1000000000\r\n").await.unwrap();
    let (mut app, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(app.read_buf(&mut head).await.unwrap() > 0);
    }
    app.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // Until all on the way to the client is full.
    while let Ok(written) = timeout(QUIET, app.write(&[b'x'; 64 * 1024])).await {
        written.unwrap();
    }
    Socket::Tcp(app).reset();
    // Until nobody takes any more of it.
    while let Ok(sent) = timeout(QUIET, client.send([b'y'; 64 * 1024])).await {
        sent.unwrap();
    }
    assert!(client.read_response().await.is_err(), "a broken answer looks whole");
}

#[tokio::test]
async fn an_end_while_the_body_is_still_coming_is_a_502() {
    let (_upstream, proxy) = before(Reply::close()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/bad", "Content-Length: 1000000\r\n").await.unwrap();
    client.send(vec![b'x'; 1000]).await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!(reason(&answer), (502, "upstream_error"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn heads_that_two_parsers_read_differently_are_not_passed_on() {
    for head in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: +5",
        "Content-Length: 5, 6",
        "Content-Length: x",
        "Content-Length : 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "X: a\r\n b",
        "X: a\rb",
        "X: a\0b",
    ] {
        let (upstream, proxy) = before(Reply::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhello"))).await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/bad", "").await.unwrap();
        let answer = client.read_response().await.unwrap_or_else(|error| panic!("{head}: {error}"));
        assert_eq!(reason(&answer), (502, "upstream_error"), "{head}");
        // One, or two where the request was tried again.
        let spoilt = upstream.connections();
        let mut client = Client::connect(proxy.address()).await.unwrap();
        assert_eq!(client.get("/fine").await.unwrap().text(), "fine", "{head}");
        assert_eq!(upstream.connections(), spoilt + 1, "{head}: the connection was used again");
    }
}

#[tokio::test]
async fn extra_bytes_cost_the_connection_and_reach_nobody() {
    let extra = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra";
    let (upstream, proxy) = before(Reply::extra_bytes("good", extra)).await;
    let glued = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{extra}");
    upstream.set_route("/glued", Reply::raw(glued));
    for number in 1..=10 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        assert_eq!(client.get("/glued").await.unwrap().text(), "good");
        assert_eq!(client.get("/fine").await.unwrap().text(), "fine");
        // Bytes that come later are seen when they come: until then the connection is as good as any.
        assert_eq!(client.get("/bad").await.unwrap().text(), "good");
        assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
        assert_eq!(upstream.connections(), 2 * number);
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_reset_costs_a_get_nothing() {
    let upstream = FakeUpstream::http1().route("*", "fine").reset_after_requests(1).start().await;
    let proxy = TestProxy::before(&upstream, SERVER, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().text(), "fine");
    }
}

#[tokio::test]
async fn a_post_is_not_sent_twice() {
    let upstream = FakeUpstream::http1().route("*", "fine").reset_after_requests(1).start().await;
    let proxy = TestProxy::before(&upstream, SERVER, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for number in 0..20 {
        let answer = client.post(&format!("/{number}"), "x").await.unwrap();
        assert!(matches!(reason(&answer), (200, "") | (502, "upstream_error")), "{answer:?}");
        if answer.header("connection") == Some("close") {
            client = Client::connect(proxy.address()).await.unwrap();
        }
    }
    let mut lines: Vec<_> = upstream.requests().iter().map(|request| request.head.line.clone()).collect();
    let sent = lines.len();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), sent, "a POST was sent twice");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_not_used() {
    let upstream = FakeUpstream::http1().route("*", Reply::then_close("fine")).start().await;
    let proxy = TestProxy::before(&upstream, SERVER, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for number in 0..20 {
        assert_eq!(client.get("/").await.unwrap().text(), "fine", "{number}");
        assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
        let answer = client.post("/", "x").await.unwrap();
        assert_eq!(answer.text(), "fine", "{number}");
        assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
    }
}

#[tokio::test]
async fn idle_connections_that_were_reset_are_replaced() {
    let upstream = FakeUpstream::http1().route("*", "fine").start().await;
    let proxy = TestProxy::before(&upstream, SERVER, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().text(), "fine");
        upstream.reset_idle();
        assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
    }
}

#[tokio::test]
async fn a_final_4xx_behind_100_continue_is_the_answer() {
    let (_upstream, proxy) = before(Reply::continue_then(403, "no")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.post("/bad", "hello").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(client.get("/fine").await.unwrap().text(), "fine");
}

#[tokio::test]
async fn an_app_that_speaks_http10_is_understood() {
    let (upstream, proxy) = before(Reply::raw("HTTP/1.0 200 OK\r\n\r\nold").then(Step::Close)).await;
    upstream.set_route("/length", Reply::raw("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold"));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for path in ["/bad", "/length", "/bad"] {
        let answer = client.get(path).await.unwrap();
        assert_eq!((answer.line.as_str(), answer.text().as_str()), ("HTTP/1.1 200 OK", "old"), "{path}");
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn an_app_that_keeps_its_connection_in_http10_is_asked_again_on_it() {
    let kept = Reply::raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold");
    let (upstream, proxy) = before(kept).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/bad").await.unwrap().text(), "old");
    }
    assert_eq!(upstream.connections(), 1);
    assert!(upstream.requests().iter().all(|request| request.head.line == "GET /bad HTTP/1.1"));
}

#[tokio::test]
async fn an_answer_in_single_bytes_is_the_same_answer() {
    let whole = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nhello\r\n2 \r\n, \r\n5\r\nworld\r\n0\r\nX-Sum: 7\r\n\r\n";
    let drops = whole.bytes().fold(Reply::default(), |reply, byte| {
        reply.then(Step::Send(vec![byte])).then(Step::Wait(Duration::from_millis(1)))
    });
    let (upstream, proxy) = before(drops).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..2 {
        let answer = client.get("/bad").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.header("x-a")), (200, "hello, world", Some("b")));
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_answer_until_the_end_of_the_connection_arrives_whole() {
    let (_upstream, proxy) = before(Reply::until_close("all of it")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.get("/bad").await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("all of it", Some("chunked")));
    assert_eq!(client.get("/fine").await.unwrap().text(), "fine");
}

/// The system says so at once, where it would let a connection over TCP wait.
#[tokio::test]
async fn a_unix_socket_whose_backlog_is_full_is_waited_for() {
    let folder = Folder::new();
    let address = SockAddr::unix(folder.join("app.sock")).unwrap();
    let app = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
    app.bind(&address).unwrap();
    app.listen(0).unwrap();
    let queued = || {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        socket.connect(&address).is_ok().then_some(socket)
    };
    let crowd: Vec<_> = std::iter::from_fn(queued).collect();
    let proxy = TestProxy::toml(format!(
        "[timeouts]\nconnect = \"60s\"\n[upstream.app]\nendpoints = [\"unix:{}\"]\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [[route]]\nname = \"late\"\npath = [\"=/late\"]\nupstream = \"app\"\ntimeouts = {{ connect = \"300ms\" }}\n",
        folder.join("app.sock").display()
    ));
    let proxy = proxy.start().await;
    let address = proxy.address();
    let patient = tokio::spawn(async move { client::get(address, "/").await.unwrap().text() });
    assert_eq!(reason(&client::get(address, "/late").await.unwrap()), (504, "connect_failed"));
    drop(crowd);
    let app = UnixListener::from_std(std::os::fd::OwnedFd::from(app).into()).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = app.accept().await {
            // Those of the crowd have left.
            if socket.read_u8().await.is_ok() {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await.unwrap();
            }
        }
    });
    assert_eq!(timeout(DEADLINE, patient).await.unwrap().unwrap(), "well");
}
