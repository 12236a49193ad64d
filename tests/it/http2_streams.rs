//! Streams of HTTP/2 that end otherwise than most.

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
