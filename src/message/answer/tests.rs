use super::in_pieces::{Read, read_in_pieces};
use super::*;

fn text(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {}; ", value.as_bytes().escape_ascii())).collect()
}

/// What comes of it is the same, however the bytes come.
fn read(text: &str, is_for_head: bool) -> Result<Read, BadAnswer> {
    let at_once = read_in_pieces(text.as_bytes(), usize::MAX, is_for_head);
    for piece in [1, 2, 3, 7] {
        assert_eq!(read_in_pieces(text.as_bytes(), piece, is_for_head), at_once, "{piece} at a time: {text:?}");
    }
    at_once
}

fn get(text: &str) -> Result<Read, BadAnswer> {
    read(text, false)
}

/// The body, whether the connection is kept, and what stands behind.
fn body(text: &str) -> (String, bool, String) {
    let read = get(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    (String::from_utf8(read.body).unwrap(), read.keeps_alive, String::from_utf8(read.rest).unwrap())
}

#[test]
fn every_framing_finds_its_end() {
    let expect = |body: &str, kept, rest: &str| (body.to_owned(), kept, rest.to_owned());
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP"), expect("hi", true, "HTTP"));
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), expect("", true, ""));
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nto the end"), expect("to the end", false, ""));
    assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\nHTTP"), expect("", true, "HTTP"));
    assert_eq!(body("HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n"), expect("", true, ""));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n1 ;a=b\r\n!\r\n0\r\n\r\nHTTP";
    assert_eq!(body(chunked), expect("hi!", true, "HTTP"));
    // The oldest forms of a line.
    assert_eq!(body("HTTP/1.1 200\nContent-Length: 2\n\nhi"), expect("hi", true, ""));
    assert_eq!(body("\r\nHTTP/1.1 200 OK\r\nContent-Length:2 \r\n\r\nhi"), expect("hi", true, ""));
}

#[test]
fn an_answer_to_head_has_no_body_and_keeps_its_length() {
    let head = read("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", true).unwrap();
    assert_eq!((head.body.len(), head.keeps_alive, &*text(&head.headers)), (0, true, "content-length: 10; "));
    assert!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true).unwrap().keeps_alive);
    assert!(read("HTTP/1.1 200 OK\r\n\r\n", true).unwrap().keeps_alive);
}

#[test]
fn the_connection_is_kept_as_both_sides_agree() {
    let kept = |line: &str, fields: &str| body(&format!("{line} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n")).1;
    assert!(kept("HTTP/1.1", ""));
    assert!(kept("HTTP/1.1", "Connection: keep-alive\r\n"));
    assert!(!kept("HTTP/1.1", "Connection: Close\r\n"));
    assert!(!kept("HTTP/1.1", "Connection: x, close\r\nConnection: keep-alive\r\n"));
    assert!(!kept("HTTP/1.0", ""));
    assert!(kept("HTTP/1.0", "connection: Keep-Alive\r\n"));
    assert!(!kept("HTTP/1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn fields_of_this_connection_end_here() {
    let fields = |fields: &str| text(&get(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap().headers);
    assert_eq!(fields("Connection: keep-alive\r\nB: 1\r\nA:\r\nB: 2\r\n"), "b: 1; b: 2; a: ; ");
    assert_eq!(fields("Connection: close\r\nconnection:\r\n"), "");
    // What names others is needed where those are removed.
    assert_eq!(fields("Connection: close, X-Own\r\nX-Own: 1\r\n"), "connection: close, X-Own; x-own: 1; ");
    assert_eq!(fields("X: caf\u{e9}\t\u{e9}\r\n"), "x: caf\\xc3\\xa9\\t\\xc3\\xa9; ");
}

#[test]
fn interim_answers_are_skipped_and_101_is_final() {
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 x\r\n\r\n";
    let read = get(&format!("{interim}{last}")).unwrap();
    assert_eq!((read.status, &*text(&read.headers), read.body.as_slice()), (200, "content-length: 2; ", &b"hi"[..]));
    let many = |bytes: usize| "HTTP/1.1 100 Continue\r\n\r\n".repeat(bytes / 25);
    assert!(get(&format!("{}{last}", many(HEAD_BYTES_MAX))).is_ok());
    let too_many = get(&format!("{}{last}", many(HEAD_BYTES_MAX + 25)));
    assert!(matches!(too_many.unwrap_err(), BadAnswer::HeadTooLarge));
    let switched = get("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes").unwrap();
    assert_eq!((switched.status, switched.keeps_alive, switched.rest.as_slice()), (101, false, &b"bytes"[..]));
}

#[test]
fn trailers_are_told() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let read = get(&format!("{head}2\r\nhi\r\n0\r\nX-Sum: 7\r\nB:\r\n\r\nHTTP")).unwrap();
    assert_eq!((&*text(&read.trailers), read.rest.as_slice()), ("x-sum: 7; b: ; ", &b"HTTP"[..]));
    for bad in ["X Sum: 7", "X-Sum", ": 7", " folded: 7", "X: \0"] {
        let error = get(&format!("{head}0\r\n{bad}\r\n\r\n")).unwrap_err();
        assert!(matches!(error, Malformed(_)), "{bad}");
    }
    assert!(get(&format!("{head}0\r\n{}\r\n", "a: b\r\n".repeat(101))).is_err());
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for field in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551617",
        "Content-Length : 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:",
        "X: a\r\n b",
        "X: a\0b",
        "X: a\rb",
        "X\x01: a",
        "no colon",
        ": no name",
    ] {
        let error = get(&format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        assert!(matches!(error, Err(Malformed(_))), "{field:?}: {error:?}");
    }
    for line in
        ["HTTP/2.0 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 099 x", "HTTP/1.1 20 x", "HTTP/1.1  200 x", "ICY 200 OK"]
    {
        let error = get(&format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        assert!(matches!(error, Err(Malformed(_))), "{line:?}: {error:?}");
    }
    assert!(get("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").is_err());
    for chunks in ["5\r\nhello0\r\n\r\n", "5\r\nhello\r\nx\r\n", "\r\n", "-1\r\n", "5\nhello", "ffffffffffffffff1\r\n"]
    {
        let error = get(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert!(matches!(error, Err(Malformed(_))), "{chunks:?}: {error:?}");
    }
}

#[test]
fn an_early_end_is_no_end() {
    let whole = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    ];
    for whole in whole {
        assert!(get(whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(read_in_pieces(&whole.as_bytes()[..end], 4, false), Err(BadAnswer::Truncated), "{end}");
        }
    }
}

#[test]
fn heads_are_bounded() {
    let with = |fields: &str| get(&format!("HTTP/1.1 204 x\r\n{fields}\r\n"));
    assert!(with(&"a: b\r\n".repeat(100)).is_ok());
    assert!(matches!(with(&"a: b\r\n".repeat(101)), Err(Malformed(_))));
    let size = |bytes: usize| {
        read_in_pieces(format!("HTTP/1.1 204 x\r\na: {}\r\n\r\n", "x".repeat(bytes)).as_bytes(), 9999, false)
    };
    let around = "HTTP/1.1 204 x\r\na: \r\n\r\n".len();
    assert!(size(HEAD_BYTES_MAX - around).is_ok());
    assert_eq!(size(HEAD_BYTES_MAX - around + 1), Err(BadAnswer::HeadTooLarge));
    // One that never ends.
    assert_eq!(
        read_in_pieces(&[b"HTTP/1.1 200 ".as_slice(), &[b'x'; 70_000]].concat(), 9999, false),
        Err(BadAnswer::HeadTooLarge)
    );
}

#[test]
fn a_whole_body_is_taken_at_once() {
    let whole = |text: &str| {
        let (mut bytes, mut headers) = (BytesMut::from(text), HeaderMap::new());
        let mut head = HeadReader::new(false).read(&mut bytes, &mut headers).unwrap().unwrap();
        (head.body.take_whole(&mut bytes), head.body.has_ended(), bytes.len())
    };
    assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), (Some("hi".into()), true, 0));
    assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!"), (Some("hi".into()), true, 1));
    assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh"), (None, false, 1));
    assert_eq!(whole("HTTP/1.1 204 OK\r\n\r\n"), (Some("".into()), true, 0));
    assert_eq!(whole("HTTP/1.1 200 OK\r\n\r\nhi"), (None, false, 2));
}

#[test]
fn the_last_piece_is_known_to_be_the_last() {
    let (mut bytes, mut body) = (BytesMut::from("2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n"), BodyReader::chunked_answer());
    assert_eq!(body.next(&mut bytes).unwrap().unwrap().into_data().unwrap(), "hi");
    assert!(!body.has_ended());
    assert_eq!(body.next(&mut bytes).unwrap().unwrap().into_data().unwrap(), "!");
    assert!(body.has_ended() && bytes.is_empty());
    // Broken chunks do not cost what stands before them, and do not mend.
    let (mut bytes, mut body) = (BytesMut::from("2\r\nhiX"), BodyReader::chunked_answer());
    assert_eq!(body.next(&mut bytes).unwrap().unwrap().into_data().unwrap(), "hi");
    assert!(body.next(&mut bytes).is_err() && body.next(&mut bytes).is_err() && body.close().is_err());
}

/// There is nothing wrong with the chunks then, and somebody has to find out what there is.
#[test]
fn trailers_beyond_their_bound_are_told_as_such() {
    let long = "y".repeat(TRAILER_BYTES_MAX);
    for message in [BodyReader::chunked_answer, BodyReader::chunked_request] {
        let (mut bytes, mut body) = (BytesMut::from(&*format!("2\r\nhi\r\n0\r\na: {long}\r\n\r\n")), message());
        assert_eq!(body.next(&mut bytes).unwrap().unwrap().into_data().unwrap(), "hi");
        for _ in 0..2 {
            let why = body.next(&mut bytes).unwrap_err();
            assert_eq!(why.to_string(), "the trailers are larger than 16384 bytes");
        }
    }
}
