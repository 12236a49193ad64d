//! Maintenance over HTTP/2: every stream gets its answer, and only the streams that are meant are cut.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;

use super::{PATIENCE, status, switch_off, switch_on, toml};
use crate::support::h2::{self, Body, Http2};
use crate::support::poll::{eventually, eventually_async};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// A body that goes on for as long as its sender lives.
fn endless() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(4);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        let bytes = receiver.recv().await?;
        Some((Ok(Frame::data(bytes)), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

#[tokio::test]
async fn a_body_that_still_comes_delays_neither_its_answer_nor_the_connection() {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let proxy = TestProxy::toml(toml(&upstream, "")).start().await;
    switch_on(&proxy, "reason = \"Upgrade\"\n").await;
    let mut client = Http2::connect(proxy.address()).await;
    let mut kept = Vec::new();
    for (name, kind, status, grpc) in [
        ("accept", "application/json", 503, None),
        ("accept", "text/html", 503, None),
        ("content-type", "application/grpc", 200, Some("14")),
    ] {
        let (sender, body) = endless();
        sender.send(Bytes::from_static(b"first")).await.unwrap();
        let request = Request::post("http://app/upload").header(name, kind).body(body).unwrap();
        let response = client.start(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("connection")), (status, None), "{kind}");
        assert_eq!(response.headers().get("grpc-status").map(|value| value.to_str().unwrap()), grpc);
        assert_eq!(response.headers()["flagstone-reason"], "maintenance");
        kept.push((sender, response));
    }
    let head = Request::head("http://app/").body(h2::empty()).unwrap();
    let head = client.send(head).await.unwrap();
    assert_eq!((head.status(), head.body.len()), (503, 0));
    let length = head.header("content-length").unwrap().parse::<usize>().unwrap();
    assert_eq!(length, client.get("/").await.unwrap().body.len());
    assert!(head.header("retry-after").is_some());
    assert!(upstream.requests().is_empty());
    switch_off(&proxy).await;
    assert_eq!(client.get("/").await.unwrap().text(), "the app", "on the same connection");
}

#[tokio::test]
async fn streams_are_cut_when_the_grace_is_over_and_the_connection_lives_on() {
    let upstream = FakeUpstream::http1()
        .route("/silent", Reply::hang())
        .route("/flowing", Reply::event_stream("tick", Duration::from_millis(20)))
        .route("*", "the app")
        .start()
        .await;
    let proxy = TestProxy::toml(toml(&upstream, "exempt_paths = [\"/open\"]")).start().await;
    let mut client = Http2::connect(proxy.address()).await;
    let flowing = client.start(h2::get("/flowing")).await.unwrap();
    assert_eq!(flowing.status(), 200);
    let mut other = client.clone();
    let silent = tokio::spawn(async move { other.get("/silent").await.unwrap() });
    assert!(eventually(PATIENCE, || upstream.requests().len() == 2).await);
    switch_on(&proxy, "mode = \"emergency\"\nterminate = true\ngrace = \"100ms\"\n").await;
    let cut = silent.await.unwrap();
    assert_eq!((cut.status(), cut.header("flagstone-reason")), (503, Some("maintenance")));
    h2::whole(flowing).await.expect_err("an answer that was cut does not look whole");
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await, "the app is rid of both");
    assert_eq!(client.get("/open").await.unwrap().text(), "the app", "on the same connection");
    assert!(eventually_async(PATIENCE, async || status(&proxy).await["in_flight"] == 0).await);
}

/// Its status stands in trailers. Whoever does not read them, as gRPC-Web does not, sees that the answer breaks off.
#[tokio::test]
async fn a_call_of_grpc_that_is_cut_ends_with_its_status() {
    let upstream =
        FakeUpstream::http1().route("*", Reply::event_stream("tick", Duration::from_millis(20))).start().await;
    let proxy = TestProxy::toml(toml(&upstream, "")).start().await;
    let mut client = Http2::connect(proxy.address()).await;
    let kinds = ["application/grpc", "application/grpc+json", "application/grpc-web", "application/json"];
    let mut answers = Vec::new();
    for kind in kinds {
        let request = Request::post("http://app/").header("content-type", kind).body(h2::empty()).unwrap();
        answers.push(client.start(request).await.unwrap());
    }
    switch_on(&proxy, "terminate = true\nreason = \"100 % new\"\n").await;
    for (kind, answer) in kinds.into_iter().zip(answers) {
        assert_eq!(answer.status(), 200, "{kind}");
        let whole = h2::whole(answer).await;
        if kind.contains("-web") || kind.ends_with("/json") {
            whole.expect_err("an answer that was cut does not look whole");
            continue;
        }
        let trailers = whole.expect(kind).trailers.expect(kind);
        assert!(trailers["grpc-status"] == "14" && trailers["grpc-message"] == "100 %25 new", "{kind}: {trailers:?}");
    }
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await, "the app is rid of all");
}
