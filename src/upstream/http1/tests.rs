use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;

use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::request::{Outgoing, Unsent};
use super::*;

/// A body in given pieces. `None` among them is a wait; the last is known for the last where `tells_last`.
struct Pieces {
    pieces: VecDeque<Option<Result<Frame<Bytes>, BodyError>>>,
    length: Option<u64>,
    tells_last: bool,
}

impl Pieces {
    fn of(pieces: &[&str]) -> Self {
        let frame = |piece: &&str| {
            let piece = piece.to_string();
            if piece.is_empty() { None } else { Some(Ok(Frame::data(piece.into()))) }
        };
        Self { pieces: pieces.iter().map(frame).collect(), length: None, tells_last: true }
    }

    fn then(mut self, last: Result<Frame<Bytes>, BodyError>) -> Self {
        self.pieces.push_back(Some(last));
        self
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.pieces.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tells_last && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
    let request = Request::builder().method(method).uri("/a?b=c");
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

/// What arrives of a request, and how its sending ended.
async fn sent(head: &Parts, body: Pieces) -> (String, Result<(), Unsent>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut stream = Stream::Unix(ours);
    let mut outgoing = Outgoing::new();
    outgoing.begin(RequestHead::of(head), body);
    let sending = async move {
        let ended = poll_fn(|cx| outgoing.poll_send(&mut stream, cx)).await;
        assert_eq!(outgoing.is_sent(), ended.is_ok());
        ended
    };
    let mut arrived = String::new();
    let (ended, read) = tokio::join!(sending, theirs.read_to_string(&mut arrived));
    read.unwrap();
    (arrived, ended)
}

async fn text(head: &Parts, body: Pieces) -> String {
    let (arrived, ended) = sent(head, body).await;
    ended.unwrap();
    arrived
}

#[tokio::test]
async fn a_head_is_written_in_order_and_lower_case() {
    let fields = [("Host", "a:1"), ("X-B", "1"), ("Accept", ""), ("X-B", "caf\u{e9}"), ("Content-Length", "0")];
    let expected =
        "POST /a?b=c HTTP/1.1\r\nhost: a:1\r\nx-b: 1\r\nx-b: caf\u{e9}\r\naccept: \r\ncontent-length: 0\r\n\r\n";
    assert_eq!(text(&head("POST", &fields), Pieces::of(&[])).await, expected);
    let mut star = head("OPTIONS", &[]);
    star.uri = "*".parse().unwrap();
    assert_eq!(text(&star, Pieces::of(&[])).await, "OPTIONS * HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn the_framing_is_what_is_known_of_the_body() {
    let told = head("PUT", &[("content-length", "7"), ("x", "y")]);
    let lines = "PUT /a?b=c HTTP/1.1\r\ncontent-length: 7\r\nx: y\r\n\r\n";
    for pieces in [&["abcdefg"][..], &["abc", "", "defg"], &["abc", "", "", "d", "efg"]] {
        assert_eq!(text(&told, Pieces::of(pieces)).await, format!("{lines}abcdefg"));
    }
    let known = Pieces { length: Some(2), ..Pieces::of(&["hi"]) };
    assert_eq!(text(&head("PUT", &[]), known).await, "PUT /a?b=c HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi");
    // Of any method: a body of GET is not lost. What the client said of its own framing is not passed on.
    for (method, odd) in [("GET", "content-length"), ("POST", "transfer-encoding")] {
        let expected =
            format!("{method} /a?b=c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n");
        assert_eq!(text(&head(method, &[(odd, "x")]), Pieces::of(&["hi", "", "!"])).await, expected);
        let silent = Pieces { tells_last: false, ..Pieces::of(&["hi", "!"]) };
        assert_eq!(text(&head(method, &[]), silent).await, expected);
    }
}

#[tokio::test]
async fn large_pieces_arrive_in_order() {
    let (small, large) = ("s".repeat(3000), "l".repeat(300_000));
    let pieces = [small.as_str(), &large, &small, &small, "", &large, &large];
    let body: String = pieces.concat();
    let length = body.len().to_string();
    let arrived = text(&head("PUT", &[("content-length", &length)]), Pieces::of(&pieces)).await;
    assert!(arrived.ends_with(&format!("\r\n\r\n{body}")), "{} of {length}", arrived.len());
    let arrived = text(&head("PUT", &[]), Pieces::of(&pieces)).await;
    let chunk =
        |piece: &&str| if piece.is_empty() { String::new() } else { format!("{:x}\r\n{piece}\r\n", piece.len()) };
    let chunks: String = pieces.iter().map(chunk).collect();
    assert!(arrived.ends_with(&format!("\r\n\r\n{chunks}0\r\n\r\n")), "{}", arrived.len());
}

#[tokio::test]
async fn trailers_are_sent_as_announced() {
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-sum", "7"), ("x-other", "8"), ("content-length", "9")] {
        trailers.insert(name, value.parse().unwrap());
    }
    let body = || Pieces::of(&["hi"]).then(Ok(Frame::trailers(trailers.clone())));
    let arrived = text(&head("PUT", &[("Trailer", "X-Sum, Content-Length")]), body()).await;
    assert!(arrived.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"), "{arrived}");
    assert!(text(&head("PUT", &[]), body()).await.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"));
    // By length there is no place for them.
    assert!(text(&head("PUT", &[("content-length", "2")]), body()).await.ends_with("\r\n\r\nhi"));
}

#[tokio::test]
async fn a_body_that_fails_or_is_not_as_long_as_told_has_no_end() {
    let told = head("PUT", &[("content-length", "7")]);
    for (pieces, beginning) in [(&["abc"][..], ""), (&["abcdefgh"], ""), (&["abc", "", "defghi"], "abc")] {
        let (arrived, ended) = sent(&told, Pieces::of(pieces)).await;
        assert!(matches!(ended, Err(Unsent::Lost(BodyError::Misframed))), "{pieces:?}: {ended:?}");
        assert!(arrived.is_empty() || arrived.ends_with(&format!("\r\n\r\n{beginning}")), "{arrived}");
    }
    let (arrived, ended) = sent(&head("PUT", &[]), Pieces::of(&["abc", ""]).then(Err(BodyError::Timeout))).await;
    assert!(matches!(ended, Err(Unsent::Lost(BodyError::Timeout))));
    assert!(arrived.ends_with("\r\n\r\n3\r\nabc\r\n"), "{arrived}");
    // What fails at once costs the endpoint nothing.
    let (arrived, _) = sent(&head("PUT", &[]), Pieces::of(&[]).then(Err(BodyError::Timeout))).await;
    assert_eq!(arrived, "");
}

/// A connection, and its endpoint's side.
fn connected() -> (Http1, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Http1::new(Stream::Unix(ours)), theirs)
}

async fn asks(connection: &mut Http1) -> Result<StatusCode, Broken> {
    connection
        .begin(RequestHead::of(&head("GET", &[("host", "a")])), RequestBody::Empty)
        .map_err(|_| Broken::Closed)?;
    poll_fn(|cx| connection.poll_answer(None, cx)).await
}

/// Asks, and is answered with these bytes once the request is there.
async fn answered(connection: &mut Http1, endpoint: &mut UnixStream, answer: &str) -> Result<StatusCode, Broken> {
    let answering = async {
        let mut request = [0; 128];
        let read = endpoint.read(&mut request).await.unwrap();
        assert_eq!(&request[..read], b"GET /a?b=c HTTP/1.1\r\nhost: a\r\n\r\n");
        endpoint.write_all(answer.as_bytes()).await.unwrap();
    };
    tokio::join!(asks(connection), answering).0
}

/// The answer's body, read to its end.
async fn body_of(connection: &mut Http1) -> Result<BytesMut, Broken> {
    let mut body = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
        body.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(body)
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let (mut connection, mut endpoint) = connected();
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n", "!"),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", "hi"),
    ] {
        let status = answered(&mut connection, &mut endpoint, answer).await.unwrap();
        assert_eq!(connection.take_answer().unwrap().status(), status);
        assert_eq!(body_of(&mut connection).await.unwrap(), body);
        connection = connection.kept().unwrap_or_else(|| panic!("{answer}"));
        assert!(!connection.doze());
    }
    drop(endpoint);
    // For the event loop to take notice.
    tokio::task::yield_now().await;
    assert!(connection.doze());
}

#[tokio::test]
async fn what_is_odd_costs_the_connection() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", Some("hi")),
        ("HTTP/1.1 204 No Content\r\n\r\n!", Some("")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n!", Some("")),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Some("")),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Some("")),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", Some("to the end")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi0\r\n\r\n", None),
    ] {
        let (mut connection, mut endpoint) = connected();
        answered(&mut connection, &mut endpoint, answer).await.unwrap();
        drop(endpoint);
        let read = body_of(&mut connection).await.ok();
        assert_eq!(read.as_deref(), body.map(str::as_bytes), "{answer:?}");
        assert!(connection.kept().is_none(), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_wholly_read_costs_the_connection() {
    let (mut connection, mut endpoint) = connected();
    answered(&mut connection, &mut endpoint, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert!(connection.kept().is_none());
    // And so does one that never came.
    assert!(connected().0.kept().is_none());
}

#[tokio::test]
async fn a_request_that_asks_for_the_end_is_the_last_one() {
    let (mut connection, mut endpoint) = connected();
    let last = head("GET", &[("connection", "close")]);
    assert!(connection.begin(RequestHead::of(&last), RequestBody::Empty).is_ok());
    let answering = endpoint.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    let (status, written) = tokio::join!(poll_fn(|cx| connection.poll_answer(None, cx)), answering);
    assert_eq!((status.unwrap(), written.is_ok()), (StatusCode::NO_CONTENT, true));
    assert!(connection.kept().is_none());
}

#[tokio::test]
async fn a_whole_answer_needs_no_second_look() {
    let (mut connection, mut endpoint) = connected();
    answered(&mut connection, &mut endpoint, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(connection.size_hint().exact(), Some(2));
    assert_eq!(connection.take_whole().unwrap(), "hi");
    assert!(connection.has_ended() && connection.kept().is_some());
    let (mut connection, mut endpoint) = connected();
    answered(&mut connection, &mut endpoint, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi").await.unwrap();
    assert_eq!(connection.take_whole(), None);
    assert!(!connection.has_ended());
}

#[tokio::test]
async fn what_was_said_before_the_request_costs_no_request() {
    for said in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let (mut connection, mut endpoint) = connected();
        answered(&mut connection, &mut endpoint, "HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let mut connection = connection.kept().unwrap();
        endpoint.write_all(said.as_bytes()).await.unwrap();
        drop(endpoint);
        // For the event loop to take notice.
        tokio::task::yield_now().await;
        let body = connection.begin(RequestHead::of(&head("POST", &[])), RequestBody::Empty);
        assert!(matches!(body, Err(RequestBody::Empty)), "{said:?}");
    }
}

#[tokio::test]
async fn a_request_that_finds_the_connection_closed_was_not_sent() {
    let (mut connection, endpoint) = connected();
    // Unnoticed until it is written to.
    assert!(connection.begin(RequestHead::of(&head("POST", &[])), RequestBody::Empty).is_ok());
    drop(endpoint);
    let answer = poll_fn(|cx| connection.poll_answer(None, cx)).await;
    assert!(matches!(answer, Err(Broken::Unsent(_))), "{answer:?}");
}

#[tokio::test]
async fn a_request_whose_body_was_asked_for_is_not_handed_back() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let mut stream = Stream::Unix(ours);
    for (body, is_untouched) in [(Pieces::of(&[]), true), (Pieces::of(&["a"]), false)] {
        let mut outgoing = Outgoing::new();
        outgoing.begin(RequestHead::of(&head("PUT", &[])), body);
        let ended = poll_fn(|cx| outgoing.poll_send(&mut stream, cx)).await;
        assert!(matches!(ended, Err(Unsent::Refused(_))));
        assert_eq!(outgoing.is_untouched(), is_untouched);
    }
}

#[tokio::test]
async fn a_map_of_fields_is_used_again_for_an_answer_only() {
    let mut spare = HeaderMap::new();
    spare.insert("host", "a".parse().unwrap());
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: s\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Some("a")),
        ("HTTP/1.1 200 O", Some("a")),
    ] {
        let (mut connection, mut endpoint) = connected();
        assert!(connection.begin(RequestHead::of(&head("GET", &[])), RequestBody::Empty).is_ok());
        let mut lent = spare.clone();
        let answering = async move { endpoint.write_all(answer.as_bytes()).await };
        let (status, _) = tokio::join!(poll_fn(|cx| connection.poll_answer(Some(&mut lent), cx)), answering);
        assert_eq!(lent.get("host").map(|host| host.to_str().unwrap()), expected, "{answer:?}");
        let fields = connection.take_answer().map(|answer| answer.headers().len());
        assert_eq!((status.is_ok(), fields), (expected.is_none(), expected.is_none().then_some(2)), "{answer:?}");
    }
}

#[tokio::test]
async fn what_follows_a_101_is_not_lost() {
    let (mut connection, mut endpoint) = connected();
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nearly";
    answered(&mut connection, &mut endpoint, switching).await.unwrap();
    let (mut stream, early) = connection.into_upgraded().unwrap();
    assert_eq!(early, "early");
    endpoint.write_all(b"late").await.unwrap();
    let mut late = [0; 4];
    stream.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"late");
}
