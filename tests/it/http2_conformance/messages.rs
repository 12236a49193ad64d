//! Requests: section 8. A malformed one is a stream error, and the app never hears of it (section 8.1.1).

use super::*;

const MALFORMED: Verdict = StreamError(1, &[code::PROTOCOL_ERROR]);

#[tokio::test]
async fn generic_4_requests_of_every_kind() {
    let trailers = head(1, flag::END_STREAM, &[("x-sum", "7")]);
    let data = |flags| frame(kind::DATA, flags, 1, b"test");
    let cases = vec![
        case("generic 4 1 GET", [get(1)], Answered(1)),
        case("generic 4 2 HEAD", [head(1, flag::END_STREAM, &request_of(":method", "HEAD"))], Answered(1)),
        case("generic 4 3 POST", [post(1), data(flag::END_STREAM)], Answered(1)),
        case("generic 4 4 POST with trailers", [post(1), data(0), trailers], Answered(1)),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn section_8_1_framing() {
    let data = || frame(kind::DATA, 0, 1, b"test");
    let cases = vec![case(
        "8.1 1 a second HEADERS that does not end the stream",
        [post(1), data(), head(1, 0, &[("x", "y")])],
        MALFORMED,
    )];
    play(App::Asked, cases).await;
}

/// 8.1.2.1 3: RFC 9113 calls pseudo-headers in trailers malformed; hyper drops them. Nobody can take them for a head,
/// for there is none any more behind a body.
#[tokio::test]
async fn section_8_1_a_pseudo_header_in_trailers_reaches_nobody() {
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut client = Framed::connect(proxy.address()).await;
    let fields = [&request_of(":method", "POST")[..], &[("trailer", "x-sum")]].concat();
    let trailers = head(1, flag::END_STREAM, &[(":path", "/other"), ("x-sum", "7")]);
    client.send(&[head(1, 0, &fields), frame(kind::DATA, 0, 1, b"test"), trailers].concat()).await;
    client.find(|frame| ends(frame, 1)).await.expect("an answer");
    let raw = String::from_utf8(upstream.raw().concat()).unwrap();
    assert!(raw.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n") && !raw.contains("other"), "{raw}");
}

/// Whole requests that are malformed, each with this more or instead.
#[tokio::test]
async fn section_8_2_and_8_3_malformed_requests() {
    let more = |fields: &[(&str, &str)]| head(1, flag::END_STREAM, &request_and(fields));
    let without = |name| {
        let fields: Vec<_> = h2::REQUEST.into_iter().filter(|(other, _)| *other != name).collect();
        head(1, flag::END_STREAM, &fields)
    };
    let pseudo_last = [&h2::REQUEST[..3], &[("x", "y")], &h2::REQUEST[3..]].concat();
    let cases = vec![
        case("8.1.2 1 a name in upper case", [more(&[("X-Upper", "y")])], MALFORMED),
        case("8.1.2.1 1 an unknown pseudo-header", [more(&[(":test", "y")])], MALFORMED),
        case("8.1.2.1 2 a pseudo-header of answers", [more(&[(":status", "200")])], MALFORMED),
        case("8.1.2.1 4 a pseudo-header behind a field", [head(1, flag::END_STREAM, &pseudo_last)], MALFORMED),
        case("8.1.2.2 1 connection", [more(&[("connection", "keep-alive")])], MALFORMED),
        case("8.2.2 keep-alive", [more(&[("keep-alive", "timeout=5")])], MALFORMED),
        case("8.2.2 proxy-connection", [more(&[("proxy-connection", "keep-alive")])], MALFORMED),
        case("8.2.2 transfer-encoding", [more(&[("transfer-encoding", "chunked")])], MALFORMED),
        case("8.2.2 upgrade", [more(&[("upgrade", "websocket")])], MALFORMED),
        case("8.1.2.2 2 te other than trailers", [more(&[("te", "trailers, deflate")])], MALFORMED),
        case("8.1.2.3 1 an empty :path", [head(1, flag::END_STREAM, &request_of(":path", ""))], MALFORMED),
        case("8.1.2.3 2 no :method", [without(":method")], MALFORMED),
        case("8.1.2.3 3 no :scheme", [without(":scheme")], MALFORMED),
        case("8.1.2.3 4 no :path", [without(":path")], MALFORMED),
        case("8.1.2.3 5 two :method", [more(&[(":method", "GET")])], MALFORMED),
        case("8.1.2.3 6 two :scheme", [more(&[(":scheme", "http")])], MALFORMED),
        case("8.1.2.3 7 two :path", [more(&[(":path", "/")])], MALFORMED),
        case("8.3.1 two :authority", [more(&[(":authority", "app")])], MALFORMED),
        case("8.2.1 a line feed in a value", [more(&[("x", "a\nb: c")])], MALFORMED),
        case("8.2.1 a carriage return in a value", [more(&[("x", "a\rb")])], MALFORMED),
        case("8.2.1 a NUL in a value", [more(&[("x", "a\0b")])], MALFORMED),
        case("8.2.1 a line feed in a name", [more(&[("x\ny", "a")])], MALFORMED),
        case("8.2.1 a colon in a name", [more(&[("x:y", "a")])], MALFORMED),
        case("8.2.1 a space in a name", [more(&[("x y", "a")])], MALFORMED),
        case("8.2.1 an empty name", [more(&[("", "a")])], MALFORMED),
        case(
            "8.3.1 a line feed in :path",
            [head(1, flag::END_STREAM, &request_of(":path", "/ HTTP/1.1\r\nx: y"))],
            MALFORMED,
        ),
        case("8.3.1 a space in :path", [head(1, flag::END_STREAM, &request_of(":path", "/a b"))], MALFORMED),
        case("8.3.1 a space in :method", [head(1, flag::END_STREAM, &request_of(":method", "GET /x"))], MALFORMED),
        case(
            "8.3.1 a line feed in :authority",
            [head(1, flag::END_STREAM, &request_of(":authority", "a\nb"))],
            MALFORMED,
        ),
        // What only looks strange is answered instead.
        case(
            "8.3.1 user information in :authority",
            [head(1, flag::END_STREAM, &request_of(":authority", "me@a"))],
            Refused(1),
        ),
        case("8.3.1 a Host unlike :authority", [more(&[("host", "other")])], Refused(1)),
        case(
            "8.5 CONNECT",
            [head(1, flag::END_STREAM, &[(":method", "CONNECT"), (":authority", "app:80")])],
            Refused(1),
        ),
        case("8.3.1 a strange :scheme", [head(1, flag::END_STREAM, &request_of(":scheme", "ht tp"))], MALFORMED),
        case("8.5 CONNECT with a :path", [head(1, flag::END_STREAM, &request_of(":method", "CONNECT"))], MALFORMED),
    ];
    play(App::LeftAlone, cases).await;
}

#[tokio::test]
async fn section_8_1_1_the_length_is_the_sum_of_the_data() {
    let cases: [(&str, &str, &[&str], bool); 6] = [
        ("8.1.2.6 1 too long a length", "5", &["test"], false),
        ("8.1.2.6 2 too short a length, in two frames", "7", &["test", "test"], false),
        ("8.1.1 too short a length", "1", &["test"], false),
        ("8.1.1 a sign", "+4", &["test"], false),
        ("8.1.1 no number", "four", &["test"], false),
        ("8.1.1 the right length", "8", &["test", "test"], true),
    ];
    for (name, length, pieces, is_right) in cases {
        let upstream = FakeUpstream::http1().route("*", "hello").start().await;
        let proxy = TestProxy::before(&upstream, "", "").start().await;
        let mut client = Framed::connect(proxy.address()).await;
        let fields = [&request_of(":method", "POST")[..], &[("content-length", length)]].concat();
        let mut bytes = head(1, 0, &fields);
        for (at, piece) in pieces.iter().enumerate() {
            let end = if at + 1 == pieces.len() { flag::END_STREAM } else { 0 };
            bytes.extend(frame(kind::DATA, end, 1, piece));
        }
        client.send(&bytes).await;
        let end = client.find(|frame| frame.kind == kind::RST_STREAM || ends(frame, 1)).await.expect(name);
        if is_right {
            assert_ne!(end.kind, kind::RST_STREAM, "{name}");
            assert_eq!(upstream.requests()[0].body, pieces.concat().as_bytes(), "{name}");
        } else {
            assert_eq!((end.kind, end.code()), (kind::RST_STREAM, Some(code::PROTOCOL_ERROR)), "{name}");
            // Whatever was on its way to the app has not come to an end there.
            assert!(upstream.requests().is_empty(), "{name}: {:?}", upstream.requests());
        }
    }
}
