//! `grace` and `terminate`: what is in flight when maintenance begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{PATIENCE, ask, json, status, switch_on, toml, visit};
use crate::support::client::Client;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::Flagstone;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

const CUT: &str = "mode = \"emergency\"\nterminate = true\n";

async fn site(upstream: FakeUpstream) -> (TestProxy, FakeUpstream) {
    let proxy = TestProxy::toml(toml(&upstream, "exempt_paths = [\"/exempt\"]")).start().await;
    (proxy, upstream)
}

/// Waits until so many requests are in flight, as the status tells.
async fn in_flight(proxy: &TestProxy, count: i64) -> bool {
    eventually_async(PATIENCE, async || status(proxy).await["in_flight"] == count).await
}

/// A client whose request is in flight until the app is told that it is done.
async fn with_a_job() -> (TestProxy, FakeUpstream, Client, Arc<Notify>) {
    let done = Arc::new(Notify::new());
    let (proxy, upstream) = site(FakeUpstream::http1().route("/job", Reply::ok("done").at(&done)).start().await).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/job", "").await.unwrap();
    assert!(in_flight(&proxy, 1).await);
    (proxy, upstream, client, done)
}

/// A WebSocket to an app that sends every byte back.
async fn tunnel(proxy: &TestProxy, path: &str) -> Client {
    WebSocket::connect(proxy.address(), path).await.unwrap().into_client()
}

async fn echoes(tunnel: &mut Client) {
    tunnel.send("hello").await.unwrap();
    assert_eq!(tunnel.read_exactly(5).await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_cut_before_the_head_is_a_maintenance_answer() {
    let (proxy, upstream) = site(FakeUpstream::http1().route("*", Reply::hang()).start().await).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/slow", "Accept: application/json\r\n").await.unwrap();
    assert!(in_flight(&proxy, 1).await);
    switch_on(&proxy, &format!("reason = \"Breach\"\n{CUT}")).await;
    let response = client.read_response().await.unwrap();
    assert_eq!(response.status, 503);
    assert_eq!(response.header("flagstone-reason"), Some("maintenance"));
    assert_eq!(json(&response)["maintenance"]["reason"], "Breach");
    assert_eq!(status(&proxy).await["blocked_requests"], 1);
    let mut events = Client::connect(proxy.admin()).await.unwrap();
    events.send("GET /api/events?recent=100&metrics=false HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    events.read_until("Operation blocked").await.unwrap();
    let told = String::from_utf8(events.read_until("\n").await.unwrap()).unwrap();
    assert!(told.contains("\"route\":\"all\"") && told.contains("\"count\":1"), "it is told as it is counted: {told}");
    assert!(in_flight(&proxy, 0).await);
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await, "the exchange is cut too");
}

#[tokio::test]
async fn a_streaming_answer_is_cut_and_logged() {
    let stream = Reply::event_stream("tick", Duration::from_millis(20));
    let (proxy, _upstream) = site(FakeUpstream::http1().route("*", stream).start().await).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/events", "").await.unwrap();
    client.read_until("tick").await.unwrap();
    switch_on(&proxy, CUT).await;
    let rest = client.read_to_end().await;
    assert!(rest.is_err() || !rest.unwrap().ends_with(b"0\r\n\r\n"), "a cut answer does not look whole");
    assert!(in_flight(&proxy, 0).await);
    assert!(eventually(PATIENCE, || proxy.access_log().contains("GET /events HTTP/1.1\" 200")).await);
}

#[tokio::test]
async fn an_answer_that_waits_for_its_upstream_is_cut() {
    let stalled = Reply::slow_body(&["first", "never"], Duration::from_secs(600));
    let (proxy, _upstream) = site(FakeUpstream::http1().route("*", stalled).start().await).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    client.read_until("\r\n\r\n").await.unwrap();
    switch_on(&proxy, CUT).await;
    let rest = client.read_to_end().await;
    assert!(rest.is_err() || rest.unwrap().is_empty(), "it ends before its first byte");
    assert!(in_flight(&proxy, 0).await);
}

#[tokio::test]
async fn a_websocket_is_cut_when_the_grace_is_over() {
    let (proxy, upstream) = site(FakeUpstream::http1().route("*", Reply::upgrade()).start().await).await;
    let mut socket = tunnel(&proxy, "/socket").await;
    echoes(&mut socket).await;
    assert_eq!(status(&proxy).await["in_flight"], 1);
    switch_on(&proxy, &format!("{CUT}grace = \"1h\"\n")).await;
    echoes(&mut socket).await;
    let begun = Instant::now();
    proxy.folder.replace(super::FLAG, format!("{CUT}grace = \"500ms\"\n"));
    assert!(socket.read_exactly(1).await.is_err(), "the connection ends");
    assert!(begun.elapsed() >= Duration::from_millis(500), "no sooner than the grace");
    assert!(in_flight(&proxy, 0).await);
    assert!(eventually(PATIENCE, || upstream.open_connections() == 0).await);
}

#[tokio::test]
async fn what_fits_the_grace_is_whole() {
    let (proxy, _upstream, mut client, done) = with_a_job().await;
    switch_on(&proxy, &format!("{CUT}grace = \"1m\"\n")).await;
    done.notify_one();
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
    assert_eq!(visit(&proxy, "GET", "/job", "").await.status, 503, "but nothing new begins");
}

#[tokio::test]
async fn without_terminate_what_is_in_flight_finishes() {
    let (proxy, _upstream, mut client, done) = with_a_job().await;
    switch_on(&proxy, "mode = \"emergency\"\n").await;
    done.notify_one();
    assert_eq!(client.read_response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_grace_that_cannot_be_used_lets_finish() {
    let (proxy, _upstream, mut client, done) = with_a_job().await;
    switch_on(&proxy, &format!("{CUT}grace = \"a while\"\n")).await;
    done.notify_one();
    assert_eq!(client.read_response().await.unwrap().status, 200);
}

#[tokio::test]
async fn what_maintenance_does_not_cover_is_not_cut() {
    let (proxy, _upstream) = site(FakeUpstream::http1().route("*", Reply::upgrade()).start().await).await;
    let mut covered = tunnel(&proxy, "/covered").await;
    let mut exempt = tunnel(&proxy, "/exempt").await;
    let mut other = tunnel(&proxy, "/other").await;
    switch_on(&proxy, &format!("{CUT}paths = [\"/covered\", \"/exempt\"]\n")).await;
    assert!(covered.read_exactly(1).await.is_err());
    echoes(&mut exempt).await;
    echoes(&mut other).await;
    // A flag that covers more cuts more: its grace is over.
    proxy.folder.replace(super::FLAG, CUT);
    assert!(other.read_exactly(1).await.is_err());
    echoes(&mut exempt).await;
}

#[tokio::test]
async fn read_only_cuts_what_writes() {
    let (proxy, _upstream) = site(FakeUpstream::http1().route("*", Reply::hang()).start().await).await;
    let mut read = Client::connect(proxy.address()).await.unwrap();
    read.request("GET", "/", "").await.unwrap();
    let mut write = Client::connect(proxy.address()).await.unwrap();
    write.request("POST", "/", "Content-Length: 0\r\n").await.unwrap();
    assert!(in_flight(&proxy, 2).await);
    switch_on(&proxy, "mode = \"read_only\"\nterminate = true\n").await;
    assert_eq!(write.read_response().await.unwrap().status, 503);
    assert!(in_flight(&proxy, 1).await);
}

#[tokio::test]
async fn a_body_that_still_comes_is_cut_and_its_connection_closed() {
    let (proxy, _upstream) = site(FakeUpstream::http1().route("*", Reply::echo_body()).start().await).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/upload", "Content-Length: 1000000\r\n").await.unwrap();
    client.send("the beginning").await.unwrap();
    assert!(in_flight(&proxy, 1).await);
    switch_on(&proxy, CUT).await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.header("connection")), (503, Some("close")));
}

#[tokio::test]
async fn an_emergency_by_api_cuts_and_says_so() {
    let (proxy, _upstream) = site(FakeUpstream::http1().route("*", Reply::hang()).start().await).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    assert!(in_flight(&proxy, 1).await);
    let body = r#"{"reason":"Breach","terminate_jobs":true,"grace_period":0}"#;
    let answer = ask(&proxy, "POST", "/api/maintenance/emergency", body).await;
    assert_eq!(answer.status, 200);
    let status = json(&answer);
    assert_eq!((&status["is_active"], &status["mode"]), (&true.into(), &"emergency".into()));
    assert_eq!((&status["reason"], &status["by"]), (&"Breach".into(), &"api".into()));
    assert_eq!(client.read_response().await.unwrap().status, 503);
}

#[tokio::test]
async fn a_routes_own_flag_cuts_that_route_only_also_under_a_global_one() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let toml = format!(
        "[[route]]\nname = \"a\"\npath = [\"/a\"]\nupstream = \"app\"\n\
         [[route]]\nname = \"b\"\npath = [\"/b\"]\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    let mut a = Client::connect(proxy.address()).await.unwrap();
    a.request("GET", "/a", "").await.unwrap();
    let mut b = Client::connect(proxy.address()).await.unwrap();
    b.request("GET", "/b", "").await.unwrap();
    assert!(in_flight(&proxy, 2).await);
    switch_on(&proxy, "reason = \"the global one lets finish\"\n").await;
    proxy.folder.write("state/maintenance.d/a.flag", "terminate = true\nreason = \"a\"\n");
    assert_eq!(a.read_response().await.unwrap().status, 503);
    assert!(in_flight(&proxy, 1).await);
    upstream.stop().await;
    let answer = b.read_response().await.unwrap();
    assert_ne!(answer.header("flagstone-reason"), Some("maintenance"), "it was left to its upstream");
}

#[tokio::test]
async fn a_bypass_keeps_what_is_in_flight() {
    let upstream = FakeUpstream::http1().route("*", Reply::upgrade()).start().await;
    let proxy = TestProxy::toml(toml(&upstream, "bypass_token = \"t0ken\"")).start().await;
    let connection = Client::connect(proxy.address()).await.unwrap();
    let socket = WebSocket::open(connection, "/", "X-Maintenance-Bypass: t0ken\r\n").await.unwrap();
    let mut inside = socket.into_client();
    let mut outside = tunnel(&proxy, "/").await;
    switch_on(&proxy, CUT).await;
    assert!(outside.read_exactly(1).await.is_err());
    echoes(&mut inside).await;
}

/// `global` or a route, as in every event.
#[tokio::test]
async fn the_log_names_the_scope_as_events_do() {
    let flagstone = Flagstone::serve(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n",
    )
    .await;
    for (file, scope) in [("state/maintenance.flag", "scope=global"), ("state/maintenance.d/all.flag", "scope=all")] {
        flagstone.folder.replace(file, "terminate = true\nuntil = \"soon\"\n");
        for message in ["Maintenance mode activated", "until: ", "the grace is over"] {
            let names_it = |line: &str| line.contains(message) && line.split_whitespace().any(|word| word == scope);
            let told = || flagstone.process.stderr().lines().any(names_it);
            assert!(eventually(PATIENCE, told).await, "{message} {scope}: {}", flagstone.process.stderr());
        }
        flagstone.folder.remove(file);
    }
}
