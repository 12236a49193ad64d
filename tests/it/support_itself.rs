//! The tools are tested too: a broken one would let other tests pass.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use crate::support::certs::{Algorithm, Ca};
use crate::support::client::{Client, Ending, get};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::load::Load;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Process, Signal};
use crate::support::python::python_venv;
use crate::support::reply::{Reply, Step};
use crate::support::stalled::stall;
use crate::support::upstream::{FakeUpstream, OnAccept};
use crate::support::websocket::{WebSocket, opcode};

const SHORT: Duration = Duration::from_millis(50);

async fn one(reply: Reply) -> (FakeUpstream, Client) {
    let upstream = FakeUpstream::http1().route("/", reply).start().await;
    let client = Client::connect(upstream.address()).await.unwrap();
    (upstream, client)
}

#[tokio::test]
async fn upstream_records_every_byte_by_connection_and_requests_as_they_come() {
    let upstream = FakeUpstream::http1().route("/", "hello").start().await;
    let mut first = Client::connect(upstream.address()).await.unwrap();
    first.get("/?a").await.unwrap();
    get(upstream.address(), "/missing").await.unwrap();
    assert_eq!(first.post("/", "body").await.unwrap().text(), "hello");
    let raw: Vec<_> = upstream.raw().into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
    let first = "GET /?a HTTP/1.1\r\nHost: test\r\n\r\nPOST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(raw, [first, "GET /missing HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"]);
    assert_eq!(upstream.requests().iter().map(|request| request.body.len()).collect::<Vec<_>>(), [0, 0, 4]);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn client_reads_pipelined_responses_of_every_framing() {
    let upstream = FakeUpstream::http1()
        .route("/head", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"))
        .route("/length", "abc")
        .route("/chunked", Reply::chunked(&["ab", "c"], "X-End: yes\r\n"))
        .route("/close", Reply::until_close("abc"))
        .start()
        .await;
    let mut client = Client::connect(upstream.address()).await.unwrap();
    client.request("HEAD", "/head", "").await.unwrap();
    for path in ["/length", "/chunked", "/close"] {
        client.request("GET", path, "").await.unwrap();
    }
    assert_eq!(client.read_head_response().await.unwrap().header("content-length"), Some("3"));
    for _ in 0..3 {
        let response = client.read_response().await.unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "abc"));
    }
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn trailers_and_interim_responses_are_kept() {
    let (_upstream, mut client) = one(Reply::chunked(&["x"], "X-End: yes\r\n")).await;
    assert_eq!(client.get("/").await.unwrap().trailers, [("X-End".to_owned(), "yes".to_owned())]);
    let (_upstream, mut client) = one(Reply::continue_then(201, "made")).await;
    let response = client.post("/", "x").await.unwrap();
    assert_eq!((response.status, response.interim), (201, vec![100]));
}

#[tokio::test]
async fn deaths_inside_an_answer_are_errors() {
    for reply in [Reply::die_in_head(), Reply::truncated(9, "half"), Reply::truncated_chunked(), Reply::close()] {
        let (_upstream, mut client) = one(reply.clone()).await;
        assert_eq!(client.get("/").await.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{reply:?}");
    }
    let (_upstream, mut client) = one(Reply::reset()).await;
    assert_eq!(client.get("/").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn hanging_and_blackholes_end_at_the_deadline() {
    let (_upstream, client) = one(Reply::hang()).await;
    assert_eq!(client.deadline(SHORT).get("/").await.unwrap_err().kind(), ErrorKind::TimedOut);
    let upstream = FakeUpstream::http1().on_accept(OnAccept::Blackhole).start().await;
    let client = Client::connect(upstream.address()).await.unwrap();
    assert_eq!(client.deadline(SHORT).get("/").await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(upstream.received_bytes(), 0);
}

#[tokio::test]
async fn kept_connections_end_in_every_way() {
    let (_upstream, mut client) = one(Reply::then_close("bye")).await;
    assert_eq!(client.get("/").await.unwrap().text(), "bye");
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
    let (_upstream, mut client) = one(Reply::then_reset("bye", SHORT)).await;
    assert_eq!(client.get("/").await.unwrap().text(), "bye");
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Reset);
    let (upstream, mut client) = one(Reply::ok("stay")).await;
    assert_eq!(client.get("/").await.unwrap().text(), "stay");
    upstream.reset_idle();
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Reset);
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await);
}

#[tokio::test]
async fn the_next_request_meets_a_reset() {
    let upstream = FakeUpstream::http1().route("/", "once").reset_after_requests(1).start().await;
    let mut client = Client::connect(upstream.address()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "once");
    assert_eq!(client.get("/").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn accepting_may_reset_or_close() {
    for (on_accept, ending) in [(OnAccept::Reset, Ending::Reset), (OnAccept::Close, Ending::Fin)] {
        let upstream = FakeUpstream::http1().on_accept(on_accept).start().await;
        let mut client = Client::connect(upstream.address()).await.unwrap();
        assert_eq!(client.expect_closed().await.unwrap(), ending);
    }
}

#[tokio::test]
async fn reset_after_counts_received_bytes() {
    let upstream = FakeUpstream::http1().reset_after(1000).start().await;
    let mut client = Client::connect(upstream.address()).await.unwrap();
    client.send([b'x'; 999]).await.unwrap();
    client.expect_silence(SHORT).await.unwrap();
    client.send("x").await.unwrap();
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Reset);
}

#[tokio::test]
async fn early_answers_come_before_the_body() {
    let (_upstream, mut client) = one(Reply::early(413, "no")).await;
    client.request("POST", "/", "Content-Length: 4\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 413);
    client.send("body").await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status, 413, "the body was taken and the connection kept");
    let (_upstream, mut client) = one(Reply::early_then_close(413, "no")).await;
    client.request("POST", "/", "Content-Length: 4\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 413);
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn extra_bytes_and_invalid_heads_come_as_they_are() {
    let (_upstream, mut client) = one(Reply::extra_bytes("a", "HTTP/1.1 666 Extra\r\n\r\n")).await;
    assert_eq!(client.get("/").await.unwrap().text(), "a");
    assert_eq!(client.read_until("\r\n\r\n").await.unwrap(), b"HTTP/1.1 666 Extra\r\n\r\n");
    let (_upstream, mut client) = one(Reply::invalid_header()).await;
    assert!(client.get("/").await.unwrap().headers.contains(&("Bad Name".to_owned(), "x".to_owned())));
}

#[tokio::test]
async fn slow_bodies_and_event_streams_arrive_piece_by_piece() {
    let (_upstream, mut client) = one(Reply::slow_body(&["a", "b"], SHORT)).await;
    assert_eq!(client.get("/").await.unwrap().text(), "ab");
    let (upstream, mut client) = one(Reply::event_stream("tick", SHORT)).await;
    client.request("GET", "/", "").await.unwrap();
    for _ in 0..3 {
        client.read_until("data: tick\n\n").await.unwrap();
    }
    drop(client);
    assert!(eventually(DEADLINE, || upstream.open_connections() == 0).await, "a stream ends with its reader");
}

#[tokio::test]
async fn delays_come_before_the_answer() {
    let upstream = FakeUpstream::http1().route("/", "late").delay("/", SHORT).start().await;
    let asked = std::time::Instant::now();
    assert_eq!(get(upstream.address(), "/").await.unwrap().text(), "late");
    assert!(asked.elapsed() >= SHORT);
}

#[tokio::test]
async fn stopping_refuses_and_restarting_listens_on_the_same_port() {
    let upstream = FakeUpstream::http1().route("/", "up").start().await;
    let address = upstream.address();
    let mut kept = Client::connect(address).await.unwrap();
    assert_eq!(kept.get("/").await.unwrap().text(), "up");
    upstream.stop().await;
    kept.expect_closed().await.unwrap();
    assert_eq!(Client::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    upstream.restart().await;
    assert_eq!(get(address, "/").await.unwrap().text(), "up");
}

#[tokio::test]
async fn listening_may_begin_late() {
    let upstream = FakeUpstream::http1().route("/", "up").delay_listen(Duration::from_millis(200)).start().await;
    let address = upstream.address();
    assert_eq!(Client::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let answered = crate::support::poll::eventually_async(DEADLINE, async || get(address, "/").await.is_ok());
    assert!(answered.await);
}

#[tokio::test]
async fn unix_sockets_work_and_come_back() {
    let folder = Folder::new();
    let path = folder.join("app.sock");
    let upstream = FakeUpstream::http1().route("/", "unix").unix(&path).start().await;
    assert_eq!(upstream.endpoint(), format!("unix:{}", path.display()));
    assert_eq!(Client::connect_unix(&path).await.unwrap().get("/").await.unwrap().text(), "unix");
    upstream.stop().await;
    assert!(Client::connect_unix(&path).await.is_err());
    upstream.restart().await;
    assert_eq!(Client::connect_unix(&path).await.unwrap().get("/").await.unwrap().text(), "unix");
}

#[tokio::test]
async fn upgrades_echo_bytes_and_frames() {
    let upstream = FakeUpstream::http1().route("/ws", Reply::upgrade()).route("/no", "just a page").start().await;
    let mut socket = WebSocket::connect(upstream.address(), "/ws").await.unwrap();
    // The echo is of bytes: the frame comes back masked, which a client must refuse.
    socket.send_text("hi").await.unwrap();
    assert_eq!(socket.read().await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert!(WebSocket::connect(upstream.address(), "/no").await.is_err());
}

#[tokio::test]
async fn web_socket_client_talks_to_the_sample_app() {
    let app = flagstone::demo::SampleApp::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut socket = WebSocket::connect(app.addr, "/ws").await.unwrap();
    for len in [0, 125, 126, 0xffff, 0x10000] {
        socket.send_binary(&vec![7; len]).await.unwrap();
        let frame = socket.read().await.unwrap();
        assert_eq!((frame.opcode, frame.payload.len()), (opcode::BINARY, len));
    }
    socket.ping(b"you there?").await.unwrap();
    let pong = socket.read().await.unwrap();
    assert_eq!((pong.opcode, pong.text().as_str()), (opcode::PONG, "you there?"));
    assert_eq!(socket.close(1000).await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn tls_verifies_names_and_agrees_on_a_protocol() {
    let ca = Ca::new();
    for algorithm in [Algorithm::Ecdsa, Algorithm::Ed25519, Algorithm::Rsa] {
        let leaf = ca.leaf_with(&["app.test"], algorithm, 10);
        let upstream = FakeUpstream::http1().route("/", "tls").tls(leaf.server_config(&[b"http/1.1"])).start().await;
        let config = ca.client_config(&[b"h2", b"http/1.1"]);
        let mut client = Client::connect_tls(upstream.address(), "app.test", config.clone()).await.unwrap();
        assert_eq!(client.socket().alpn(), Some(&b"http/1.1"[..]));
        assert_eq!(client.socket().peer_certificates(), [leaf.der().to_vec()]);
        assert_eq!(client.get("/").await.unwrap().text(), "tls");
        assert!(Client::connect_tls(upstream.address(), "other.test", config).await.is_err());
    }
}

#[tokio::test]
async fn expired_and_mismatched_certificates_are_what_they_say() {
    let ca = Ca::new();
    let upstream = FakeUpstream::http1().tls(ca.expired(&["app.test"]).server_config(&[])).start().await;
    let refused = Client::connect_tls(upstream.address(), "app.test", ca.client_config(&[])).await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("expired"), "{refused}");
    let mismatched = ca.mismatched(&["app.test"]);
    assert!(std::panic::catch_unwind(|| mismatched.server_config(&[])).is_err());
}

#[tokio::test]
async fn load_tells_every_failure() {
    let upstream = FakeUpstream::http1().route("/", "ok").start().await;
    let load = Load::get(upstream.address(), "/").tasks(2).start();
    assert!(load.reaches(20, DEADLINE).await);
    load.stop().await.assert_clean();
    let load = Load::get(upstream.address(), "/").tasks(2).on_fresh_connections().start();
    assert!(load.reaches(20, DEADLINE).await);
    upstream.set_route("/", Reply::status(500, "no"));
    assert!(load.reaches(20, DEADLINE).await);
    let report = load.stop().await;
    assert!(report.failed > 0 && report.failures[0].what.contains("500"), "{report:?}");
    assert_eq!(report.statuses.values().sum::<u64>(), report.sent);
}

#[tokio::test]
async fn processes_are_heard_signalled_and_ended() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap 'echo bye; exit 3' TERM; echo ready >&2; while :; do sleep 0.05; done"]);
    let mut process = Process::start(&mut command);
    assert_eq!(process.stderr_line("rea").await, "ready");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(3));
    assert_eq!(process.stdout(), "bye\n");
}

#[tokio::test]
async fn dropping_a_process_kills_it() {
    let process = Process::start(Command::new("sleep").arg("60"));
    let id = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[tokio::test]
async fn programs_are_found_or_named() {
    assert!(program("sh").is_ok());
    assert_eq!(program("no-such-program").unwrap_err(), "no-such-program is not installed");
}

#[tokio::test]
async fn a_stalled_file_is_had_once_it_goes_on() {
    let folder = Folder::new();
    let path = folder.path().join("page");
    std::fs::write(&path, "here").unwrap();
    let stalled = stall(&path).unwrap();
    assert!(!stalled.is_awaited());
    let reader = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
    assert!(eventually(DEADLINE, || stalled.is_awaited()).await);
    assert!(!reader.is_finished());
    drop(stalled);
    assert_eq!(reader.join().unwrap(), "here");
}

#[tokio::test]
async fn python_environments_hold_their_packages() {
    let python = or_left_out!(python_venv(&["websockets"]));
    let ended = Process::run(Command::new(python).args(["-c", "import websockets; print('here')"])).await;
    assert_eq!(ended.stdout, "here\n", "{}", ended.stderr);
}

#[test]
fn files_change_as_operators_change_them() {
    let folder = Folder::new();
    folder.write("one/file", "1");
    folder.write("two/file", "2");
    folder.swap_link("current", "one");
    assert_eq!(folder.read("current/file"), "1");
    folder.swap_link("current", "two");
    assert_eq!(folder.read("current/file"), "2");
    folder.replace("flag", "text");
    folder.touch("flag");
    assert_eq!(folder.read("flag"), "text");
    folder.remove("flag");
    folder.fifo("pipe");
    assert_eq!(folder.names(), ["current", "one", "pipe", "two"]);
}

#[tokio::test]
async fn scripts_play_in_order() {
    let reply = Reply::default().then(Step::Send(b"a".to_vec())).then(Step::Send(b"b".to_vec())).then(Step::Close);
    let (_upstream, mut client) = one(reply).await;
    client.request("GET", "/", "").await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"ab");
}
