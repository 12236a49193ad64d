//! Bounds on requests in flight: a place is free again when the last byte of the answer is gone, or the client is.

use std::time::Duration;

use crate::support::admin;
use crate::support::client::Client;
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

const DEADLINE: Duration = Duration::from_secs(10);

async fn proxy(upstream: &FakeUpstream, limit: &str) -> TestProxy {
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"slots\"]\n[upstream.app]\nendpoints = [\"{}\"]\n\
         [limit.slots]\nrate = \"100000/1s\"\n{limit}\n",
        upstream.endpoint()
    );
    TestProxy::toml(toml).start().await
}

async fn status(proxy: &TestProxy, path: &str) -> u16 {
    crate::support::client::get(proxy.address(), path).await.unwrap().status
}

async fn in_flight(proxy: &TestProxy) -> u64 {
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    limits["limits"]["slots"]["inFlight"].as_u64().unwrap()
}

async fn comes_to(proxy: &TestProxy, count: u64) -> bool {
    eventually_async(DEADLINE, async || in_flight(proxy).await == count).await
}

#[tokio::test]
async fn a_place_is_taken_until_the_end_of_the_body() {
    let upstream = FakeUpstream::http1()
        .route("/stream", Reply::event_stream("tick", Duration::from_millis(20)))
        .route("*", "ok")
        .start()
        .await;
    let proxy = proxy(&upstream, "concurrency = 1").await;
    let mut stream = Client::connect(proxy.address()).await.unwrap();
    stream.request("GET", "/stream", "").await.unwrap();
    stream.read_until("tick").await.unwrap();

    let refused = crate::support::client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (429, Some("concurrency")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let policy = "\"slots\";q=100000;w=1, \"slots.concurrency\";q=1;qu=\"concurrent-requests\"";
    assert_eq!(refused.header("ratelimit-policy"), Some(policy));
    assert!(refused.header("ratelimit").is_some_and(|state| state.starts_with("\"slots\";r=")), "{refused:?}");
    stream.read_until("tick").await.unwrap();
    assert_eq!(in_flight(&proxy).await, 1);

    stream.reset();
    assert!(comes_to(&proxy, 0).await, "a client that leaves frees its place");
    assert_eq!(status(&proxy, "/").await, 200);
    assert!(comes_to(&proxy, 0).await);
}

#[tokio::test]
async fn an_upgraded_stream_keeps_its_place() {
    let upstream = FakeUpstream::http1().route("/ws", Reply::upgrade()).route("*", "ok").start().await;
    let proxy = proxy(&upstream, "concurrency = 1").await;
    let mut socket = WebSocket::connect(proxy.address(), "/ws").await.unwrap();
    socket.send_text("hello").await.unwrap();
    let mut client = socket.into_client();
    client.read_until(b"\x81").await.unwrap();
    assert_eq!(status(&proxy, "/").await, 429);
    drop(client);
    assert!(comes_to(&proxy, 0).await);
    assert_eq!(status(&proxy, "/").await, 200);
}

#[tokio::test]
async fn requests_that_fail_or_never_end_give_their_place_back() {
    let upstream = FakeUpstream::http1()
        .route("/reset", Reply::reset())
        .route("/short", Reply::truncated(100, "short"))
        .route("/hang", Reply::hang())
        .start()
        .await;
    let proxy = proxy(&upstream, "concurrency = 2").await;
    assert!(status(&proxy, "/reset").await >= 500);
    let mut short = Client::connect(proxy.address()).await.unwrap();
    short.get("/short").await.unwrap_err();
    let mut hanging = Client::connect(proxy.address()).await.unwrap();
    hanging.request("GET", "/hang", "").await.unwrap();
    assert!(comes_to(&proxy, 1).await, "all but the one that hangs");
    drop(hanging);
    assert!(comes_to(&proxy, 0).await);
}

#[tokio::test]
async fn a_refused_place_is_not_charged_to_the_rate() {
    let upstream = FakeUpstream::http1().route("/hang", Reply::hang()).route("*", "ok").start().await;
    let proxy = proxy(&upstream, "concurrency = 1\nburst = 3\n").await;
    // Nothing refills in the time of a test.
    let change = serde_json::json!({ "rate": "3/1h" });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/limits/slots", Some(change)).await.0, 200);
    let mut hanging = Client::connect(proxy.address()).await.unwrap();
    hanging.request("GET", "/hang", "").await.unwrap();
    assert!(comes_to(&proxy, 1).await);
    for _ in 0..10 {
        assert_eq!(status(&proxy, "/").await, 429);
    }
    drop(hanging);
    assert!(comes_to(&proxy, 0).await);
    assert_eq!(status(&proxy, "/").await, 200);
    assert!(comes_to(&proxy, 0).await);
    assert_eq!(status(&proxy, "/").await, 200);
    assert!(comes_to(&proxy, 0).await);
    let third = crate::support::client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((third.status, third.header("flagstone-reason")), (429, Some("rate_limited")));
}

#[tokio::test]
async fn a_bound_in_shadow_only_counts() {
    let upstream = FakeUpstream::http1().route("/hang", Reply::hang()).route("*", "ok").start().await;
    let proxy = proxy(&upstream, "concurrency = 1\nshadow = true").await;
    let mut hanging = Client::connect(proxy.address()).await.unwrap();
    hanging.request("GET", "/hang", "").await.unwrap();
    assert!(comes_to(&proxy, 1).await);
    assert_eq!(status(&proxy, "/").await, 200);
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    assert_eq!(limits["limits"]["slots"]["shadowed"], 1);
}
