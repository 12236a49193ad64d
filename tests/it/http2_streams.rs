//! Streams of HTTP/2 that end otherwise than most: reset at once, refused, or answered before they have said all.

use std::time::{Duration, Instant};

use crate::support::h2::{self, Framed, PATIENCE, flag, frame, kind};
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

async fn app_with(reply: impl Into<Reply>, tables: &str, route: &str) -> (FakeUpstream, TestProxy) {
    let upstream = FakeUpstream::http1().route("*", reply).start().await;
    let proxy = TestProxy::before(&upstream, tables, route).start().await;
    (upstream, proxy)
}

/// The head of a POST, whose body follows.
fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&[(":method", "POST")], &h2::REQUEST[1..], more].concat();
    frame(kind::HEADERS, flag::END_HEADERS, stream, h2::block(&fields))
}

/// A connection with a stream that was reset before anybody could look at it.
async fn with_reset_stream(proxy: &TestProxy) -> Framed {
    let mut client = Framed::connect(proxy.address()).await;
    let reset = frame(kind::RST_STREAM, 0, 1, 8_u32.to_be_bytes());
    client.send(&[h2::request(1, flag::END_STREAM), reset].concat()).await;
    assert!(client.is_alive().await);
    client
}

#[tokio::test]
async fn a_stream_that_is_reset_at_once_keeps_no_connection_open() {
    let (_upstream, proxy) = app_with("hello", "[timeouts]\nidle = \"1s\"\n", "").await;
    let _client = with_reset_stream(&proxy).await;
    assert!(eventually(PATIENCE, || proxy.connections().iter().sum::<usize>() == 0).await);
}

#[tokio::test]
async fn a_stream_that_is_reset_at_once_holds_up_no_drain() {
    let (_upstream, proxy) = app_with("hello", "", "").await;
    let _client = with_reset_stream(&proxy).await;
    assert!(proxy.drain(PATIENCE).await);
}

/// A second for each would be ten.
#[tokio::test]
async fn a_refusal_does_not_wait_for_a_body_without_an_end() {
    let (_upstream, proxy) = app_with("hello", "", "deny = [\"127.0.0.1\"]").await;
    let mut client = Framed::connect(proxy.address()).await;
    let began = Instant::now();
    for stream in (1..20).step_by(2) {
        client.send(&post(stream, &[("content-type", "application/grpc"), ("te", "trailers")])).await;
        client.send(&frame(kind::DATA, 0, stream, "beginning")).await;
        client.find(|frame| frame.stream == stream && frame.flags & flag::END_STREAM != 0).await.expect("an answer");
        let reset = client.find(|frame| frame.stream == stream && frame.kind == kind::RST_STREAM).await;
        assert_eq!(reset.and_then(|reset| reset.code()), Some(0));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn an_upload_behind_its_answer_is_not_the_clients_delay() {
    let (upstream, proxy) =
        app_with(Reply::early(200, "early"), "[timeouts]\nresponse_body = \"300ms\"\nidle = \"300ms\"\n", "").await;
    let mut client = Framed::connect(proxy.address()).await;
    client.send(&post(1, &[("content-length", "10")])).await;
    client.send(&frame(kind::DATA, 0, 1, "01234")).await;
    client.find(|frame| frame.stream == 1 && frame.flags & flag::END_STREAM != 0).await.expect("an answer");
    client.client.expect_silence(Duration::from_millis(1_500)).await.unwrap();
    client.send(&frame(kind::DATA, flag::END_STREAM, 1, "56789")).await;
    let has_body = || upstream.raw().iter().any(|raw| raw.ends_with(b"0123456789"));
    assert!(eventually(PATIENCE, has_body).await, "{:?}", upstream.raw());
    // Then it is idle.
    assert!(eventually(PATIENCE, || proxy.connections().iter().sum::<usize>() == 0).await);
}

/// As much as its windows let it send ahead: that bounds it, not the number of its frames.
#[tokio::test]
async fn small_messages_that_nobody_takes_yet_are_no_flood() {
    const WINDOW_BYTES: usize = 128 * 1024;
    let toml = "[limit.slow]\nkey = \"global\"\nrate = \"1/1h\"\nqueue = 4\n\
                [[route]]\nname = \"all\"\nlimits = [\"slow\"]\nrespond = { body = \"hello\" }\n";
    let proxy = TestProxy::toml(toml).start().await;
    let mut client = Framed::connect(proxy.address()).await;
    client.send(&h2::request(1, flag::END_STREAM)).await;
    client.find(|frame| frame.is(kind::DATA, flag::END_STREAM)).await.expect("an answer");
    client.send(&post(3, &[])).await;
    // The least that a message of gRPC or WebSocket takes.
    let message = frame(kind::DATA, 0, 3, [b'x'; 7]);
    assert!(client.send(&message.repeat(WINDOW_BYTES / 7)).await);
    assert!(client.is_alive().await);
    // What there is of memory for them has its bound all the same: h2 takes each for 256 bytes.
    let flood: Vec<u8> = [5, 7, 9].iter().flat_map(|stream| post(*stream, &[])).collect();
    client.send(&flood).await;
    let tiny: Vec<u8> = [5, 7, 9].iter().flat_map(|stream| frame(kind::DATA, 0, *stream, "x")).collect();
    client.send(&tiny.repeat(10_000)).await;
    assert_eq!(client.ends_with().await, 0xb, "ENHANCE_YOUR_CALM");
}

/// As it comes by a proxy that passes on what some of its clients get wrong.
#[tokio::test]
async fn streams_that_break_a_rule_now_and_then_end_no_connection() {
    let proxy = TestProxy::toml("[[route]]\nname = \"all\"\nrespond = { body = \"hello\" }\n").start().await;
    let mut client = Framed::connect(proxy.address()).await;
    let bad = h2::block(&[&h2::REQUEST[..], &[("te", "gzip")]].concat());
    for stream in (1..800).step_by(4) {
        let bad = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &bad);
        client.send(&[bad, h2::request(stream + 2, flag::END_STREAM)].concat()).await;
        let reset = client.find(|frame| frame.stream == stream).await.expect("a reset");
        assert_eq!((reset.kind, reset.code()), (kind::RST_STREAM, Some(1)));
        client
            .find(|frame| frame.stream == stream + 2 && frame.flags & flag::END_STREAM != 0)
            .await
            .expect("an answer");
    }
}
