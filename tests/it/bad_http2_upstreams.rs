//! Apps that speak HTTP/2 badly: the client sees an error, never a clean end, and nothing that the
//! app should not have said.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::{self, Client};
use crate::support::h2::{self, Framed, Http2, flag, frame, kind};
use crate::support::proxy::TestProxy;

/// An app that says these bytes behind its SETTINGS once a request has come, and then nothing more. Counts connections.
async fn saying(bytes: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut came = Vec::new();
                let settings = [frame(kind::SETTINGS, 0, 0, []), frame(kind::SETTINGS, flag::ACK, 0, [])].concat();
                socket.write_all(&settings).await?;
                while !has_request(&came) {
                    if socket.read_buf(&mut came).await? == 0 {
                        return Ok(());
                    }
                }
                socket.write_all(&bytes).await?;
                // Its end would be an answer of its own.
                while socket.read_buf(&mut came).await? > 0 {}
                std::io::Result::Ok(())
            });
        }
    });
    (address, connections)
}

/// An app that answers each request with a head of these fields. Counts requests.
async fn answering(fields: Vec<(&'static str, String)>) -> (SocketAddr, Arc<AtomicUsize>) {
    let (address, requests, _) = answering_on(fields).await;
    (address, requests)
}

/// The same, and counts connections.
async fn answering_on(fields: Vec<(&'static str, String)>) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let block = h2::block(&fields);
    saying_to_each(move |stream| in_frames(stream, &block)).await
}

/// An app that says this to each request, by its stream. Counts requests and connections.
async fn saying_to_each(
    say: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, connections): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let (counted, accepted) = (Arc::clone(&requests), Arc::clone(&connections));
    let say = Arc::new(say);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            accepted.fetch_add(1, SeqCst);
            let (counted, say) = (Arc::clone(&counted), Arc::clone(&say));
            tokio::spawn(async move {
                let (mut came, mut answered) = (Vec::new(), 0);
                socket
                    .write_all(&[frame(kind::SETTINGS, 0, 0, []), frame(kind::SETTINGS, flag::ACK, 0, [])].concat())
                    .await?;
                while socket.read_buf(&mut came).await? > 0 {
                    let asked = requests_in(&came);
                    for stream in &asked[answered..] {
                        counted.fetch_add(1, SeqCst);
                        socket.write_all(&say(*stream)).await?;
                    }
                    answered = asked.len();
                }
                std::io::Result::Ok(())
            });
        }
    });
    (address, requests, connections)
}

/// A block of fields that may be larger than one frame.
fn in_frames(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16 * 1024).peekable();
    let mut bytes = Vec::new();
    let mut frame_kind = (kind::HEADERS, flag::END_STREAM);
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
        bytes.extend_from_slice(&frame(frame_kind.0, frame_kind.1 | end, stream, piece));
        frame_kind = (kind::CONTINUATION, 0);
    }
    bytes
}

/// Whether HEADERS have come behind the preface.
fn has_request(came: &[u8]) -> bool {
    !requests_in(came).is_empty()
}

/// The streams of all HEADERS behind the preface.
fn requests_in(came: &[u8]) -> Vec<u32> {
    let mut streams = Vec::new();
    let Some(mut rest) = came.get(h2::PREFACE.len()..) else { return streams };
    while let Some((head, behind)) = rest.split_at_checked(9) {
        if head[3] == kind::HEADERS {
            streams.push(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        rest = behind.get(length..).unwrap_or_default();
    }
    streams
}

async fn before(app: SocketAddr) -> TestProxy {
    TestProxy::toml(format!(
        "[server]\nstate_dir = \"state\"\nworkers = 1\n[timeouts]\nresponse_head = \"2s\"\nresponse_body = \"2s\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{app}\"]\nhttp2 = true\nretry = {{ attempts = 0 }}\n"
    ))
    .start()
    .await
}

fn answer(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flags | flag::END_HEADERS, 1, h2::block(fields))
}

const OK: (&str, &str) = (":status", "200");
const NO_ERROR: u32 = 0;

#[tokio::test]
async fn heads_that_are_none_are_not_passed_on() {
    let end = flag::END_STREAM;
    let cases = [
        ("no status", answer(end, &[("x", "smuggled")])),
        ("a status of letters", answer(end, &[(":status", "two"), ("x", "smuggled")])),
        ("two statuses", answer(end, &[OK, (":status", "404"), ("x", "smuggled")])),
        ("a name in upper case", answer(end, &[OK, ("X-Upper", "smuggled")])),
        ("a line feed in a value", answer(end, &[OK, ("x", "a\nset-cookie: smuggled")])),
        ("a connection's own field", answer(end, &[OK, ("connection", "close"), ("x", "smuggled")])),
        ("transfer-encoding", answer(end, &[OK, ("transfer-encoding", "chunked"), ("x", "smuggled")])),
        ("HEADERS on stream 0", frame(kind::HEADERS, end | flag::END_HEADERS, 0, h2::block(&[OK, ("x", "smuggled")]))),
        (
            "a broken block",
            frame(kind::HEADERS, end | flag::END_HEADERS, 1, [0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "a promise",
            frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, [&[0, 0, 0, 2][..], &h2::block(&h2::REQUEST)].concat()),
        ),
        ("a frame that is too large", frame(kind::HEADERS, flag::END_HEADERS, 1, vec![0; 20_000])),
        ("HTTP/1", b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled".to_vec()),
    ];
    for (name, bytes) in cases {
        let (app, _) = saying(bytes).await;
        let proxy = before(app).await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        let answer = client.get("/").await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let reason = answer.header("flagstone-reason").unwrap_or_default().to_owned();
        assert!(
            [502, 504].contains(&answer.status) && reason.starts_with("upstream_"),
            "{name}: {} {reason}",
            answer.status
        );
        assert!(!String::from_utf8_lossy(&answer.raw).contains("smuggled"), "{name}");
    }
}

/// Its connection lives on, and is not to be asked again and again for that.
#[tokio::test]
async fn a_request_that_is_answered_by_no_head_is_sent_as_often_as_attempts_say() {
    let ok = || (":status", "200".to_owned());
    let cases = [
        ("a connection's own field", vec![ok(), ("connection", "close".to_owned())]),
        ("no status", vec![("x", "y".to_owned())]),
        ("two lengths", vec![ok(), ("content-length", "1".to_owned()), ("content-length", "2".to_owned())]),
        ("a head that is too large", vec![ok(), ("x", "y".repeat(80_000))]),
    ];
    for (name, fields) in cases {
        for attempts in [0, 2] {
            let (app, requests) = answering(fields.clone()).await;
            let proxy = TestProxy::toml(format!(
                "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{app}\"]\nhttp2 = true\n\
                 breaker = {{ enabled = false }}\nretry = {{ attempts = {attempts} }}\n"
            ));
            let proxy = proxy.start().await;
            let mut client = Client::connect(proxy.address()).await.unwrap();
            // The second finds a connection.
            for round in 1..=2 {
                let answer = client.get("/").await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("upstream_error")), "{name}");
                assert_eq!(requests.load(SeqCst), round * (attempts + 1), "{name}");
            }
        }
    }
}

/// Not bad at all (RFC 9113, section 6.5.2), but no library does it.
#[tokio::test]
async fn an_app_may_take_fewer_streams_from_now_on() {
    const MAX_CONCURRENT_STREAMS: u8 = 3;
    let one = frame(kind::SETTINGS, 0, 0, [0, MAX_CONCURRENT_STREAMS, 0, 0, 0, 1]);
    // Each connection's first request is answered, and no other.
    let (app, connections) = saying([one, answer(flag::END_STREAM, &[OK])].concat()).await;
    let proxy = before(app).await;
    let get = |path: &'static str| {
        let address = proxy.address();
        async move { client::get(address, path).await.unwrap().status }
    };
    assert_eq!(get("/first").await, 200);
    let (second, third) = tokio::join!(get("/second"), get("/third"));
    assert_eq!((second.min(third), second.max(third)), (200, 504));
    assert_eq!(connections.load(SeqCst), 2);
}

/// RFC 9113 calls it malformed (section 8.3); hyper drops it, so that it reaches nobody.
#[tokio::test]
async fn a_requests_pseudo_header_in_an_answer_is_dropped() {
    let (app, _) = saying(answer(flag::END_STREAM, &[OK, (":path", "/pseudo"), ("x", "y")])).await;
    let proxy = before(app).await;
    let answer = Client::connect(proxy.address()).await.unwrap().get("/").await.unwrap();
    assert_eq!((answer.status, answer.header("x")), (200, Some("y")));
    assert!(!String::from_utf8_lossy(&answer.raw).contains("pseudo"));
}

#[tokio::test]
async fn a_body_unlike_its_length_is_no_clean_end() {
    let data = |flags, bytes: &str| frame(kind::DATA, flags, 1, bytes);
    let sized = |length| answer(0, &[OK, ("content-length", length)]);
    let cases = [
        ("too short", [sized("10"), data(flag::END_STREAM, "four")].concat()),
        ("too long", [sized("2"), data(flag::END_STREAM, "four")].concat()),
        ("none at all", answer(flag::END_STREAM, &[OK, ("content-length", "4")])),
        ("broken off", [sized("10"), data(0, "four"), frame(kind::RST_STREAM, 0, 1, 2_u32.to_be_bytes())].concat()),
        ("gone", [sized("10"), data(0, "four"), frame(kind::GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 2])].concat()),
        (
            "without a length, broken off",
            [answer(0, &[OK]), data(0, "four"), frame(kind::RST_STREAM, 0, 1, 2_u32.to_be_bytes())].concat(),
        ),
        (
            "without a length, broken off without an error",
            [answer(0, &[OK]), data(0, "four"), frame(kind::RST_STREAM, 0, 1, NO_ERROR.to_be_bytes())].concat(),
        ),
        ("trailers that do not end", [answer(0, &[OK]), data(0, "four"), answer(0, &[("x", "y")])].concat()),
    ];
    for (name, bytes) in cases {
        let (app, _) = saying(bytes).await;
        let proxy = before(app).await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        if let Ok(answer) = client.get("/").await {
            assert!([502, 504].contains(&answer.status), "{name}: {answer:?}");
        }
        let mut client = Http2::connect(proxy.address()).await;
        if let Ok(answer) = client.get("/").await {
            assert!([502, 504].contains(&answer.status()), "{name}, HTTP/2: {answer:?}");
        }
    }
}

/// The client is told that there was an answer, though it and its breaking off come at once.
#[tokio::test]
async fn what_came_before_an_answer_broke_off_reaches_the_client() {
    let reset = frame(kind::RST_STREAM, 0, 1, 2_u32.to_be_bytes());
    let (app, _) = saying([answer(0, &[OK]), frame(kind::DATA, 0, 1, "four"), reset].concat()).await;
    let proxy = before(app).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    let answer = client.read_to_end().await.expect("a proper end");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 ") && !text.ends_with("0\r\n\r\n"), "{text:?}");
}

/// An app that has not read all of the request says so behind its answer (RFC 9113, section 8.1).
#[tokio::test]
async fn a_whole_answer_may_have_a_reset_behind_it() {
    let data = frame(kind::DATA, flag::END_STREAM, 1, "four");
    let reset = frame(kind::RST_STREAM, 0, 1, NO_ERROR.to_be_bytes());
    let (app, _) = saying([answer(0, &[OK]), data, reset].concat()).await;
    let proxy = before(app).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/", "Transfer-Encoding: chunked\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "four");
}

#[tokio::test]
async fn a_connection_that_saw_something_odd_is_not_used_again() {
    let (app, connections) =
        saying([answer(flag::END_STREAM, &[OK]), frame(kind::DATA, 0, 7, "unasked")].concat()).await;
    let proxy = before(app).await;
    for number in 1..=3 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        // Whether the answer is seen before what is wrong is the app's luck.
        assert!([200, 502].contains(&client.get("/").await.unwrap().status));
        assert!(crate::support::poll::eventually(h2::PATIENCE, || connections.load(SeqCst) >= number).await);
    }
    assert_eq!(connections.load(SeqCst), 3);
}

/// What is said before the handshake is not the app's (nginx CVE-2026-1642).
#[tokio::test]
async fn words_before_the_handshake_are_not_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected").await?;
                let mut came = Vec::new();
                while socket.read_buf(&mut came).await? > 0 {}
                std::io::Result::Ok(())
            });
        }
    });
    for version in ["false", "true"] {
        let proxy = TestProxy::toml(format!(
            "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{address}\"]\nhttp2 = {version}\n\
             tls = {{ enabled = true, insecure = true }}\n"
        ));
        let proxy = proxy.start().await;
        let answer = Client::connect(proxy.address()).await.unwrap().get("/").await.unwrap();
        assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("connect_failed")));
        assert!(!String::from_utf8_lossy(&answer.raw).contains("injected"));
    }
}

/// Others are on it, whose answers are to come to their end.
#[tokio::test]
async fn streams_that_break_a_rule_end_no_connection_however_many_there_were() {
    // More than hyper lets go by itself.
    const MANY: usize = 1100;
    let fields = vec![(":status", "200".to_owned()), ("connection", "close".to_owned())];
    let (app, requests, connections) = answering_on(fields).await;
    let proxy = TestProxy::toml(format!(
        "[server]\nstate_dir = \"state\"\nworkers = 1\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n\
         endpoints = [\"{app}\"]\nhttp2 = true\nretry = {{ attempts = 0 }}\nbreaker = {{ enabled = false }}\n"
    ))
    .start()
    .await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..MANY {
        assert_eq!(client.get("/").await.unwrap().status, 502);
    }
    assert_eq!((requests.load(SeqCst), connections.load(SeqCst)), (MANY, 1));
}

/// Their windows are closed, as those of phones that sleep.
#[tokio::test]
async fn small_messages_for_clients_that_do_not_read_end_no_connection() {
    const CLIENTS: u32 = 64;
    // All that a stream's window takes, in messages of a hundred bytes.
    const MESSAGES: usize = 128 * 1024 / 100;
    let say = |stream| {
        let head = frame(kind::HEADERS, flag::END_HEADERS, stream, h2::block(&[OK]));
        let messages = frame(kind::DATA, 0, stream, [b'm'; 100]).repeat(MESSAGES);
        [head, messages, frame(kind::DATA, flag::END_STREAM, stream, [])].concat()
    };
    let (app, _, connections) = saying_to_each(say).await;
    let proxy = before(app).await;
    let mut client = Framed::connect(proxy.address()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE, 0.
    client.send(&frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])).await;
    let asked: Vec<u8> = (0..CLIENTS).flat_map(|number| h2::request(2 * number + 1, flag::END_STREAM)).collect();
    client.send(&asked).await;
    for _ in 0..CLIENTS {
        client.find(|frame| frame.kind == kind::HEADERS).await.expect("a head");
    }
    // Both windows as wide as can be.
    client.send(&frame(kind::WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes())).await;
    client.send(&frame(kind::SETTINGS, 0, 0, [0, 4, 0x40, 0, 0, 0])).await;
    let (mut bytes, mut ended) = (0, 0);
    while ended < CLIENTS {
        let frame = client.find(|frame| frame.stream != 0).await.expect("the rest");
        assert_eq!(frame.kind, kind::DATA, "after {bytes} bytes");
        bytes += frame.payload.len();
        ended += u32::from(frame.flags & flag::END_STREAM != 0);
    }
    assert_eq!((bytes, connections.load(SeqCst)), (CLIENTS as usize * MESSAGES * 100, 1));
}
