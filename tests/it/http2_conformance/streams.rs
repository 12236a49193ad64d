//! Preface, frames and header blocks in general, and the states of streams: sections 3 to 5.

use super::*;

const CLOSED: &[u32] = &[code::STREAM_CLOSED];
const CLOSED_OR_PROTOCOL: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];
const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];

#[tokio::test]
async fn section_3_4_the_preface() {
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Framed::silent(proxy.address()).await;
    client.send(&[h2::PREFACE, &settings(&[])].concat()).await;
    let first = client.read().await.expect("our preface");
    assert!(first.is(kind::SETTINGS, 0) && first.flags & flag::ACK == 0 && first.stream == 0, "SETTINGS come first");
    // Something else than SETTINGS behind the preface is an error.
    let mut client = Framed::silent(proxy.address()).await;
    client.send(&[h2::PREFACE, &get(1)].concat()).await;
    assert_ne!(client.ends_with().await, 0);
    // What only begins as a preface is none.
    let mut client = Framed::silent(proxy.address()).await;
    client.send(&[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &settings(&[])[..], &get(1)].concat()).await;
    client.ends_with().await;
    assert!(upstream.raw().is_empty());
}

#[tokio::test]
async fn section_4_1_frame_format() {
    let cases = vec![
        case("4.1 1 an unknown type is ignored", [frame(0x16, 0, 0, [0; 8])], Ignored),
        case("4.1 2 undefined flags are ignored", [frame(kind::PING, 0x16 & !1, 0, [0; 8])], Ignored),
        case("4.1 3 the reserved bit is ignored", [frame(kind::PING, 0, 1 << 31, [0; 8])], Ignored),
    ];
    play(App::LeftAlone, cases).await;
}

#[tokio::test]
async fn section_4_2_frame_size() {
    const LARGE: usize = 1 << 14;
    let large = frame(kind::DATA, flag::END_STREAM, 1, vec![b'x'; LARGE]);
    let over = |kind, flags, stream| frame(kind, flags, stream, vec![0; LARGE + 1]);
    let cases = vec![
        case("4.2 1 DATA of 2^14 bytes", [post(1), large], Answered(1)),
        case(
            "4.2 2 DATA over SETTINGS_MAX_FRAME_SIZE",
            [post(1), over(kind::DATA, flag::END_STREAM, 1)],
            StreamError(1, SIZE),
        ),
        case(
            "4.2 3 HEADERS over SETTINGS_MAX_FRAME_SIZE",
            [over(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1)],
            ConnectionError(SIZE),
        ),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_4_3_header_compression() {
    let open = frame(kind::HEADERS, flag::END_STREAM, 1, h2::block(&h2::REQUEST));
    let cases = vec![
        case(
            "4.3 1 an invalid header block",
            // A literal whose name is said to be longer than what comes.
            [frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, [0, 0x7f, 0x80, 1, b'a'])],
            ConnectionError(COMPRESSION),
        ),
        case("4.3 2 PRIORITY within a header block", [open.clone(), priority(1, 0, 255)], ConnectionError(PROTOCOL)),
        case("4.3 3 HEADERS of another stream within a header block", [open, get(3)], ConnectionError(PROTOCOL)),
    ];
    play(App::LeftAlone, cases).await;
}

#[tokio::test]
async fn section_5_1_idle_streams() {
    let continuation = frame(kind::CONTINUATION, flag::END_HEADERS, 1, h2::block(&h2::REQUEST));
    let cases = vec![
        case("5.1 1 DATA", [frame(kind::DATA, flag::END_STREAM, 1, b"x")], ConnectionError(PROTOCOL)),
        case("5.1 2 RST_STREAM", [reset(1)], ConnectionError(PROTOCOL)),
        case("5.1 3 WINDOW_UPDATE", [window_update(1, 100)], ConnectionError(PROTOCOL)),
        case("5.1 4 CONTINUATION", [continuation], ConnectionError(PROTOCOL)),
        case("generic 2.1 PRIORITY", [priority(1, 0, 15)], Ignored),
    ];
    play(App::LeftAlone, cases).await;
}

#[tokio::test]
async fn section_5_1_half_closed_streams() {
    let data = frame(kind::DATA, flag::END_STREAM, 1, b"x");
    let continuation = frame(kind::CONTINUATION, flag::END_HEADERS, 1, h2::block(&[("x", "y")]));
    let again = head(1, flag::END_STREAM, &[("x", "y")]);
    let cases = vec![
        case("5.1 5 DATA", [slow(1), data], StreamError(1, CLOSED)),
        case("5.1 6 HEADERS", [slow(1), again], StreamError(1, CLOSED)),
        case("5.1 7 CONTINUATION", [slow(1), continuation], ConnectionError(CLOSED_OR_PROTOCOL)),
        case("generic 2.2 WINDOW_UPDATE", [slow(1), window_update(1, 1)], Answered(1)),
        case("generic 2.3 PRIORITY", [slow(1), priority(1, 0, 15)], Answered(1)),
        case("generic 2.4 RST_STREAM", [slow(1), reset(1)], Ignored),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_5_1_closed_streams() {
    let data = frame(kind::DATA, flag::END_STREAM, 1, b"x");
    let continuation = frame(kind::CONTINUATION, flag::END_HEADERS, 1, h2::block(&[("x", "y")]));
    let cases = vec![
        // Behind a reset a server may also ignore them, for they may have been on their way.
        case("5.1 8 DATA behind RST_STREAM", [post(1), reset(1), data], StreamError(1, CLOSED)),
        case("5.1 9 HEADERS behind RST_STREAM", [post(1), reset(1), get(1)], StreamError(1, CLOSED_OR_PROTOCOL)),
        case(
            "5.1 10 CONTINUATION behind RST_STREAM",
            [post(1), reset(1), continuation],
            ConnectionError(CLOSED_OR_PROTOCOL),
        ),
    ];
    play(App::Asked, cases).await;
    // And behind an answer.
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let late = [
        ("5.1 11 DATA", frame(kind::DATA, flag::END_STREAM, 1, b"x"), CLOSED),
        ("5.1 12 HEADERS", get(1), CLOSED_OR_PROTOCOL),
        (
            "5.1 13 CONTINUATION",
            frame(kind::CONTINUATION, flag::END_HEADERS, 1, h2::block(&[("x", "y")])),
            CLOSED_OR_PROTOCOL,
        ),
        ("generic 2.5 PRIORITY", priority(1, 0, 15), &[]),
    ];
    for (name, bytes, codes) in late {
        let mut client = Framed::connect(proxy.address()).await;
        client.send(&get(1)).await;
        client.find(|frame| ends(frame, 1)).await.expect("an answer");
        client.send(&bytes).await;
        let verdict = if codes.is_empty() { Ignored } else { StreamError(1, codes) };
        client.send(&frame(kind::PING, 0, 0, b"the end.")).await;
        let seen = read_up_to_verdict(&mut client, verdict).await;
        judge(verdict, &seen).unwrap_or_else(|what| panic!("{name}: {what}: {seen:?}"));
    }
    assert_eq!(upstream.requests().len(), 4, "no request came of what was late");
}

#[tokio::test]
async fn section_5_1_1_stream_identifiers() {
    let cases = vec![
        case("5.1.1 1 an even number", [get(2)], ConnectionError(PROTOCOL)),
        case("5.1.1 2 a lower number than before", [slow(5), get(3)], ConnectionError(CLOSED_OR_PROTOCOL)),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_5_1_2_stream_concurrency() {
    let upstream = FakeUpstream::http1().route("*", Reply::ok("late").after(Duration::from_millis(500))).start().await;
    let proxy = TestProxy::before(&upstream, "[bounds]\nh2_max_streams = 10\n", "").start().await;
    let mut client = Framed::silent(proxy.address()).await;
    client.send(&[h2::PREFACE, &settings(&[])].concat()).await;
    let offered = client.find(|frame| frame.kind == kind::SETTINGS).await.expect("SETTINGS").payload;
    let streams_max = offered.chunks(6).find(|pair| pair[..2] == [0, 3]).expect("a bound is told");
    assert_eq!(streams_max[2..], 10_u32.to_be_bytes());
    client.find(|frame| frame.is(kind::SETTINGS, flag::ACK)).await.expect("an acknowledgement");
    client.send(&settings_ack()).await;
    // The bound holds from our having seen that the client knows it.
    assert!(client.is_alive().await);
    let all: Vec<u8> = (0..11).flat_map(|number| get(2 * number + 1)).collect();
    client.send(&all).await;
    let refused = client.find(|frame| frame.kind == kind::RST_STREAM).await.expect("one is refused");
    assert_eq!((refused.stream, refused.code()), (21, Some(code::REFUSED_STREAM)));
    for _ in 0..10 {
        client.find(|frame| frame.kind == kind::DATA).await.expect("the others are answered");
    }
    assert_eq!(upstream.requests().len(), 10);
}

fn settings_ack() -> Vec<u8> {
    frame(kind::SETTINGS, flag::ACK, 0, [])
}

#[tokio::test]
async fn section_5_3_priorities_are_deprecated() {
    let itself = [&1_u32.to_be_bytes()[..], &[255], &h2::block(&h2::REQUEST)].concat();
    let flags = flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM;
    let cases = vec![
        // RFC 7540 made both a stream error. RFC 9113 has no dependencies any more, but allows it.
        case(
            "5.3.1 1 HEADERS that depend on themselves",
            [frame(kind::HEADERS, flags, 1, itself)],
            StreamError(1, PROTOCOL),
        ),
        case("5.3.1 2 PRIORITY that depends on itself", [post(1), priority(1, 1, 255)], StreamError(1, PROTOCOL)),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_5_4_and_5_5_errors_and_extensions() {
    let open = frame(kind::HEADERS, flag::END_STREAM, 1, h2::block(&h2::REQUEST));
    let cases = vec![
        case("5.4.1 1 an invalid PING", [frame(kind::PING, 0, 0, [0; 6])], ConnectionError(SIZE)),
        case("5.5 1 an unknown frame", [frame(0xff, 0, 0, b"what?")], Ignored),
        case(
            "5.5 2 an unknown frame within a header block",
            [open, frame(0xff, 0, 1, b"what?")],
            ConnectionError(PROTOCOL),
        ),
    ];
    play(App::LeftAlone, cases).await;
}
