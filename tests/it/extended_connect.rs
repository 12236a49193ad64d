//! WebSocket over HTTP/2 (RFC 8441): a stream in front, an upgrade of HTTP/1.1 behind.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::files::Folder;
use crate::support::h2::{self, Frame, Framed, Http2, PATIENCE, flag, frame, kind};
use crate::support::poll::{eventually, eventually_async};
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

async fn before(reply: Reply) -> (FakeUpstream, TestProxy) {
    before_with(reply, "", "").await
}

async fn before_with(reply: Reply, tables: &str, route: &str) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("/up", reply).route("*", "plain").start().await;
    let proxy = TestProxy::before(&upstream, tables, route).start().await;
    (upstream, proxy)
}

/// Agrees, and goes on with these steps.
fn agreeing<const N: usize>(steps: [Step; N]) -> Reply {
    Reply::answer(move |request| {
        let key = request.head.header("sec-websocket-key").unwrap_or_default();
        let accept = crate::support::websocket::accept_key(key);
        let switching = Reply::raw(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        steps.iter().cloned().fold(switching, Reply::then)
    })
}

fn connect_to(stream: u32, protocol: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "app"),
        (":path", path),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    frame(kind::HEADERS, flag::END_HEADERS, stream, h2::block(&fields))
}

fn connect(stream: u32) -> Vec<u8> {
    connect_to(stream, "websocket", "/up")
}

fn data(stream: u32, flags: u8, payload: &str) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

/// Of an answer's head, by the numbers of the static table where it has them.
fn status(head: &Frame) -> String {
    match head.payload[..] {
        [0x88, ..] => "200".into(),
        [0x8c, ..] => "400".into(),
        // A literal with the name `:status`, its value in Huffman code or as it is.
        [0x48, 0x82, 0x64, 0x02, ..] => "302".into(),
        [0x48, 0x83, 0x68, 0x0c, ..] => "403".into(),
        [0x48, 0x82, 0x6c, 0x02, ..] => "502".into(),
        _ => format!("{:x?}", &head.payload[..5]),
    }
}

/// Opens a stream and returns the status of its answer.
async fn open(client: &mut Framed, stream: u32) -> String {
    client.send(&connect(stream)).await;
    let head = client.find(|frame| frame.kind == kind::HEADERS && frame.stream == stream).await.expect("an answer");
    status(&head)
}

async fn echoes(client: &mut Framed, stream: u32, text: &str) {
    client.send(&data(stream, 0, text)).await;
    let mut back = Vec::new();
    while back.len() < text.len() {
        let piece = client.find(|frame| frame.kind == kind::DATA && frame.stream == stream).await.expect("an echo");
        back.extend(piece.payload);
    }
    assert_eq!(back, text.as_bytes());
}

fn is_end(frame: &Frame, stream: u32) -> bool {
    frame.stream == stream && (frame.kind == kind::RST_STREAM || frame.is(kind::DATA, flag::END_STREAM))
}

#[tokio::test]
async fn clients_are_told_that_they_may() {
    let (_upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Framed::silent(proxy.address()).await;
    client.send(h2::PREFACE).await;
    let settings = client.find(|frame| frame.kind == kind::SETTINGS).await.expect("SETTINGS").payload;
    assert!(
        settings.chunks(6).any(|pair| pair == [0, 8, 0, 0, 0, 1]),
        "SETTINGS_ENABLE_CONNECT_PROTOCOL: {settings:?}"
    );
}

#[tokio::test]
async fn the_app_sees_an_upgrade_and_the_client_a_stream() {
    let (upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut client, 1).await, "200");
    echoes(&mut client, 1, "hello").await;
    let request = &upstream.requests()[0].head;
    assert_eq!(request.line, "GET /up HTTP/1.1");
    for (name, value) in [
        ("host", "app"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("cookie", "a=1; b=2"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(request.header("sec-websocket-key").map(str::len), Some(24));
    // Other streams go on beside it, others like it too.
    client.send(&h2::request(3, flag::END_STREAM)).await;
    let body = client.find(|frame| frame.kind == kind::DATA && frame.stream == 3).await.expect("an answer");
    assert_eq!(body.payload, b"plain");
    assert_eq!(open(&mut client, 5).await, "200");
    echoes(&mut client, 5, "five").await;
    echoes(&mut client, 1, "one").await;
    client.send(&data(1, flag::END_STREAM, "")).await;
    client.find(|frame| is_end(frame, 1)).await.expect("the app's end");
    proxy.log_line("\"GET /up HTTP/2.0\" 200 8 ").await;
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn either_side_may_end_its_direction_first() {
    let late = [Step::Wait(Duration::from_millis(100)), Step::Send(b"late".to_vec()), Step::Close];
    let (_upstream, proxy) = before(agreeing(late)).await;
    let mut client = Framed::connect(proxy.address()).await;
    client.send(&[connect(1), data(1, flag::END_STREAM, "mine")].concat()).await;
    let late = client.find(|frame| frame.kind == kind::DATA && !frame.payload.is_empty()).await.expect("data");
    assert_eq!(late.payload, b"late");
    if late.flags & flag::END_STREAM == 0 {
        client.find(|frame| frame.is(kind::DATA, flag::END_STREAM)).await.expect("a clean end");
    }
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn only_the_apps_own_101_opens_the_stream() {
    let switching =
        |rest: &str| Reply::raw(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{rest}\r\n\r\n"));
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let cases = [
        ("a 200", Reply::ok("no upgrade"), "502"),
        ("a 204", Reply::with_headers(204, "", ""), "502"),
        ("another protocol", switching("Upgrade: echo"), "502"),
        ("no word of a key", switching("Upgrade: websocket"), "502"),
        ("the answer to another key", switching(&format!("Upgrade: websocket\r\n{accept}")), "502"),
        ("a refusal", Reply::status(403, "not you"), "403"),
        ("a redirect", Reply::with_headers(302, "Location: /login\r\n", ""), "302"),
    ];
    for (name, reply, wanted) in cases {
        let (_upstream, proxy) = before(reply).await;
        let mut client = Framed::connect(proxy.address()).await;
        assert_eq!(open(&mut client, 1).await, wanted, "{name}");
        // What is sent all the same reaches nobody, and harms nobody.
        client.send(&data(1, flag::END_STREAM, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.send(&h2::request(3, flag::END_STREAM)).await;
        let body = client.find(|frame| frame.kind == kind::DATA && frame.stream == 3).await.expect(name);
        assert_eq!(body.payload, b"plain", "{name}");
        assert!(!proxy.access_log().contains("smuggled"), "{name}");
    }
}

#[tokio::test]
async fn there_must_be_somebody_at_the_other_end() {
    let fixed = "[[route]]\nname = \"fixed\"\nrespond = { body = \"hello\" }\n";
    let proxy = TestProxy::toml(fixed).start().await;
    assert_eq!(open(&mut Framed::connect(proxy.address()).await, 1).await, "400");
    // HTTP/2 to the app has no upgrades.
    let proxy = TestProxy::toml(
        "[[route]]\nname = \"a\"\nupstream = \"a\"\n[upstream.a]\nendpoints = [\"127.0.0.1:1\"]\nhttp2 = true\n",
    );
    assert_eq!(open(&mut Framed::connect(proxy.start().await.address()).await, 1).await, "502");
}

/// What follows is the other protocol's; a length would have it be a body as well (RFC 9110, section 9.3.6).
#[tokio::test]
async fn a_length_is_refused_alone() {
    let (upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Framed::connect(proxy.address()).await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "app"),
        (":path", "/up"),
        ("content-length", "4"),
    ];
    client.send(&frame(kind::HEADERS, flag::END_HEADERS, 1, h2::block(&fields))).await;
    let head = client.find(|frame| frame.kind == kind::HEADERS && frame.stream == 1).await.expect("an answer");
    assert_eq!(status(&head), "400");
    assert!(upstream.requests().is_empty());
    assert_eq!(open(&mut client, 3).await, "200", "the connection lives on");
}

#[tokio::test]
async fn maintenance_and_limits_apply() {
    let limit = "[limit.few]\nkey = \"client_ip\"\nrate = \"2/1h\"\n";
    let (upstream, proxy) = before_with(Reply::upgrade(), limit, "limits = [\"few\"]").await;
    let mut held = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut held, 1).await, "200");
    let mut client = Http2::connect(proxy.address()).await;
    let flag_file = proxy.folder.join("state/maintenance.flag");
    std::fs::write(&flag_file, "").unwrap();
    let blocked = eventually_async(PATIENCE, async || client.start(websocket()).await.unwrap().status() == 503);
    assert!(blocked.await);
    std::fs::remove_file(flag_file).unwrap();
    // At most one of two is left.
    let limited = eventually_async(PATIENCE, async || client.start(websocket()).await.unwrap().status() == 429);
    assert!(limited.await);
    assert!(upstream.requests().len() <= 2);
    // What was open before goes on.
    echoes(&mut held, 1, "still here").await;
}

#[tokio::test]
async fn no_file_of_the_maintenance_page_opens_it() {
    let upstream = FakeUpstream::http1().route("*", "plain").start().await;
    let folder = Folder::new();
    folder.write("page/index.html", "<p>closed</p>");
    folder.write("page/up", "a file by the name of what is asked for");
    let proxy = TestProxy::before(&upstream, "[maintenance]\npage = \"page\"\n", "").in_folder(folder).start().await;
    let mut client = Http2::connect(proxy.address()).await;
    std::fs::write(proxy.folder.join("state/maintenance.flag"), "").unwrap();
    let blocked = eventually_async(PATIENCE, async || client.start(websocket()).await.unwrap().status() == 503);
    assert!(blocked.await);
}

/// The same for hyper's client.
fn websocket() -> Request<h2::Body> {
    let mut request = Request::connect("http://app/up").version(Version::HTTP_2).body(h2::empty()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

#[tokio::test]
async fn maintenance_that_terminates_cuts_it() {
    let (upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut client, 1).await, "200");
    echoes(&mut client, 1, "hello").await;
    std::fs::write(proxy.folder.join("state/maintenance.flag"), "mode = \"emergency\"\nterminate = true\n").unwrap();
    client.find(|frame| is_end(frame, 1)).await.expect("an end");
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await);
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn when_either_side_leaves_the_other_is_told() {
    let (upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut client, 1).await, "200");
    client.send(&frame(kind::RST_STREAM, 0, 1, 8_u32.to_be_bytes())).await;
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await, "by a reset");
    assert_eq!(open(&mut client, 3).await, "200");
    upstream.stop().await;
    client.find(|frame| is_end(frame, 3)).await.expect("by the app");
    assert!(client.is_alive().await, "the connection lives on");
    upstream.restart().await;
    assert_eq!(open(&mut client, 5).await, "200");
    client.client.reset();
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await, "by the end of the connection");
}

/// It is no half of an end: an app that goes on for all that is not waited for.
#[tokio::test]
async fn a_client_that_resets_its_stream_has_left() {
    for ends_first in [false, true] {
        // Nothing makes this app close its side.
        let (_upstream, proxy) = before(agreeing([Step::Await(Arc::default())])).await;
        let mut client = Framed::connect(proxy.address()).await;
        assert_eq!(open(&mut client, 1).await, "200");
        if ends_first {
            client.send(&data(1, flag::END_STREAM, "bye")).await;
            assert!(client.is_alive().await);
        }
        client.send(&frame(kind::RST_STREAM, 0, 1, 8_u32.to_be_bytes())).await;
        proxy.log_line("\"GET /up HTTP/2.0\" 200 ").await;
        assert!(client.is_alive().await);
    }
}

/// RFC 8441, section 5.
#[tokio::test]
async fn an_app_that_resets_its_connection_resets_the_stream() {
    let dying = [Step::Send(b"word".to_vec()), Step::Wait(Duration::from_millis(100)), Step::Reset];
    let (_upstream, proxy) = before(agreeing(dying)).await;
    let mut client = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut client, 1).await, "200");
    let word = client.find(|frame| frame.kind == kind::DATA).await.expect("a word");
    assert_eq!((word.payload.as_slice(), word.flags), (&b"word"[..], 0));
    let end = client.find(|frame| is_end(frame, 1)).await.expect("an end");
    assert_eq!((end.kind, end.code()), (kind::RST_STREAM, Some(8)));
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn an_app_that_agrees_to_something_else_has_failed() {
    let switching = Reply::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let (upstream, proxy) = before_with(switching, "[upstream.app.breaker]\nfailures = 2\n", "").await;
    let mut client = Http2::connect(proxy.address()).await;
    for status in [502, 502, 503] {
        assert_eq!(client.start(websocket()).await.unwrap().status(), status);
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn silence_ends_it() {
    let (upstream, proxy) = before_with(Reply::upgrade(), "[timeouts]\nstream_idle = \"300ms\"\n", "").await;
    let mut client = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut client, 1).await, "200");
    client.find(|frame| is_end(frame, 1)).await.expect("an end");
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await);
}

#[tokio::test]
async fn a_reload_leaves_it_alone_and_a_drain_gives_it_time() {
    let (_upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Framed::connect(proxy.address()).await;
    assert_eq!(open(&mut client, 1).await, "200");
    assert!(proxy.reloads().await);
    echoes(&mut client, 1, "after a reload").await;
    let draining = tokio::spawn(proxy.drain(Duration::from_secs(20)));
    client.find(|frame| frame.kind == kind::GOAWAY).await.expect("GOAWAY");
    echoes(&mut client, 1, "while draining").await;
    client.send(&data(1, flag::END_STREAM, "")).await;
    client.find(|frame| is_end(frame, 1)).await.expect("the app's end");
    client.ends_with().await;
    assert!(draining.await.unwrap(), "everything came to its end");
}

#[tokio::test]
async fn four_mebibytes_come_back_as_they_went() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 64;
    let (_upstream, proxy) = before(Reply::upgrade()).await;
    let mut client = Http2::connect(proxy.address()).await;
    let answer = client.start(websocket()).await.unwrap();
    assert_eq!(answer.status(), 200);
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let (mut reading, mut writing) = tokio::io::split(stream);
    let pattern: Vec<u8> = (0..PIECE).map(|index| (index % 251) as u8).collect();
    let sent = pattern.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..PIECES {
            writing.write_all(&sent).await.unwrap();
        }
        writing.shutdown().await.unwrap();
    });
    let mut piece = vec![0; PIECE];
    for _ in 0..PIECES {
        reading.read_exact(&mut piece).await.unwrap();
        assert!(piece == pattern);
    }
    assert_eq!(reading.read(&mut piece).await.unwrap(), 0, "our end was passed on, and so is the app's");
    sending.await.unwrap();
}
