//! Each type of frame: section 6, and the error codes of section 7.

use super::*;

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];

#[tokio::test]
async fn section_6_1_data() {
    // A pad length of one more than there is.
    let overpadded = frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x06Test!");
    let padded = frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x02Test\0\0");
    let data = |stream, flags| frame(kind::DATA, flags, stream, b"test");
    let cases = vec![
        case("generic 3.1 1 one", [post(1), data(1, flag::END_STREAM)], Answered(1)),
        case("generic 3.1 2 several", [post(1), data(1, 0), data(1, flag::END_STREAM)], Answered(1)),
        case("generic 3.1 3 padded", [post(1), padded], Answered(1)),
        case("6.1 1 on stream 0", [data(0, flag::END_STREAM)], ConnectionError(PROTOCOL)),
        case("6.1 2 on a stream that is not open", [slow(1), data(1, 0)], StreamError(1, &[code::STREAM_CLOSED])),
        case("6.1 3 with more padding than payload", [post(1), overpadded], ConnectionError(PROTOCOL)),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_6_2_headers() {
    let block = h2::block(&h2::REQUEST);
    let all = flag::END_STREAM | flag::END_HEADERS;
    let padded = [&[3][..], &block, &[0; 3]].concat();
    let overpadded = [&[block.len() as u8 + 1][..], &block].concat();
    let with_priority = [&[0, 0, 0, 0, 255][..], &block].concat();
    let open = frame(kind::HEADERS, flag::END_STREAM, 1, &block);
    let cases = vec![
        case("generic 3.2 1 plain", [get(1)], Answered(1)),
        case("generic 3.2 2 padded", [frame(kind::HEADERS, all | flag::PADDED, 1, padded)], Answered(1)),
        case(
            "generic 3.2 3 with a priority",
            [frame(kind::HEADERS, all | flag::PRIORITY, 1, with_priority)],
            Answered(1),
        ),
    ];
    play(App::Asked, cases).await;
    let cases = vec![
        case(
            "6.2 1 followed by PRIORITY before their end",
            [open.clone(), priority(1, 0, 255)],
            ConnectionError(PROTOCOL),
        ),
        case("6.2 2 followed by HEADERS of another stream", [open, get(3)], ConnectionError(PROTOCOL)),
        case("6.2 3 on stream 0", [frame(kind::HEADERS, all, 0, &block)], ConnectionError(PROTOCOL)),
        case(
            "6.2 4 with more padding than payload",
            [frame(kind::HEADERS, all | flag::PADDED, 1, overpadded)],
            ConnectionError(PROTOCOL),
        ),
    ];
    play(App::LeftAlone, cases).await;
}

#[tokio::test]
async fn section_6_3_priority() {
    let exclusive = frame(kind::PRIORITY, 0, 1, [0x80, 0, 0, 0, 15]);
    let cases = vec![
        case("generic 3.3 1 of the least weight", [priority(1, 0, 0)], Ignored),
        case("generic 3.3 2 of the most", [priority(1, 0, 255)], Ignored),
        case("generic 3.3 3 that depends on another stream", [priority(1, 7, 15)], Ignored),
        case("generic 3.3 4 exclusive", [exclusive], Ignored),
        case("generic 3.3 5 of an idle stream, then a lower one", [priority(5, 0, 15), get(1)], Answered(1)),
        case("6.3 1 on stream 0", [priority(0, 1, 15)], ConnectionError(PROTOCOL)),
        case("6.3 2 not of five bytes", [frame(kind::PRIORITY, 0, 1, [0; 4])], StreamError(1, SIZE)),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_6_4_rst_stream() {
    let cases = vec![
        case("generic 3.4 1", [post(1), reset(1)], Ignored),
        case("6.4 1 on stream 0", [reset(0)], ConnectionError(PROTOCOL)),
        case("6.4 2 of an idle stream", [reset(1)], ConnectionError(PROTOCOL)),
        case("6.4 3 not of four bytes", [post(1), frame(kind::RST_STREAM, 0, 1, [0; 3])], ConnectionError(SIZE)),
        case("7 2 with an unknown code", [post(1), frame(kind::RST_STREAM, 0, 1, 0xff_u32.to_be_bytes())], Ignored),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_6_5_settings() {
    let window = |value| settings(&[(setting::INITIAL_WINDOW_SIZE, value)]);
    let cases = vec![
        case("generic 3.5 1 one", [settings(&[(setting::ENABLE_PUSH, 0)])], Ignored),
        case(
            "6.5 1 an acknowledgement with a payload",
            [frame(kind::SETTINGS, flag::ACK, 0, [0])],
            ConnectionError(SIZE),
        ),
        case("6.5 2 on a stream", [frame(kind::SETTINGS, 0, 1, [0, 3, 0, 0, 0, 9])], ConnectionError(PROTOCOL)),
        case("6.5 3 not of six bytes each", [frame(kind::SETTINGS, 0, 0, [0, 3, 0])], ConnectionError(SIZE)),
        case("6.5.2 1 ENABLE_PUSH of 2", [settings(&[(setting::ENABLE_PUSH, 2)])], ConnectionError(PROTOCOL)),
        case("6.5.2 2 INITIAL_WINDOW_SIZE of 2^31", [window(1 << 31)], ConnectionError(FLOW)),
        case(
            "6.5.2 3 MAX_FRAME_SIZE below 2^14",
            [settings(&[(setting::MAX_FRAME_SIZE, (1 << 14) - 1)])],
            ConnectionError(PROTOCOL),
        ),
        case(
            "6.5.2 4 MAX_FRAME_SIZE of 2^24",
            [settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])],
            ConnectionError(PROTOCOL),
        ),
        case("6.5.2 5 an unknown one", [settings(&[(0xff, 1)])], Ignored),
    ];
    play(App::LeftAlone, cases).await;
}

/// A connection before an app whose answer has five bytes.
async fn answering() -> (FakeUpstream, TestProxy, Framed) {
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let client = Framed::connect(proxy.address()).await;
    (upstream, proxy, client)
}

#[tokio::test]
async fn section_6_5_3_settings_are_acknowledged_and_the_last_one_counts() {
    let (_upstream, _proxy, mut client) = answering().await;
    client.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)])).await;
    client.find(|frame| frame.is(kind::SETTINGS, flag::ACK)).await.expect("6.5.3 2: an acknowledgement");
    client.send(&get(1)).await;
    let data = client.find(|frame| frame.kind == kind::DATA).await.expect("6.5.3 1: data");
    assert_eq!(data.payload, b"h");
}

#[tokio::test]
async fn section_6_6_push_promise() {
    let promise = [&3_u32.to_be_bytes()[..], &h2::block(&h2::REQUEST)].concat();
    let cases = vec![case(
        "8.2 1 from a client",
        [post(1), frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, promise)],
        ConnectionError(PROTOCOL),
    )];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_6_7_ping() {
    let cases = vec![
        case("generic 3.7 1 and 6.7 1 is answered", [frame(kind::PING, 0, 0, b"h2spec\0\0")], Ignored),
        case("6.7 3 on a stream", [frame(kind::PING, 0, 1, [0; 8])], ConnectionError(PROTOCOL)),
        case("6.7 4 not of eight bytes", [frame(kind::PING, 0, 0, [0; 6])], ConnectionError(SIZE)),
    ];
    play(App::LeftAlone, cases).await;
    let (_upstream, _proxy, mut client) = answering().await;
    client.send(&frame(kind::PING, flag::ACK, 0, b"unasked!")).await;
    client.send(&frame(kind::PING, 0, 0, b"a ping !")).await;
    let answer = client.find(|frame| frame.kind == kind::PING).await.expect("an answer");
    assert_eq!((answer.flags, &answer.payload[..]), (flag::ACK, &b"a ping !"[..]), "6.7 2: an ACK is not answered");
}

#[tokio::test]
async fn section_6_8_goaway() {
    let goaway = |stream, code: u32| frame(kind::GOAWAY, 0, stream, [[0; 4], code.to_be_bytes()].concat());
    let cases = vec![case("6.8 1 on a stream", [goaway(1, 0)], ConnectionError(PROTOCOL))];
    play(App::LeftAlone, cases).await;
    for (name, code) in [("generic 3.8 1", 0), ("7 1 with an unknown code", 0xff)] {
        let (_upstream, _proxy, mut client) = answering().await;
        client.send(&[slow(1), goaway(0, code)].concat()).await;
        let data = client.find(|frame| frame.kind == kind::DATA).await;
        assert_eq!(data.expect(name).payload, b"hello", "{name}: what is open is finished");
        client.ends_with().await;
    }
}

#[tokio::test]
async fn section_6_9_window_update() {
    const MOST: u32 = (1 << 31) - 1;
    let cases = vec![
        case("generic 3.9 1 on the connection", [window_update(0, 1)], Ignored),
        case("generic 3.9 2 on a stream", [post(1), window_update(1, 1)], Ignored),
        case("6.9 1 by 0", [window_update(0, 0)], ConnectionError(PROTOCOL)),
        case("6.9 2 by 0, on a stream", [post(1), window_update(1, 0)], StreamError(1, PROTOCOL)),
        case("6.9 3 not of four bytes", [frame(kind::WINDOW_UPDATE, 0, 0, [0; 3])], ConnectionError(SIZE)),
        case("6.9.1 2 beyond 2^31-1", [window_update(0, MOST), window_update(0, MOST)], ConnectionError(FLOW)),
        case(
            "6.9.1 3 beyond 2^31-1, on a stream",
            [post(1), window_update(1, MOST), window_update(1, MOST)],
            StreamError(1, FLOW),
        ),
        case(
            "6.9.2 3 INITIAL_WINDOW_SIZE beyond 2^31-1",
            [settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])],
            ConnectionError(FLOW),
        ),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_6_9_1_no_more_is_sent_than_the_window_holds() {
    let (_upstream, _proxy, mut client) = answering().await;
    client.send(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]), get(1)].concat()).await;
    let data = client.find(|frame| frame.kind == kind::DATA).await.expect("data");
    assert_eq!(data.payload, b"h", "6.9.1 1");
    assert!(client.is_alive().await);
    client.send(&window_update(1, 2)).await;
    assert_eq!(client.find(|frame| frame.kind == kind::DATA).await.expect("data").payload, b"el");
}

#[tokio::test]
async fn section_6_9_2_the_initial_window_may_change_under_way() {
    let (_upstream, _proxy, mut client) = answering().await;
    let window = |value| settings(&[(setting::INITIAL_WINDOW_SIZE, value)]);
    client.send(&[window(0), get(1)].concat()).await;
    client.find(|frame| frame.kind == kind::HEADERS).await.expect("a head");
    client.send(&window(1)).await;
    assert_eq!(client.find(|frame| frame.kind == kind::DATA).await.expect("data").payload, b"h", "6.9.2 1");
    // One byte has been taken of a window that is now empty: minus one. Two more make one.
    client.send(&window(0)).await;
    client.find(|frame| frame.is(kind::SETTINGS, flag::ACK)).await.expect("an acknowledgement");
    client.send(&window_update(1, 2)).await;
    assert_eq!(client.find(|frame| frame.kind == kind::DATA).await.expect("data").payload, b"e", "6.9.2 2");
}

#[tokio::test]
async fn section_6_10_continuation() {
    let block = h2::block(&h2::REQUEST);
    let open = |flags| frame(kind::HEADERS, flags, 1, &block);
    let more = |stream, flags| frame(kind::CONTINUATION, flags, stream, h2::block(&[("x", "y")]));
    let cases = vec![
        case("generic 3.10 1 one", [open(flag::END_STREAM), more(1, flag::END_HEADERS)], Answered(1)),
        case(
            "generic 3.10 2 and 6.10 1 several",
            [open(flag::END_STREAM), more(1, 0), more(1, flag::END_HEADERS)],
            Answered(1),
        ),
    ];
    play(App::Asked, cases).await;
    let data = frame(kind::DATA, flag::END_STREAM, 1, b"test");
    let cases = vec![
        case("6.10 2 followed by something else", [open(0), more(1, 0), data.clone()], ConnectionError(PROTOCOL)),
        case("6.10 3 on stream 0", [open(0), more(0, flag::END_HEADERS)], ConnectionError(PROTOCOL)),
    ];
    play(App::LeftAlone, cases).await;
    let cases = vec![
        case(
            "6.10 4 behind HEADERS that ended",
            [open(flag::END_HEADERS), more(1, flag::END_HEADERS)],
            ConnectionError(PROTOCOL),
        ),
        case(
            "6.10 5 behind CONTINUATION that ended",
            [open(0), more(1, flag::END_HEADERS), more(1, flag::END_HEADERS)],
            ConnectionError(PROTOCOL),
        ),
        case(
            "6.10 6 behind DATA",
            [open(flag::END_HEADERS), data, more(1, flag::END_HEADERS)],
            ConnectionError(PROTOCOL),
        ),
    ];
    play(App::Asked, cases).await;
}
