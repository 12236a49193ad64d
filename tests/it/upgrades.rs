//! WebSocket and other upgrades.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::certs::Ca;
use crate::support::client::{Client, Ending};
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::process::Flagstone;
use crate::support::proxy::{TestProxy, in_turn};
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::{WebSocket, opcode};

const DEADLINE: Duration = Duration::from_secs(10);
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: echo\r\n";

async fn before(reply: Reply) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("/up", reply).route("*", "plain").start().await;
    let proxy = TestProxy::before(&upstream, "[timeouts]\nstream_idle = \"1h\"\n", "").start().await;
    (upstream, proxy)
}

fn switching(rest: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n{rest}")
}

#[tokio::test]
async fn a_websocket_passes_in_both_directions() {
    let (_upstream, proxy) = before(Reply::upgrade()).await;
    let mut socket = WebSocket::connect(proxy.address(), "/up").await.unwrap();
    assert_eq!(socket.opening.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    // The other end is a mirror: what comes back is our own masked frame.
    socket.ping(b"are you there").await.unwrap();
    let mut client = socket.into_client();
    let head = client.read_exactly(2).await.unwrap();
    assert_eq!(head, [0x80 | opcode::PING, 0x80 | 13]);
    client.read_exactly(4 + 13).await.unwrap();
    let large = vec![b'x'; 300_000];
    client.send(&large).await.unwrap();
    assert!(client.read_exactly(large.len()).await.unwrap() == large);
    drop(client);
    let line = proxy.log_line("GET /up ").await;
    assert!(line.contains("\" 101 300019 "), "{line}");
}

#[tokio::test]
async fn a_close_code_of_the_app_reaches_the_client() {
    let accept = Reply::answer(|request| {
        let key = crate::support::websocket::accept_key(request.head.header("sec-websocket-key").unwrap_or_default());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
        );
        Reply::raw([head.as_bytes(), &[0x88, 2, 0x0f, 0xa1]].concat()).then(Step::Close)
    });
    let (_upstream, proxy) = before(accept).await;
    let mut socket = WebSocket::connect(proxy.address(), "/up").await.unwrap();
    let frame = socket.read().await.unwrap();
    assert_eq!((frame.opcode, frame.payload), (opcode::CLOSE, 4001_u16.to_be_bytes().to_vec()));
    assert_eq!(socket.into_client().expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn a_stream_may_end_in_one_direction_first() {
    let (_upstream, proxy) = before(
        Reply::raw(switching(""))
            .then(Step::Wait(Duration::from_millis(50)))
            .then(Step::Send(b"late".to_vec()))
            .then(Step::Close),
    )
    .await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/up", UPGRADE).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 101);
    client.finish_sending().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"late");
}

#[tokio::test]
async fn over_tls_it_is_the_same() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let reply = Reply::raw(switching("")).then(Step::EchoBytes);
    let upstream = FakeUpstream::http1().route("/up", reply).route("*", Reply::upgrade()).start().await;
    let tls = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
               certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    let proxy = TestProxy::before(&upstream, tls, "").in_folder(folder).start().await;
    let open =
        async || Client::connect_tls(proxy.address(), "site.example", ca.client_config(&[b"http/1.1"])).await.unwrap();
    let socket = WebSocket::open(open().await, "/chat", "").await.unwrap();
    let mut client = socket.into_client();
    let large = vec![b'x'; 300_000];
    client.send(&large).await.unwrap();
    assert!(client.read_exactly(large.len()).await.unwrap() == large);
    // Our end is a close_notify, and the app may still speak behind it.
    let mut client = open().await;
    client.send(format!("GET /up HTTP/1.1\r\nHost: site.example\r\n{UPGRADE}\r\nlast words")).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 101);
    client.finish_sending().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"last words");
}

#[tokio::test]
async fn bytes_behind_the_request_wait_for_the_101() {
    let (upstream, proxy) =
        before(Reply::raw(switching("")).after(Duration::from_millis(100)).then(Step::EchoBytes)).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send(format!("GET /up HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\nearly bytes")).await.unwrap();
    assert!(eventually(DEADLINE, || !upstream.requests().is_empty()).await);
    assert!(!String::from_utf8_lossy(&upstream.raw()[0]).contains("early bytes"));
    assert_eq!(client.read_response().await.unwrap().status, 101);
    assert_eq!(client.read_exactly(11).await.unwrap(), b"early bytes");
}

#[tokio::test]
async fn an_app_that_does_not_switch_sees_only_requests_that_were_judged() {
    let (upstream, proxy) = before(Reply::ok("no upgrade")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("GET /up HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n{next}{bad}")).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "no upgrade");
    assert_eq!(client.read_response().await.unwrap().text(), "plain");
    assert_eq!(client.read_response().await.unwrap().status, 400);
    client.expect_closed().await.unwrap();
    let lines: Vec<_> = upstream.requests().iter().map(|request| request.head.line.clone()).collect();
    assert_eq!(lines, ["GET /up HTTP/1.1", "GET /next HTTP/1.1"]);
}

#[tokio::test]
async fn a_request_with_a_body_is_not_upgraded() {
    let (upstream, proxy) = before(Reply::ok("no upgrade")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\n{UPGRADE}Content-Length: 5\r\n\r\nhello")).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "no upgrade");
    assert_eq!(client.get("/next").await.unwrap().text(), "plain");
    assert_eq!(upstream.requests()[0].head.header("upgrade"), None);
}

/// `Upgrade` in HTTP/1.0 must be ignored (RFC 9110, section 7.8), so what follows is a request.
#[tokio::test]
async fn a_client_of_http_1_0_is_not_upgraded() {
    let (upstream, proxy) = before(Reply::ok("no upgrade")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let fields = "Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n";
    client.send(format!("GET /up HTTP/1.0\r\n{fields}\r\nGET /next HTTP/1.0\r\n{fields}\r\n")).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "no upgrade");
    assert_eq!(client.read_response().await.unwrap().text(), "plain");
    let requests = upstream.requests();
    let asked = requests.iter().map(|request| (request.head.header("upgrade"), request.head.header("connection")));
    assert_eq!(asked.collect::<Vec<_>>(), [(None, None); 2]);
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_an_upstream_error() {
    let (upstream, proxy) = before(Reply::raw(switching("")).then(Step::EchoBytes)).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let answer = client.get("/up").await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("upstream_error")));
    assert_eq!(client.get("/next").await.unwrap().text(), "plain");
    let asked = upstream.requests().iter().filter(|request| request.head.line.starts_with("GET /up ")).count();
    assert_eq!((asked, upstream.connections()), (2, 3), "a GET is tried once more, and never on that connection");
}

#[tokio::test]
async fn what_is_tried_again_after_such_a_101_is_the_same_request() {
    let is_first = AtomicBool::new(true);
    let reply = Reply::answer(move |_| match is_first.swap(false, SeqCst) {
        true => Reply::raw(switching("")).then(Step::EchoBytes),
        false => Reply::echo_head(),
    });
    let (upstream, proxy) = before(reply).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/up", "Cookie: a=b\r\nAuthorization: Basic eDp5\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 200);
    let requests = upstream.requests();
    let heads: Vec<_> = requests.iter().map(|request| (&request.head.line, &request.head.headers)).collect();
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[0], heads[1]);
}

#[tokio::test]
async fn a_refused_upgrade_keeps_the_connection() {
    let (_upstream, proxy) = before(Reply::status(403, "not you")).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/up", UPGRADE).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 403);
    assert_eq!(client.get("/next").await.unwrap().text(), "plain");
}

#[tokio::test]
async fn when_either_side_leaves_the_other_is_told() {
    let (upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/up", UPGRADE).await.unwrap();
    client.read_response().await.unwrap();
    client.reset();
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/up", UPGRADE).await.unwrap();
    client.read_response().await.unwrap();
    upstream.stop().await;
    client.expect_closed().await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_gone_before_its_101_leaves_nothing_behind() {
    let go_on = Arc::new(Notify::new());
    let reply = Reply::raw(switching("")).then(Step::EchoBytes).behind(Step::Await(Arc::clone(&go_on)));
    let upstream = FakeUpstream::http1().route("/up", reply).route("*", "plain").start().await;
    let proxy = TestProxy::toml(in_turn(&[&upstream], "max_in_flight = 1\n")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    // With a byte behind the request the client is not watched while it waits: the 101 is what meets the reset.
    client.send(format!("GET /up HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\nx")).await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    client.reset();
    go_on.notify_one();
    proxy.log_line("GET /up ").await;
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/next").await.unwrap().text(), "plain");
}

#[tokio::test]
async fn a_reload_leaves_a_stream_alone_and_a_drain_gives_it_the_grace() {
    let (_upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = WebSocket::connect(proxy.address(), "/up").await.unwrap().into_client();
    let mut echoes = async |text: &str| {
        client.send(text).await.unwrap();
        assert_eq!(client.read_exactly(text.len()).await.unwrap(), text.as_bytes());
    };
    echoes("before").await;
    assert!(proxy.reloads().await);
    echoes("after a reload").await;
    // It may speak as long as the grace lasts, and is cut then.
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(2)));
    let mut echoes = 0;
    while client.send("while draining").await.is_ok() && client.read_exactly(14).await.is_ok() {
        echoes += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!draining.await.unwrap(), "it has not come to its end");
    assert!(echoes > 5, "{echoes}");
}

/// Says every byte of the one stream it accepts back.
fn echo_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        socket.write_all(switching("").as_bytes()).unwrap();
        let mut sending = socket.try_clone().unwrap();
        std::io::copy(&mut socket, &mut sending).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    address
}

#[tokio::test]
async fn a_gibibyte_each_way_needs_no_more_memory_than_a_word() {
    const PIECE: usize = 256 * 1024;
    const PIECES: usize = 4096;
    let endpoint = echo_server();
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[log]\naccess = \"off\"\n[admin]\nlisten = \"\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n\
         endpoints = [\"{endpoint}\"]\n"
    ))
    .await;
    let address = flagstone.address("web").await;
    let streaming = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        write!(socket, "GET /up HTTP/1.1\r\nHost: app\r\n{UPGRADE}\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let pattern: Vec<u8> = (0..PIECE).map(|index| (index % 251) as u8).collect();
        let mut sending = socket.try_clone().unwrap();
        let sent = pattern.clone();
        let sender = std::thread::spawn(move || {
            for _ in 0..PIECES {
                sending.write_all(&sent).unwrap();
            }
            sending.shutdown(Shutdown::Write).unwrap();
        });
        let mut piece = vec![0; PIECE];
        for _ in 0..PIECES {
            socket.read_exact(&mut piece).unwrap();
            assert!(piece == pattern);
        }
        sender.join().unwrap();
        // Our end was passed on, and so is the other's.
        assert_eq!(socket.read(&mut piece).unwrap(), 0);
    });
    let before = flagstone.resident_bytes();
    let mut most = before;
    while !streaming.is_finished() {
        most = most.max(flagstone.resident_bytes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    streaming.await.unwrap();
    // What the first stream brings with it, code included, and no more.
    assert!(most - before < 16 << 20, "{} KiB", (most - before) / 1024);
}
